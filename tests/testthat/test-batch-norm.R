# A model whose statistics are those of nothing that it was trained on.
shifted_model <- function(keras = python_keras()) {
  model <- train(iris_norm_model("sgd", keras), 1)
  weights <- model$get_weights()
  weights[[1]] <- weights[[1]] * 3
  weights[[5]] <- weights[[5]] + 100
  model$set_weights(weights)
  model
}

for (module in c("keras", "tf_keras")) {
  test_that(paste("statistics are exact, and nothing else changes:", module), {
    keras <- python_keras(module)
    # 150 examples: the last batch is of another size in most.
    for (batch_size in c(1000, 64, 7)) {
      model <- shifted_model(keras)
      before <- weights_of(model)
      returned <- withVisible(update_batch_norm(model, iris_x, batch_size, verbose = 0))
      expect_false(returned$visible)
      expect_identical(returned$value, model)
      expect_statistics(model)
      expect_identical(weights_of(model)[-(5:6)], before[-(5:6)])
      expect_equal(model$layers[[2]]$momentum, 0.9)
    }
    update_batch_norm(model, iris_x, batch_size = 50, steps = 2, verbose = 0)
    expect_statistics(model, expected_statistics(weights_of(model), iris_x[1:100, ]))
  })

  test_that(paste("batches come from data sets, generators and functions:", module), {
    keras <- python_keras(module)
    tf <- reticulate::import("tensorflow")
    dataset <- tf$data$Dataset$from_tensor_slices(reticulate::tuple(iris_x, iris_y))
    rows <- split(1:150, rep(1:4, c(50, 60, 30, 10)))
    # Each makes a function: of batches of inputs, or of inputs and targets.
    in_turn <- function(batch) {
      i <- 0
      function() {
        i <<- i + 1
        if (i <= length(rows)) batch(rows[[i]])
      }
    }
    inputs <- in_turn(function(rows) iris_x[rows, ])
    pairs <- in_turn(function(rows) list(iris_x[rows, ], iris_y[rows]))
    halves <- list(iris_x[1:50, ], iris_x[51:150, ])
    generator <- reticulate::import_builtins(convert = FALSE)$iter(halves)
    cases <- list(list(dataset$batch(40L), NULL), list(inputs, 4), list(pairs, 4),
                  list(generator, 2))
    for (case in cases) {
      model <- shifted_model(keras)
      update_batch_norm(model, case[[1]], steps = case[[2]], verbose = 0)
      expect_statistics(model)
    }
  })
}

test_that("several inputs are a list, with names or without", {
  keras <- python_keras()
  a <- keras$layers$Input(list(2L), name = "a")
  b <- keras$layers$Input(list(1L), name = "b")
  joined <- keras$layers$Concatenate()(list(a, b))
  norm <- keras$layers$BatchNormalization()
  x <- list(iris_x[, 1:2], iris_x[, 3, drop = FALSE])
  named <- list(a = x[[1]], b = x[[2]])
  for (case in list(list(list(a, b), x), list(list(a = a, b = b), named))) {
    model <- keras$Model(case[[1]], norm(joined))
    update_batch_norm(model, case[[2]], verbose = 0)
    expect_equal(as.vector(norm$moving_mean$numpy()), colMeans(iris_x[, 1:3]), tolerance = 1e-6)
    norm$moving_mean$assign(numeric(3))
  }
})

test_that("a vector is examples of one number each", {
  keras <- python_keras()
  model <- keras$Sequential(list(
    keras$layers$Input(list()), keras$layers$Reshape(list(1L)), keras$layers$BatchNormalization()
  ))
  update_batch_norm(model, iris_x[, 1], verbose = 0)
  expect_equal(as.vector(model$get_weights()[[3]]), mean(iris_x[, 1]), tolerance = 1e-6)
})

test_that("batch norm in a nested model counts, and a frozen one keeps its statistics", {
  keras <- python_keras()
  inner <- iris_norm_model("sgd")
  frozen <- keras$layers$BatchNormalization(trainable = FALSE)
  model <- keras$Sequential(list(keras$layers$Input(list(4L)), frozen, inner))
  before <- weights_of(frozen)
  update_batch_norm(model, iris_x, verbose = 0)
  expect_statistics(inner, expected_statistics(weights_of(inner), iris_x / sqrt(1.001)))
  expect_identical(weights_of(frozen), before)
})

test_that("a pass that fails leaves the statistics as they were", {
  python_keras()
  model <- shifted_model()
  before <- weights_of(model)
  i <- 0
  fails <- function() {
    i <<- i + 1
    if (i > 2) stop("the third batch is bad")
    iris_x[1:10, ]
  }
  expect_error(update_batch_norm(model, fails, steps = 5, verbose = 0), "the third batch is bad")
  expect_error(update_batch_norm(model, function() NULL, steps = 5, verbose = 0),
               "`x` must hold at least one example", class = "kerasoptimizers_error")
  expect_error(update_batch_norm(model, fails, verbose = 0), "`steps` must be given",
               class = "kerasoptimizers_error")
  expect_error(update_batch_norm(model, list(iris_x, iris_x[1:3, ]), verbose = 0),
               "`x` must hold arrays of one length", class = "kerasoptimizers_error")
  expect_identical(weights_of(model), before)
})

test_that("a model without batch norm returns at once", {
  python_keras()
  model <- iris_model("sgd")
  never <- function() stop("drawn from")
  expect_identical(update_batch_norm(model, never, steps = 1), model)
})

test_that("a progress bar is drawn when asked for", {
  python_keras()
  draw <- function(verbose) {
    reticulate::py_capture_output(update_batch_norm(shifted_model(), iris_x, verbose = verbose))
  }
  for (verbose in list("auto", 1, TRUE, 2)) expect_match(draw(verbose), "5/5")
  for (verbose in list(0, FALSE)) expect_identical(draw(verbose), "")
})

test_that("averages need recalibrated batch norm", {
  keras <- python_keras()
  model <- iris_norm_model(optimizer_swa(keras$optimizers$SGD(0.05), average_period = 5))
  assign_average_vars(train(model, 10))
  update_batch_norm(model, iris_x, verbose = 0)
  expect_statistics(model)
  expect_gt(model$evaluate(iris_x, iris_y, verbose = 0L)[[2]], 0.85)
})
