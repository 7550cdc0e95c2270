#' Store averages as training goes
#'
#' A callback for `fit()` of a model that is compiled with [optimizer_power_average()]. It stores the averages
#' of all widths in a folder, so that [posthoc_average()] can make the average of any width when training is
#' done.
#'
#' Each moment is one file. A file is complete or absent, even if R is killed while it is written (a file
#' that ends in `.tmp` may remain then). 20 to 100 moments in a training are enough. The disk space is that of
#' the averaged weights for each width and moment. The end of training is always stored.
#'
#' A training that goes on, in the same `fit()` or in another session, goes on in the same folder. If it goes
#' on from an earlier update than the last one stored, as after a crash, the later snapshots are of a training
#' that broke off: their names get the ending `.old` when the next one is stored. A training that begins needs
#' a folder without snapshots. Other files in the folder are left alone, but it must not hold other `.npz`
#' files.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_power_average(optimizer_adam(0.001)), loss = "mse")
#' model |> fit(x, y, epochs = 30, callbacks = callback_average_snapshots("snapshots"))
#' posthoc_average(model, "snapshots", sigma_rel = 0.15)
#' ```
#'
#' @param directory A folder for this training alone: a string. It is created with the first file.
#' @param every `"epoch"`, the default, or the number of batches from one snapshot to the next: a whole number,
#'   1 or more.
#' @param dtype How the averages are stored: `"float32"`, `"float16"`, `"bfloat16"` or `"float64"`. The narrow
#'   ones take half the space; averages made of them are off by about 0.001 (`"float16"`) or 0.01
#'   (`"bfloat16"`) of the weights.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for a line for each file.
#' @inherit callback_swap_averages return
#' @section Next step:
#' [plot_posthoc()] shows which width is best on held-out data, and [posthoc_average()] puts that
#' average into the model.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. `fit()` stops before it trains if
#' the model is not compiled with [optimizer_power_average()], if a training begins in a folder that has
#' snapshots, or if the folder has those of another model.
#' @references Karras et al. (2024), *Analyzing and Improving the Training Dynamics of Diffusion Models*,
#'   <https://arxiv.org/abs/2312.02696>.
#' @family choosing the average afterwards
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_power_average("sgd"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' folder <- tempfile()
#' model$fit(x, y, epochs = 10L, verbose = 0L, callbacks = list(callback_average_snapshots(folder)))
#' list.files(folder)
#' posthoc_average(model, folder, sigma_rel = 0.15)
callback_average_snapshots <- function(directory, every = "epoch", dtype = "float32", verbose = 0) {
  generation <- default_generation(rlang::current_env())
  call_ours("AverageSnapshots", generation, list(
    directory = path.expand(string(directory)),
    every = whole(every, 1, word = "epoch"),
    dtype = choice(dtype, c("float32", "float16", "bfloat16", "float64")),
    verbose = choice(verbose, c(0, 1))
  ))
}

#' The average of any width, after training
#'
#' Makes an average of the width that you want from those that [callback_average_snapshots()] stored, and puts it
#' into the model. One training is enough to try many widths: [plot_posthoc()] shows a metric for each.
#'
#' The average is a sum of stored ones. Its coefficients come from the wanted profile over the updates, by
#' least squares (algorithm 3 of the paper). How close it comes to an average that is kept during training
#' depends on the number of snapshots and on how smoothly the weights move. In a recorded run with 10 moments,
#' of the widths 0.05 and 0.10, the relative difference was 3e-4 at a width of 0.07, 6e-3 at 0.20 and 3e-2 at
#' 0.25. (The coefficients are scaled to a sum of 1, so that weights which do not move stay. Without that it
#' was 6e-4 at 0.07 and 2e-2 at 0.25.) More snapshots help. A width that was kept comes back as it was stored.
#' Below the narrowest stored width the rounding of the stored averages grows, about 20-fold at 0.02.
#'
#' The model may be a new one of the same architecture, with other names, frozen layers or another optimizer.
#' It must be built. Memory: one more copy of the weights, and some 150 MB.
#'
#' # With keras3 and keras
#' ```r
#' posthoc_average(model, "snapshots", sigma_rel = 0.15, data = x) # data: for batch norm
#' evaluate(model, x_test, y_test)
#' ```
#'
#' @param model A built Keras model. The weights that were averaged are overwritten.
#' @param directory The folder of [callback_average_snapshots()]: a string.
#' @param sigma_rel Width of the average, as a part of all updates: a number, more than 0 and at most 0.2887. See
#'   [optimizer_power_average()] for a table, and [average_width()].
#' @param at The moment at which the average is wanted: the number of updates made until then, a whole number,
#'   1 or more. `NULL`, the default, is the last snapshot. A moment needs a snapshot at or after it.
#' @param data Inputs to recompute batch-norm statistics with, as for [update_batch_norm()], but not a generator: the
#'   statistics in the model belong to other weights. `NULL`, the default, leaves them, and warns if there are any.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#' @returns `model`, invisibly. It is changed in place.
#' @section Next step:
#' Evaluate and save the model. To try another width, call the function again: it starts from the
#' folder each time.
#' @section Errors:
#' The function stops and changes nothing if an argument is not as described, if there is no snapshot at or
#' after `at`, and if a file in the folder is torn, missing or of another model. The error names that file.
#' @references Karras, Aittala, Lehtinen, Hellsten, Aila and Laine (2024), *Analyzing and Improving the Training
#'   Dynamics of Diffusion Models*, <https://arxiv.org/abs/2312.02696>, section 3 and appendix C.
#' @family choosing the average afterwards
#' @export
#' @inherit callback_average_snapshots examples
posthoc_average <- function(model, directory, sigma_rel, at = NULL, data = NULL, batch_size = 32) {
  call <- rlang::current_env()
  if (missing(model) || !is_model(model)) refuse("model", "a Keras model", model, call)
  arguments <- list(
    model, path.expand(string(directory)), width(sigma_rel),
    at = optional(whole, at, 1), data = data_or_null(data),
    batch_size = whole(batch_size, 1)
  )
  call_python(do.call(import_ours("kerasoptimizers")$posthoc_average, arguments), call)
  invisible(model)
}

#' Plot a metric against the width of the average
#'
#' Makes averages of many widths from the snapshots of one training, evaluates the model with each of them, and
#' plots a metric against the width. It shows which width to give to [posthoc_average()].
#'
#' Give it data that were held out from training, and others than those that you test with in the end: choosing
#' the best of many widths is a choice by these data. In the end the model has its own weights back, bit for
#' bit, even if you interrupt the function.
#'
#' # With keras3 and keras
#' ```r
#' picture <- plot_posthoc(model, "snapshots", x_valid, y_valid, metric = "accuracy")
#' picture
#' best <- picture$data$sigma_rel[which.max(picture$data$accuracy)]
#' posthoc_average(model, "snapshots", best)
#' ```
#'
#' @inheritParams posthoc_average
#' @param model A compiled Keras model.
#' @param x,y Data for the `evaluate()` of the model: arrays, lists of arrays, or as `x` a data set that holds both.
#' @param sigma_rel Widths: different numbers, more than 0 and at most 0.2887.
#' @param metric Name of the metric to plot: a string, `"loss"` by default.
#' @param at Moments, as in [posthoc_average()]: one or several whole numbers, each of which gets a line. `NULL`, the
#'   default, is the last snapshot.
#' @param batch_size Number of examples in a batch: a whole number, 1 or more.
#' @param verbose `TRUE`, the default, or `FALSE`: whether to show a progress bar. A document that is being
#'   knitted shows none.
#' @returns A ggplot. Its `$data` is a data frame with a row for each width and moment, and the columns
#'   `sigma_rel`, `updates` (the moment), `tracked` (whether an average of this width was kept during
#'   training), `loss` and the model's other metrics.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' As those of [posthoc_average()]. A `metric` that the model does not have is an error, too.
#' @references Karras et al. (2024), *Analyzing and Improving the Training Dynamics of Diffusion Models*,
#'   <https://arxiv.org/abs/2312.02696>, figure 5.
#' @family choosing the average afterwards
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_power_average("sgd"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' folder <- tempfile()
#' model$fit(x, y, epochs = 10L, verbose = 0L, callbacks = list(callback_average_snapshots(folder)))
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot_posthoc(model, folder, x, y)
plot_posthoc <- function(model, directory, x, y = NULL,
                         sigma_rel = c(0.03, 0.05, 0.07, 0.10, 0.13, 0.16, 0.20, 0.24, 0.28),
                         metric = "loss", at = NULL, data = NULL, batch_size = 256, verbose = TRUE) {
  call <- rlang::current_env()
  require_ggplot2(call)
  if (missing(model) || !is_model(model)) refuse("model", "a compiled Keras model", model, call)
  directory <- path.expand(string(directory))
  x <- examples(x, again = TRUE)
  y <- optional(examples, y, again = TRUE)
  sigma_rel <- sort(widths(sigma_rel))
  metric <- string(metric)
  at <- if (!is.null(at)) sort(numbers(at, function(x, ...) as.double(whole(x, 1, ...)), "at", call))
  data <- data_or_null(data)
  batch_size <- whole(batch_size, 1)
  verbose <- flag(verbose)
  new_rebuilding <- import_ours("kerasoptimizers.posthoc")$Rebuilding
  averages <- call_python(new_rebuilding(model, directory, data, batch_size), call)
  if (is.null(at)) at <- max(unlist(averages$updates))
  grid <- expand.grid(sigma_rel = sigma_rel, updates = at)
  evaluate <- evaluator(model, x, y, batch_size, metric, recalibrate = FALSE, call = call)
  values <- over_widths(averages, grid, evaluate, verbose, call)
  tracked <- vapply(grid$sigma_rel, function(s) any(abs(s - unlist(averages$tracked)) < 1e-12), NA)
  draw_posthoc(cbind(grid, tracked = tracked, values), metric)
}

over_widths <- function(averages, grid, evaluate, verbose, call) {
  on.exit(averages$`__exit__`())
  averages$`__enter__`()
  verbose <- show_progress(verbose)
  if (verbose) cli::cli_progress_bar("Averages of different widths", total = nrow(grid))
  values <- lapply(seq_len(nrow(grid)), function(i) {
    call_python(averages$place(grid$sigma_rel[[i]], at = as.integer(grid$updates[[i]])), call)
    if (verbose) cli::cli_progress_update(.envir = parent.frame(2))
    evaluate()
  })
  as.data.frame(do.call(rbind, values))
}

draw_posthoc <- function(data, metric) {
  .data <- rlang::.data
  moments <- unique(data$updates)
  moment <- function(updates) factor(format_long(updates), format_long(moments))
  one <- length(moments) == 1
  # Open and filled forms of a shape, one shape for each moment.
  open <- c(1, 2, 0, 5)
  filled <- c(16, 17, 15, 18)
  which <- (seq_along(moments) - 1) %% length(open) + 1
  shapes <- rlang::set_names(c(open[which], filled[which]),
                             paste0(format_long(moments), ".", rep(c(FALSE, TRUE), each = length(moments))))
  ggplot2::ggplot(data, ggplot2::aes(.data$sigma_rel, .data[[metric]], color = moment(.data$updates))) +
    ggplot2::geom_line(ggplot2::aes(linetype = moment(.data$updates)), linewidth = 0.8) +
    ggplot2::geom_point(ggplot2::aes(shape = interaction(moment(.data$updates), .data$tracked)), size = 2.6) +
    group_scales(format_long(moments), "updates")[1:2] +
    ggplot2::scale_shape_manual(values = shapes, guide = "none") +
    (if (!one) {
      ggplot2::guides(color = ggplot2::guide_legend(order = 1, override.aes = list(shape = filled[which])))
    }) +
    ggplot2::labs(
      title = paste0("Averages of different widths: ", metric),
      subtitle = paste0(
        if (one) sprintf("After %s updates. ", format_long(moments)),
        "Filled points: widths kept in training."
      ),
      x = "width (sigma_rel)", y = metric
    ) +
    picture_theme()
}
