# Pictures go to a device that writes no file; what they show is seen by what they draw with.

with_engines <- function(test) {
  for (engine in c("base", "ggplot2")) {
    if (engine == "ggplot2" && !requireNamespace("ggplot2", quietly = TRUE)) {
      skip("R package ggplot2 not installed: only base graphics were tested")
    }
    withr::local_options(kerasoptimizers.ggplot2 = engine == "ggplot2")
    drawn <- new_device()
    test(engine)
    expect_true(drawn(), label = paste("something drawn with", engine))
  }
}

# A device, closed when the caller is done, and a function that says whether it was drawn on.
new_device <- function(envir = parent.frame()) {
  grDevices::pdf(NULL)
  device <- grDevices::dev.cur()
  grDevices::dev.control("enable")
  empty <- grDevices::recordPlot()
  withr::defer(grDevices::dev.off(device), envir)
  function() !identical(length(grDevices::recordPlot()[[1]]), length(empty[[1]]))
}

layers <- function() ggplot2::layer_data(ggplot2::last_plot(), 2)

for (module in c("keras", "tf_keras")) {
  test_that(paste("a schedule is drawn with its moments:", module), {
    local_keras(module)
    rate <- learning_rate_schedule_swa(0.5, 0.25, 40, cycle_updates = 5)
    with_engines(function(engine) {
      shown <- withVisible(plot(rate, updates = 60))
      expect_false(shown$visible)
      data <- shown$value
      expect_identical(data$update, 0:59)
      expect_equal(data$learning_rate, as.vector(rate(0:59)$numpy()))
      expect_identical(data$update[data$due], c(40L, 45L, 50L, 55L))
      # The end of a cycle.
      expect_equal(data$learning_rate[data$due], rep(0.25, 4))
      if (engine == "ggplot2") expect_equal(layers()$x, c(40, 45, 50, 55))
    })
    new_device()
    expect_identical(nrow(plot(rate)), 91L)
    every <- plot(rate, 60, average_period = 20)
    expect_identical(every$update[every$due], 40L)
    constant <- plot(learning_rate_schedule_swa(0.5, 0.25, 40))
    expect_identical(constant$update[constant$due], seq(40L, 140L, 10L))
  })

  test_that(paste("an optimizer is drawn with its rates and moments:", module), {
    keras <- local_keras(module)
    rate <- learning_rate_schedule_swa(0.5, 0.25, 20, cycle_updates = 5)
    cycles <- optimizer_swa(keras$optimizers$SGD(rate), 20, 5)
    constant <- optimizer_lookahead(keras$optimizers$SGD(0.5), 4)
    with_engines(function(engine) {
      data <- plot(cycles, updates = 41)
      expect_equal(data$learning_rate, as.vector(rate(0:40)$numpy()))
      expect_identical(data$update[data$due], seq(20L, 40L, 5L))
      data <- plot(constant)
      expect_equal(unique(data$learning_rate), 0.5)
      expect_identical(data$update[data$due], seq(3L, 40L, 4L))
      if (engine == "ggplot2") expect_equal(layers()$x, seq(3, 40, 4))
    })
    new_device()
    decayed <- suppressMessages(optimizer_ema(keras$optimizers$SGD(0.5), decay = 1))
    expect_equal(plot(decayed, 3)$learning_rate, 0.5 / 1:3, tolerance = 1e-6)
  })

  test_that(paste("metrics of weights and averages are drawn from one training:", module), {
    keras <- local_keras(module)
    fit_with <- function(...) {
      model <- iris_model(optimizer_swa(keras$optimizers$SGD(0.05), 12, 2), keras)
      fit(model, 3, list(...), validation_data = list(iris_x, iris_y))
    }
    history <- fit_with(callback_swap_averages(weights_too = TRUE))
    weights <- fit_with()
    averages <- fit_with(callback_swap_averages())
    with_engines(function(engine) {
      data <- plot_averaging(history)
      expect_setequal(data$metric, c("loss", "accuracy"))
      loss <- data[data$metric == "loss", ]
      expect_identical(loss$epoch, rep(1:3, 2))
      expect_equal(loss$value[loss$of == "weights"], as.numeric(weights$history$val_loss),
                   tolerance = 1e-6)
      expect_equal(loss$value[loss$of == "averages"], as.numeric(averages$history$val_loss),
                   tolerance = 1e-6)
      expect_identical(unique(plot_averaging(history, "accuracy")$metric), "accuracy")
    })
    expect_error(plot_averaging(averages), "`history` must be of a fit() with validation data and",
                 fixed = TRUE)
    expect_error(plot_averaging(history, "mae"),
                 '`metric` must be among "(loss|accuracy)", "(loss|accuracy)", not "mae".')
  })

  test_that(paste("the loss is drawn over the plane through three weight vectors:", module), {
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
    with_engines(function(engine) {
      plane <- plot_loss_plane(model, vectors, iris_x, iris_y, size = 3, margin = 0, verbose = FALSE)
      expect_identical(weights_of(model), before)
      expect_identical(names(plane)[1:2], c("first", "second"))
      expect_setequal(names(plane)[3:4], c("loss", "accuracy"))
      expect_identical(nrow(plane), 9L)
      points <- attr(plane, "points")
      expect_identical(points$name, c("start", "middle", "end"))
      # The first vector is a corner of a grid without margin.
      corner <- plane$first == points$first[[1]] & plane$second == points$second[[1]]
      expect_equal(plane$loss[corner], loss_with(vectors$start), tolerance = 1e-4)
      expect_false(withVisible(plot(plane, "accuracy"))$visible)
      expect_error(plot(plane, "mae"), "`metric` must be among", fixed = TRUE)
    })
  })

  test_that(paste("batch norm is recalibrated at each point on request:", module), {
    keras <- local_keras(module)
    model <- iris_norm_model(keras$optimizers$SGD(0.05), keras)
    vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 2)$get_weights())
    before <- weights_of(model)
    loss_of <- function(recalibrate) {
      plane <- plot_loss_plane(model, vectors, iris_x, iris_y, size = 2, margin = 0,
                               recalibrate = recalibrate, verbose = FALSE)
      expect_identical(weights_of(model), before)
      expect_identical(attr(plane, "points")$name, paste("weights", 1:3))
      plane$loss[[which(plane$first == 0 & plane$second == 0)]]
    }
    new_device()
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

test_that("a loss that is not finite leaves a gap, and one that is the same everywhere is drawn", {
  plane <- structure(
    cbind(expand.grid(first = 1:3, second = 1:3), loss = c(Inf, NaN, 1:7), flat = 1,
          none = NaN),
    points = data.frame(name = letters[1:3], first = 1:3, second = c(1, 3, 2)),
    class = c("kerasoptimizers_loss_plane", "data.frame")
  )
  with_engines(function(engine) {
    plot(plane)
    if (engine == "ggplot2") {
      fill <- ggplot2::layer_data(ggplot2::last_plot(), 1)
      expect_identical(fill$fill == "white", is.na(c(NA, NA, 1:7)))
    }
    plot(plane, "flat")
    plot(plane, "none")
  })
})

test_that("progress is shown on request only", {
  python_keras()
  model <- iris_model("sgd")
  vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 1)$get_weights())
  withr::local_options(cli.progress_show_after = 0, cli.dynamic = TRUE, cli.progress_clear = FALSE,
                       cli.progress_handlers_only = "cli", cli.width = 60)
  new_device()
  said <- function(verbose) {
    paste(capture.output(type = "message", plot_loss_plane(
      model, vectors, iris_x, iris_y, size = 3, verbose = verbose
    )), collapse = "")
  }
  expect_match(said(TRUE), "Loss over the plane")
  expect_identical(said(FALSE), "")
})

test_that("wrong arguments are named before anything is computed", {
  python_keras()
  model <- iris_model("sgd")
  vectors <- list(model$get_weights(), train(model, 1)$get_weights(), train(model, 1)$get_weights())
  before <- weights_of(model)
  plane <- function(weights = vectors, x = iris_x, ...) {
    plot_loss_plane(model, weights, x, iris_y, verbose = FALSE, ...)
  }
  expect_error(plot_loss_plane("model"), '`model` must be a compiled Keras model, not "model".',
               fixed = TRUE)
  expect_error(plane(vectors[1:2]), "`weights` must be a list of three lists of arrays, not a list.",
               fixed = TRUE)
  expect_error(plane(c(vectors[1:2], list(vectors[[3]][-1]))),
               "`weights` must be of the shapes of the model's weights")
  expect_error(plane(vectors[c(1, 2, 2)]), "`weights` must not be on one line")
  expect_error(plane(x = "x"), "`x` must be an array")
  expect_error(plane(size = 1), "`size` must be a whole number >= 2, not 1.", fixed = TRUE)
  expect_error(plane(margin = -1), "`margin` must be a number >= 0, not -1.", fixed = TRUE)
  expect_error(plane(metric = "mae"), '`metric` must be among')
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

test_that("without ggplot2 installed base graphics draw", {
  library <- withr::local_tempdir()
  # R's own packages stand in .Library; of the others all but ggplot2.
  for (folder in setdiff(.libPaths(), .Library)) {
    packages <- setdiff(list.files(folder), c("ggplot2", list.files(library)))
    if (length(packages) > 0) file.symlink(file.path(folder, packages), file.path(library, packages))
  }
  script <- withr::local_tempfile(fileext = ".R")
  writeLines(c(
    "grDevices::pdf(NULL)",
    "cat('installed:', requireNamespace('ggplot2', quietly = TRUE), '\\n')",
    "history <- structure(list(metrics = list(val_loss = 2:1, val_weights_loss = 3:2)),",
    "                     class = 'keras_training_history')",
    "print(kerasoptimizers::plot_averaging(history))",
    "cat('loaded:', 'ggplot2' %in% loadedNamespaces())"
  ), script)
  output <- run(file.path(R.home("bin"), "Rscript"), script, paste0(c(
    "R_LIBS=", "R_LIBS_SITE=", "R_LIBS_USER="
  ), library))
  skip_if(any(grepl("installed: TRUE", output)), "ggplot2 is in R's own library")
  expect_match(output, "averages +1", all = FALSE)
  expect_match(output, "loaded: FALSE", all = FALSE)
})
