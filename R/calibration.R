#' Measure predictions that say how sure they are
#'
#' `measure_probabilities()` measures the probabilities of a classifier, `measure_predictions()` the predictive
#' distributions of a regression. Use data that took no part in training.
#'
#' The negative log-likelihood (`nll`, in nats) and Brier's score reward both being right and being honest about how
#' sure. The expected calibration error (`ece`) looks at honesty only: it is the gap between confidence and
#' accuracy, averaged over `bins` of confidence. `coverage` should be close to `level`; of two methods with the
#' same coverage, the one with the lower `width` knows more. `noise_variance()` estimates the noise from held-out
#' data: it is the mean of the squared residuals, less the variance of the samples.
#'
#' # With keras3 and keras
#' ```r
#' samples <- predict_samples(model, swag, x_valid)
#' noise <- noise_variance(y_valid, samples)
#' measure_predictions(y_test, predict_samples(model, swag, x_test), noise)
#' ```
#'
#' @param y What was observed. For classes: a factor whose levels are in the order of the outputs, or whole numbers
#'   from 0 on. For numbers: a numeric vector.
#' @param probabilities A matrix with a column for each class; a vector, for the second class of two; or the array of
#'   probabilities that [predict_samples()] returns, which is averaged.
#' @param samples The array that [predict_samples()] returns.
#' @param noise The noise around the mean: `"log_variance"` if the outputs are means and log-variances, otherwise its
#'   variance, a number above 0.
#' @param level Level of the prediction intervals: a number between 0 and 1.
#' @param bins Number of bins: a whole number, 1 or more.
#' @returns `measure_probabilities()` returns a data frame with one row and the columns `accuracy`, `nll`, `brier`
#'   (the sum over the classes, from 0 to 2) and `ece`; `measure_predictions()` one with `rmse`, `nll`, `coverage`
#'   and `width`. `noise_variance()` returns a number.
#' @section Next step:
#' Compare several methods by `nll`. [plot_calibration()] shows where predictions are too sure, and
#' [fit_temperature()] corrects a classifier that is.
#' @section Errors:
#' An argument that is not as described stops with an error that names it.
#' @references Guo et al. (2017), *On Calibration of Modern Neural Networks*, <https://arxiv.org/abs/1706.04599>, for
#'   the calibration error.
#' @family uncertainty
#' @name measures
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' probabilities <- rbind(c(0.8, 0.2), c(0.4, 0.6), c(0.3, 0.7))
#' measure_probabilities(c(0, 0, 1), probabilities)
#' samples <- array(rnorm(30 * 100), c(30, 100, 1))
#' measure_predictions(rnorm(100), samples, noise = 1)
NULL

#' @rdname measures
#' @export
measure_probabilities <- function(y, probabilities, bins = 15) {
  y <- class_numbers(y)
  probabilities <- probability_array(probabilities)
  bins <- whole(bins, 1)
  measures <- python_measures()
  found <- call_python(list(
    accuracy = measures$accuracy(y, probabilities), nll = measures$nll(y, probabilities),
    brier = measures$brier(y, probabilities), ece = measures$ece(y, probabilities, bins)
  ))
  as.data.frame(found)
}

#' @rdname measures
#' @export
measure_predictions <- function(y, samples, noise, level = 0.9) {
  call <- rlang::current_env()
  level <- number(level, "a number between 0 and 1", function(x) x > 0 && x < 1, "level", call)
  parts <- number_parts(y, samples, noise, call)
  intervals <- mixture_quantiles(parts, c((1 - level) / 2, (1 + level) / 2))
  measures <- python_measures()
  y <- array(as.double(y))
  found <- call_python(list(
    nll = measures$gaussian_nll(y, parts$mean, parts$sd^2),
    coverage = measures$coverage(y, array(intervals[[1]]), array(intervals[[2]])),
    width = measures$width(array(intervals[[1]]), array(intervals[[2]]))
  ))
  data.frame(rmse = sqrt(mean((y - colMeans(parts$mean))^2)), found)
}

#' @rdname measures
#' @export
noise_variance <- function(y, samples) {
  call <- rlang::current_env()
  parts <- number_parts(y, samples, NULL, call)
  call_python(python_measures()$noise_variance(array(as.double(y)), parts$mean))
}

#' Temperature scaling
#'
#' `fit_temperature()` finds, on held-out data, the temperature that makes the probabilities of a classifier fit best;
#' `apply_temperature()` applies it. A temperature above 1 makes probabilities less sure, one below 1 surer. The most
#' likely class stays the same.
#'
#' It is the simplest cure for a network that is too sure of itself. Compare methods after
#' each has its own temperature: before that, the log-likelihood mostly measures how far off the temperature is.
#'
#' # With keras3 and keras
#' ```r
#' temperature <- fit_temperature(y_valid, predict(model, x_valid))
#' apply_temperature(predict(model, x_test), temperature)
#' ```
#'
#' @inheritParams measures
#' @param temperature A number above 0.
#' @returns `fit_temperature()` returns a number from 0.001 to 1000, `apply_temperature()` a matrix of
#'   probabilities with a column for each class (a vector, if it was given one). Samples are averaged first.
#' @section Next step:
#' Measure the new probabilities with [measure_probabilities()] on test data, not on the data of the
#' fit.
#' @section Errors:
#' An argument that is not as described stops with an error that names it.
#' @references Guo et al. (2017), *On Calibration of Modern Neural Networks*, <https://arxiv.org/abs/1706.04599>.
#'   Ashukha et al. (2020), *Pitfalls of In-Domain Uncertainty Estimation and Ensembling in Deep Learning*,
#'   <https://arxiv.org/abs/2002.06470>, on comparing at each method's own temperature.
#' @family uncertainty
#' @name temperature
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' probabilities <- rbind(c(0.99, 0.01), c(0.9, 0.1), c(0.05, 0.95))
#' temperature <- fit_temperature(c(0, 1, 1), probabilities)
#' apply_temperature(probabilities, temperature)
NULL

#' @rdname temperature
#' @export
fit_temperature <- function(y, probabilities) {
  y <- class_numbers(y)
  probabilities <- probability_array(probabilities)
  call_python(python_measures()$temperature(y, probabilities))
}

#' @rdname temperature
#' @export
apply_temperature <- function(probabilities, temperature) {
  given <- probability_array(probabilities)
  found <- call_python(python_measures()$tempered(given, positive(temperature)))
  if (length(dim(found)) == 1) as.vector(found) else found
}

python_measures <- function() import_ours("kerasoptimizers.measures")

# Labels from 0 on, as Keras has them.
class_numbers <- function(y, call = rlang::caller_env()) {
  if (missing(y) || !(is.factor(y) || is_array(y)) || length(y) == 0 || anyNA(y)) {
    refuse("y", "a factor or whole numbers from 0 on", y, call)
  }
  array(if (is.factor(y)) as.integer(y) - 1L else as.double(y))
}

probability_array <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!missing(x) && is.data.frame(x)) x <- without_frame(x, name, call)
  if (missing(x) || !is_array(x) || length(x) == 0) {
    refuse(name, "a matrix, an array or a vector of probabilities", x, call)
  }
  as_array(x)
}

# Means and noise of samples, checked against what was observed.
number_parts <- function(y, samples, noise, call) {
  if (missing(y) || !is_array(y) || length(y) == 0 || anyNA(y)) refuse("y", "a numeric vector", y, call)
  if (missing(samples) || !is_array(samples) || length(dim(samples)) < 2) {
    refuse("samples", "an array as `predict_samples()` returns it", samples, call)
  }
  if (!is.null(noise) && !identical(noise, "log_variance")) {
    noise <- number(noise, '"log_variance" or a number > 0', function(x) x > 0, "noise", call)
  }
  if (dim(samples)[[2]] != length(y)) {
    abort_argument(sprintf(
      "`samples` must hold %d examples, as many as `y`, not %d.", length(y), dim(samples)[[2]]
    ), call)
  }
  mean_and_noise(samples, noise, call)
}

#' Plot how honest predictions are
#'
#' For a classifier, a reliability diagram: accuracy against confidence, in bins. For a regression, the part of the
#' observations that is in prediction intervals, against the level of the intervals. Honest predictions lie on the
#' diagonal. Below it they are too sure.
#'
#' Give a named list of predictions to compare methods in one picture. Without `noise` they are probabilities of
#' classes, with `noise` samples of numbers.
#'
#' # With keras3 and keras
#' ```r
#' plot_calibration(y_test, list(SGD = predict(model, x_test), SWAG = predict_samples(model, swag, x_test)))
#' plot_calibration(y_test, predict_samples(model, swag, x_test), noise = "log_variance")
#' ```
#'
#' @inheritParams measures
#' @param predictions For classes, `probabilities` as in [measure_probabilities()]; for numbers, `samples` as in
#'   [measure_predictions()]. Or a list of them, with names.
#' @param noise For numbers: the noise around the mean, as in [measure_predictions()], or a list with one for each
#'   element of `predictions`. `NULL`, the default, is for classes.
#' @returns A ggplot. Its `$data` is a data frame. For classes it has a row for each bin that holds examples, with
#'   `method`, `confidence`, `accuracy` and `count`; for numbers, a row for each level, with `method`, `level` and
#'   `coverage`.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' An argument that is not as described stops with an error that names it.
#' @references Guo et al. (2017), *On Calibration of Modern Neural Networks*, <https://arxiv.org/abs/1706.04599>,
#'   figure 1. Kuleshov et al. (2018), *Accurate Uncertainties for Deep Learning Using Calibrated Regression*,
#'   <https://arxiv.org/abs/1807.00263>, figure 1.
#' @family uncertainty
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' p <- runif(500)
#' y <- rbinom(500, 1, p)
#' if (requireNamespace("ggplot2", quietly = TRUE)) {
#'   plot_calibration(y, list(honest = p, "too sure" = p^3 / (p^3 + (1 - p)^3)))
#' }
plot_calibration <- function(y, predictions, noise = NULL, bins = 15) {
  call <- rlang::current_env()
  require_ggplot2(call)
  bins <- whole(bins, 1)
  several <- !missing(predictions) && is_plain_list(predictions)
  if (missing(predictions) || (several && (length(predictions) == 0 || is.null(names(predictions)) ||
                                             anyDuplicated(names(predictions)) > 0))) {
    refuse("predictions", "an array, or a list of arrays with different names", predictions, call)
  }
  methods <- if (several) predictions else list(predictions)
  each <- if (is_plain_list(noise)) noise else rep(list(noise), length(methods))
  if (length(each) != length(methods)) {
    abort_argument(sprintf("`noise` must hold %d elements, as many as `predictions`.", length(methods)), call)
  }
  rows <- lapply(seq_along(methods), function(i) {
    row <- if (is.null(noise)) reliability_rows(y, methods[[i]], bins, call) else
      coverage_rows(y, methods[[i]], each[[i]], call)
    data.frame(method = if (several) names(methods)[[i]] else "", row)
  })
  data <- do.call(rbind, rows)
  data$method <- factor(data$method, unique(data$method))
  if (is.null(noise)) draw_reliability(data) else draw_coverage(data)
}

reliability_rows <- function(y, probabilities, bins, call) {
  y <- class_numbers(y, call)
  probabilities <- probability_array(probabilities, "predictions", call)
  found <- call_python(python_measures()$reliability(y, probabilities, bins), call,
                       rename = c(probabilities = "predictions"))
  found <- as.data.frame(lapply(found[c("confidence", "accuracy", "count")], as.vector))
  found[found$count > 0, , drop = FALSE]
}

coverage_rows <- function(y, samples, noise, call) {
  parts <- number_parts(y, samples, noise, call)
  # A central interval of level L holds the values between the quantiles (1 - L) / 2 and (1 + L) / 2.
  needed <- abs(2 * mixture_probability(parts, as.double(y)) - 1)
  level <- seq(0.05, 0.95, 0.05)
  data.frame(level = level, coverage = vapply(level, function(l) mean(needed <= l), 0))
}

draw_reliability <- function(data) {
  .data <- rlang::.data
  calibration_picture(data, ggplot2::aes(.data$confidence, .data$accuracy)) +
    ggplot2::geom_point(ggplot2::aes(size = .data$count)) +
    ggplot2::scale_size_area(name = "examples", max_size = 5) +
    ggplot2::labs(title = "Is it right as often as it is sure?", x = "confidence", y = "accuracy")
}

draw_coverage <- function(data) {
  .data <- rlang::.data
  calibration_picture(data, ggplot2::aes(.data$level, .data$coverage)) +
    ggplot2::geom_point(size = 2) +
    ggplot2::labs(title = "How many values are in their interval?", x = "level of the interval",
                  y = "part of the observations in it")
}

calibration_picture <- function(data, mapping) {
  .data <- rlang::.data
  ggplot2::ggplot(data, mapping) +
    ggplot2::aes(color = .data$method, linetype = .data$method, shape = .data$method) +
    ggplot2::geom_abline(slope = 1, intercept = 0, color = "#888888") +
    ggplot2::geom_line(linewidth = 0.8) +
    group_scales(levels(data$method)) +
    ggplot2::coord_equal(xlim = 0:1, ylim = 0:1) +
    picture_theme() +
    # Beside the square there is room.
    ggplot2::theme(legend.position = "right")
}
