#' Plot the loss over the plane through three weight vectors
#'
#' Evaluates a model on a grid of points in the plane through three of its weight vectors, and plots the
#' loss there, as in figure 1 of the paper on SWA. The picture shows where a training went, where it ended
#' and where the average lies.
#'
#' The first axis points from the first vector to the second. The second axis is at a right angle to
#' it and points towards the third. Both measure the distance between weights. Use the picture to see
#' whether an average lies in a wider, flatter region than the weights that went into it.
#'
#' The function evaluates the model `size^2` times, so give it a few thousand examples, not all you
#' have. The three vectors should come from one training: between trainings
#' with different starts there is usually a ridge. In the end the model
#' has its own weights back, bit for bit, even if you interrupt the function.
#'
#' # With keras3 and keras
#' ```r
#' start <- get_weights(model)
#' model |> fit(x, y, epochs = 20)
#' sgd <- get_weights(model)
#' assign_average_vars(model)
#' picture <- plot_loss_plane(model, list(start = start, SGD = sgd, SWA = get_weights(model)),
#'                            x_test, y_test)
#' picture
#' plot(picture$data, metric = "accuracy")
#' ```
#'
#' @param model A compiled Keras model.
#' @param weights A list of three weight vectors. Each is a list of arrays, as `get_weights(model)` of
#'   the R packages keras3 and keras returns it (in Python `model$get_weights()`). Names
#'   label the points in the picture.
#' @param x,y Data for the `evaluate()` of the model: arrays, lists of arrays,
#'   or as `x` a data set that holds both. For `plot()`, `x` is the `$data` of such a picture.
#' @param size Number of grid points along each axis: a whole number, 2 or more. The default, `21`,
#'   takes 441 evaluations.
#' @param margin Width of the margin around the three points, as a fraction of the larger one of their
#'   width and height: a number, 0 or more.
#' @param metric Name of the metric to plot: a string, `"loss"` by default.
#' @param batch_size Number of examples in a batch: a whole number, 1 or more.
#' @param recalibrate `TRUE` or `FALSE`, the default: whether to recompute the batch-norm statistics
#'   from `x` at every grid point, as [update_batch_norm()] does. It takes about twice the time. Use it
#'   for models with batch normalization: without it all points share the statistics that the
#'   model has now.
#' @param verbose `TRUE`, the default, or `FALSE`: whether to show a progress bar.
#' @param object The `$data` of such a picture.
#' @param ... Must be empty, as in [`plot()`][plot.kerasoptimizers] of an optimizer.
#' @returns A ggplot. Its `$data` is a data frame of class `kerasoptimizers_loss_plane` with a row for each
#'   grid point: its coordinates `first` and `second`, and columns with the `loss` and the model's
#'   other metrics there. The attribute `points` has the names and coordinates of the three vectors.
#'
#'   Keep the picture, or its data: computing them takes time. `plot()` of the data returns a picture of any of
#'   its metrics at once.
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' The function stops before it computes anything if an argument is not as described, if the
#' weight vectors do not have the shapes of the model's weights, or if the three lie on one line. Points
#' whose loss is not finite are left white.
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
#' weights <- list(start = start, SGD = sgd, SWA = model$get_weights())
#' if (requireNamespace("ggplot2", quietly = TRUE)) {
#'   plot_loss_plane(model, weights, x, y, size = 5)
#' }
plot_loss_plane <- function(model, weights, x, y = NULL, size = 21, margin = 0.2,
                            metric = "loss", batch_size = 256, recalibrate = FALSE,
                            verbose = TRUE) {
  call <- rlang::current_env()
  require_ggplot2(call)
  if (missing(model) || !is_model(model)) refuse("model", "a compiled Keras model", model, call)
  if (missing(weights) || !is_plain_list(weights) || length(weights) != 3 ||
      !all(vapply(weights, is_array_list, NA))) {
    refuse("weights", "a list of three lists of arrays", weights, call, is_array_list)
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
  # The same on all sides: otherwise three points that are nearly on a line make a thin strip.
  margin <- margin * max(diff(range(points$first)), diff(range(points$second)))
  grid <- expand.grid(first = grid_line(points$first, size, margin),
                      second = grid_line(points$second, size, margin))
  evaluate <- evaluator(model, x, y, batch_size, metric, recalibrate)
  values <- over_plane(plane, grid, evaluate, verbose)
  result <- structure(cbind(grid, values), points = points,
                      class = c("kerasoptimizers_loss_plane", "data.frame"))
  plot(result, metric = metric)
}

is_array_list <- function(x) is_plain_list(x) && all(vapply(x, is_array, NA))

grid_line <- function(at, size, margin) {
  seq(min(at) - margin, max(at) + margin, length.out = size)
}

# A function that returns the model's metrics, named, with the weights that the model has then.
evaluator <- function(model, x, y, batch_size, metric, recalibrate,
                      call = rlang::caller_env()) {
  # Converted once, not at every grid point. A data set has its own batches.
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
  no_more_arguments(...)
  require_ggplot2()
  metric <- known_metric(metric, setdiff(names(x), c("first", "second")))
  .data <- rlang::.data
  points <- attr(x, "points")
  ggplot2::ggplot(x, ggplot2::aes(.data$first, .data$second)) +
    plane_contours(x[[metric]], metric) +
    ggplot2::geom_point(data = points, shape = 21, fill = "white", size = 2.5) +
    ggplot2::geom_label(ggplot2::aes(label = .data$name), data = points, vjust = -0.45, size = 3.4,
                        fill = "white", alpha = 0.85) +
    ggplot2::coord_fixed(expand = FALSE, clip = "off") +
    ggplot2::labs(title = paste("The plane through three weight vectors:", metric), x = "distance",
                  y = "distance") +
    picture_theme()
}

#' @rdname plot_loss_plane
#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers_loss_plane <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

# Filled contours of a metric, with a level for each twelfth of the values: equal steps would give almost
# all levels to a loss that grows steeply around the points.
plane_contours <- function(values, metric) {
  .data <- rlang::.data
  values <- values[is.finite(values)]
  if (length(values) == 0) return(list()) # nothing to show but the points
  breaks <- unique(stats::quantile(values, 0:12 / 12, names = FALSE))
  # A level does not hold its upper limit, so the highest must be above all values.
  slack <- 1e-6 * max(abs(breaks), 1e-6)
  last <- length(breaks)
  breaks <- if (last == 1) breaks + c(-slack, slack) else c(breaks[-last], breaks[[last]] + slack)
  heights <- ggplot2::aes(z = finite(.data[[metric]]))
  list(
    ggplot2::geom_contour_filled(heights, breaks = breaks, na.rm = TRUE),
    if (last > 2) {
      ggplot2::geom_contour(heights, breaks = breaks[-c(1, last)], color = "white", alpha = 0.3,
                            linewidth = 0.2, na.rm = TRUE)
    },
    ggplot2::scale_fill_viridis_d(name = metric, labels = level_labels(breaks), drop = FALSE,
                                  guide = ggplot2::guide_legend(reverse = TRUE))
  )
}

finite <- function(x) ifelse(is.finite(x), x, NA)

level_labels <- function(breaks) {
  text <- vapply(signif(breaks, 3), format, "")
  if (anyDuplicated(text) > 0) text <- format(breaks, digits = 6, trim = TRUE)
  paste(text[-length(text)], "to", text[-1])
}
