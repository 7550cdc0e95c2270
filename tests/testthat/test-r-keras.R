# Whole scripts, each in a session of its own: the two packages don't share one.

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
  "optimizer_lookahead(optimizer_adam(0.01), sync_period = 7)"
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
