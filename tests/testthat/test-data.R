# What R users give as data: data frames of named inputs, missing values, generators.

frame <- data.frame(
  length = iris$Petal.Length, width = iris$Petal.Width, kind = factor(iris$Species), long = iris$Sepal.Length > 5.5
)
columns <- list(
  length = array(frame$length), width = array(frame$width), kind = array(as.integer(frame$kind) - 1L),
  long = array(frame$long)
)
target <- array(iris$Sepal.Width)

# A model with four named inputs; `named` says whether as a dictionary.
frame_model <- function(keras, optimizer = "sgd", named = FALSE) {
  keras$utils$set_random_seed(7L)
  inputs <- sapply(names(frame), function(name) keras$layers$Input(list(1L), name = name), simplify = FALSE)
  joined <- keras$layers$Concatenate()(unname(inputs))
  outputs <- keras$layers$Dense(1L)(keras$layers$BatchNormalization()(keras$layers$Dense(3L)(joined)))
  model <- keras$Model(if (named) inputs else unname(inputs), outputs)
  model$compile(optimizer, loss = "mse")
  model
}

train_frame <- function(model, ...) {
  # As keras3's fit() does it.
  x <- lapply(columns, function(x) array(as.double(x), c(150, 1)))
  model$fit(x, target, epochs = 4L, batch_size = 50L, verbose = 0L, callbacks = list(...))
  model
}

statistics <- function(model) lapply(model$non_trainable_variables, function(v) as.array(v$numpy()))

for (module in c("keras", "tf_keras")) {
  test_that(paste("a data frame is its columns as named inputs:", module), {
    keras <- local_keras(module)
    for (named in c(FALSE, TRUE)) {
      model <- frame_model(keras, named = named)
      update_batch_norm(model, columns, verbose = 0)
      expected <- statistics(model)
      update_batch_norm(model, lapply(columns, rev), steps = 1, verbose = 0)
      expect_false(identical(statistics(model), expected))
      update_batch_norm(model, frame, verbose = 0)
      expect_equal(statistics(model), expected, tolerance = 1e-6)
      # In another order, with one more.
      update_batch_norm(model, cbind(more = 1, rev(frame)), verbose = 0)
      expect_equal(statistics(model), expected, tolerance = 1e-6)
      left <- 2
      update_batch_norm(model, steps = 2, verbose = 0, x = function() {
        left <<- left - 1
        if (left == 1) frame[1:70, ] else list(frame[71:150, ], target[71:150])
      })
      expect_equal(statistics(model), expected, tolerance = 1e-5)
    }
  })

  test_that(paste("so it is where it is the `data` of another function:", module), {
    keras <- local_keras(module)
    model <- frame_model(keras)
    update_batch_norm(model, columns, verbose = 0)
    expected <- statistics(model)
    soup <- average_models(list(model, model), data = frame)
    expect_equal(statistics(soup), expected, tolerance = 1e-5)
    samples <- predict_samples(model, NULL, frame, verbose = 0)
    expect_identical(dim(samples), c(1L, 150L, 1L))
    swa <- callback_swa(2, data = frame)
    lawa <- callback_lawa(2, data = frame)
    swag <- callback_swag(2)
    for (callback in list(swa, lawa, swag)) train_frame(model, callback)
    expect_identical(swa$snapshots, 3L)
    expect_identical(dim(predict_samples(model, swag, frame, 2, data = frame, verbose = 0)), c(2L, 150L, 1L))
    model <- train_frame(frame_model(keras, optimizer_ema("sgd")))
    shown <- with_averages(model, statistics(model), data = frame)
    assign_average_vars(model, data = frame)
    expect_identical(statistics(model), shown)
  })

  test_that(paste("a model with one input wants an array, and the error says how:", module), {
    keras <- local_keras(module)
    model <- iris_norm_model("sgd", keras)
    for (call in expression(
      update_batch_norm(model, iris[1:4], verbose = 0), average_models(list(model, model), data = iris[1:4])
    )) {
      expect_error(eval(call), "as '.*' has one input, not 4 named ones .*as\\.matrix\\(\\)",
                   class = "kerasoptimizers_error")
    }
    before <- weights_of(model)
    for (callback in list(callback_swa(2, data = iris[1:4]), callback_lawa(data = iris[1:4]))) {
      expect_error(fit(model, 3, list(callback)), "`data` must be one array of shape")
      # Before anything is trained.
      expect_identical(weights_of(model), before)
    }
    # predict_samples() makes the matrix.
    expect_identical(predict_samples(model, NULL, iris[1:4], verbose = 0),
                     predict_samples(model, NULL, iris_x, verbose = 0))
    expect_error(predict_samples(model, NULL, iris, verbose = 0), "column `Species` does not")
  })
}

test_that("missing values in data that is needed later are a warning at once", {
  python_keras()
  two <- list(iris_x, rbind(iris_x[-1, ], NaN))
  for (data in list(rbind(iris_x, NA), rbind(1:4, NA), two, data.frame(a = NA_real_))) {
    expect_warning(callback_swa(2, data = data), "`data` has missing values", class = "kerasoptimizers_warning")
    expect_warning(callback_lawa(data = data), "`data` has missing values", class = "kerasoptimizers_warning")
  }
  expect_silent(callback_swa(2, data = iris_x))
})

test_that("vectors and matrices can be inputs of one model, one after the other", {
  keras <- python_keras()
  model <- frame_model(keras)
  update_batch_norm(model, unname(columns), verbose = 0)
  expected <- statistics(model)
  update_batch_norm(model, unname(lapply(columns, matrix)), verbose = 0)
  expect_equal(statistics(model), expected, tolerance = 1e-6)
})
