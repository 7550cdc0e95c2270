# Whole scripts with the R packages keras3 and keras, each in a separate session: from training to the chosen average.

choosing <- '
  x <- unname(scale(iris[, 1:4]))
  y <- as.integer(iris$Species) - 1L
  score <- function(model) unlist(evaluate(model, x, y, verbose = 0))[["accuracy"]]
  small <- function(optimizer) {
    model <- start_model() |> layer_batch_normalization() |> layer_dense(3, activation = "softmax")
    model |> compile(optimizer = optimizer, loss = "sparse_categorical_crossentropy", metrics = "accuracy")
    model
  }
  go <- function(model, callbacks, ...) {
    invisible(fit(model, x, y, epochs = 20, batch_size = 15, verbose = 0, callbacks = callbacks, ...))
  }
  folder <- tempfile()
  model <- small(optimizer_power_average(optimizer_adam(0.01)))
  go(model, callback_average_snapshots(folder))
  picture <- plot_posthoc(model, folder, x, y, c(0.05, 0.1, 0.15), "accuracy", data = x, verbose = FALSE)
  cat("picture:", inherits(picture, "ggplot") && nrow(picture$data) == 3, "\n")
  before <- get_weights(model)
  shown <- with_averages(model, score(model), data = x)
  cat("back:", identical(get_weights(model), before), "\n")
  posthoc_average(model, folder, 0.05, data = x)
  cat("the kept one:", isTRUE(all.equal(score(model), shown)), "\n")
  posthoc_average(model, folder, 0.15, at = 150, data = x)
  cat("earlier, and good:", score(model) > 0.9, "\n")

  model <- small(optimizer_swa(optimizer_adam(0.01), start_averaging = "10 epochs"))
  go(model, list())
  assign_average_vars(model, data = x)
  cat("by epochs:", model$optimizer$snapshots == 10 && score(model) > 0.9, "\n")

  model <- small(optimizer_adam(0.01))
  lawa <- callback_lawa(k = 5, data = x)
  history <- go(model, list(lawa), validation_data = list(x, y))
  cat("lawa:", lawa$snapshots == 5 && score(model) > 0.9, "\n")
  cat("width:", average_width(half_life = 69, updates = 1000)$sigma_rel > 0.09, "\n")
'

expect_chosen <- function(output) {
  for (line in c("picture", "back", "the kept one", "earlier, and good", "by epochs", "lawa", "width")) {
    expect_match(output, paste0("^", line, ": TRUE"), all = FALSE)
  }
}

test_that("a keras3 script: the average is chosen afterwards", {
  skip_without_r_package("keras3")
  skip_if_not_installed("ggplot2")
  python_keras()
  expect_chosen(run_r(c("library(keras3)", "library(kerasoptimizers)", '
    set_random_seed(1)
    start_model <- function() keras_model_sequential(input_shape = 4) |> layer_dense(32, activation = "relu")
  ', choosing)))
})

test_that("a keras script: the average is chosen afterwards", {
  skip_without_r_package("keras")
  skip_if_not_installed("ggplot2")
  python_keras("tf_keras")
  expect_chosen(run_r(c("library(keras)", "library(kerasoptimizers)", '
    tensorflow::set_random_seed(1)
    start_model <- function() keras_model_sequential() |> layer_dense(32, activation = "relu", input_shape = 4)
  ', choosing)))
})
