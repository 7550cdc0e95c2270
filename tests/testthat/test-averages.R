test_that("SWA's average is the mean of the snapshots", {
  python_keras()
  model <- iris_model(optimizer_swa("sgd", start_averaging = 2, average_period = 3))
  history <- lapply(1:10, function(i) {
    update_once(model)
    weights_of(model)
  })
  # Updates 2, 5 and 8, counted from 0.
  expected <- Reduce(function(a, b) Map(`+`, a, b), history[c(3, 6, 9)])
  expected <- lapply(expected, function(w) w / 3)
  expect_identical(weights_of(model), history[[10]])
  assign_average_vars(model)
  expect_equal(weights_of(model), expected, tolerance = 1e-6)
})

test_that("assign_average_vars() takes a model, or an optimizer and variables", {
  python_keras()
  model <- train(iris_model(optimizer_swa("sgd", average_period = 2)))
  before <- weights_of(model)
  averages <- averages_of(model)
  returned <- withVisible(assign_average_vars(model$optimizer, model$trainable_variables[1:2]))
  expect_false(returned$visible)
  expect_identical(returned$value, model$optimizer)
  expect_identical(weights_of(model), c(averages[1:2], before[3:4]))
  returned <- withVisible(assign_average_vars(model))
  expect_false(returned$visible)
  expect_identical(returned$value, model)
  expect_identical(weights_of(model), averages)
  expect_false(identical(before, averages))
})

test_that("assign_average_vars() gives a model the variables that it is told", {
  python_keras()
  model <- train(iris_model(optimizer_swa("sgd", average_period = 2)))
  before <- weights_of(model)
  averages <- averages_of(model)
  assign_average_vars(model, model$trainable_variables[4])
  expect_identical(weights_of(model), c(before[1:3], averages[4]))
})

test_that("before the first snapshot there is no average, and the weights stay", {
  python_keras()
  model <- iris_model(optimizer_swa("sgd", start_averaging = 1000))
  before <- weights_of(model)
  for (f in list(assign_average_vars, swap_weights)) {
    expect_error(f(model), "needs an average", class = "kerasoptimizers_error")
  }
  expect_identical(weights_of(model), before)
  before <- weights_of(train(model))
  for (f in list(assign_average_vars, swap_weights)) {
    expect_error(f(model), "needs an average, and there is none yet",
                 class = "kerasoptimizers_error")
  }
  expect_identical(weights_of(model), before)
})

for (case in list(
  list("optimizer_lookahead", "slow"), list("optimizer_swa", "average"),
  list("optimizer_schedule_free", "average"), list("optimizer_primal_averaging", "average"),
  list("optimizer_power_average", "average"),
  list("optimizer_ema", "average"), list("optimizer_moving_average", "average")
)) {
  test_that(paste("swap_weights() exchanges, and twice is the start, bit for bit:", case[[1]]), {
    python_keras()
    # Some warn that the model holds the weights to train on.
    model <- suppressWarnings(train(iris_model(do.call(case[[1]], list("adam")))), classes = "kerasoptimizers_warning")
    slot <- case[[2]]
    # One more than a multiple of all periods.
    update_once(model)
    before <- weights_of(model)
    averages <- averages_of(model, slot)
    expect_false(identical(before, averages))
    expect_identical(swap_weights(model), model)
    expect_identical(weights_of(model), averages)
    expect_identical(averages_of(model, slot), before)
    expect_identical(swap_weights(model$optimizer), model$optimizer)
    expect_identical(weights_of(model), before)
    expect_identical(averages_of(model, slot), averages)
  })
}

test_that("shadow_copy() creates the averages, once, as copies of the weights", {
  python_keras()
  optimizer <- optimizer_ema("sgd")
  expect_false(has_shadow_copy(optimizer))
  model <- iris_model(optimizer)
  expect_false(has_shadow_copy(model))
  returned <- withVisible(shadow_copy(optimizer, model))
  expect_false(returned$visible)
  expect_identical(returned$value, optimizer)
  expect_true(has_shadow_copy(optimizer))
  expect_true(has_shadow_copy(model))
  expect_identical(averages_of(model), weights_of(model))
  update_once(model)
  averages <- averages_of(model)
  shadow_copy(optimizer, model)
  expect_identical(averages_of(model), averages)
})

test_that("shadow_copy() takes a list of variables; training does without it", {
  python_keras()
  for (optimizer in list(optimizer_swa("sgd"), optimizer_moving_average("sgd"))) {
    model <- iris_model(optimizer)
    shadow_copy(optimizer, model$trainable_variables)
    expect_true(has_shadow_copy(optimizer))
  }
  model <- iris_model(optimizer_ema("sgd"))
  update_once(model)
  expect_true(has_shadow_copy(model))
})

test_that("a model's optimizer is found through the loss scaling of mixed precision", {
  keras <- python_keras()
  policy <- keras$mixed_precision$dtype_policy()
  keras$mixed_precision$set_dtype_policy("mixed_float16")
  withr::defer(keras$mixed_precision$set_dtype_policy(policy))
  model <- train(iris_model(optimizer_swa("sgd", average_period = 2)))
  expect_match(class(model$optimizer)[[1]], "LossScaleOptimizer$")
  before <- weights_of(model)
  assign_average_vars(model)
  expect_false(identical(weights_of(model), before))
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("an optimizer in mixed precision is found inside of Keras's:", module), {
    keras <- local_keras(module)
    policy <- keras$mixed_precision$global_policy()
    keras$mixed_precision$set_global_policy("mixed_float16")
    withr::defer(keras$mixed_precision$set_global_policy(policy))
    inner <- optimizer_swa(keras$optimizers$SGD(0.01), average_period = 2)
    model <- iris_model(inner, keras)
    given <- model$optimizer
    expect_match(class(given)[[1]], "LossScaleOptimizer")
    expect_false(has_shadow_copy(given))
    expect_identical(shadow_copy(given, model), given)
    expect_true(has_shadow_copy(given))
    fit(model)
    expect_identical(averaging_optimizer(model)$name, "SWA")
    expect_identical(averaging_optimizer(given)$name, "SWA")
    expect_identical(averaging_optimizer(averaging_optimizer(model))$name, "SWA")
    expect_gt(summary(averaging_optimizer(model))$snapshots, 10)
    before <- weights_of(model)
    expect_identical(swap_weights(given), given)
    expect_false(identical(weights_of(model), before))
    swap_weights(given)
    expect_identical(weights_of(model), before)
    averages <- lapply(model$trainable_variables, function(v) {
      as.array(averaging_optimizer(model)$get_slot(v, "average")$numpy())
    })
    assign_average_vars(given, model$trainable_variables)
    expect_equal(weights_of(model), averages, tolerance = 1e-6)
    other <- keras$mixed_precision$LossScaleOptimizer(keras$optimizers$SGD())
    expect_error(averaging_optimizer(other), "`object` must be .* class LossScaleOptimizer",
                 class = "kerasoptimizers_argument_error")
  })
}

test_that("a Keras 2 model with frozen layers and a lookup table gets the averages that there are", {
  keras <- local_keras("tf_keras")
  tf <- reticulate::import("tensorflow")
  text <- keras$layers$TextVectorization(max_tokens = 20L, output_sequence_length = 4L)
  words <- tf$constant(matrix(rep(c("a b c", "c d e f", "b d"), 10), ncol = 1))
  text$adapt(words)
  frozen <- keras$layers$Dense(3L)
  frozen$trainable <- FALSE
  model <- keras$Sequential(list(
    keras$layers$Input(list(1L), dtype = "string"), text, keras$layers$Embedding(20L, 4L),
    keras$layers$GlobalAveragePooling1D(), frozen, keras$layers$Dense(1L)
  ))
  optimizer <- optimizer_swa(keras$optimizers$SGD(0.1), average_period = 2)
  model$compile(optimizer, loss = "mse")
  model$fit(words, tf$constant(matrix(1:30 / 10, ncol = 1)), verbose = 0L, epochs = 5L)
  values <- function(variables) lapply(variables, function(v) as.array(v$numpy()))
  before <- values(frozen$weights)
  averages <- averages_of(model)
  assign_average_vars(model)
  expect_identical(values(model$trainable_variables), averages)
  expect_identical(values(frozen$weights), before)
})

test_that("the averages of a Keras 2 model are handled alike", {
  keras <- python_keras("tf_keras")
  for (optimizer in list(keras$optimizers$Adam, keras$optimizers$legacy$SGD)) {
    model <- iris_model(optimizer_swa(optimizer(0.01), start_averaging = 1000), keras)
    before <- weights_of(train(model))
    expect_error(swap_weights(model), "needs an average", class = "kerasoptimizers_error")
    expect_identical(weights_of(model), before)

    model <- train(iris_model(optimizer_swa(optimizer(0.01), average_period = 2), keras))
    before <- weights_of(model)
    averages <- averages_of(model)
    swap_weights(model)
    expect_identical(weights_of(model), averages)
    swap_weights(model)
    expect_identical(weights_of(model), before)
    expect_identical(weights_of(assign_average_vars(model)), averages)
    expect_false(identical(before, averages))
  }
  optimizer <- optimizer_ema(keras$optimizers$SGD(0.01), trainable_weights_only = FALSE)
  model <- iris_norm_model(optimizer, keras)
  expect_false(has_shadow_copy(model))
  expect_identical(shadow_copy(optimizer, model), optimizer)
  expect_true(has_shadow_copy(model))
  before <- weights_of(train(model))
  expect_true(all(mapply(Negate(identical), weights_of(assign_average_vars(model)), before)))
})

test_that("assign_average_vars() says once that batch-norm statistics belong to other weights", {
  python_keras()
  models <- lapply(c(TRUE, TRUE, FALSE), function(only) {
    model <- iris_norm_model(optimizer_ema("sgd", average_decay = 0.9, trainable_weights_only = only))
    shadow_copy(model$optimizer, model)
    train(model)
  })
  forget <- function() rlang::reset_message_verbosity("kerasoptimizers_batch_norm")
  forget()
  expect_message(assign_average_vars(models[[1]]), "call `update_batch_norm(model, x)` next", fixed = TRUE,
                 class = "kerasoptimizers_message")
  expect_no_message(assign_average_vars(models[[2]]))
  forget()
  expect_no_message(assign_average_vars(models[[1]], data = iris_x))
  # Averages of their own, and a model that has no statistics.
  expect_no_message(assign_average_vars(models[[3]]))
  expect_no_message(assign_average_vars(train(iris_model(optimizer_ema("sgd", average_decay = 0.9)))))
})
