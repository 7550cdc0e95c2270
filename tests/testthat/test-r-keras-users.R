# What users of the R packages met: one session for each package.

script <- '
  frame <- data.frame(length = iris$Petal.Length, width = iris$Petal.Width)
  y <- as.integer(iris$Species) - 1L
  x <- unname(as.matrix(iris[1:4]))
  say <- function(label, text) cat(label, ": ", gsub("\\n.*", "", text), "\\n", sep = "")
  error <- function(code) tryCatch({ code; "none" }, error = conditionMessage)

  # Data frames, as fit() takes them.
  named <- named_model()
  named |> compile(optimizer = "sgd", loss = "mse")
  swa <- callback_swa(2, data = frame)
  history <- named |> fit(frame, y, epochs = 3, verbose = 0, callbacks = swa)
  cat("frame:", swa$snapshots, "\\n")
  before <- get_weights(named)
  update_batch_norm(named, frame, verbose = 0)
  cat("the same:", isTRUE(all.equal(get_weights(named), before, tolerance = 1e-5)), "\\n")
  cat("predicted:", dim(predict_samples(named, NULL, frame, verbose = 0)), "\\n")

  # Wrong data.
  new_model <- function(optimizer) {
    model <- start_model() |> layer_batch_normalization() |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer, loss = "sparse_categorical_crossentropy")
    model
  }
  model <- new_model(optimizer_schedule_free("sgd"))
  say("one input", error(update_batch_norm(model, iris[1:4], verbose = 0)))
  say("columns", error(update_batch_norm(model, x[, 1:3], verbose = 0)))
  x_na <- x
  x_na[3, 2] <- NA
  say("missing", error(update_batch_norm(model, x_na, verbose = 0)))

  # A warning of fit() can be caught, and fit() returns.
  heard <- NULL
  history <- withCallingHandlers(model |> fit(x, y, epochs = 2, verbose = 0), warning = function(w) {
    heard <<- w
    invokeRestart("muffleWarning")
  })
  say("history", class(history)[[1]])
  say("warning", conditionMessage(heard))
  say("of", deparse(conditionCall(heard)[[1]]))
  model <- new_model(optimizer_schedule_free("sgd"))
  say("caught", tryCatch(model |> fit(x, y, epochs = 2, verbose = 0), warning = class)[[1]])

  # One optimizer for two models, as an object in compile_optimizer is.
  for (optimizer in list(optimizer_ema("sgd"), optimizer_lars(0.1))) {
    first <- new_model(optimizer)
    first |> fit(x, y, epochs = 1, verbose = 0)
    second <- new_model(optimizer)
    text <- error(second |> fit(x, y, epochs = 1, verbose = 0))
    cat("reused:", grepl("^ValueError: `optimizer` was built for other variables", text),
        grepl("tidymodels", text), "\\n")
  }

  # The learning rate afterwards.
  model <- new_model(optimizer_sgd(0.5))
  said <- capture.output(invisible(
    model |> fit(x, y, epochs = 3, verbose = 0, callbacks = callback_swa(2, "constant", swa_lr = 0.25, data = x))
  ))
  cat("rate:", as.numeric(model$optimizer$learning_rate), "\\n")

  # Several models, as in an ensemble.
  models <- lapply(1:6, function(i) new_model("sgd"))
  for (model in models) update_batch_norm(model, x, verbose = 0)
  cat("ensemble:", dim(predict_samples(models, NULL, x, verbose = 0)), "\\n")
'

expect_users_script <- function(output) {
  one_input <- "one input: `x` must be one array of shape \\(examples, 4\\), .* as.matrix\\(\\)"
  for (line in c(
    "frame: 2", "the same: TRUE", "predicted: 1 150 1", one_input,
    "columns: `x` must have the shape \\(examples, 4\\) of '.*', not \\(examples, 3\\)\\.$",
    "missing: `x` must give finite numbers", "history: keras_training_history",
    "warning: ScheduleFree: the model now holds the weights", "of: fit", "caught: kerasoptimizers_warning",
    "reused: TRUE TRUE", "rate: 0.25", "ensemble: 6 150 3"
  )) {
    expect_match(output, paste0("^", line), all = FALSE)
  }
  expect_length(grep("^reused: TRUE TRUE", output), 2)
  expect_false(any(grepl("retracing|UserWarning|RuntimeWarning", output)))
}

test_that("a keras3 script: data frames, missing values, warnings, one optimizer twice, many models", {
  skip_without_r_package("keras3")
  python_keras()
  output <- run_r(c("library(keras3)", "library(kerasoptimizers)", '
    start_model <- function() keras_model_sequential(input_shape = 4) |> layer_dense(8)
    named_model <- function() {
      inputs <- list(layer_input(1, name = "length"), layer_input(1, name = "width"))
      outputs <- layer_concatenate(inputs) |> layer_dense(4) |> layer_batch_normalization() |> layer_dense(1)
      keras_model(inputs, outputs)
    }
  ', script, '
    # Weights alone need averages to be loaded into.
    model <- new_model(optimizer_swa("sgd", average_period = 2))
    model |> fit(x, y, epochs = 2, verbose = 0)
    file <- tempfile(fileext = ".weights.h5")
    save_model_weights(model, file)
    fresh <- new_model(optimizer_swa("sgd", average_period = 2))
    say("loaded", tryCatch(load_model_weights(fresh, file), warning = conditionMessage))
    shadow_copy(fresh$optimizer, fresh)
    load_model_weights(fresh, file)
    cat("snapshots:", fresh$optimizer$snapshots == model$optimizer$snapshots, "\n")
  '))
  expect_users_script(output[!grepl("^loaded|^snapshots", output)])
  expect_match(output, "^loaded: .* Create them first, .*shadow_copy\\(model\\$optimizer, model\\)", all = FALSE)
  expect_match(output, "^snapshots: TRUE", all = FALSE)
})

test_that("a keras script: data frames, missing values, warnings, one optimizer twice, many models", {
  skip_without_r_package("keras")
  python_keras("tf_keras")
  expect_users_script(run_r(c("library(keras)", "library(kerasoptimizers)", '
    start_model <- function() keras_model_sequential() |> layer_dense(8, input_shape = 4)
    named_model <- function() {
      inputs <- list(layer_input(1, name = "length"), layer_input(1, name = "width"))
      outputs <- layer_concatenate(inputs) |> layer_dense(4) |> layer_batch_normalization() |> layer_dense(1)
      keras_model(inputs, outputs)
    }
  ', script)))
})

# Which Keras a name means where one package is attached and the variable says otherwise.
for (package in c("keras3", "keras")) {
  test_that(paste("the attached package decides which Keras \"adam\" means:", package), {
    skip_without_r_package(package)
    python_keras(keras_modules[[package]])
    for (legacy in c("1", "0")) {
      output <- run_r(c(sprintf("library(%s)", package), "library(kerasoptimizers)", '
        made <- optimizer_swa("adam")$optimizer
        cat("made:", sub("[.].*", "", made$`__module__`), "\n")
        cat("callback:", grepl("tf_keras", class(callback_swa(2))[[1]]), "\n")
      '), env = paste0("TF_USE_LEGACY_KERAS=", legacy))
      expect_match(output, paste("made:", keras_modules[[package]]), fixed = TRUE, all = FALSE)
      expect_match(output, paste("callback:", package == "keras"), fixed = TRUE, all = FALSE)
    }
  })
}
