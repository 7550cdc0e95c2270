# A fit() that is stopped in its validation, each in a separate R session: by an interrupt (the signal
# that Ctrl-C sends, while Python runs) and by an error in an R function that Keras calls.
#
# reticulate before 1.37 can crash R after any interrupt: it lets R jump over Python's stack, which is
# left as it was (its issue 1601). With these versions only Python gets the signal, in the same place.

session <- '
  library(kerasoptimizers)
  options(kerasoptimizers.keras = if (module == "keras") "keras3" else "keras")
  keras <- reticulate::import(module)
  x <- unname(as.matrix(iris[, 1:4]))
  y <- array(as.integer(iris$Species) - 1L)

  # Ctrl-C while Python evaluates a batch, in the validation of the epoch `last`.
  reticulate::py_run_string("
import os, signal, time
def interrupting(last):
    at = [0]
    def begin(epoch, logs=None):
        at[0] = epoch
    def interrupt(batch, logs=None):
        if at[0] == last and batch == 1:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100):
                time.sleep(0.1)
    return begin, interrupt
")
  if (packageVersion("reticulate") < "1.37") {
    reticulate::py_run_string("signal.signal(signal.SIGINT, signal.default_int_handler)")
  }
  stopping <- function(way, last) {
    hooks <- if (way == "interrupt") {
      reticulate::py_eval("interrupting")(last)
    } else {
      at <- 0
      list(
        function(epoch, logs = NULL) { at <<- epoch; NULL },
        function(batch, logs = NULL) { if (at == last && batch == 1) stop("broken in R"); NULL }
      )
    }
    keras$callbacks$LambdaCallback(on_epoch_begin = hooks[[1]], on_test_batch_begin = hooks[[2]])
  }

  # Trains 5 epochs, the last of which is stopped in its validation, and says how that ended and
  # whether the model has the weights that it had at the moment `when`.
  check <- function(way, when, optimizer, callback) {
    keras$utils$set_random_seed(7L)
    model <- keras$Sequential(list(
      keras$layers$Input(list(4L)), keras$layers$Dense(8L), keras$layers$BatchNormalization(),
      keras$layers$Dense(3L, activation = "softmax")
    ))
    model$compile(optimizer, loss = "sparse_categorical_crossentropy")
    weights <- function() lapply(model$get_weights(), as.array)
    own <- NULL
    hook <- list(function(...) { own <<- weights(); NULL })
    names(hook) <- when
    look <- do.call(keras$callbacks$LambdaCallback, hook)
    ending <- tryCatch({
      model$fit(x, y, batch_size = 15L, verbose = 0L, epochs = 5L, validation_data = list(x, y),
                callbacks = list(look, callback, stopping(way, 4L)))
      "it did not stop"
    }, interrupt = function(e) "interrupt", error = conditionMessage)
    if (grepl("KeyboardInterrupt", ending)) ending <- "interrupt"
    if (grepl("broken in R", ending)) ending <- "error"
    before <- weights()
    model$fit(x, y, verbose = 0L)
    trains <- !any(mapply(identical, before, weights()))
    cat("result:", way, when, ending, identical(before, own), trains, "\n")
  }
  for (way in c("interrupt", "error")) {
    check(way, "on_test_begin", optimizer_ema("sgd"), callback_swap_averages())
    check(way, "on_epoch_end", "adam", callback_swa(2))
  }
'

for (module in c("keras", "tf_keras")) {
  test_that(paste("after a stopped validation the model has its own weights:", module), {
    python_keras(module)
    output <- run_r(c(sprintf('module <- "%s"', module), session))
    results <- trimws(sub("^result:", "", grep("^result:", output, value = TRUE)))
    expect_identical(results, c(
      "interrupt on_test_begin interrupt TRUE TRUE",
      "interrupt on_epoch_end interrupt TRUE TRUE",
      "error on_test_begin error TRUE TRUE",
      "error on_epoch_end error TRUE TRUE"
    ))
  })
}

test_that("callback_swa(backup_dir = ) goes on with the average of a training that broke off", {
  keras <- python_keras()
  folder <- file.path(withr::local_tempdir(), "average")
  model <- iris_model("sgd")
  breaking <- keras$callbacks$LambdaCallback(on_epoch_begin = function(epoch, logs) {
    if (epoch == 4) stop("broken in R")
  })
  expect_error(fit(model, 6, list(callback_swa(2, backup_dir = folder), breaking)), "broken in R")
  expect_length(list.files(folder), 2)
  callback <- callback_swa(2, backup_dir = folder)
  fit(model, 6, list(callback), initial_epoch = 4L)
  expect_equal(callback$snapshots, 5)
  expect_false(dir.exists(folder))
})
