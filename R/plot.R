# Pictures, by ggplot2 where it is installed, else by base graphics. Each function draws at once and
# returns what it drew, so that both ways look alike from outside.

#' Draw learning rates and averaging moments
#'
#' Draws the learning rate of each update and marks the updates after which the average moves:
#' for [optimizer_swa()] the snapshots.
#'
#' Use it before training, to see whether a learning-rate schedule and an averaging optimizer fit
#' together: with cycles, for one, every snapshot should be taken at the end of a cycle. It is for
#' averaging optimizers and for [learning_rate_schedule_swa()], which doesn't know how often
#' an optimizer averages: `average_period` says it.
#'
#' @param x An averaging optimizer, such as [optimizer_swa()] returns, or a schedule of
#'   [learning_rate_schedule_swa()].
#' @param updates Number of updates to draw: a whole number, 1 or more. `NULL`, the default, shows
#'   twice the updates before averaging starts, or ten moves of the average where that is more.
#' @param average_period Number of updates from one snapshot to the next: a whole number, 1 or more.
#'   `NULL`, the default, is the length of a cycle, or without cycles 10, as in [optimizer_swa()].
#' @param ... Not used.
#' @returns A data frame, invisibly, with the columns `update` (counted from 0), `learning_rate`
#'   (after `decay`; `NA` where the inner optimizer has several) and `due`: whether the average
#'   moves after that update.
#' @section Pictures:
#' They are drawn with ggplot2 where it is installed, unless
#' `options(kerasoptimizers.ggplot2 = FALSE)` is set, else with base graphics.
#' @section Errors:
#' An argument that is not as described stops with an error that names it.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 2.
#' @family what is going on
#' @name plot.kerasoptimizers
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' rate <- learning_rate_schedule_swa(0.1, 0.02, start_averaging = 200, cycle_updates = 50)
#' plot(rate)
#'
#' keras <- reticulate::import("keras")
#' sgd <- keras$optimizers$SGD(rate)
#' plot(optimizer_swa(sgd, start_averaging = 200, average_period = 50))
NULL

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.averaging.Averaging
#' @export
plot.kerasoptimizers.averaging.Averaging <- function(x, updates = NULL, ...) {
  facts <- facts_of(live(x, "optimizer"))
  settings <- facts$settings
  first <- c(settings$start_averaging, settings$start_step, 0)[[1]]
  period <- c(settings$average_period, settings$sync_period, settings$update_period, 1)[[1]]
  updates <- shown_updates(updates, first, period, facts$updates)
  course <- import_ours("kerasoptimizers.describe")$course(x, updates)
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(course$learning_rate),
    due = as.vector(course$due)
  ), facts$method)
}

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.schedules.SWALearningRate
#' @export
plot.kerasoptimizers.schedules.SWALearningRate <- function(x, updates = NULL,
                                                           average_period = NULL, ...) {
  live(x, "schedule")
  period <- c(optional(whole, average_period, 1), x$cycle_updates, 10L)[[1]]
  updates <- shown_updates(updates, x$start_averaging, period)
  rates <- import_ours("kerasoptimizers.describe")$rates(x, updates)
  since <- seq_len(updates) - 1L - x$start_averaging
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(rates),
    due = since >= 0 & since %% period == 0
  ), "SWA")
}

shown_updates <- function(updates, first, period, made = 0, call = rlang::caller_env()) {
  if (is.null(updates)) {
    # More would take minutes to draw; they can be asked for.
    updates <- min(max(2 * first, first + 10 * period, made) + 1, 1e6)
  }
  whole(updates, 1, name = "updates", call = call)
}

draw_course <- function(data, method) {
  title <- paste0("Learning rate, and when ", method, " averages")
  # Where there are several rates only the moments are left to show.
  height <- if (all(is.na(data$learning_rate))) rep(0, nrow(data)) else data$learning_rate
  shown <- data.frame(update = data$update, rate = height)
  moments <- shown[data$due, ]
  range <- range(0, height, na.rm = TRUE)
  if (uses_ggplot2()) {
    .data <- rlang::.data
    print(
      ggplot2::ggplot(shown, ggplot2::aes(.data$update, .data$rate)) +
        ggplot2::geom_line(color = colors[["weights"]]) +
        ggplot2::geom_point(data = moments, color = colors[["averages"]], size = 1.5) +
        ggplot2::expand_limits(y = range) +
        ggplot2::labs(title = title, x = "update", y = "learning rate") +
        ggplot2::theme_minimal()
    )
  } else {
    graphics::plot(shown$update, shown$rate, type = "l", col = colors[["weights"]], lwd = 2,
                   ylim = range, bty = "l", las = 1, main = title, xlab = "update",
                   ylab = "learning rate")
    graphics::points(moments$update, moments$rate, col = colors[["averages"]], pch = 19, cex = 0.7)
  }
  invisible(data)
}

#' Draw metrics of weights and averages side by side
#'
#' Draws, from one training, the validation metrics of the weights and of their averages
#' after each epoch.
#'
#' Use it to see what averaging gains, and from when on. The training must have been validated with
#' both: give `fit()` validation data and `callback_swap_averages(weights_too = TRUE)`. It is not
#' for comparing two trainings; draw the `as.data.frame()` of their histories for that.
#'
#' @param history What `fit()` returned: a training history of the R packages keras3 and
#'   keras, or of Python.
#' @param metric Names of the metrics to draw, such as `"loss"` or `"accuracy"`, without `val_`: a
#'   character vector. `NULL`, the default, draws all that were recorded.
#' @returns A data frame, invisibly, with the columns `epoch` (counted from 1), `metric`, `of` (a
#'   factor: `"weights"` or `"averages"`) and `value`.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' It is an error if `history` isn't one, was recorded without `weights_too = TRUE`, or has not a
#' metric that was asked for.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 4.
#' @family what is going on
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", start_averaging = 20, average_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' history <- model$fit(x, y, epochs = 20L, verbose = 0L, validation_split = 0.2,
#'                      callbacks = list(callback_swap_averages(weights_too = TRUE)))
#' plot_averaging(history)
plot_averaging <- function(history, metric = NULL) {
  call <- rlang::current_env()
  metrics <- history_metrics(history, call)
  known <- sub("^val_weights_", "", grep("^val_weights_", names(metrics), value = TRUE))
  known <- known[paste0("val_", known) %in% names(metrics)]
  if (length(known) == 0) {
    refuse("history", paste("of a fit() with validation data and",
                            "callback_swap_averages(weights_too = TRUE)"),
           "one without metrics of the weights.", call)
  }
  if (is.null(metric)) metric <- known
  if (!is.character(metric) || is.object(metric) || length(metric) == 0) {
    refuse("metric", "a character vector of metrics", describe(metric), call)
  }
  for (name in metric) known_metric(name, known, call)
  epochs <- max(lengths(metrics))
  rows <- lapply(unique(metric), function(name) {
    values <- list(weights = as.numeric(unlist(metrics[[paste0("val_weights_", name)]])),
                   averages = as.numeric(unlist(metrics[[paste0("val_", name)]])))
    n <- length(values$weights)
    # With `validation_freq` an epoch has values only now and then.
    data.frame(epoch = rep(seq_len(n) * (epochs %/% n), 2), metric = name,
               of = factor(rep(names(values), each = n), names(values)), value = unlist(values))
  })
  data <- do.call(rbind, rows)
  rownames(data) <- NULL
  draw_averaging(data)
}

known_metric <- function(metric, known, call = rlang::caller_env()) {
  if (!is_name(metric) || !metric %in% known) {
    known <- toString(vapply(known, describe_string, ""))
    refuse("metric", paste("among", known), describe(metric), call)
  }
  metric
}

history_metrics <- function(history, call) {
  if (!missing(history) && inherits(history, "keras_training_history")) return(history$metrics)
  if (!missing(history) && is_live_python(history) && "History" %in% class_name(python_classes(history))) {
    return(history$history)
  }
  refuse("history", "a training history, as fit() returns it", describe(history), call)
}

draw_averaging <- function(data) {
  title <- "Validation with the weights and with the averages"
  if (uses_ggplot2()) {
    .data <- rlang::.data
    print(
      ggplot2::ggplot(data, ggplot2::aes(.data$epoch, .data$value, color = .data$of)) +
        ggplot2::geom_line() +
        ggplot2::geom_point(size = 1) +
        ggplot2::facet_wrap(ggplot2::vars(.data$metric), scales = "free_y") +
        ggplot2::scale_color_manual(values = colors, name = NULL) +
        ggplot2::labs(title = title, x = "epoch", y = NULL) +
        ggplot2::theme_minimal()
    )
  } else {
    metrics <- unique(data$metric)
    before <- graphics::par(mfrow = c(1, length(metrics)))
    on.exit(graphics::par(before))
    for (metric in metrics) {
      rows <- data[data$metric == metric, ]
      graphics::plot(rows$epoch, rows$value, type = "n", bty = "l", las = 1, xlab = "epoch",
                     ylab = metric, main = if (length(metrics) == 1) title else metric)
      for (of in levels(rows$of)) {
        line <- rows[rows$of == of, ]
        graphics::lines(line$epoch, line$value, type = "o", pch = 19, cex = 0.7, col = colors[[of]])
      }
      graphics::legend("topright", levels(rows$of), col = colors[levels(rows$of)], lwd = 1,
                       pch = 19, bty = "n")
    }
  }
  invisible(data)
}

#' Draw the loss over the plane through three weight vectors
#'
#' Evaluates a model on a grid of the plane through three of its weight vectors and draws the loss
#' there, as in figure 1 of the paper on SWA: where training went, where it ended, and
#' where the average lies.
#'
#' The first axis points from the first vector to the second, the second axis is at a right angle to
#' it, towards the third; both are in units of distance between weights. Use it to see whether an
#' average lies in a wider, flatter region than the weights that it is of. It costs `size^2`
#' evaluations of the model, so a few thousand examples will do. Distances tell something
#' only between weights of one training; of trainings from different starts expect a ridge.
#'
#' The model has its own weights back at the end, bit for bit, also when it was interrupted.
#'
#' # With keras3 and keras
#' ```r
#' start <- get_weights(model)
#' model |> fit(x, y, epochs = 20)
#' sgd <- get_weights(model)
#' assign_average_vars(model)
#' plane <- plot_loss_plane(model, list(start = start, SGD = sgd, SWA = get_weights(model)),
#'                          x_test, y_test)
#' plot(plane, metric = "accuracy")
#' ```
#'
#' @param model A compiled Keras model.
#' @param weights A list of three weight vectors, each a list of arrays as `get_weights(model)` of
#'   the R packages keras3 and keras (in Python `model$get_weights()`) returns it. Names
#'   label the points in the picture.
#' @param x,y Data to evaluate with, as for the `evaluate()` of the model: arrays, lists of arrays,
#'   or as `x` a data set that holds both. For `plot()`, `x` is a result of `plot_loss_plane()`.
#' @param size Number of grid points along each axis: a whole number, 2 or more. `21`, the default,
#'   are 441 evaluations.
#' @param margin Width of the margin around the three points, as a part of the width or height that
#'   they take, whichever is larger: a number, 0 or more.
#' @param metric Name of the metric to draw: a string, `"loss"` by default.
#' @param batch_size Number of examples in a batch: a whole number, 1 or more.
#' @param recalibrate `TRUE` or `FALSE`, the default: whether batch-norm statistics are recomputed
#'   from `x` at every grid point, as [update_batch_norm()] does, which takes about twice the time.
#'   Without it they stay those of the model, which belong to one point only: give `TRUE` for
#'   models with batch normalization.
#' @param verbose `TRUE`, the default, or `FALSE`: whether a progress bar is shown, where R is used
#'   interactively.
#' @param ... Not used.
#' @returns A data frame of class `kerasoptimizers_loss_plane`, invisibly, with a row for each grid
#'   point: its coordinates `first` and `second`, and a column for `loss` and each of the model's
#'   other metrics. The coordinates of the three vectors are in its attribute `points`.
#'   `plot()` draws it again.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' It is an error, before anything is computed, if an argument is not as described, if the
#' weight vectors do not have the shapes of the model's weights, or if they lie on one line. Where
#' the loss is not finite, the picture has a gap.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 1. The plane is that of
#'   Garipov et al. (2018), *Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs*,
#'   <https://arxiv.org/abs/1802.10026>.
#' @family what is going on
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", start_averaging = 5, average_period = 1), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 1L, verbose = 0L)
#' start <- model$get_weights()
#' model$fit(x, y, epochs = 5L, verbose = 0L)
#' sgd <- model$get_weights()
#' assign_average_vars(model)
#' swa <- model$get_weights()
#' plane <- plot_loss_plane(model, list(start = start, SGD = sgd, SWA = swa), x, y, size = 5)
#' head(plane)
plot_loss_plane <- function(model, weights, x, y = NULL, size = 21, margin = 0.2,
                            metric = "loss", batch_size = 256, recalibrate = FALSE,
                            verbose = TRUE) {
  if (missing(model) || !is_model(model)) {
    refuse("model", "a compiled Keras model", describe(model), rlang::current_env())
  }
  if (!is_vector_list(weights)) {
    refuse("weights", "a list of three lists of arrays", describe(weights), rlang::current_env())
  }
  x <- examples(x, again = TRUE)
  if (!is.null(y)) y <- examples(y, again = TRUE)
  size <- whole(size, 2)
  margin <- not_negative(margin)
  metric <- string(metric)
  batch_size <- whole(batch_size, 1)
  recalibrate <- flag(recalibrate)
  verbose <- flag(verbose)
  new_plane <- import_ours("kerasoptimizers.loss_plane")$LossPlane
  plane <- call_python(new_plane(model, unname(weights)))
  points <- data.frame(
    name = if (is.null(names(weights))) paste("weights", 1:3) else names(weights),
    first = plane$points[, 1], second = plane$points[, 2]
  )
  # The same on all sides: three points that are nearly on a line would else make a thin strip.
  margin <- margin * max(diff(range(points$first)), diff(range(points$second)))
  grid <- expand.grid(first = grid_line(points$first, size, margin),
                      second = grid_line(points$second, size, margin))
  evaluate <- evaluator(model, x, y, batch_size, metric, recalibrate)
  values <- over_plane(plane, grid, evaluate, verbose)
  result <- structure(cbind(grid, values), points = points,
                      class = c("kerasoptimizers_loss_plane", "data.frame"))
  plot(result, metric = metric)
}

is_vector_list <- function(x) {
  !missing(x) && is.list(x) && !is.object(x) && length(x) == 3 &&
    all(vapply(x, function(v) is.list(v) && all(vapply(v, is_array, NA)), NA))
}

grid_line <- function(at, size, margin) {
  seq(min(at) - margin, max(at) + margin, length.out = size)
}

# A function that gives the model's metrics, named, with the weights it has at the time.
evaluator <- function(model, x, y, batch_size, metric, recalibrate,
                      call = rlang::caller_env()) {
  # Converted once, not at every grid point; a data set has batches of its own.
  inputs <- reticulate::r_to_py(x)
  given <- list(inputs, y = if (!is.null(y)) reticulate::r_to_py(y), verbose = 0L,
                return_dict = TRUE, batch_size = if (!is_python(x)) batch_size)
  given <- given[!vapply(given, is.null, NA)]
  function() {
    if (recalibrate) update_batch_norm(model, inputs, batch_size = batch_size, verbose = 0)
    values <- unlist(call_python(do.call(model$evaluate, given), call))
    known_metric(metric, names(values), call)
    values
  }
}

over_plane <- function(plane, grid, evaluate, verbose) {
  on.exit(plane$`__exit__`())
  plane$`__enter__`()
  if (verbose) cli::cli_progress_bar("Loss over the plane", total = nrow(grid))
  values <- vector("list", nrow(grid))
  for (i in seq_len(nrow(grid))) {
    plane$place(grid$first[[i]], grid$second[[i]])
    values[[i]] <- evaluate()
    if (verbose) cli::cli_progress_update()
  }
  as.data.frame(do.call(rbind, values))
}

#' @rdname plot_loss_plane
#' @export
plot.kerasoptimizers_loss_plane <- function(x, metric = "loss", ...) {
  metrics <- setdiff(names(x), c("first", "second"))
  metric <- known_metric(metric, metrics)
  points <- attr(x, "points")
  values <- x[[metric]]
  values[!is.finite(values)] <- NA
  # Deciles: a loss that grows steeply around the points would else fill all levels but one.
  breaks <- unique(stats::quantile(values, 0:12 / 12, na.rm = TRUE, names = FALSE))
  if (anyNA(breaks)) breaks <- 0 # nothing to draw but the points
  if (length(breaks) < 2) breaks <- breaks[[1]] + c(-1, 1) * max(abs(breaks[[1]]), 1) * 1e-6
  title <- paste("The plane through three weight vectors:", metric)
  if (uses_ggplot2()) draw_plane_ggplot2(x, values, points, breaks, title, metric)
  else draw_plane_base(x, values, points, breaks, title)
  invisible(x)
}

draw_plane_ggplot2 <- function(x, values, points, breaks, title, metric) {
  .data <- rlang::.data
  shown <- data.frame(first = x$first, second = x$second)
  shown$level <- cut(values, breaks, include.lowest = TRUE, dig.lab = 3)
  print(
    ggplot2::ggplot(shown, ggplot2::aes(.data$first, .data$second)) +
      ggplot2::geom_raster(ggplot2::aes(fill = .data$level)) +
      ggplot2::geom_point(data = points, size = 2) +
      ggplot2::geom_text(ggplot2::aes(label = .data$name), data = points, vjust = -0.8) +
      ggplot2::scale_fill_manual(values = plane_colors(nlevels(shown$level)), name = metric,
                                 drop = FALSE, na.value = "white",
                                 guide = ggplot2::guide_legend(reverse = TRUE)) +
      ggplot2::coord_fixed() +
      ggplot2::labs(title = title, x = "distance", y = "distance") +
      ggplot2::theme_minimal()
  )
}

draw_plane_base <- function(x, values, points, breaks, title) {
  first <- unique(x$first)
  second <- unique(x$second)
  heights <- matrix(values, nrow = length(first))
  graphics::image(first, second, heights, breaks = breaks, col = plane_colors(length(breaks) - 1),
                  asp = 1, las = 1, xlab = "distance", ylab = "distance", main = title)
  if (length(breaks) > 2) {
    graphics::contour(first, second, heights, levels = breaks, add = TRUE, col = "#00000060",
                      labels = format(breaks, digits = 3))
  }
  graphics::points(points$first, points$second, pch = 19)
  graphics::text(points$first, points$second, points$name, pos = 3)
}

plane_colors <- function(n) grDevices::hcl.colors(n, "viridis")

colors <- c(weights = "#2e6f95", averages = "#d1495b")

uses_ggplot2 <- function() {
  isTRUE(getOption("kerasoptimizers.ggplot2", TRUE)) && requireNamespace("ggplot2", quietly = TRUE)
}
