# Times of loading the package, of the first optimizer, and of fit() with keras3: one line of JSON.

seconds <- function(expr) system.time(expr)[["elapsed"]]

# What the package builds on is loaded once beside it in any case.
load <- seconds(library(kerasoptimizers))
first <- seconds(optimizer_swa("sgd"))

set.seed(1)
x <- matrix(rnorm(3200 * 512), 3200)
y <- sample(0:9, 3200, replace = TRUE)
time_fit <- function(optimizer) {
  model <- keras3::keras_model_sequential(input_shape = 512)
  for (i in 1:8) model <- model |> keras3::layer_dense(512, "relu")
  model <- model |> keras3::layer_dense(10)
  loss <- keras3::loss_sparse_categorical_crossentropy(from_logits = TRUE)
  model |> keras3::compile(optimizer, loss)
  fit <- function() {
    model |> keras3::fit(x, y, batch_size = 32, epochs = 3, verbose = 0, view_metrics = FALSE)
  }
  invisible(fit())
  median(replicate(3, seconds(fit())))
}
sgd <- function() keras3::optimizer_sgd(0.01, momentum = 0.9)
plain <- time_fit(sgd())
ours <- time_fit(optimizer_swa(sgd(), average_period = 10))
cat(sprintf(
  '{"library(kerasoptimizers)": %.4f, "first optimizer": %.4f, "fit": %.4f, "fit, plain SGD": %.4f}\n',
  load, first, ours, plain
))
