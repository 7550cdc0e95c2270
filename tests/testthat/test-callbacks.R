# The weights after each epoch, by a callback that writes them down.
recorder <- function(keras) {
  record <- new.env()
  record$weights <- list()
  record$callback <- keras$callbacks$LambdaCallback(on_epoch_end = function(epoch, logs) {
    record$weights <- c(record$weights, list(weights_of(record$model)))
  })
  record
}

mean_of <- function(weights) {
  lapply(Reduce(function(a, b) Map(`+`, a, b), weights), function(w) w / length(weights))
}

rate_of <- function(model) as.numeric(model$optimizer$learning_rate$numpy())

for (module in c("keras", "tf_keras")) {
  test_that(paste("callback_swa() leaves the mean of the epochs in the model:", module), {
    keras <- local_keras(module)
    model <- iris_model("sgd", keras)
    record <- recorder(keras)
    record$model <- model
    fit(model, 7, list(record$callback, callback_swa(start_epoch = 3, swa_freq = 2)))
    expect_equal(weights_of(model), mean_of(record$weights[c(3, 5, 7)]), tolerance = 1e-6)
  })

  test_that(paste("callback_swa() sets the learning rates of its schedules:", module), {
    keras <- local_keras(module)
    model <- iris_model(keras$optimizers$SGD(0.1), keras)
    history <- fit(model, 14, list(callback_swa(11, "constant", swa_lr = 0.02)))
    line <- 0.1 - 0.08 * pmin(pmax((0:13 / 10 - 0.5) / 0.4, 0), 1)
    expect_equal(as.numeric(history$history$lr), line)
    expect_equal(rate_of(model), 0.02, tolerance = 1e-6)

    model <- iris_model(keras$optimizers$SGD(0.1), keras)
    callback <- callback_swa(3, "cyclic", 0.01, 0.04, swa_freq = 2)
    history <- fit(model, 6, list(callback))
    rates <- as.numeric(callback$lr_record)
    expect_length(rates, 60)
    expect_equal(rates[21:60], rep(0.04 - 0.03 * 1:20 / 20, 2))
    expect_equal(as.numeric(history$history$lr), rates[10 * 1:6])
  })

  test_that(paste("callback_swa() recalibrates batch norm in the last epoch:", module), {
    keras <- local_keras(module)
    model <- iris_norm_model("adam", keras)
    record <- recorder(keras)
    record$model <- model
    fit(model, 6, list(record$callback, callback_swa(4)))
    expected <- mean_of(record$weights[4:5])
    trainable <- c(1:4, 7:8)
    expect_equal(weights_of(model)[trainable], expected[trainable], tolerance = 1e-6)
    expect_statistics(model)
  })

  test_that(paste("callback_swa(data = ) recalibrates batch norm beside training:", module), {
    keras <- local_keras(module)
    model <- iris_norm_model("adam", keras)
    record <- recorder(keras)
    record$model <- model
    some <- iris_x[1:100, ]
    fit(model, 6, list(record$callback, callback_swa(4, data = some, batch_size = 32)))
    expected <- mean_of(record$weights[4:6])
    trainable <- c(1:4, 7:8)
    expect_equal(weights_of(model)[trainable], expected[trainable], tolerance = 1e-6)
    expect_statistics(model, expected_statistics(weights_of(model), some))
  })

  test_that(paste("callback_swa() with impossible arguments stops before training:", module), {
    keras <- local_keras(module)
    model <- iris_model(keras$optimizers$SGD(0.1), keras)
    before <- weights_of(model)
    expect_error(fit(model, 5, list(callback_swa(5))), "`start_epoch` must be lower than `epochs`")
    expect_error(fit(model, 5, list(callback_swa(2, "constant", swa_lr = 0.5))),
                 "`swa_lr` must be at most the optimizer's learning rate")
    expect_identical(weights_of(model), before)
  })

  test_that(paste("callback_swap_averages() validates with the averages:", module), {
    keras <- local_keras(module)
    callbacks <- list(list(), list(callback_swap_averages()))
    runs <- lapply(callbacks, function(callbacks) {
      model <- iris_model(optimizer_ema(keras$optimizers$SGD(0.05), average_decay = 0.9), keras)
      history <- fit(model, 3, callbacks, validation_data = list(iris_x, iris_y))
      list(model = model, loss = as.numeric(history$history$val_loss))
    })
    # Training ends in the same weights and averages, bit for bit.
    expect_identical(weights_of(runs[[1]]$model), weights_of(runs[[2]]$model))
    expect_identical(averages_of(runs[[1]]$model), averages_of(runs[[2]]$model))
    expect_false(identical(runs[[1]]$loss, runs[[2]]$loss))
    model <- runs[[2]]$model
    before <- model$evaluate(iris_x, iris_y, verbose = 0L)[[1]]
    expect_equal(before, runs[[1]]$loss[[3]], tolerance = 1e-5)
    swapped <- model$evaluate(
      iris_x, iris_y, verbose = 0L, callbacks = list(callback_swap_averages())
    )
    expect_equal(swapped[[1]], runs[[2]]$loss[[3]], tolerance = 1e-5)
    assign_average_vars(model)
    after <- model$evaluate(iris_x, iris_y, verbose = 0L)[[1]]
    expect_equal(after, runs[[2]]$loss[[3]], tolerance = 1e-5)
  })

  test_that(paste("a checkpoint holds the averages, and training its weights:", module), {
    keras <- local_keras(module)
    dir <- withr::local_tempdir()
    train_with <- function(...) {
      train(iris_model(optimizer_swa("sgd", average_period = 4), keras), 3, list(...))
    }
    plain <- train_with()
    model <- train_with(
      callback_average_model_checkpoint(FALSE, file.path(dir, "epoch-{epoch}.keras"))
    )
    expect_identical(weights_of(model), weights_of(plain))
    expect_setequal(list.files(dir), paste0("epoch-", 1:3, ".keras"))
    loaded <- keras$models$load_model(file.path(dir, "epoch-3.keras"))
    expect_identical(weights_of(loaded), averages_of(model))

    model <- train_with(
      callback_average_model_checkpoint(TRUE, file.path(dir, "latest.keras"), save_freq = 10)
    )
    expect_identical(weights_of(model), averages_of(model))
    expect_false(identical(weights_of(model), weights_of(plain)))
  })
}

test_that("a checkpoint can be of weights only, of the best epoch, and in the home directory", {
  keras <- python_keras()
  home <- withr::local_tempdir()
  withr::local_envvar(HOME = home)
  skip_if_not(path.expand("~") == home, "this R does not take HOME for the home directory")
  model <- iris_model(optimizer_ema("sgd"))
  fit(model, 2, list(
    callback_swap_averages(),
    callback_average_model_checkpoint(
      FALSE, "~/best.weights.h5", monitor = "loss", save_best_only = TRUE,
      save_weights_only = TRUE, mode = "min", initial_value_threshold = 100
    )
  ))
  twin <- iris_model("sgd")
  twin$load_weights(file.path(home, "best.weights.h5"))
  expect_identical(weights_of(twin), averages_of(model))
})

test_that("callbacks need a model with an averaging optimizer", {
  python_keras()
  model <- iris_model("sgd")
  before <- weights_of(model)
  for (callback in list(callback_swap_averages(),
                        callback_average_model_checkpoint(FALSE, "never.keras"))) {
    expect_error(fit(model, 1, list(callback)), "must be compiled with an averaging optimizer")
  }
  expect_identical(weights_of(model), before)
})

test_that("callback_swa() says what it does when asked to", {
  python_keras()
  said <- function(...) {
    reticulate::py_capture_output(fit(iris_norm_model("sgd"), 3, list(callback_swa(2, ...))))
  }
  expect_match(said(verbose = TRUE), "averaging of weights starts")
  expect_identical(said(), "")
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("averaging starts and stops by the validation loss:", module), {
    keras <- local_keras(module)
    model <- iris_model("sgd", keras)
    # No loss is lower than the first one of these: the rate does nothing.
    model$optimizer$learning_rate <- 0
    before <- weights_of(model)
    swa <- callback_swa("auto", n_converge = 2, n_tolerance = 2)
    fit(model, 4, list(swa), validation_split = 0.2)
    expect_gt(swa$snapshots, 0)
    expect_equal(weights_of(model), before, tolerance = 1e-6)
    expect_output(print(swa), "auto")
  })

  test_that(paste("early stopping restores the best averages:", module), {
    keras <- local_keras(module)
    model <- iris_model(optimizer_ema(keras$optimizers$SGD(5), average_decay = 0.5), keras)
    early <- callback_average_early_stopping(patience = 1)
    fit(model, 30, list(early), validation_split = 0.2)
    expect_gt(early$stopped_epoch, early$best_epoch)
    expect_equal(weights_of(model), averages_of(model), ignore_attr = TRUE)
    expect_error(fit(iris_model("sgd", keras), 2, list(early)), "averaging")
  })
}
