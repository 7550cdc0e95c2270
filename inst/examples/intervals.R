# Predictions that say how sure they are: prices of houses near Boston, with 90 % prediction intervals.
#
#   Rscript intervals.R [folder of the picture] [epochs] [seed]
#
# Trains a network that predicts mean and variance once, and predicts with its last weights (SGD), with the mean of the
# snapshots (SWA) and with weights drawn from their Gaussian (SWAG); beside them, a deep ensemble of five networks that
# train a fifth of the epochs each, so that both cost the same. Prints a table and draws a picture. The data are the 506
# houses of the R package mlbench: 13 numbers each and the median price (Harrison and Rubinfeld 1978). One split of so
# few houses decides little between methods: benchmarks/uci.md has the means of twenty.

library(kerasoptimizers)

arguments <- commandArgs(trailingOnly = TRUE)
folder <- if (length(arguments) >= 1) arguments[1] else "."
epochs <- if (length(arguments) >= 2) as.integer(arguments[2]) else 250L
seed <- if (length(arguments) >= 3) as.integer(arguments[3]) else 1L
if (anyNA(c(epochs, seed)) || epochs < 15) {
  stop("epochs and seed must be whole numbers, and epochs 15 or more", call. = FALSE)
}
dir.create(folder, showWarnings = FALSE, recursive = TRUE)

# ---- Data: 356 houses to train on, 150 to test with, prices in thousands of dollars

if (!requireNamespace("mlbench", quietly = TRUE)) {
  stop("the R package mlbench, which has the data, is missing", call. = FALSE)
}
data("BostonHousing", package = "mlbench")
set.seed(seed)
houses <- vapply(BostonHousing, function(column) as.numeric(as.character(column)), numeric(nrow(BostonHousing)))
test <- sample(nrow(houses), 150)
center <- colMeans(houses[-test, ])
spread <- apply(houses[-test, ], 2, sd)
scaled <- unname(scale(houses, center, spread))
x <- scaled[-test, -14]
y <- scaled[-test, 14]
x_test <- scaled[test, -14]
y_test <- scaled[test, 14]
unit <- spread[["medv"]]

# ---- Keras: differences between the R package keras3 and Python's keras

if (requireNamespace("keras3", quietly = TRUE)) {
  used <- paste("the R package keras3", packageVersion("keras3"))
  new_model <- function() {
    model <- keras3::keras_model_sequential(input_shape = 13) |>
      keras3::layer_dense(50, activation = "relu") |>
      keras3::layer_dense(2)
    keras3::compile(model, keras3::optimizer_sgd(0.005, momentum = 0.9), loss_gaussian_nll())
    model
  }
  train <- function(model, epochs, ...) {
    keras3::fit(model, x, y, epochs = epochs, batch_size = 32, verbose = 0, callbacks = list(...))
  }
} else {
  keras <- reticulate::import("keras")
  used <- paste0("Python's keras ", keras[["__version__"]], " (the R package keras3 is not installed)")
  new_model <- function() {
    layers <- keras$layers
    model <- keras$Sequential(list(
      layers$Input(list(13L)), layers$Dense(50L, activation = "relu"), layers$Dense(2L)
    ))
    model$compile(keras$optimizers$SGD(0.005, momentum = 0.9), loss_gaussian_nll())
    model
  }
  train <- function(model, epochs, ...) {
    model$fit(x, array(y), epochs = as.integer(epochs), batch_size = 32L, verbose = 0L, callbacks = list(...))
  }
}
cat("Keras through ", used, "\n", sep = "")
cat(length(y), " houses to train on, ", length(y_test), " to test with, seed ", seed, "\n\n", sep = "")
# Losses and callbacks of kerasoptimizers are then for Keras 3.
options(kerasoptimizers.keras = "keras3")
reticulate::import("keras")$utils$set_random_seed(seed)
# TensorFlow would warn that many models predict.
reticulate::import("logging")$getLogger("tensorflow")$setLevel("ERROR")

# ---- Training

model <- new_model()
swag <- callback_swag(start_epoch = ceiling(0.6 * epochs))
cat("one network,", epochs, "epochs, with snapshots in the last 40 % of them\n")
invisible(train(model, epochs, swag))
print(swag)

fifth <- epochs %/% 5L
cat("\nfive networks,", fifth, "epochs each\n\n")
members <- lapply(1:5, function(i) new_model())
for (member in members) train(member, fifth)

predictions <- list(
  "SGD" = predict_samples(model, NULL, x_test, batch_size = 150, verbose = 0),
  "SWA" = predict_samples(model, swag, x_test, samples = 1, scale = 0, batch_size = 150, verbose = 0),
  "SWAG" = predict_samples(model, swag, x_test, seed = seed, batch_size = 150, verbose = 0),
  "ensemble of 5" = predict_samples(members, NULL, x_test, batch_size = 150, verbose = 0)
)

# ---- Table

table <- do.call(rbind, lapply(names(predictions), function(method) {
  found <- measure_predictions(y_test, predictions[[method]], noise = "log_variance", level = 0.9)
  data.frame(
    method = method, rmse = sprintf("%.2f", found$rmse * unit),
    nll = sprintf("%.3f", found$nll + log(unit)),
    covered = sprintf("%.1f %%", 100 * found$coverage), width = sprintf("%.2f", found$width * unit)
  )
}))
names(table) <- c("method", "RMSE", "NLL", "in 90 % intervals", "their width")
print(table, row.names = FALSE, right = FALSE)
cat("\nRMSE and width in thousands of dollars; NLL is the negative log-likelihood, lower is better.\n")

# ---- Picture: intervals, and how many houses are in intervals of each level

intervals <- predict_interval(predictions[["SWAG"]], level = 0.9, type = "pred_int", noise = "log_variance")
levels <- seq(0.05, 0.95, 0.05)
covered <- vapply(predictions, function(samples) {
  vapply(levels, function(level) {
    found <- predict_interval(samples, level = level, type = "pred_int", noise = "log_variance")
    mean(y_test >= found$.pred_lower & y_test <= found$.pred_upper)
  }, 0)
}, levels)

# png() needs a display unless it draws through cairo or, on macOS, quartz; pdf() never does.
open_picture <- function(path) {
  type <- if (capabilities("cairo")) "cairo" else if (capabilities("aqua")) "quartz"
  if (is.null(type)) {
    path <- sub("png$", "pdf", path)
    pdf(path, width = 11, height = 5)
  } else {
    png(path, width = 1540, height = 700, res = 140, type = type)
  }
  path
}

draw <- function() {
  # Colors that color-blind people can tell apart; line types and shapes for print in grey.
  colors <- c("#000000", "#D55E00", "#0072B2", "#E69F00")
  types <- c("solid", "42", "12", "4212")
  par(mfrow = c(1, 2), mar = c(3.4, 4, 2.8, 1), las = 1, cex.main = 1, mgp = c(2.6, 0.7, 0))
  in_dollars <- function(z) z * unit + center[["medv"]]
  order <- order(intervals$.pred)
  at <- seq_along(order)
  prices <- in_dollars(y_test)[order]
  low <- in_dollars(intervals$.pred_lower)[order]
  high <- in_dollars(intervals$.pred_upper)[order]
  plot(
    NULL,
    xlim = range(at), ylim = range(low, high, prices), bty = "l", xlab = "houses of the test, by prediction",
    ylab = "price, 1000 dollars", main = "SWAG: 90 % prediction intervals"
  )
  segments(at, low, at, high, col = "#A9CFE6", lwd = 2)
  lines(at, in_dollars(intervals$.pred)[order], col = colors[3], lwd = 2)
  inside <- prices >= low & prices <= high
  points(at, prices, pch = 19, cex = 0.5, col = ifelse(inside, "#333333", colors[2]))
  plot(
    NULL,
    xlim = 0:1, ylim = 0:1, bty = "l", xlab = "level of the interval", ylab = "part of the houses in it",
    main = "How many prices are in their interval?"
  )
  abline(0, 1, lty = 3, col = "#888888")
  for (i in seq_along(predictions)) {
    lines(levels, covered[, i], type = "o", pch = 14 + i, col = colors[i], lty = types[i], lwd = 1.5, cex = 0.7)
  }
  legend("topleft", inset = 0.02, legend = names(predictions), col = colors, pch = 14 + seq_along(predictions),
         lty = types[seq_along(predictions)], lwd = 1.5, seg.len = 3, bty = "n", cex = 0.85)
}

path <- open_picture(file.path(folder, "intervals.png"))
draw()
invisible(dev.off())
cat("\nIntervals of SWAG, and coverage by level: ", path, "\n", sep = "")
