#' Plot the loss over the plane through three weight vectors
#'
#' Evaluates a model on a grid of points in the plane through three of its weight vectors, and plots the
#' loss there as filled contours, as in figure 1 of the paper on SWA. The picture shows where a training went, where it
#' ended and where the average lies.
#'
#' The first axis points from the first vector to the second. The second axis is at a right angle to
#' it and points towards the third. Both measure the distance between weights. Use the picture to see
#' whether an average lies in a wider, flatter region than the weights that went into it. Between grid points
#' the picture interpolates smoothly, and never beyond the values around a point. Each color
#' covers about a tenth of the grid.
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
#' @param verbose `TRUE`, the default, or `FALSE`: whether to show a progress bar. A document that is being
#'   knitted shows none.
#' @param ... Labels and limits, as in [`plot()`][plot.kerasoptimizers] of an optimizer.
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
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
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
  verbose <- show_progress(verbose)
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
  require_ggplot2()
  # Both axes are distances. As the default of the picture it can be replaced without a message.
  plane <- function(...) {
    # A name may stand out over the border, but nothing that limits leave out.
    coord <- ggplot2::coord_fixed(expand = FALSE, clip = if (...length() == 0) "off" else "on", ...)
    coord$default <- TRUE
    coord
  }
  settings <- base_settings(..., coord = plane)
  metric <- known_metric(metric, setdiff(names(x), c("first", "second")))
  .data <- rlang::.data
  points <- attr(x, "points")
  ggplot2::ggplot(x, ggplot2::aes(.data$first, .data$second)) +
    plane_contours(x, metric, points) +
    ggplot2::geom_point(data = points, shape = 21, fill = "white", size = 3) +
    ggplot2::geom_label(ggplot2::aes(label = .data$name), data = points, vjust = -0.45, size = 4,
                        fill = "white", alpha = 0.9) +
    plane() +
    ggplot2::labs(title = paste("The plane through three weight vectors:", metric), x = "distance",
                  y = "distance") +
    picture_theme() +
    ggplot2::theme(legend.position = "right", legend.key.width = ggplot2::unit(1.2, "lines"),
                   legend.key.height = ggplot2::unit(1.2, "lines"), panel.grid = ggplot2::element_blank()) +
    settings
}

#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers_loss_plane <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

# Filled contours of a metric, with a level for each tenth of the values: equal steps would give almost
# all levels to a loss that grows steeply around the points. Lines between them carry their values.
plane_contours <- function(plane, metric, points) {
  .data <- rlang::.data
  values <- plane[[metric]][is.finite(plane[[metric]])]
  if (length(values) == 0) return(list()) # nothing to show but the points
  breaks <- level_breaks(values)
  # A level does not hold its upper limit, so the highest must be above all values.
  slack <- 1e-6 * max(abs(breaks), 1e-6)
  last <- length(breaks)
  inner <- breaks[-c(1, last)]
  breaks <- if (last == 1) breaks + c(-slack, slack) else c(breaks[-last], breaks[[last]] + slack)
  fine <- fine_plane(plane, metric)
  fills <- grDevices::hcl.colors(length(breaks) - 1, "viridis")
  lines <- contour_lines(fine, inner, points)
  ground <- contour_grounds(fills)[match(lines$labels$level, inner)]
  list(
    ggplot2::geom_contour_filled(ggplot2::aes(z = .data$value), data = fine, breaks = breaks, na.rm = TRUE),
    if (nrow(lines$paths) > 0) {
      ggplot2::geom_path(ggplot2::aes(group = .data$piece), data = lines$paths, color = "white", alpha = 0.6,
                         linewidth = 0.4)
    },
    if (nrow(lines$labels) > 0) {
      ggplot2::geom_text(ggplot2::aes(label = .data$label, angle = .data$angle), data = lines$labels,
                         color = ground, size = 3.6)
    },
    ggplot2::scale_fill_manual(name = metric, values = fills, labels = level_labels(breaks, inner), drop = FALSE,
                               guide = ggplot2::guide_legend(reverse = TRUE))
  )
}

# Limits of levels with about a tenth of the values each, in few digits. None is one of the values: an accuracy is the
# same at many points, and a line along its plateau would be noise.
level_breaks <- function(values, levels = 10) {
  known <- sort(unique(values))
  last <- length(known)
  below <- unique(findInterval(stats::quantile(values, seq_len(levels - 1) / levels, names = FALSE), known))
  below <- below[below < last]
  if (length(below) == 0) return(unique(range(known)))
  inner <- (known[below] + known[below + 1]) / 2
  gaps <- known[below + 1] - known[below]
  room <- diff(c(known[[1]], inner, known[[last]]))
  room <- pmin(room[-1], room[-length(room)])
  for (i in seq_along(inner)) {
    short <- signif(inner[[i]], 2:8)
    fits <- abs(short - inner[[i]]) <= room[[i]] / 4 &
      vapply(short, function(limit) min(abs(known - limit)) >= gaps[[i]] / 8, NA)
    if (any(fits)) inner[[i]] <- short[fits][[1]]
  }
  c(known[[1]], inner, known[[last]])
}

level_labels <- function(breaks, inner) {
  if (length(inner) == 0) return(paste(unique(vapply(signif(breaks, 3), format, "")), collapse = " to "))
  text <- vapply(inner, format, "", digits = 8)
  c(paste("below", text[[1]]),
    if (length(text) > 1) paste(text[-length(text)], "to", text[-1]),
    paste(text[[length(text)]], "or more"))
}

# The plane on a grid of some 200 x 200 points. One that lacks grid points stays as it is.
fine_plane <- function(plane, metric) {
  plane <- as.data.frame(plane)
  plane <- plane[order(plane$second, plane$first), ]
  first <- unique(plane$first)
  second <- sort(unique(plane$second))
  value <- ifelse(is.finite(plane[[metric]]), plane[[metric]], NA)
  whole <- length(value) == length(first) * length(second) && length(first) > 1 && length(second) > 1
  if (!whole) return(data.frame(plane[c("first", "second")], value = value))
  value <- t(between_rows(t(between_rows(matrix(value, length(first)), 200)), 200))
  cbind(expand.grid(first = seq(min(first), max(first), length.out = nrow(value)),
                    second = seq(min(second), max(second), length.out = ncol(value))),
        value = as.vector(value))
}

# Rows between those of a matrix, some `size` in all: cubic pieces that go no higher and no lower than the two rows that
# they join (Fritsch and Carlson), so that no hill or valley appears that was not measured.
between_rows <- function(values, size) {
  n <- nrow(values)
  steps <- values[-1, , drop = FALSE] - values[-n, , drop = FALSE]
  before <- steps[c(1, seq_len(n - 1)), , drop = FALSE]
  after <- steps[c(seq_len(n - 1), n - 1), , drop = FALSE]
  slopes <- ifelse(before * after > 0, 2 * before * after / (before + after), 0)
  slopes[is.na(slopes)] <- 0
  at <- seq(1, n, length.out = ceiling(size / (n - 1)) * (n - 1) + 1)
  low <- pmin(floor(at), n - 1)
  t <- at - low
  high <- low + 1
  found <- (1 + 2 * t) * (1 - t)^2 * values[low, , drop = FALSE] +
    t * (1 - t)^2 * slopes[low, , drop = FALSE] +
    t^2 * (3 - 2 * t) * values[high, , drop = FALSE] +
    t^2 * (t - 1) * slopes[high, , drop = FALSE]
  # On a row of the grid its neighbor, which may be missing, has no say.
  on <- abs(at - round(at)) < 1e-8
  found[on, ] <- values[round(at[on]), ]
  found
}

# Lines at these levels with gaps for their labels, and the labels: on the longest line of a level, away from the points
# and from each other.
contour_lines <- function(fine, levels, points) {
  first <- sort(unique(fine$first))
  second <- sort(unique(fine$second))
  none <- list(paths = data.frame(), labels = data.frame())
  if (length(levels) == 0 || nrow(fine) != length(first) * length(second)) return(none)
  extent <- max(diff(range(first)), diff(range(second)))
  lines <- grDevices::contourLines(first, second, matrix(fine$value, length(first)), levels = levels)
  lengths <- vapply(lines, function(line) sum(sqrt(diff(line$x)^2 + diff(line$y)^2)), 0)
  taken <- points[c("first", "second")]
  # Names stand above the points.
  taken <- rbind(taken, data.frame(first = taken$first, second = taken$second + 0.06 * extent))
  labels <- NULL
  for (level in levels) {
    of_level <- which(vapply(lines, function(line) line$level == level, NA))
    if (length(of_level) == 0) next
    longest <- of_level[[which.max(lengths[of_level])]]
    label <- format(level, digits = 8)
    half <- (0.009 * nchar(label) + 0.008) * extent
    if (lengths[[longest]] < 6 * half) next
    line <- lines[[longest]]
    room <- vapply(seq_along(line$x), function(i) {
      edge <- c(line$x[[i]] - range(first), line$y[[i]] - range(second))
      min(sqrt((taken$first - line$x[[i]])^2 + (taken$second - line$y[[i]])^2), 2 * abs(edge))
    }, 0)
    best <- which.max(room)
    if (room[[best]] < half) next
    near <- sqrt((line$x - line$x[[best]])^2 + (line$y - line$y[[best]])^2) < half
    along <- range(which(near & abs(seq_along(near) - best) <= sum(near)))
    slope <- atan2(diff(line$y[along]), diff(line$x[along])) * 180 / pi
    labels <- rbind(labels, data.frame(
      first = line$x[[best]], second = line$y[[best]], level = level, label = label,
      angle = (slope + 90) %% 180 - 90
    ))
    taken <- rbind(taken, data.frame(first = line$x[[best]], second = line$y[[best]]))
    lines[[longest]]$x[near] <- NA
  }
  paths <- lapply(seq_along(lines), function(i) {
    line <- lines[[i]]
    piece <- cumsum(is.na(line$x))
    data.frame(first = line$x, second = line$y, piece = paste(i, piece))[!is.na(line$x), ]
  })
  list(paths = do.call(rbind, paths), labels = if (is.null(labels)) data.frame() else labels)
}

# Black or white, whichever can be read between each two of these colors.
contour_grounds <- function(fills) {
  light <- colSums(grDevices::col2rgb(fills) * c(0.299, 0.587, 0.114)) / 255
  between <- (light[-1] + light[-length(light)]) / 2
  ifelse(between > 0.55, "black", "white")
}
