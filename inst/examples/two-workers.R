# Weight averaging on two machines: each works on its half of every batch, and both end up with the same averages.
#
#   Rscript two-workers.R                                   both workers on this machine
#   Rscript two-workers.R 0 first:12345 second:12345        on the machine called first
#   Rscript two-workers.R 1 first:12345 second:12345        on the machine called second
#
# Trains a network on the 150 irises that R has with TensorFlow's MultiWorkerMirroredStrategy and
# Keras 2 (tf_keras, which the R package keras uses), by SWA on SGD, and prints whether the averages
# agree. A model of the R package keras goes the same way: make the strategy first, build and
# compile the model inside of its scope, and have every worker run the same script.

arguments <- commandArgs(trailingOnly = TRUE)

# ---- Without arguments: both workers as processes of this machine

if (length(arguments) == 0) {
  script <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
  rscript <- file.path(R.home("bin"), "Rscript")
  # Ports that are free now.
  addresses <- paste0("localhost:", reticulate::py_run_string("
import socket
sockets = [socket.create_server(('localhost', 0)) for _ in range(2)]
ports = [s.getsockname()[1] for s in sockets]
for s in sockets: s.close()
")$ports)
  start <- function(worker, ...) system2(rscript, shQuote(c(script, worker, addresses)), ...)
  start(1, wait = FALSE)
  quit(status = start(0))
}

worker <- suppressWarnings(as.integer(arguments[1]))
addresses <- arguments[-1]
if (!worker %in% 0:1 || length(addresses) != 2 || !all(grepl(":[0-9]+$", addresses))) {
  stop("give the number of this worker, 0 or 1, and two addresses as host:port, or nothing", call. = FALSE)
}

# ---- The cluster: TensorFlow reads who is who from TF_CONFIG, before anything else of it runs

Sys.setenv(TF_CONFIG = sprintf(
  '{"cluster": {"worker": ["%s", "%s"]}, "task": {"type": "worker", "index": %d}}', addresses[1], addresses[2], worker
))
# Keras 2, even for calls that get no Keras object.
Sys.setenv(TF_USE_LEGACY_KERAS = "1")
library(kerasoptimizers)
tf <- reticulate::import("tensorflow")
keras <- reticulate::import("tf_keras")
# One string each: two workers write to one screen.
say <- function(...) cat(paste0("worker ", worker, ": ", sprintf(...), "\n"))

strategy <- tf$distribute$MultiWorkerMirroredStrategy()
say("one of %d", strategy$num_replicas_in_sync)

# ---- Data: every worker has all of it, and TensorFlow gives each its share of each batch

set.seed(1)
train <- sample(nrow(iris), 120)
features <- unname(scale(as.matrix(iris[, 1:4])))
classes <- as.array(as.integer(iris$Species) - 1L)

# ---- Training

keras$utils$set_random_seed(1L)
scope <- strategy$scope()
with(scope, {
  dense <- keras$layers$Dense
  model <- keras$Sequential(list(
    keras$layers$Input(list(4L)), dense(16L, activation = "relu"), dense(3L, activation = "softmax")
  ))
  # 4 updates an epoch: averages over the last 20 of 40 epochs, one snapshot an epoch.
  model$compile(
    optimizer_swa(keras$optimizers$SGD(learning_rate = 0.1, momentum = 0.9), start_averaging = 80, average_period = 4),
    loss = "sparse_categorical_crossentropy", metrics = list("accuracy")
  )
})
history <- model$fit(features[train, ], classes[train], batch_size = 30L, epochs = 40L, verbose = 0L)
last <- lapply(model$get_weights(), as.array)
assign_average_vars(model)
averages <- lapply(model$get_weights(), as.array)
predictions <- as.array(model(features[-train, ])$numpy())
say("test accuracy of the averages %.3f", mean(max.col(predictions) - 1L == classes[-train]))
say("the averages differ from the last weights by up to %.4f", max(abs(unlist(averages) - unlist(last))))

# ---- Do both have the same averages? Each worker gathers those of both

# The function is TensorFlow's own: strategies call it from their threads, where R can't run.
own <- strategy$run(tf$`function`(tf$identity), args = list(tf$constant(matrix(unlist(averages), 1), "float32")))
rows <- as.array(strategy$gather(own, 0L)$numpy())
difference <- max(abs(rows[1, ] - rows[2, ]))
say("the averages of both workers differ by %g", difference)
if (nrow(rows) != 2 || difference > 0) stop("the averages do not agree", call. = FALSE)
say("the averages agree")
