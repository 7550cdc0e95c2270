# Weight averaging on real letters: one network, trained five times from the same start on the
# same data in the same order, by plain SGD, by SWA, EMA and Lookahead on it, and Schedule-Free.
#
#   Rscript letters.R [folder of the picture] [epochs] [seed]
#
# Prints a table and draws the test accuracy after each epoch. The data are the 20,000 letters of
# the R package mlbench: 16 numbers that describe the picture of a letter, 26 classes (Frey and
# Slate 1991, doi:10.1007/BF00114162).

library(kerasoptimizers)

arguments <- commandArgs(trailingOnly = TRUE)
folder <- if (length(arguments) >= 1) arguments[1] else "."
epochs <- if (length(arguments) >= 2) as.integer(arguments[2]) else 20L
seed <- if (length(arguments) >= 3) as.integer(arguments[3]) else 1L
if (anyNA(c(epochs, seed)) || epochs < 1) {
  stop("epochs and seed must be whole numbers", call. = FALSE)
}
dir.create(folder, showWarnings = FALSE, recursive = TRUE)
batch_size <- 64L

# ---- Data: 16,000 letters to train on, 4,000 to test with

if (!requireNamespace("mlbench", quietly = TRUE)) {
  stop("the R package mlbench, which has the data, is missing", call. = FALSE)
}
data("LetterRecognition", package = "mlbench")
set.seed(seed)
train <- sample(nrow(LetterRecognition), 16000)
features <- as.matrix(LetterRecognition[, -1])
center <- colMeans(features[train, ])
spread <- apply(features[train, ], 2, sd)
features <- unname(scale(features, center, spread))
classes <- as.array(as.integer(LetterRecognition$lettr) - 1L)
updates_per_epoch <- ceiling(length(train) / batch_size)

# ---- Keras: differences between the R package keras3 and Python's keras

loss <- "sparse_categorical_crossentropy"
if (requireNamespace("keras3", quietly = TRUE)) {
  used <- paste("the R package keras3", packageVersion("keras3"))
  new_model <- function() {
    keras3::keras_model_sequential(input_shape = 16) |>
      keras3::layer_dense(128, activation = "relu") |>
      keras3::layer_dense(128, activation = "relu") |>
      keras3::layer_dense(26, activation = "softmax")
  }
  sgd <- function(rate = 0.1, momentum = 0.9) keras3::optimizer_sgd(rate, momentum)
  compile <- function(model, optimizer) {
    keras3::compile(model, optimizer, loss, metrics = "accuracy")
  }
  fit <- function(model, x, y) {
    keras3::fit(model, x, y, batch_size = batch_size, epochs = 1, verbose = 0)
  }
  evaluate <- function(model, x, y) keras3::evaluate(model, x, y, batch_size = 1000, verbose = 0)
} else {
  keras <- reticulate::import("keras")
  version <- keras[["__version__"]]
  used <- paste0("Python's keras ", version, " (the R package keras3 is not installed)")
  new_model <- function() {
    dense <- keras$layers$Dense
    keras$Sequential(list(
      keras$layers$Input(list(16L)),
      dense(128L, activation = "relu"), dense(128L, activation = "relu"),
      dense(26L, activation = "softmax")
    ))
  }
  sgd <- function(rate = 0.1, momentum = 0.9) keras$optimizers$SGD(rate, momentum)
  compile <- function(model, optimizer) model$compile(optimizer, loss, metrics = list("accuracy"))
  fit <- function(model, x, y) model$fit(x, y, batch_size = batch_size, epochs = 1L, verbose = 0L)
  evaluate <- function(model, x, y) {
    model$evaluate(x, y, batch_size = 1000L, verbose = 0L, return_dict = TRUE)
  }
}

# ---- Training

# SWA averages over the second half of the training, one snapshot every 10 updates.
half <- ceiling(epochs / 2) * updates_per_epoch
methods <- list(
  list(name = "SGD", optimizer = sgd, averages_from = Inf),
  list(
    name = "SWA on SGD", averages_from = half,
    optimizer = function() optimizer_swa(sgd(), start_averaging = half, average_period = 10)
  ),
  list(
    name = "EMA on SGD", averages_from = 0,
    optimizer = function() optimizer_ema(sgd(), average_decay = 0.999)
  ),
  list(
    name = "Lookahead on SGD", averages_from = 0,
    optimizer = function() optimizer_lookahead(sgd(), sync_period = 6, slow_step_size = 0.5)
  ),
  # Schedule-Free replaces the momentum, and needs a much larger learning rate.
  list(
    name = "Schedule-Free", averages_from = 0,
    optimizer = function() {
      optimizer_schedule_free(sgd(3, 0), warmup_steps = updates_per_epoch)
    }
  )
)

test_accuracy <- function(model) {
  evaluate(model, features[-train, ], classes[-train])$accuracy
}

run <- function(method) {
  reticulate::import("keras")$utils$set_random_seed(seed)
  model <- new_model()
  compile(model, method$optimizer())
  accuracy <- numeric(epochs)
  start <- proc.time()[["elapsed"]]
  for (epoch in seq_len(epochs)) {
    # Schedule-Free would say that the averages have to be asked for, as they are below.
    suppressWarnings(fit(model, features[train, ], classes[train]), "kerasoptimizers_warning")
    # The averages stand in for the weights while the model is tested, and the training goes on
    # without them.
    averaged <- epoch * updates_per_epoch > method$averages_from
    if (averaged) swap_weights(model)
    accuracy[epoch] <- test_accuracy(model)
    if (averaged) swap_weights(model)
    cat(sprintf(
      "%-16s  epoch %2d/%d  test accuracy %.4f%s\n",
      method$name, epoch, epochs, accuracy[epoch], if (averaged) "  (averages)" else ""
    ))
  }
  seconds <- proc.time()[["elapsed"]] - start
  if (averaged) assign_average_vars(model)
  list(name = method$name, accuracy = accuracy, final = test_accuracy(model), seconds = seconds)
}

cat("Keras through ", used, "\n", sep = "")
cat(
  length(train), " letters to train on, ", nrow(features) - length(train), " to test with, seed ",
  seed, "\n\n", sep = ""
)
results <- lapply(methods, run)

# ---- Table and picture

table <- data.frame(
  method = vapply(results, `[[`, "", "name"),
  test_accuracy = sprintf("%.4f", vapply(results, `[[`, 0, "final")),
  seconds = sprintf("%.1f", vapply(results, `[[`, 0, "seconds"))
)
names(table) <- c("method", "test accuracy", "seconds")
cat("\n")
print(table, row.names = FALSE, right = FALSE)

# png() needs a display unless it draws through cairo or, on macOS, quartz; pdf() never does.
open_picture <- function(path) {
  type <- if (capabilities("cairo")) "cairo" else if (capabilities("aqua")) "quartz"
  if (is.null(type)) {
    path <- sub("png$", "pdf", path)
    pdf(path, width = 8, height = 5)
  } else {
    png(path, width = 1120, height = 700, res = 140, type = type)
  }
  path
}

draw <- function(results) {
  # Colors that color-blind people can tell apart; line types and shapes for print in grey.
  colors <- c("#000000", "#D55E00", "#009E73", "#0072B2", "#E69F00")
  types <- c("solid", "solid", "42", "12", "4212")
  marks <- c(21, 19, 15, 17, 18)
  accuracy <- do.call(cbind, lapply(results, `[[`, "accuracy"))
  # The first epochs, far below, would squeeze the rest.
  bottom <- max(min(accuracy), max(accuracy) - 0.1)
  par(mar = c(3.4, 4.4, 2.8, 1), las = 1, cex.main = 1.1, mgp = c(2.2, 0.7, 0))
  plot(
    NULL,
    xlim = c(1, epochs), ylim = c(bottom, max(accuracy) + 0.005), bty = "l", xaxt = "n",
    xlab = "epoch", ylab = "", main = "Letters: one network, with and without averaging"
  )
  title(ylab = "test accuracy", line = 3.3)
  axis(1, at = unique(c(1, setdiff(round(pretty(c(1, epochs))), 0))))
  grid(nx = NA, ny = NULL, col = "#E2E2E2", lty = 1)
  from <- half / updates_per_epoch
  abline(v = from + 0.5, lty = 3, col = colors[2])
  text(from + 0.5, bottom, "SWA averages from here", pos = 4, cex = 0.8, col = colors[2])
  # SGD last and so on top: until it averages, SWA is the same training.
  for (i in rev(seq_along(results))) {
    lines(
      seq_len(epochs), accuracy[, i],
      type = "o", col = colors[i], lty = types[i], pch = marks[i], bg = "white", lwd = 2, cex = 0.8
    )
  }
  legend(
    "bottomright",
    inset = c(0.02, 0.1), bg = "white", box.col = "#cccccc", cex = 0.85,
    legend = paste0(table$method, "  ", table[["test accuracy"]]), col = colors, pch = marks,
    lty = types, pt.bg = "white", lwd = 2, seg.len = 3
  )
}

path <- open_picture(file.path(folder, "letters.png"))
draw(results)
invisible(dev.off())
cat("\nTest accuracy after each epoch: ", path, "\n", sep = "")
