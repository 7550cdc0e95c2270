#' Plot metrics of weights and averages side by side
#'
#' Plots the validation metrics of one training after each epoch: those of the weights, and those
#' of their averages.
#'
#' Use it to see how much averaging gains, and from which epoch on. The training must validate both:
#' give `fit()` validation data and `callback_swap_averages(weights_too = TRUE)`. To
#' compare two trainings, plot the `as.data.frame()` of their histories instead.
#'
#' @param history The value of `fit()`: a training history of the R packages keras3 and
#'   keras, or of Python.
#' @param metric Names of the metrics to plot, without `val_`, such as `"loss"` or `"accuracy"`: a
#'   character vector. `NULL`, the default, plots all metrics of the training.
#' @returns A ggplot. Its `$data` is a data frame with the columns `epoch` (counted from 1), `metric`,
#'   `of` (a factor: `"weights"` or `"averages"`) and `value`.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Next step:
#' If the averages are better at the end, call [assign_average_vars()]. If they lag behind the weights,
#' average later or shorter: a later `start_averaging`, or a smaller `average_decay`.
#' @section Errors:
#' The function stops if `history` is not a training history, was recorded without
#' `weights_too = TRUE`, or does not have a metric in `metric`.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 4.
#' @family what is going on
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", start_averaging = 10, average_period = 2), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' history <- model$fit(x, y, epochs = 10L, verbose = 0L, validation_split = 0.2,
#'                      callbacks = list(callback_swap_averages(weights_too = TRUE)))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_averaging(history)
plot_averaging <- function(history, metric = NULL) {
  call <- rlang::current_env()
  require_ggplot2(call)
  metrics <- history_metrics(history, call)
  known <- sub("^val_weights_", "", grep("^val_weights_", names(metrics), value = TRUE))
  known <- known[paste0("val_", known) %in% names(metrics)]
  if (length(known) == 0) {
    abort_argument(paste("`history` must come from a fit() with validation data and",
                         "callback_swap_averages(weights_too = TRUE): it has no metrics of the weights."),
                   call)
  }
  if (is.null(metric)) metric <- known
  if (!is.character(metric) || is.object(metric) || length(metric) == 0) {
    refuse("metric", "a character vector of metrics", metric, call)
  }
  for (name in metric) known_metric(name, known, call)
  epochs <- max(lengths(metrics))
  rows <- lapply(unique(metric), function(name) {
    values <- list(weights = as.numeric(unlist(metrics[[paste0("val_weights_", name)]])),
                   averages = as.numeric(unlist(metrics[[paste0("val_", name)]])))
    n <- length(values$weights)
    # With `validation_freq` only some epochs have values.
    data.frame(epoch = rep(seq_len(n) * (epochs %/% n), 2), metric = name,
               of = factor(rep(names(values), each = n), names(values)), value = unlist(values))
  })
  data <- do.call(rbind, rows)
  rownames(data) <- NULL
  draw_averaging(data)
}

known_metric <- function(metric, known, call = rlang::caller_env()) {
  if (!is_name(metric) || !metric %in% known) {
    refuse("metric", paste("one of", toString(vapply(known, describe_string, ""))), metric, call)
  }
  metric
}

history_metrics <- function(history, call) {
  if (!missing(history)) {
    if (inherits(history, "keras_training_history")) return(history$metrics)
    if ("History" %in% class_name(python_classes(history))) return(history$history)
  }
  refuse("history", "a training history, as fit() returns it", history, call)
}

draw_averaging <- function(data) {
  .data <- rlang::.data
  one_metric <- length(unique(data$metric)) == 1
  of <- ggplot2::aes(.data$epoch, .data$value, color = .data$of, linetype = .data$of, shape = .data$of)
  ggplot2::ggplot(data, of) +
    ggplot2::geom_line(linewidth = 0.8) +
    # More would hide the line types.
    (if (max(data$epoch) <= 40) ggplot2::geom_point(size = 2)) +
    (if (!one_metric) ggplot2::facet_wrap(ggplot2::vars(.data$metric), scales = "free_y")) +
    group_scales(levels(data$of), which = match(levels(data$of), names(colors))) +
    ggplot2::scale_x_continuous(breaks = whole_breaks) +
    ggplot2::labs(title = "Validation with the weights and with the averages", x = "epoch",
                  y = if (one_metric) data$metric[[1]]) +
    picture_theme()
}
