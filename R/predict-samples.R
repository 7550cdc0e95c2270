#' Predict with many draws of the weights
#'
#' Draws the weights of a model again and again from a posterior of [callback_swag()], and predicts with
#' each draw. With several models and no posterior it gives the predictions of a deep ensemble.
#'
#' For probabilities, average the predictions over the first dimension. [predict_interval()] does this, and computes
#' intervals. Batch-norm statistics belong to weights, so a model with batch norm needs `data`: for each draw
#' the function recomputes the statistics, as [update_batch_norm()] does. Afterwards each model has its own weights
#' and statistics again, bit for bit, even after an error or an interrupt.
#'
#' # With keras3 and keras
#' ```r
#' samples <- predict_samples(model, swag, x_test, data = x_train)
#' apply(samples, 2:3, mean)
#' predict_samples(list(model_1, model_2, model_3), NULL, x_test)  # a deep ensemble
#' ```
#'
#' @param model A built Keras model, or a list of such models.
#' @param posterior A callback of [callback_swag()] that holds snapshots of the model. A list of
#'   them (Multi-SWAG): the function draws from each; with several models there must be one for each of
#'   them. `NULL` for a deep ensemble: each model predicts once, with the weights that it has.
#' @param x Inputs: an array whose first dimension counts the examples, a data frame (of numbers, or for several inputs
#'   with a column for each), a list of arrays for several inputs, or a Python data set that gives
#'   the same examples in the same order each time.
#' @param samples Number of draws from each posterior: a whole number, 1 or more.
#' @param scale What multiplies the covariance of the draws: a number, 0 or more. `0.5`, the default, is that of the
#'   paper; `1` suits `rank = 0`; `0` gives the mean of the snapshots, which is SWA's average.
#' @param data Training inputs, as for [update_batch_norm()], for models with batch norm. A few thousand
#'   examples are enough. Functions and generators are not allowed, because the data are needed for each draw.
#' @param batch_size Number of examples in a batch of arrays: a whole number, 1 or more.
#' @param seed Seed of the draws: a whole number, 0 or more. `NULL`, the default, takes one from R's random numbers, so
#'   that `set.seed()` makes them repeatable.
#' @param verbose `"auto"`, the default, or `1` (`TRUE`) for a progress bar, `2` for one line,
#'   `0` (`FALSE`) for nothing.
#' @returns An array whose first dimension counts the samples and whose second counts the examples. For a model with
#'   several outputs a list of such arrays.
#' @section Next step:
#' [predict_interval()] turns the samples into intervals and probabilities, and takes them in place of
#' a model. [measure_predictions()] says how honest they are.
#' @section Errors:
#' The function stops and changes nothing if an argument is not as described, if a posterior has fewer than two
#' snapshots or snapshots of other weights, or if `data` is missing for a model with batch norm.
#' @references Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#'   <https://arxiv.org/abs/1902.02476>. Wilson and Izmailov (2020), *Bayesian Deep Learning and a Probabilistic
#'   Perspective of Generalization*, <https://arxiv.org/abs/2002.08791>, for Multi-SWAG.
#'   Lakshminarayanan et al. (2017), <https://arxiv.org/abs/1612.01474>, for deep ensembles.
#' @family uncertainty
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(100)
#' swag <- callback_swag(start_epoch = 5)
#' model$fit(x, y, epochs = 20L, verbose = 0L, callbacks = list(swag))
#' dim(predict_samples(model, swag, x, verbose = 0))
predict_samples <- function(model, posterior, x, samples = 30, scale = 0.5, data = NULL,
                            batch_size = 32, seed = NULL, verbose = "auto") {
  call <- rlang::current_env()
  models <- if (!missing(model) && is_plain_list(model)) model else if (!missing(model)) list(model)
  if (length(models) == 0 || !all(vapply(models, is_model, NA))) {
    refuse("model", "a Keras model or a list of them", model, call, is_model)
  }
  if (missing(posterior) || !(is.null(posterior) || is_posterior(posterior) || is_posterior_list(posterior))) {
    refuse("posterior", "a callback of callback_swag(), a list of them or NULL", posterior, call, is_posterior)
  }
  call_ours("predict_samples", model_generation(models[[1]]), list(
    if (is_plain_list(model)) unname(model) else model,
    if (is_plain_list(posterior)) unname(posterior) else posterior,
    examples(as_inputs(x, models, "x", call), again = TRUE, frames = TRUE, name = "x"),
    samples = whole(samples, 1),
    scale = not_negative(scale),
    data = data_or_null(as_inputs(data, models, "data", call)),
    batch_size = whole(batch_size, 1),
    seed = drawn_seed(seed),
    verbose = choice(verbose, list("auto", 0, 1, 2))
  ))
}

is_posterior_list <- function(x) is_plain_list(x) && length(x) > 0 && all(vapply(x, is_posterior, NA))

# For models with one input, a data frame as a matrix of its numbers.
as_inputs <- function(x, models, name, call) {
  if (missing(x) || !is.data.frame(x) || length(models[[1]]$inputs) > 1) return(x)
  without_frame(x, name, call)
}

# A data frame as a matrix of its numbers.
without_frame <- function(x, name, call) {
  wrong <- names(x)[!vapply(x, function(column) is.numeric(column) || is.logical(column), NA)]
  if (length(wrong) > 0) {
    abort_argument(sprintf("`%s` must hold numbers only, and column `%s` does not.", name, wrong[[1]]), call)
  }
  unname(as.matrix(x))
}

#' Intervals and probabilities from a posterior
#'
#' Predicts with many draws of the weights, and sums the draws up as intervals, quantiles, classes or
#' probabilities. The columns are named as in tidymodels.
#'
#' * `type = "conf_int"`: an interval for the mean (for what a noiseless measurement would give), from the quantiles of
#'   the draws. For a classifier with `classes` it has an interval for each probability.
#' * `type = "pred_int"`: an interval for a new observation. It needs the `noise` around the mean: the quantiles are
#'   those of the mixture of Gaussians with the means and noise of the draws.
#' * `type = "quantile"`: the quantiles at `quantile_levels`, of the same mixture with `noise`, and
#'   of the draws without it.
#' * `type = "class"`: the most likely class; `type = "prob"`: the probabilities, averaged over the draws.
#'
#' These are statements of the model. Whether 90 % of new observations are in a 90 % interval must be
#' measured on data that took no part in training: see [measure_predictions()] and [plot_calibration()].
#'
#' # With keras3 and keras
#' ```r
#' predict_interval(model, swag, x_test, type = "pred_int", noise = noise_variance(y_valid, samples))
#' predict_interval(classifier, swag, x_test, type = "prob", classes = levels(y))
#' ```
#'
#' @inheritParams predict_samples
#' @param model A built Keras model or a list of them, as for [predict_samples()]; or the array that
#'   [predict_samples()] returned: then leave out `posterior` and `x`.
#' @param level Part of the observations that an interval is for: a number between 0 and 1.
#' @param type `"conf_int"`, `"pred_int"`, `"quantile"`, `"class"` or `"prob"`.
#' @param noise The noise around the mean: `"log_variance"` for a model whose outputs are the mean and the
#'   logarithm of the variance; otherwise its variance, a number, 0 or more, for example of [noise_variance()].
#'   `NULL`, the default, is `"log_variance"` for a model compiled with [loss_gaussian_nll()], and no noise for
#'   others.
#' @param quantile_levels Levels of `type = "quantile"`: numbers between 0 and 1.
#' @param classes Names of the classes, in the order of the outputs: a character vector, such as `levels(y)`. `NULL`,
#'   the default, numbers them from 0. For a model with one output, its value is the probability of the second class.
#' @param logits `TRUE` or `FALSE`, the default: whether the outputs are logits, to which the last activation
#'   (softmax, or sigmoid for one output) was not applied.
#' @param ... Further arguments of [predict_samples()], by name: `samples`, `scale`, `data`, `batch_size`, `seed`,
#'   `verbose`.
#' @returns A data frame with a row for each example. For `"conf_int"` and `"pred_int"` the columns are `.pred` (mean),
#'   `.pred_lower`, `.pred_upper` and `.pred_variance` (of the mean, or with its noise); with `classes` they are
#'   `.pred_<class>`, `.pred_lower_<class>` and `.pred_upper_<class>`. For `"quantile"` there is a column
#'   `.pred_<level>` for each level, for `"class"` a factor `.pred_class`, for `"prob"` a column `.pred_<class>`
#'   for each class.
#' @section Errors:
#' The function stops if an argument is not as described, if `type = "pred_int"` has no `noise`, if the outputs are
#' not probabilities where they should be, or if the model has several numbers to predict (use
#' [predict_samples()] then). It warns if there are too few samples for the `level`.
#' @references Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#'   <https://arxiv.org/abs/1902.02476>. The mixture of Gaussians is that of Lakshminarayanan et al. (2017), *Simple
#'   and Scalable Predictive Uncertainty Estimation using Deep Ensembles*, <https://arxiv.org/abs/1612.01474>.
#' @family uncertainty
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(100)
#' swag <- callback_swag(start_epoch = 5)
#' model$fit(x, y, epochs = 20L, verbose = 0L, callbacks = list(swag))
#' samples <- predict_samples(model, swag, x, verbose = 0)
#' head(predict_interval(samples, type = "conf_int"))
#' head(predict_interval(samples, type = "pred_int", noise = noise_variance(y, samples)))
predict_interval <- function(model, posterior, x, level = 0.9,
                             type = c("conf_int", "pred_int", "quantile", "class", "prob"),
                             noise = NULL, quantile_levels = (1:9) / 10, classes = NULL, logits = FALSE, ...) {
  whole_names()
  call <- rlang::current_env()
  level <- number(level, "a number between 0 and 1", function(x) x > 0 && x < 1, "level", call)
  types <- c("conf_int", "pred_int", "quantile", "class", "prob")
  type <- if (missing(type)) "conf_int" else choice(type, types)
  quantile_levels <- levels_between(quantile_levels, call)
  logits <- flag(logits)
  noise <- a_noise(noise, call)
  if (!is.null(classes) && (!is.character(classes) || anyNA(classes) || anyDuplicated(classes) > 0)) {
    refuse("classes", "a character vector of different names", classes, call)
  }
  if (!missing(model) && is_array(model) && !is.null(dim(model))) {
    if (!missing(posterior) || !missing(x) || ...length() > 0) {
      abort_argument("With samples as `model`, leave out `posterior`, `x` and the arguments in `...`.", call)
    }
    samples <- model
  } else {
    samples <- predict_samples(model, posterior, x, ...)
    if (is.null(noise)) noise <- noise_of_model(model)
  }
  finite_samples(samples, call)
  if (!is.array(samples)) {
    abort_argument("`model` must have one output: use `predict_samples()` for several.", call)
  }
  if (type %in% c("class", "prob") || (type == "conf_int" && !is.null(classes))) {
    return(class_columns(class_samples(samples, classes, logits, call), type, level, call))
  }
  if (type == "pred_int" && is.null(noise)) {
    abort_argument(paste(
      '`noise` must be given for `type = "pred_int"`: "log_variance", or a variance as of `noise_variance()`.'
    ), call)
  }
  parts <- mean_and_noise(samples, noise, call)
  if (type == "quantile") {
    found <- mixture_quantiles(parts, quantile_levels)
    return(data.frame(stats::setNames(found, paste0(".pred_", quantile_levels)), check.names = FALSE))
  }
  if (type == "conf_int") parts$sd <- NULL
  enough_samples(nrow(parts$mean), level, is.null(parts$sd))
  tails <- mixture_quantiles(parts, c((1 - level) / 2, (1 + level) / 2))
  center <- colMeans(parts$mean)
  variance <- colMeans(sweep(parts$mean, 2, center)^2)
  if (!is.null(parts$sd)) variance <- variance + colMeans(parts$sd^2)
  data.frame(.pred = center, .pred_lower = tails[[1]], .pred_upper = tails[[2]], .pred_variance = variance)
}

# Of what isn't finite there are no quantiles.
finite_samples <- function(samples, call) {
  if (!is.array(samples) || all(is.finite(samples))) return(invisible())
  wrong <- which(apply(!is.finite(samples), 2, any))
  abort_argument(sprintf(paste(
    "The predictions must be finite, and those of %d example%s are not (the first is number %d): look for missing",
    "values in `x`, or predict for the others only."
  ), length(wrong), if (length(wrong) > 1) "s" else "", wrong[[1]]), call)
}

levels_between <- function(x, call) {
  if (!is.numeric(x) || is.object(x) || length(x) == 0 || anyNA(x) || any(x <= 0 | x >= 1)) {
    refuse("quantile_levels", "numbers between 0 and 1", x, call)
  }
  sort(unique(as.double(x)))
}

a_noise <- function(noise, call) {
  if (is.null(noise) || identical(noise, "log_variance")) return(noise)
  number(noise, '"log_variance" or a number >= 0', function(x) x >= 0, "noise", call)
}

noise_of_model <- function(model) {
  models <- if (is_plain_list(model)) model else list(model)
  losses <- lapply(models, function(m) tryCatch(m$loss, error = function(e) NULL))
  ours <- vapply(losses, function(loss) "kerasoptimizers.GaussianNLL" %in% python_classes(loss), NA)
  if (all(ours)) "log_variance"
}

# Matrices of samples and examples: the means, and the standard deviations of the noise around them.
mean_and_noise <- function(samples, noise, call) {
  size <- dim(samples)
  outputs <- if (length(size) == 2) 1 else prod(size[-(1:2)])
  wanted <- if (identical(noise, "log_variance")) 2 else 1
  if (length(size) < 2 || outputs != wanted) {
    abort_argument(sprintf(paste(
      "`model` must predict %s for each example, not %s numbers: use `predict_samples()` for more,",
      "or give `classes` for a classifier."
    ), if (wanted == 2) "a mean and a log-variance" else "one number", format_count(outputs)), call)
  }
  dim(samples) <- c(size[1:2], outputs)
  mean <- matrix(samples[, , 1], size[[1]])
  sd <- if (wanted == 2) matrix(exp(samples[, , 2] / 2), size[[1]]) else
    if (!is.null(noise)) matrix(sqrt(noise), size[[1]], size[[2]])
  list(mean = mean, sd = sd)
}

# Quantiles for each example: of the samples, or with noise of the mixture of Gaussians around them.
mixture_quantiles <- function(parts, levels) {
  mean <- parts$mean
  if (is.null(parts$sd) || all(parts$sd == 0)) {
    found <- apply(mean, 2, stats::quantile, probs = levels, names = FALSE)
    return(lapply(seq_along(levels), function(i) matrix(found, length(levels))[i, ]))
  }
  lapply(levels, function(level) {
    # Each Gaussian's own quantile: that of the mixture is between the lowest and the highest of them.
    own <- mean + stats::qnorm(level) * parts$sd
    low <- apply(own, 2, min)
    high <- apply(own, 2, max)
    for (i in 1:50) {
      middle <- (low + high) / 2
      below <- mixture_probability(parts, middle) < level
      low <- ifelse(below, middle, low)
      high <- ifelse(below, high, middle)
    }
    (low + high) / 2
  })
}

# The probability of a value or less, for each example.
mixture_probability <- function(parts, at) {
  at <- rep(at, each = nrow(parts$mean))
  if (is.null(parts$sd)) return(colMeans(matrix((parts$mean < at) + (parts$mean == at) / 2, nrow(parts$mean))))
  colMeans(matrix(stats::pnorm(at, parts$mean, parts$sd), nrow(parts$mean)))
}

enough_samples <- function(samples, level, of_draws) {
  needed <- ceiling(2 / (1 - level) - 1e-9)
  if (of_draws && samples > 1 && samples < needed) {
    warning(sprintf(
      "%d samples are few for quantiles at level %s, and the intervals come out too narrow: take %d or more.",
      samples, format(level), needed
    ), call. = FALSE)
  }
}

# Probabilities of the classes: an array of samples, examples and classes.
class_samples <- function(samples, classes, logits, call) {
  size <- dim(samples)
  outputs <- if (length(size) == 2) 1 else prod(size[-(1:2)])
  dim(samples) <- c(size[1:2], outputs)
  if (logits) {
    samples <- if (outputs == 1) stats::plogis(samples) else softmax(samples)
  }
  if (outputs == 1) samples <- array(c(1 - samples, samples), c(size[1:2], 2))
  if (anyNA(samples) || min(samples) < -1e-6 || any(abs(apply(samples, 1:2, sum) - 1) > 0.01)) {
    abort_argument("The outputs must be probabilities: are they logits? Then give `logits = TRUE`.", call)
  }
  count <- dim(samples)[[3]]
  if (is.null(classes)) classes <- as.character(seq_len(count) - 1)
  if (length(classes) != count) {
    abort_argument(sprintf("`classes` must be %d names, not %d.", count, length(classes)), call)
  }
  dimnames(samples) <- list(NULL, NULL, classes)
  samples
}

softmax <- function(samples) {
  exponents <- exp(samples - as.vector(apply(samples, 1:2, max)))
  exponents / as.vector(apply(exponents, 1:2, sum))
}

class_columns <- function(samples, type, level, call) {
  classes <- dimnames(samples)[[3]]
  mean <- matrix(apply(samples, 2:3, mean), ncol = length(classes))
  if (type == "class") {
    return(data.frame(.pred_class = factor(classes[max.col(mean, "first")], classes)))
  }
  found <- stats::setNames(as.data.frame(mean), paste0(".pred_", classes))
  if (type == "conf_int") {
    enough_samples(dim(samples)[[1]], level, TRUE)
    for (class in classes) {
      part <- list(mean = matrix(samples[, , class], dim(samples)[[1]]))
      tails <- mixture_quantiles(part, c((1 - level) / 2, (1 + level) / 2))
      found[[paste0(".pred_lower_", class)]] <- tails[[1]]
      found[[paste0(".pred_upper_", class)]] <- tails[[2]]
    }
  }
  found
}

#' The loss of a network that predicts mean and variance
#'
#' The negative log-likelihood of a Gaussian. The last layer of the network has two units without activation for each
#' number to predict: the mean and the logarithm of the variance (for several numbers, first all means, then all
#' log-variances). [predict_interval()] knows a model with this loss, and takes the noise from it.
#'
#' Put `y` on a scale on which its variance is about 1, and start with a small learning rate: far from the data this
#' loss is steep.
#'
#' # With keras3 and keras
#' ```r
#' model <- keras_model_sequential(input_shape = 13) |>
#'   layer_dense(50, activation = "relu") |>
#'   layer_dense(2)
#' model |> compile(optimizer_adam(0.001), loss = loss_gaussian_nll())
#' ```
#'
#' @param min_variance The lowest variance: a number above 0. The loss takes lower ones for this one.
#' @returns A Python loss for `compile()` of the R package keras3 or keras (see [kerasoptimizers-package] for which). A
#'   saved model that has it loads in a session with `library(kerasoptimizers)`.
#' @section Errors:
#' The function stops if `min_variance` is not as described; training stops if the number of outputs is odd.
#' @references Nix and Weigend (1994), *Estimating the Mean and Variance of the Target Probability Distribution*,
#'   \doi{10.1109/ICNN.1994.374138}. Lakshminarayanan et al. (2017), <https://arxiv.org/abs/1612.01474>.
#' @family uncertainty
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(2L)))
#' model$compile("adam", loss = loss_gaussian_nll())
#' x <- matrix(rnorm(200), ncol = 2)
#' model$fit(x, x %*% c(1, -1) + rnorm(100), epochs = 2L, verbose = 0L)
loss_gaussian_nll <- function(min_variance = 1e-6) {
  generation <- default_generation(rlang::current_env())
  call_ours("GaussianNLL", generation, list(min_variance = positive(min_variance)))
}
