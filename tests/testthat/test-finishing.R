# Averages in a model for a while, and the ends of a training in one line.

for (module in c("keras", "tf_keras")) {
  test_that(paste("callback_lawa() leaves the mean of the latest epochs in the model:", module), {
    keras <- local_keras(module)
    model <- iris_model("sgd", keras)
    ends <- new.env()
    record <- keras$callbacks$LambdaCallback(on_epoch_end = function(epoch, logs) {
      ends$weights <- c(ends$weights, list(weights_of(model)))
    })
    lawa <- callback_lawa(k = 3)
    history <- fit(model, 5, list(record, lawa), validation_data = list(iris_x, iris_y))
    mean <- lapply(Reduce(function(a, b) Map(`+`, a, b), ends$weights[3:5]), function(w) w / 3)
    expect_equal(weights_of(model), mean, tolerance = 1e-6)
    expect_identical(lawa$snapshots, 3L)
    # The last validation saw this average.
    expect_equal(model$evaluate(iris_x, iris_y, verbose = 0L)[[1]], history$history$val_loss[[5]],
                 tolerance = 1e-5)
  })

  test_that(paste("with_averages() shows the averages, and the weights come back:", module), {
    keras <- local_keras(module)
    model <- train(iris_norm_model(optimizer_ema(keras$optimizers$SGD(0.05)), keras), 2)
    before <- weights_of(model)
    trainable <- c(1:4, 7:8)
    expect_identical(with_averages(model, weights_of(model)[trainable]), averages_of(model))
    expect_identical(weights_of(model), before)
    with_averages(model, expect_statistics(model), data = iris_x)
    expect_identical(weights_of(model), before)
    expect_error(with_averages(model, stop("mine")), "mine")
    expect_identical(weights_of(model), before)
    expect_error(with_averages(model, with_averages(model, stop("mine")), data = iris_x), "mine")
    expect_identical(weights_of(model), before)
  })

  test_that(paste("assign_average_vars(data = ) recomputes batch norm, too:", module), {
    keras <- local_keras(module)
    model <- train(iris_norm_model(optimizer_ema(keras$optimizers$SGD(0.05)), keras), 2)
    before <- weights_of(model)
    expect_error(assign_average_vars(model, data = iris_x[, 1:3]))
    expect_identical(weights_of(model), before)
    expect_identical(assign_average_vars(model, data = iris_x), model)
    expect_identical(weights_of(model)[c(1:4, 7:8)], averages_of(model))
    expect_statistics(model)
  })
}

test_that("what with_averages(), assign_average_vars() and callback_lawa() cannot do is refused", {
  keras <- python_keras()
  model <- train(iris_model(optimizer_swa("sgd", 1000), keras), 1)
  before <- weights_of(model)
  expect_error(with_averages(), "`object` must be given: a compiled Keras model")
  expect_error(with_averages(3, 1), "`object` must be a compiled Keras model, not 3")
  expect_error(with_averages(model, stop("never")), "averages() needs an average", fixed = TRUE)
  expect_error(with_averages(iris_model("sgd"), 1), "`object` must be compiled with an averaging optimizer")
  expect_error(assign_average_vars(model, data = iris_x), "needs an average")
  expect_error(assign_average_vars(model, model$trainable_variables, iris_x),
               "Only one of `variables` and `data` can be given")
  expect_error(assign_average_vars(model$optimizer, data = iris_x), "`object` must be a model if `data` is given")
  expect_error(assign_average_vars(model, data = "x"), "`data` must be an array")
  expect_identical(weights_of(model), before)
  for (wrong in list(list(k = 0), list(every = "batch"), list(start_epoch = 0), list(assign = NA),
                     list(backup_dir = 3), list(batch_size = 0))) {
    expect_error(do.call(callback_lawa, wrong), sprintf("`%s` must be", names(wrong)))
  }
})

test_that("the callbacks say what they are", {
  python_keras()
  expect_output(print(callback_lawa(4)), "<LatestAverage>\nSettings:        k = 4, every = \"epoch\"", fixed = TRUE)
  expect_output(print(callback_average_snapshots("folder")), "directory = \"folder\"", fixed = TRUE)
  expect_identical(summary(callback_lawa())$snapshots, 0L)
  expect_error(plot(callback_average_snapshots("folder")), "plot_posthoc()", fixed = TRUE)
})
