# Whole scripts, each in a separate session: the two packages can't share one.

data <- '
  x <- unname(scale(iris[, 1:4]))
  y <- as.integer(iris$Species) - 1L
'

report <- '
  changed <- function(call) {
    before <- get_weights(model)
    force(call)
    !identical(get_weights(model), before)
  }
  cat("swapped:", changed(swap_weights(model)), "\\n")
  swap_weights(model)
  cat("assigned:", changed(assign_average_vars(model)), "\\n")
  accuracy <- unlist(evaluate(model, x, y, verbose = 0))[["accuracy"]]
  cat("good:", accuracy > 0.9, "\\n")
  cat("by name:", sub("[.].*", "", optimizer_swa("sgd")$optimizer$`__module__`), "\\n")
'

expect_trained <- function(output, keras) {
  lines <- c("swapped: TRUE", "assigned: TRUE", "good: TRUE", "loaded: TRUE")
  for (line in c(lines, paste("by name:", keras))) {
    expect_match(output, paste0("^", line), all = FALSE)
  }
}

for (optimizer in c(
  "optimizer_swa(optimizer_sgd(0.1, momentum = 0.9), start_averaging = 150, average_period = 5)",
  "optimizer_lookahead(optimizer_adam(0.01), sync_period = 7)",
  "optimizer_ema(optimizer_adam(0.01), average_decay = 0.9)",
  "optimizer_schedule_free(optimizer_adam(0.02, beta_1 = 0), warmup_steps = 30)",
  "optimizer_primal_averaging(optimizer_adam(0.01), eval_interpolation = 0.9)",
  "optimizer_power_average(optimizer_adam(0.01), sigma_rel = c(0.1, 0.2))",
  "optimizer_moving_average(optimizer_adam(0.01), average_decay = 0.9)"
)) {
  name <- sub("\\(.*", "()", optimizer)

  test_that(paste("a keras3 script:", name), {
    skip_without_r_package("keras3")
    python_keras()
    output <- run_r(c(data, "library(keras3)", "library(kerasoptimizers)", sprintf('
      set_random_seed(1)
      model <- keras_model_sequential(input_shape = 4) |>
        layer_dense(32, activation = "relu") |>
        layer_dense(3, activation = "softmax")
      model |> compile(optimizer = %s,
                       loss = "sparse_categorical_crossentropy", metrics = "accuracy")
      model |> fit(x, y, epochs = 60, batch_size = 15, verbose = 0)
    ', optimizer), report, '
      file <- tempfile(fileext = ".keras")
      save_model(model, file)
      loaded <- load_model(file)
      cat("loaded:", identical(get_weights(loaded), get_weights(model)), "\\n")
    '))
    expect_trained(output, "keras")
  })

  test_that(paste("a keras script:", name), {
    skip_without_r_package("keras")
    python_keras("tf_keras")
    output <- run_r(c(data, "library(keras)", "library(kerasoptimizers)", sprintf('
      tensorflow::set_random_seed(1)
      model <- keras_model_sequential() |>
        layer_dense(32, activation = "relu", input_shape = 4) |>
        layer_dense(3, activation = "softmax")
      model |> compile(optimizer = %s,
                       loss = "sparse_categorical_crossentropy", metrics = "accuracy")
      model |> fit(x, y, epochs = 60, batch_size = 15, verbose = 0)
    ', optimizer), report, '
      file <- tempfile(fileext = ".keras")
      save_model_tf(model, file)
      loaded <- load_model_tf(file)
      cat("loaded:", identical(get_weights(loaded), get_weights(model)), "\\n")
    '))
    expect_trained(output, "tf_keras")
  })
}

# Train, validate on the average, save, load and train on.
between <- '
  small <- function() {
    model <- start_model() |> layer_dense(3, activation = "softmax")
    optimizer <- optimizer_schedule_free(optimizer_sgd(1), warmup_steps = 20, weight_decay_at_y = 1e-4)
    model |> compile(optimizer = optimizer, loss = "sparse_categorical_crossentropy",
                     metrics = "accuracy")
    model
  }
  go <- function(model, ...) {
    fit(model, x, y, batch_size = 15, verbose = 0, shuffle = FALSE, ...)
  }
  slot <- function(model, name) {
    lapply(model$trainable_variables, function(v) as.array(model$optimizer$get_slot(v, name)$numpy()))
  }
  score <- function(model) unlist(evaluate(model, x, y, verbose = 0))[["accuracy"]]

  model <- small()
  file <- tempfile(fileext = ".keras")
  history <- go(model, epochs = 10, validation_data = list(x, y), callbacks = list(
    callback_swap_averages(), callback_average_model_checkpoint(FALSE, file)
  ))
  weights <- get_weights(model)
  # Save and load: both go on alike.
  path <- tempfile(fileext = ".keras")
  save(model, path)
  loaded <- load(path)
  swap_weights(model)
  validated <- utils::tail(history$metrics$val_accuracy, 1)
  cat("validated on the average:", isTRUE(all.equal(validated, score(model), tolerance = 1e-5)), "\n")
  cat("checkpoint:", isTRUE(all.equal(get_weights(load(file)), get_weights(model), tolerance = 0)), "\n")
  cat("shown:", identical(unname(get_weights(model)), slot(loaded, "average")), "\n")
  swap_weights(model)
  cat("back:", identical(get_weights(model), weights), "\n")
  for (m in list(model, loaded)) go(m, epochs = 10)
  cat("went on alike:", identical(get_weights(loaded), get_weights(model)), "\n")
  cat("all of it:", identical(lapply(c("average", "fast"), slot, model = loaded),
                              lapply(c("average", "fast"), slot, model = model)), "\n")
  assign_average_vars(model)
  cat("good:", score(model) > 0.9, "\n")
  go(model, epochs = 1)
  cat("trains on:", !identical(get_weights(model), slot(model, "average")), "\n")
'

expect_between <- function(output) {
  for (line in c("validated on the average", "checkpoint", "shown", "back", "went on alike", "all of it",
                 "good", "trains on")) {
    expect_match(output, paste0(line, ": TRUE"), fixed = TRUE, all = FALSE)
  }
  said <- grep("holds the weights to train on, not their average", output, fixed = TRUE, value = TRUE)
  expect_gte(length(said), 1)
  expect_match(said, "callback_swap_averages()", fixed = TRUE)
}

test_that("a keras3 script: Schedule-Free trains, validates on the average, is saved, loaded and trains on", {
  skip_without_r_package("keras3")
  python_keras()
  expect_between(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    start_model <- function() keras_model_sequential(input_shape = 4) |> layer_dense(32, activation = "relu")
    load <- load_model
    save <- save_model
  ', between)))
})

test_that("a keras script: Schedule-Free trains, validates on the average, is saved, loaded and trains on", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_between(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    start_model <- function() keras_model_sequential(input_shape = 4) |> layer_dense(32, activation = "relu")
    load <- load_model_tf
    save <- save_model_tf
  ', between)))
})

# In these the two packages differ in how a model is made and loaded only.
callbacks <- '
  new_model <- function(optimizer) {
    model <- start_model() |>
      layer_batch_normalization() |>
      layer_activation("relu") |>
      layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer, loss = "sparse_categorical_crossentropy",
                     metrics = "accuracy")
    model
  }
  accuracy <- function(model) unlist(evaluate(model, x, y, verbose = 0))[["accuracy"]]

  model <- new_model(optimizer_lars(5, exclude_from_weight_decay = c("bias", "gamma", "beta")))
  swa <- callback_swa(15, "constant", swa_lr = 2)
  history <- model |> fit(x, y, epochs = 20, batch_size = 15, verbose = 0, callbacks = swa)
  cat("rates:", nrow(as.data.frame(history)) / 20, "\\n")
  cat("good:", accuracy(model) > 0.85, "\\n")

  swa <- callback_swa(3, "cyclic", 0.1, 0.2, swa_freq = 2)
  history <- model |> fit(x, y, epochs = 6, batch_size = 15, verbose = 0, callbacks = swa)
  cat("rates:", nrow(as.data.frame(history)) / 6, "\n")

  before <- get_weights(model)
  update_batch_norm(model, function() list(x, y), steps = 1, verbose = 0)
  same <- isTRUE(all.equal(get_weights(model), before, tolerance = 1e-4))
  cat("recalibrated before:", same, "\\n")

  file <- tempfile(fileext = ".keras")
  rate <- learning_rate_schedule_swa(0.01, 0.005, start_averaging = 100)
  model <- new_model(optimizer_ema(optimizer_adam(rate), average_decay = 0.9))
  model |> fit(x, y, epochs = 20, batch_size = 15, verbose = 0, validation_data = list(x, y),
               callbacks = list(
                 callback_swap_averages(),
                 callback_average_model_checkpoint(FALSE, file, monitor = "val_accuracy")
               ))
  weights <- get_weights(model)
  assign_average_vars(model)
  averages <- get_weights(model)
  saved <- get_weights(load(file))
  cat("saved the averages:", identical(saved, averages), "\\n")
  cat("trained on weights:", !identical(weights, averages), "\\n")
  update_batch_norm(model, x, verbose = 0)
  cat("good:", accuracy(model) > 0.85, "\\n")

  model <- new_model(optimizer_ema(optimizer_adam(0.01), trainable_weights_only = FALSE))
  shadow_copy(model$optimizer, model)
  model |> fit(x, y, epochs = 20, batch_size = 15, verbose = 0)
  weights <- get_weights(model)
  assign_average_vars(model)
  cat("averaged all:", !any(mapply(identical, weights, get_weights(model))), "\\n")
  cat("good:", accuracy(model) > 0.85, "\\n")
'

expect_worked <- function(output) {
  lines <- c(rep("rates: 3", 2), rep("good: TRUE", 3), "averaged all: TRUE",
             "recalibrated before: TRUE", "saved the averages: TRUE", "trained on weights: TRUE")
  said <- trimws(grep("^(rates|good|averaged|recalibrated|saved|trained)", output, value = TRUE))
  expect_setequal(said, lines)
  expect_length(said, length(lines))
}

test_that("a keras3 script: LARS, callbacks, schedule and batch norm", {
  skip_without_r_package("keras3")
  python_keras()
  expect_worked(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    start_model <- function() keras_model_sequential(input_shape = 4) |> layer_dense(32)
    load <- load_model
  ', callbacks)))
})

test_that("a keras script: LARS, callbacks, schedule and batch norm", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_worked(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    start_model <- function() keras_model_sequential() |> layer_dense(32, input_shape = 4)
    load <- load_model_tf
  ', callbacks)))
})

# print(), summary() and plot(): the two packages may change the names of classes.
looks <- '
  grDevices::pdf(NULL)
  model <- start_model() |> layer_dense(3, activation = "softmax")
  model |> compile(optimizer = optimizer_swa(optimizer_sgd(0.1), 20, 4), metrics = "accuracy",
                   loss = "sparse_categorical_crossentropy")
  start <- get_weights(model)
  swap <- callback_swap_averages(weights_too = TRUE)
  history <- model |> fit(x, y, epochs = 4, batch_size = 15, verbose = 0, callbacks = swap,
                          validation_data = list(x, y))
  print(model$optimizer)
  cat("snapshots:", summary(model$optimizer)$snapshots, "\\n")
  cat("due:", sum(plot(model$optimizer, 41)$data$due), "\\n")
  cat("curves:", nrow(plot_averaging(history)$data), "\\n")
  sgd <- get_weights(model)
  assign_average_vars(model)
  swa <- get_weights(model)
  plane <- plot_loss_plane(model, list(start = start, SGD = sgd, SWA = swa), x, y, size = 2)
  cat("plane:", nrow(plane$data), identical(get_weights(model), swa), "\\n")
  swa <- callback_swa(2, swa_freq = 2)
  model |> fit(x, y, epochs = 4, verbose = 0, callbacks = swa)
  print(swa)
  cat("rows:", nrow(as.data.frame(swa)), "\\n")
  cat("steps:", nrow(plot(swa)$data), "\\n")
  cat("rates:", nrow(plot(learning_rate_schedule_swa(0.1, 0.02, 50))$data), "\\n")
'

expect_looks <- function(output, keras) {
  lines <- c(paste0("<SWA for ", keras, ">"), "Next due:        after the next update",
             "snapshots: 5", "due: 6", "curves: 16", "plane: 4 TRUE", "<SWACallback>",
             "in the latest fit() of epochs 2, 4", "rows: 4", "steps: 4", "rates: 151")
  for (line in lines) expect_match(output, line, fixed = TRUE, all = FALSE)
}

test_that("a keras3 script: print(), summary() and plot()", {
  skip_without_r_package("keras3")
  python_keras()
  expect_looks(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    start_model <- function() keras_model_sequential(input_shape = 4)
  ', looks)), "Keras 3")
})

test_that("a keras script: print(), summary() and plot()", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_looks(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    start_model <- function() keras_model_sequential(input_shape = 4)
  ', looks)), "Keras 2")
})

test_that("a keras3 script: models load again after set_custom_objects(clear = TRUE)", {
  skip_without_r_package("keras3")
  python_keras()
  output <- run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    model <- keras_model_sequential(input_shape = 4) |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer_swa(optimizer_sgd(0.1)),
                     loss = "sparse_categorical_crossentropy")
    model |> fit(x, y, verbose = 0)
    file <- tempfile(fileext = ".keras")
    save_model(model, file)
    set_custom_objects(clear = TRUE)
    assign_average_vars(model)
    cat("loaded:", class(load_model(file)$optimizer)[[1]], "\n")
  '))
  expect_match(output, "^loaded: kerasoptimizers.SWA", all = FALSE)
})

# Lookup tables and frozen layers are among the variables of a Keras 2 model.
test_that("a keras script: a model of text with a frozen layer", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  output <- run_r(c("library(keras)", "library(kerasoptimizers)", '
    words <- matrix(rep(c("a b c", "c d e f", "b d"), 10), ncol = 1)
    text <- layer_text_vectorization(max_tokens = 20, output_sequence_length = 4)
    adapt(text, words)
    input <- layer_input(1, dtype = "string")
    fixed <- layer_dense(units = 3, trainable = FALSE)
    output <- layer_embedding(text(input), 20, 4) |>
      layer_global_average_pooling_1d() |>
      fixed() |>
      layer_dense(1)
    model <- keras_model(input, output)
    model |> compile(optimizer = optimizer_swa(optimizer_sgd(0.1), average_period = 2), loss = "mse")
    model |> fit(tensorflow::as_tensor(words), 1:30 / 10, verbose = 0, epochs = 5)
    values <- function(variables) lapply(variables, function(v) as.array(v$numpy()))
    averages <- lapply(model$trainable_variables, function(v) model$optimizer$get_slot(v, "average"))
    frozen <- values(fixed$weights)
    assign_average_vars(model)
    cat("assigned:", identical(values(model$trainable_variables), values(averages)), "\n")
    cat("frozen:", identical(values(fixed$weights), frozen), "\n")
    cat("variables:", length(averages), "\n")
  '))
  for (line in c("assigned: TRUE", "frozen: TRUE", "variables: 3")) {
    expect_match(output, line, fixed = TRUE, all = FALSE)
  }
})

mixed <- '
  model <- start_model() |> layer_dense(3)
  model |> compile(optimizer = optimizer_ema(optimizer_sgd(0.1)), loss = "mse")
  model |> fit(x, x[, 1:3], epochs = 3, verbose = 0)
  cat("scaled:", grepl("LossScaleOptimizer", class(model$optimizer)[[1]]), "\n")
  cat("updates:", summary(averaging_optimizer(model))$updates > 0, "\n")
  before <- get_weights(model)
  swap_weights(model$optimizer)
  cat("swapped:", !identical(get_weights(model), before), "\n")
  swap_weights(model)
  cat("back:", identical(get_weights(model), before), "\n")
  pictures <- list(plot(model$optimizer, 9), ggplot2::autoplot(model$optimizer, 9), ggplot2::autoplot(model, 9))
  cat("pictured:", all(vapply(pictures, function(picture) nrow(picture$data) == 9, NA)), "\n")
'

expect_mixed <- function(output) {
  for (line in c("scaled", "updates", "swapped", "back", "pictured")) {
    expect_match(output, paste0(line, ": TRUE"), fixed = TRUE, all = FALSE)
  }
}

test_that("a keras3 script: mixed precision", {
  skip_without_r_package("keras3")
  python_keras()
  expect_mixed(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    config_set_dtype_policy("mixed_float16")
    start_model <- function() keras_model_sequential(input_shape = 4)
  ', mixed)))
})

test_that("a keras script: mixed precision", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_mixed(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    keras::keras$mixed_precision$set_global_policy("mixed_float16")
    start_model <- function() keras_model_sequential(input_shape = 4)
  ', mixed)))
})

# From training to intervals, measures and pictures.
uncertain <- '
  grDevices::pdf(NULL)
  y <- unname(x[, 1] + 0.3 * rnorm(150))
  inputs <- x[, 2:4]
  model <- start_model() |> layer_batch_normalization() |> layer_dense(2)
  model |> compile(optimizer = optimizer_adam(0.01), loss = loss_gaussian_nll())
  swag <- callback_swag(20, rank = 5, lr_schedule = "constant", swa_lr = 0.005)
  history <- model |> fit(inputs, y, epochs = 30, batch_size = 15, verbose = 0, callbacks = swag)
  cat("rates:", nrow(as.data.frame(history)) / 30, "\n")
  before <- get_weights(model)
  samples <- predict_samples(model, swag, inputs, samples = 20, data = inputs, verbose = 0)
  found <- predict_interval(model, swag, as.data.frame(inputs), type = "pred_int", samples = 20, data = inputs,
                            verbose = 0)
  cat("back:", identical(get_weights(model), before), "\n")
  cat("dim:", dim(samples), "\n")
  covered <- mean(y >= found$.pred_lower & y <= found$.pred_upper)
  cat("covered:", covered > 0.7, "\n")
  measures <- measure_predictions(y, samples, noise = "log_variance")
  cat("measured:", all(is.finite(unlist(measures))), "\n")
  print(swag)
  picture <- plot_calibration(y, samples, noise = "log_variance")
  cat("levels:", nrow(picture$data), "\n")
  print(picture)
  print(plot(swag))
  file <- tempfile(fileext = ".keras")
  save(model, file)
  cat("loss:", class(load(file)$loss)[[1]], "\n")

  model <- start_model() |> layer_dense(3, activation = "softmax")
  model |> compile(optimizer = optimizer_sgd(0.1), loss = "sparse_categorical_crossentropy")
  swag <- callback_swag(10)
  classes <- as.integer(iris$Species) - 1L
  model |> fit(inputs, classes, epochs = 30, batch_size = 15, verbose = 0, callbacks = list(swag))
  prob <- predict_interval(model, swag, inputs, type = "prob", classes = levels(iris$Species), verbose = 0)
  cat("names:", names(prob), "\n")
  cat("accuracy:", measure_probabilities(iris$Species, prob)$accuracy > 0.8, "\n")
  print(plot_calibration(iris$Species, list(SGD = predict(model, inputs, verbose = 0), SWAG = as.matrix(prob))))
'

expect_uncertain <- function(output) {
  for (line in c("rates: 2", "back: TRUE", "dim: 20 150 2", "covered: TRUE", "measured: TRUE", "levels: 19",
                 "Snapshots:       11, of which 5 as deviations",
                 "names: .pred_setosa .pred_versicolor .pred_virginica",
                 "accuracy: TRUE")) {
    expect_match(output, line, fixed = TRUE, all = FALSE)
  }
  expect_match(output, "^loss: .*GaussianNLL", all = FALSE)
}

test_that("a keras3 script: SWAG from training to pictures", {
  skip_without_r_package("keras3")
  skip_if_not_installed("ggplot2", "3.4.0")
  python_keras()
  expect_uncertain(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    start_model <- function() keras_model_sequential(input_shape = 3) |> layer_dense(16, activation = "relu")
    load <- load_model
    save <- save_model
  ', uncertain)))
})

test_that("a keras script: SWAG from training to pictures", {
  skip_without_r_package("keras")
  skip_if_not_installed("ggplot2", "3.4.0")
  python_keras("tf_keras")
  expect_uncertain(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    start_model <- function() keras_model_sequential() |> layer_dense(16, activation = "relu", input_shape = 3)
    load <- load_model_tf
    save <- save_model_tf
  ', uncertain)))
})

soup_script <- '
  fitted <- lapply(1:3, function(i) {
    set_weights(model, start)
    model |> fit(x, y, epochs = 8, batch_size = 15, verbose = 0)
    average_models(list(model))
  })
  score <- function(model) unlist(evaluate(model, x, y, verbose = 0))[["accuracy"]]
  soup <- greedy_soup(fitted, score)
  cat("never worse:", score(soup) >= max(vapply(fitted, score, 0)), "\\n")
  folder <- tempfile()
  dir.create(folder)
  for (i in 1:3) save_as(fitted[[i]], file.path(folder, sprintf("model-%d.%s", i, ending)))
  mean <- average_checkpoints(folder, 3)
  cat("the same:", isTRUE(all.equal(get_weights(mean), get_weights(average_models(fitted)), tolerance = 1e-6)), "\\n")
  stock <- model_stock(fitted[1:2], fitted[[3]])
  cat("halfway:", score(interpolate_models(fitted[[1]], stock, 0.5)) > 0.5, "\\n")
'

expect_soup <- function(output) {
  for (line in c("never worse: TRUE", "the same: TRUE", "halfway: TRUE")) {
    expect_match(output, paste0("^", line), all = FALSE)
  }
}

test_that("a keras3 script: soups of models and checkpoints", {
  skip_without_r_package("keras3")
  python_keras()
  expect_soup(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    model <- keras_model_sequential(input_shape = 4) |>
      layer_dense(16, activation = "relu") |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer_ema(optimizer_adam(0.02)),
                     loss = "sparse_categorical_crossentropy", metrics = "accuracy")
    start <- get_weights(model)
    save_as <- function(model, file) save_model(model, file)
    ending <- "keras"
  ', soup_script)))
})

test_that("a keras script: soups of models and checkpoints", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_soup(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    model <- keras_model_sequential(input_shape = 4) |>
      layer_dense(16, activation = "relu") |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer_ema(optimizer_adam(0.02)),
                     loss = "sparse_categorical_crossentropy", metrics = "accuracy")
    start <- get_weights(model)
    save_as <- function(model, file) save_model_hdf5(model, file)
    ending <- "hdf5"
  ', soup_script), env = "TF_USE_LEGACY_KERAS=1"))
})

validation_script <- '
  suppressMessages({
    model |> fit(x, y, epochs = 40, batch_size = 15, verbose = 0, validation_split = 0.2,
                 callbacks = list(callback_average_early_stopping(patience = 3)))
  })
  before <- get_weights(model)
  assign_average_vars(model)
  cat("restored:", isTRUE(all.equal(get_weights(model), before, tolerance = 1e-6)), "\\n")
  swa <- callback_swa("auto", n_converge = 2, n_tolerance = 2, tolerance_ratio = 0.01)
  model |> fit(x[order(y %% 2), ], y[order(y %% 2)], epochs = 30, batch_size = 15, verbose = 0, validation_split = 0.2,
               callbacks = list(swa))
  cat("averaged:", swa$snapshots > 0, "\\n")
'

expect_validated <- function(output) {
  for (line in c("restored: TRUE", "averaged: TRUE")) expect_match(output, paste0("^", line), all = FALSE)
}

test_that("a keras3 script: starts and stops from validation", {
  skip_without_r_package("keras3")
  python_keras()
  expect_validated(run_r(c(data, "library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    model <- keras_model_sequential(input_shape = 4) |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer_ema(optimizer_adam(0.1)), loss = "sparse_categorical_crossentropy")
  ', validation_script)))
})

test_that("a keras script: starts and stops from validation", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_validated(run_r(c(data, "library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    model <- keras_model_sequential(input_shape = 4) |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer_ema(optimizer_adam(0.1)), loss = "sparse_categorical_crossentropy")
  ', validation_script), env = "TF_USE_LEGACY_KERAS=1"))
})
