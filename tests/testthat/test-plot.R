# Pictures are looked at through ggplot2: their data, and what their layers draw.

skip_without_ggplot2 <- function() {
  if (!requireNamespace("ggplot2", quietly = TRUE)) {
    skip("R package ggplot2 not installed: no picture was tested")
  }
}

layer <- function(picture, i) ggplot2::layer_data(picture, i)

# The values of `x` at the points or ticks.
marks <- function(picture) layer(picture, 2)$x

for (module in c("keras", "tf_keras")) {
  test_that(paste("a schedule is shown with its moments:", module), {
    skip_without_ggplot2()
    local_keras(module)
    rate <- learning_rate_schedule_swa(0.5, 0.25, 40, cycle_updates = 5)
    shown <- withVisible(plot(rate, updates = 60))
    expect_true(shown$visible)
    expect_s3_class(shown$value, "ggplot")
    data <- shown$value$data
    expect_identical(names(data), c("update", "learning_rate", "due"))
    expect_identical(data$update, 0:59)
    expect_equal(data$learning_rate, as.vector(rate(0:59)$numpy()))
    expect_identical(data$update[data$due], c(40L, 45L, 50L, 55L))
    # The end of a cycle.
    expect_equal(data$learning_rate[data$due], rep(0.25, 4))
    expect_equal(marks(shown$value), c(40, 45, 50, 55))
    expect_equal(layer(shown$value, 1)$y, data$learning_rate)
    expect_identical(nrow(plot(rate)$data), 91L)
    every <- plot(rate, 60, average_period = 20)$data
    expect_identical(every$update[every$due], 40L)
    constant <- plot(learning_rate_schedule_swa(0.5, 0.25, 40))$data
    expect_identical(constant$update[constant$due], seq(40L, 140L, 10L))
  })

  test_that(paste("an optimizer is shown with its rates and moments:", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    rate <- learning_rate_schedule_swa(0.5, 0.25, 20, cycle_updates = 5)
    data <- plot(optimizer_swa(keras$optimizers$SGD(rate), 20, 5), updates = 41)$data
    expect_equal(data$learning_rate, as.vector(rate(0:40)$numpy()))
    expect_identical(data$update[data$due], seq(20L, 40L, 5L))
    constant <- plot(optimizer_lookahead(keras$optimizers$SGD(0.5), 4))
    expect_equal(unique(constant$data$learning_rate), 0.5)
    expect_identical(constant$data$update[constant$data$due], seq(3L, 40L, 4L))
    expect_equal(marks(constant), seq(3, 40, 4))
    decayed <- suppressMessages(optimizer_ema(keras$optimizers$SGD(0.5), decay = 1))
    expect_equal(plot(decayed, 3)$data$learning_rate, 0.5 / 1:3, tolerance = 1e-6)
  })

  test_that(paste("callback_swa() is shown after fit():", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    callback <- callback_swa(2, "cyclic", 0.05, 0.25, swa_freq = 2)
    expect_error(plot(callback), "`x` must be a callback after fit(), not before", fixed = TRUE)
    fit(iris_model(keras$optimizers$SGD(0.5), keras), 4, list(callback))
    picture <- plot(callback)
    rows <- as.data.frame(callback)
    expect_identical(picture$data[names(rows)], rows)
    expect_equal(picture$data$time, 1:40 / 10)
    expect_equal(layer(picture, 1)$y, rows$learning_rate)
    expect_equal(marks(picture), c(2, 4))

    callback <- callback_swa(3, "constant", swa_lr = 0.1)
    fit(iris_model(keras$optimizers$SGD(0.5), keras), 4, list(callback))
    expect_equal(plot(callback)$data$time, 1:4)
    expect_equal(marks(plot(callback)), c(3, 4))

    # No rates are known: the number of snapshots.
    callback <- callback_swa(3)
    fit(iris_model("sgd", keras), 4, list(callback))
    expect_equal(layer(plot(callback), 2)$y, c(1, 2))
  })

  test_that(paste("metrics of weights and averages are shown from one training:", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    fit_with <- function(...) {
      model <- iris_model(optimizer_swa(keras$optimizers$SGD(0.05), 12, 2), keras)
      fit(model, 3, list(...), validation_data = list(iris_x, iris_y))
    }
    history <- fit_with(callback_swap_averages(weights_too = TRUE))
    weights <- fit_with()
    averages <- fit_with(callback_swap_averages())
    picture <- plot_averaging(history)
    expect_s3_class(picture, "ggplot")
    data <- picture$data
    expect_identical(names(data), c("epoch", "metric", "of", "value"))
    expect_setequal(data$metric, c("loss", "accuracy"))
    loss <- data[data$metric == "loss", ]
    expect_identical(loss$epoch, rep(1:3, 2))
    expect_equal(loss$value[loss$of == "weights"], as.numeric(weights$history$val_loss),
                 tolerance = 1e-6)
    expect_equal(loss$value[loss$of == "averages"], as.numeric(averages$history$val_loss),
                 tolerance = 1e-6)
    expect_identical(nrow(layer(picture, 1)), 12L)
    expect_identical(unique(plot_averaging(history, "accuracy")$data$metric), "accuracy")
    expect_error(plot_averaging(averages), "`history` must come from a fit() with validation data and",
                 fixed = TRUE)
    expect_error(plot_averaging(history, "mae"),
                 '`metric` must be one of "(loss|accuracy)", "(loss|accuracy)", not "mae".')
  })

  test_that(paste("the loss is shown over the plane through three weight vectors:", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    model <- iris_model(keras$optimizers$SGD(0.05), keras)
    vectors <- list(start = model$get_weights(), middle = train(model, 1)$get_weights(),
                    end = train(model, 2)$get_weights())
    before <- weights_of(model)
    loss_with <- function(weights) {
      twin <- iris_model("sgd", keras)
      twin$set_weights(weights)
      twin$evaluate(iris_x, iris_y, verbose = 0L)[[1]]
    }
    picture <- plot_loss_plane(model, vectors, iris_x, iris_y, size = 3, margin = 0, verbose = FALSE)
    expect_identical(weights_of(model), before)
    expect_s3_class(picture, "ggplot")
    plane <- picture$data
    expect_s3_class(plane, "kerasoptimizers_loss_plane")
    expect_identical(names(plane)[1:2], c("first", "second"))
    expect_setequal(names(plane)[3:4], c("loss", "accuracy"))
    expect_identical(nrow(plane), 9L)
    points <- attr(plane, "points")
    expect_identical(points$name, c("start", "middle", "end"))
    # The first vector is a corner of a grid without margin.
    corner <- plane$first == points$first[[1]] & plane$second == points$second[[1]]
    expect_equal(plane$loss[corner], loss_with(vectors$start), tolerance = 1e-4)
    accuracy <- plot(plane, "accuracy")
    expect_match(accuracy$labels$title, "accuracy")
    expect_identical(accuracy$data, plane)
    expect_error(plot(plane, "mae"), "`metric` must be one of", fixed = TRUE)
  })

  test_that(paste("batch norm is recalibrated at each point on request:", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    model <- iris_norm_model(keras$optimizers$SGD(0.05), keras)
    vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 2)$get_weights())
    before <- weights_of(model)
    loss_of <- function(recalibrate) {
      plane <- plot_loss_plane(model, vectors, iris_x, iris_y, size = 2, margin = 0,
                               recalibrate = recalibrate, verbose = FALSE)$data
      expect_identical(weights_of(model), before)
      expect_identical(attr(plane, "points")$name, paste("weights", 1:3))
      plane$loss[[which(plane$first == 0 & plane$second == 0)]]
    }
    twin <- iris_norm_model("sgd", keras)
    twin$set_weights(vectors[[1]])
    update_batch_norm(twin, iris_x, verbose = 0)
    own <- twin$evaluate(iris_x, iris_y, verbose = 0L)[[1]]
    expect_equal(loss_of(TRUE), own, tolerance = 1e-4)
    expect_gt(abs(loss_of(FALSE) - own), 1e-3)
  })
}

test_that("the model has its weights back after an error and an interrupt on the plane", {
  keras <- python_keras()
  model <- iris_model("sgd")
  vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 1)$get_weights())
  before <- weights_of(model)
  plane <- import_ours("kerasoptimizers.loss_plane")$LossPlane
  grid <- data.frame(first = c(0, 0), second = c(0, 0))
  changed <- NULL
  stop_it <- function(condition) {
    calls <- 0
    function() {
      calls <<- calls + 1
      changed <<- !identical(weights_of(model), before)
      if (calls == 2) stop(condition)
      c(loss = 1)
    }
  }
  interrupt <- structure(class = c("interrupt", "condition"), list())
  for (condition in list(simpleError("enough"), interrupt)) {
    stopped <- tryCatch(over_plane(plane(model, vectors), grid, stop_it(condition), FALSE),
                        condition = identity)
    expect_identical(class(stopped), class(condition))
    expect_true(changed)
    expect_identical(weights_of(model), before)
  }
})

# A plane of which the values are known.
known_plane <- function(...) {
  structure(
    cbind(expand.grid(first = 1:3, second = 1:3), ...),
    points = data.frame(name = letters[1:3], first = 1:3, second = c(1, 3, 2)),
    class = c("kerasoptimizers_loss_plane", "data.frame")
  )
}

# The places, of 40 x 40 in the grid, that are in one of the filled polygons.
filled <- function(picture) {
  polygons <- layer(picture, 1)
  edges <- do.call(rbind, lapply(split(polygons, list(polygons$group, polygons$subgroup), drop = TRUE), function(p) {
    next_one <- c(2:nrow(p), 1)
    cbind(x = p$x, y = p$y, next_x = p$x[next_one], next_y = p$y[next_one])
  }))
  edges <- as.list(as.data.frame(edges))
  inside <- function(x, y) {
    crosses <- (edges$y > y) != (edges$next_y > y)
    at <- (edges$next_x - edges$x) * (y - edges$y) / (edges$next_y - edges$y) + edges$x
    sum(crosses & x < at) %% 2 == 1
  }
  at <- seq(1.013, 2.987, length.out = 40)
  outer(at, at, Vectorize(inside))
}

test_that("the plane is filled smoothly, up to its highest level", {
  skip_without_ggplot2()
  picture <- plot(known_plane(loss = c(1, 2, 3, 2, 4, 9, 9, 9, 9)))
  expect_s3_class(picture$layers[[1]]$stat, "StatContourFilled")
  expect_true(all(filled(picture)))
  # Labels have their own background, so that they can be read on dark colors.
  labels <- picture$layers[[length(picture$layers)]]
  expect_s3_class(labels$geom, "GeomLabel")
  expect_identical(labels$aes_params$fill, "white")
})

test_that("between grid points the plane is smooth, and no hill or valley appears that is not in the data", {
  set.seed(1)
  steep <- matrix(exp(rnorm(30, sd = 3)), 6)
  fine <- between_rows(steep, 200)
  at <- seq(1, 6, length.out = nrow(fine))
  expect_equal(fine[at == round(at), ], steep)
  low <- pmin(floor(at), 5)
  expect_true(all(fine >= pmin(steep[low, ], steep[low + 1, ]) - 1e-9))
  expect_true(all(fine <= pmax(steep[low, ], steep[low + 1, ]) + 1e-9))
  # A line stays one, and nothing bends by a corner.
  expect_equal(between_rows(cbind(1:4), 9), cbind(seq(1, 4, length.out = 10)))
  bends <- abs(diff(between_rows(cbind((-3:3)^2), 600), differences = 2))
  expect_lt(max(bends), 1e-3)
})

# Like losses around a valley.
valley <- function(size = 17) {
  grid <- expand.grid(first = seq(-2, 8, length.out = size), second = seq(-2, 5, length.out = size))
  points <- data.frame(name = letters[1:3], first = c(0, 6, 3), second = c(0, 0, 2))
  structure(cbind(grid, loss = 1 - exp(-((grid$first - 3)^2 / 6 + (grid$second - 2)^2 / 3)), near = grid$first > 3),
            points = points, class = c("kerasoptimizers_loss_plane", "data.frame"))
}

test_that("contours carry their values, apart from each other and readable on their ground", {
  skip_without_ggplot2()
  picture <- plot(valley())
  expect_identical(length(unique(layer(picture, 1)$fill)), 10L)
  labels <- layer(picture, 3)
  expect_gt(nrow(labels), 4)
  # A label is the limit between two levels of the legend.
  legend <- ggplot2::ggplot_build(picture)$plot$scales$get_scales("fill")$get_labels()
  expect_true(all(vapply(labels$label, function(label) any(grepl(label, legend, fixed = TRUE)), NA)))
  expect_gt(min(stats::dist(labels[c("x", "y")])), 0.4)
  expect_true(all(abs(labels$angle) <= 90))
  # White where it is dark and black where it is light.
  levels <- as.numeric(labels$label)
  expect_identical(labels$colour[[which.min(levels)]], "white")
  expect_identical(labels$colour[[which.max(levels)]], "black")
  # The lines leave room for them.
  lines <- layer(picture, 2)
  near <- vapply(seq_len(nrow(labels)), function(i) {
    min(sqrt((lines$x - labels$x[[i]])^2 + (lines$y - labels$y[[i]])^2))
  }, 0)
  expect_gt(min(near), 0.1)
})

test_that("levels cut the values in about equal parts, between the values of a plateau", {
  set.seed(1)
  values <- rexp(1000)
  breaks <- level_breaks(values)
  expect_identical(range(breaks), range(values))
  expect_true(all(abs(table(cut(values, breaks)) - 100) < 40))
  expect_true(all(nchar(format(breaks[2:10])) <= 6))
  plateaus <- rep(c(0.8, 0.9, 0.95), c(10, 80, 10))
  expect_identical(level_breaks(plateaus), c(0.8, 0.85, 0.92, 0.95))
  # Two digits would be 0.9 or 0.91.
  expect_identical(level_breaks(rep(c(0.8, 0.9, 0.91, 0.99), each = 10)), c(0.8, 0.85, 0.905, 0.95, 0.99))
  expect_identical(level_breaks(rep(2, 5)), 2)
  expect_silent(ggplot2::ggplot_build(plot(valley(), "near")))
})

test_that("a loss that is not finite leaves a gap, and one that is the same everywhere is shown", {
  skip_without_ggplot2()
  plane <- known_plane(loss = c(Inf, NaN, 1:7), flat = 1, zero = 0, none = NaN)
  expect_silent(gap <- filled(plot(plane)))
  expect_false(any(gap[1:20, 1:20]))
  expect_true(all(gap[, 21:40]))
  for (metric in c("flat", "zero")) {
    expect_silent(full <- filled(plot(plane, metric)))
    expect_true(all(full))
  }
  # Nothing but the points.
  expect_silent(ggplot2::ggplot_build(plot(plane, "none")))
  expect_identical(nrow(layer(plot(plane, "none"), 1)), 3L)
})

test_that("a long series is thinned, and keeps its shape and its moments", {
  skip_without_ggplot2()
  python_keras()
  # Cycles that are shorter than the distance of thinned rows, and a moment at the end of each.
  rate <- learning_rate_schedule_swa(0.5, 0.25, 100000, cycle_updates = 50)
  picture <- plot(rate, updates = 200001)
  data <- picture$data
  expect_lt(nrow(data), 4500)
  expect_identical(range(data$update), c(0L, 200000L))
  late <- data$learning_rate[data$update > 100000]
  expect_equal(range(late), as.vector(rate(c(100050, 100001))$numpy()), tolerance = 1e-5)
  expect_equal(data$learning_rate, as.vector(rate(data$update)$numpy()), tolerance = 1e-6)
  moments <- data$update[data$due]
  expect_true(all((moments - 100000) %% 50 == 0))
  expect_identical(range(moments), c(100000L, 200000L))
  expect_gt(length(moments), 1900)
  expect_identical(marks(picture), as.numeric(moments))
  expect_match(picture$labels$subtitle, "Ticks at the bottom .* [(]some of 2,001[)]")
  # All of them, if there are fewer.
  data <- plot(rate, updates = 190001)$data
  expect_identical(data$update[data$due], seq(100000L, 190000L, 50L))
  every <- plot(optimizer_ema("sgd"), updates = 1e5)$data
  expect_lt(nrow(every), 5000)
  expect_identical(range(every$update[every$due]), c(0L, 99999L))
})

test_that("a thinned line keeps its corners, and is nowhere off by more than a picture shows", {
  update <- 0:200000
  cycle <- (update - 100001) %% 5000 + 1
  expect_shape <- function(y, corners, most = 2000) {
    rows <- line_rows(y)
    expect_lte(length(rows), most)
    expect_true(all(c(1, length(y), corners + 1) %in% rows))
    drawn <- approx(rows, y[rows], seq_along(y))$y
    expect_lt(max(abs(drawn - y)), 1e-3 * max(y))
  }
  # Rounded, as rates are that Keras computes.
  rounded <- function(y) signif(y, 7)
  falling <- 0.5 + pmin(pmax(update - 60000, 0), 40000) / 40000 * -0.25
  ends <- 100000 + 5000 * 0:20
  expect_shape(rounded(ifelse(update > 100000, 0.35 - 0.1 * cycle / 5000, falling)),
               c(60000, ends, ends[-21] + 1), 100)
  expect_shape(ifelse(update < 77777, 0.1, 0.01), c(77776, 77777), 4)
  expect_shape(rounded(1 + cos(pi * update / 200000)), NULL, 100)
  expect_identical(line_rows(rep(1, 5000)), c(1L, 5000L))
  expect_identical(line_rows(rep(NA_real_, 5000)), c(1L, 5000L))
  # Missing heights leave a gap that is as wide as it was.
  expect_true(all(c(2000, 2001, 3000, 3001) %in% line_rows(rep(c(1, NA, 1), c(2000, 1000, 2000)))))
})

test_that("groups differ in color, line and shape, and in one group nothing needs a legend", {
  skip_without_ggplot2()
  for (look in looks) expect_identical(anyDuplicated(look), 0L)
  expect_identical(unique(lengths(looks)), length(looks$color))
  data <- data.frame(level = rep(c(0.2, 0.8), 3), coverage = 0.5, method = factor(rep(letters[1:3], each = 2)))
  picture <- draw_coverage(data)
  lines <- unique(layer(picture, 2)[c("colour", "linetype")])
  points <- unique(layer(picture, 3)[c("colour", "shape")])
  expect_identical(c(nrow(lines), nrow(points)), c(3L, 3L))
  expect_identical(anyDuplicated(lines$linetype) + anyDuplicated(points$shape), 0L)
  guide <- function(picture) picture$scales$get_scales("linetype")$guide
  expect_false(identical(guide(picture), "none"))
  expect_identical(guide(draw_coverage(droplevels(data[1:2, ]))), "none")
  # More groups than looks.
  many <- data.frame(level = 1:9 / 10, coverage = 0.5, method = factor(1:9))
  expect_silent(ggplot2::ggplot_build(draw_coverage(many)))
  # The weights look the same in all pictures, and so do the averages.
  both <- data.frame(epoch = 1, metric = "loss", of = factor(c("weights", "averages"), c("weights", "averages")),
                     value = 1:2)
  expect_identical(layer(draw_averaging(both), 2)$colour, unname(colors[c("weights", "averages")]))
})

test_that("with several learning rates the moments are shown alone", {
  skip_without_ggplot2()
  data <- data.frame(update = 0:9, learning_rate = NA_real_, due = rep(c(FALSE, TRUE), 5))
  picture <- draw_course(data, "SWA")
  expect_identical(picture$data, data)
  expect_equal(marks(picture), c(1, 3, 5, 7, 9))
  expect_identical(picture$labels$title, "When SWA averages")
})

test_that("a start in epochs is drawn once it is known in updates, and before if `updates` says how many", {
  skip_without_ggplot2()
  python_keras()
  optimizer <- optimizer_swa("sgd", "2 epochs", 1)
  expect_error(plot(optimizer),
               "^`updates` must be given: when `start_averaging = \"2 epochs\"` is in updates", class = "error")
  expect_identical(nrow(plot(optimizer, updates = 7)$data), 7L)
  model <- iris_model(optimizer)
  fit(model, 3)
  steps <- summary(optimizer)$updates / 3
  expect_identical(which(plot(optimizer)$data$due)[1], as.integer(2 * steps) + 1L)
})

test_that("ggplot2 finds the methods of autoplot(), wherever it is called from", {
  skip_without_ggplot2()
  classes <- c(paste0("kerasoptimizers.", c("SlottedOptimizer", "SWALearningRate", "SWACallback", "SWAG")),
               "kerasoptimizers_loss_plane", "keras.src.trainers.trainer.Trainer", "tf_keras.src.engine.training.Model")
  for (class in classes) {
    # A function of the package is found from these tests without being registered; not from there.
    expect_true(is.function(utils::getS3method("autoplot", class, TRUE, asNamespace("ggplot2"))), label = class)
  }
})

test_that("a user can add to a picture, and autoplot() returns the same one", {
  skip_without_ggplot2()
  python_keras()
  rate <- learning_rate_schedule_swa(0.5, 0.25, 40)
  picture <- plot(rate) + ggplot2::theme_bw() + ggplot2::labs(title = "Mine")
  expect_s3_class(picture, "ggplot")
  expect_identical(picture$labels$title, "Mine")
  file <- withr::local_tempfile(fileext = ".pdf")
  grDevices::pdf(file)
  expect_silent(print(picture))
  grDevices::dev.off()
  expect_gt(file.size(file), 0)
  callback <- callback_swa(2)
  fit(iris_model("sgd"), 3, list(callback))
  for (x in list(rate, optimizer_swa("sgd"), optimizer_lars(1), callback, known_plane(loss = 1:9))) {
    expect_identical(ggplot2::autoplot(x)$data, plot(x)$data)
  }
  expect_identical(nrow(ggplot2::autoplot(rate, updates = 7)$data), 7L)
})

test_that("labels and limits have the names of base graphics, and nothing else is dropped without a word", {
  skip_without_ggplot2()
  python_keras()
  fitted <- callback_swa(2)
  fit(iris_model("sgd"), 3, list(fitted))
  for (x in list(learning_rate_schedule_swa(0.5, 0.25, 40), optimizer_swa("sgd"), fitted,
                 known_plane(loss = 1:9))) {
    mine <- plot(x, main = "Mine", sub = "small", xlab = "wide", ylab = quote(eta), xlim = c(0, 2), ylim = 0:1)
    expect_identical(mine$labels[c("title", "caption", "x", "y")],
                     list(title = "Mine", caption = "small", x = "wide", y = quote(eta)))
    # They cut the picture, not its data.
    expect_identical(mine$coordinates$limits, list(x = c(0, 2), y = 0:1))
    expect_identical(mine$data, plot(x)$data)
    expect_silent(ggplot2::ggplot_build(mine))
    expect_null(plot(x, main = NULL)$labels$title)
    expect_error(plot(x, ylim = 1:0), "`ylim` must be two numbers, the lower one first, not a vector of length 2.",
                 fixed = TRUE, class = "kerasoptimizers_argument_error")
    expect_error(plot(x, main = 1), "`main` must be a string, an expression or NULL, not 1.", fixed = TRUE)
    expect_error(plot(x, col = 1), "There is no argument `col`: plot() takes `main`, `sub`, `xlab`, ", fixed = TRUE,
                 class = "kerasoptimizers_argument_error")
  }
  expect_error(plot(learning_rate_schedule_swa(0.5, 0.25, 40), 10, 10, 10), "There are too many arguments.")
  # A wrong one is found before anything is computed.
  expect_error(plot(callback_swa(2), col = 1), "There is no argument `col`", fixed = TRUE)
  # The axes of the plane stay distances.
  expect_s3_class(plot(known_plane(loss = 1:9), xlim = c(1, 2))$coordinates, "CoordFixed")
})

test_that("an object without a picture says what to do", {
  skip_without_ggplot2()
  keras <- python_keras()
  for (callback in list(callback_swap_averages(), callback_average_model_checkpoint(FALSE, "a.keras"))) {
    expect_error(plot(callback), "give what fit() returned to plot_averaging().", fixed = TRUE,
                 class = "kerasoptimizers_argument_error")
  }
  for (x in list(iris_model("sgd"), keras$mixed_precision$LossScaleOptimizer(keras$optimizers$SGD()))) {
    expect_error(plot(x), "`x` must have an optimizer of this package to be plotted, not a Python object of class SGD.",
                 fixed = TRUE, class = "kerasoptimizers_argument_error")
  }
  expect_error(plot(keras$Sequential()), "optimizer of this package to be plotted, not none.", fixed = TRUE)
})

test_that("LARS is shown with its learning rates alone", {
  skip_without_ggplot2()
  python_keras()
  rate <- learning_rate_schedule_swa(0.5, 0.25, 40, anneal_updates = 0)
  picture <- plot(optimizer_lars(rate), updates = 60)
  expect_equal(picture$data$learning_rate, rep(c(0.5, 0.25), c(40, 20)))
  expect_false(any(picture$data$due))
  expect_false(any(vapply(picture$layers, function(layer) inherits(layer$geom, c("GeomPoint", "GeomRug")), NA)))
  expect_identical(picture$labels$title, "Learning rate of LARS")
  expect_null(picture$labels$subtitle)
  expect_identical(nrow(ggplot2::autoplot(optimizer_lars(1))$data), 1001L)
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("the optimizer of a model is shown, with loss scaling around it too:", module), {
    skip_without_ggplot2()
    keras <- local_keras(module)
    optimizer <- optimizer_swa(keras$optimizers$SGD(0.5), 20, 5)
    expected <- plot(optimizer, updates = 41)$data
    scaled <- keras$mixed_precision$LossScaleOptimizer(optimizer)
    model <- iris_model(optimizer, keras)
    for (x in list(scaled, model, iris_model(scaled, keras))) {
      expect_identical(plot(x, updates = 41)$data, expected)
      expect_identical(ggplot2::autoplot(x, updates = 41)$data, expected)
    }
    expect_identical(plot(scaled, main = "Mine")$labels$title, "Mine")
  })
}

test_that("progress is shown on request only", {
  skip_without_ggplot2()
  python_keras()
  model <- iris_model("sgd")
  vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 1)$get_weights())
  withr::local_options(cli.progress_show_after = 0, cli.dynamic = TRUE, cli.progress_clear = FALSE,
                       cli.progress_handlers_only = "cli", cli.width = 60)
  said <- function(verbose) {
    paste(capture.output(type = "message", invisible(plot_loss_plane(
      model, vectors, iris_x, iris_y, size = 3, verbose = verbose
    ))), collapse = "")
  }
  expect_match(said(TRUE), "Loss over the plane")
  expect_identical(said(FALSE), "")
  # Nor is it a part of a document that is being knitted.
  withr::local_options(knitr.in.progress = TRUE)
  expect_identical(said(TRUE), "")
})

test_that("wrong arguments are named before anything is computed", {
  skip_without_ggplot2()
  python_keras()
  model <- iris_model("sgd")
  vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 1)$get_weights())
  before <- weights_of(model)
  plane <- function(weights = vectors, x = iris_x, ...) {
    plot_loss_plane(model, weights, x, iris_y, verbose = FALSE, ...)
  }
  expect_error(plot_loss_plane("model"), '`model` must be a compiled Keras model, not "model".',
               fixed = TRUE)
  three <- "`weights` must be a list of three lists of arrays, not "
  expect_error(plane(vectors[1:2]), paste0(three, "a list of length 2."), fixed = TRUE)
  expect_error(plane(c(vectors[1:2], list("a"))), paste0(three, 'a list whose element 3 is "a".'),
               fixed = TRUE)
  expect_error(plane(c(vectors[1:2], list(vectors[[3]][-1]))),
               "`weights` must be of the shapes of the model's weights")
  expect_error(plane(vectors[c(1, 2, 2)]), "`weights` must not be on one line")
  expect_error(plane(x = "x"), "`x` must be an array")
  expect_error(plane(size = 1), "`size` must be a whole number >= 2, not 1.", fixed = TRUE)
  expect_error(plane(margin = -1), "`margin` must be a number >= 0, not -1.", fixed = TRUE)
  expect_error(plane(metric = "mae"), '`metric` must be one of')
  expect_error(plane(recalibrate = NA), "`recalibrate` must be TRUE or FALSE, not NA.", fixed = TRUE)
  expect_identical(weights_of(model), before)
  expect_error(plot(optimizer_swa("sgd"), updates = 0), "`updates` must be a whole number >= 1, not 0.",
               fixed = TRUE)
  rate <- learning_rate_schedule_swa(0.5, 0.25, 4)
  expect_error(plot(rate, average_period = 0.5),
               "`average_period` must be a whole number >= 1, not 0.5.", fixed = TRUE)
  expect_error(plot_averaging(1), "`history` must be a training history, as fit() returns it, not 1.",
               fixed = TRUE)
})

test_that("without ggplot2 installed one line says to install it, before anything is computed", {
  library <- withr::local_tempdir()
  # R's own packages are in .Library. Of the others all but ggplot2.
  for (folder in setdiff(.libPaths(), .Library)) {
    packages <- setdiff(list.files(folder), c("ggplot2", list.files(library)))
    if (length(packages) > 0) file.symlink(file.path(folder, packages), file.path(library, packages))
  }
  script <- withr::local_tempfile(fileext = ".R")
  writeLines(c(
    "cat('installed:', requireNamespace('ggplot2', quietly = TRUE), '\\n')",
    "library(kerasoptimizers)",
    "plane <- structure(list(first = 1, second = 1, loss = 1),",
    "                   class = c('kerasoptimizers_loss_plane', 'data.frame'))",
    "for (call in expression(plot_averaging(1), plot_loss_plane(1), plot(plane))) {",
    "  cat('said:', tryCatch(eval(call), error = conditionMessage), '\\n')",
    "}",
    "cat('started:', reticulate::py_available())"
  ), script)
  output <- run(file.path(R.home("bin"), "Rscript"), script, paste0(c(
    "R_LIBS=", "R_LIBS_SITE=", "R_LIBS_USER="
  ), library))
  skip_if(any(grepl("installed: TRUE", output)), "ggplot2 is in R's own library")
  said <- paste("said: Pictures need the R package ggplot2, version 3.4.0 or newer: run",
                "`install.packages(\"ggplot2\")`.")
  expect_identical(trimws(grep("^said", output, value = TRUE)), rep(said, 3))
  expect_match(output, "started: FALSE", all = FALSE)
})
