# Warnings of our Python code are R warnings, wherever R called it.

heard <- function(code) {
  warnings <- list()
  value <- withCallingHandlers(code, warning = function(w) {
    warnings <<- c(warnings, list(w))
    invokeRestart("muffleWarning")
  })
  list(value = value, warnings = warnings, texts = vapply(warnings, conditionMessage, ""))
}

two_batches <- function() {
  left <- 2
  function() {
    left <<- left - 1
    if (left >= 0) list(iris_x, iris_y)
  }
}

for (module in c("keras", "tf_keras")) {
  test_that(paste("a warning in a function of ours is that function's, each time:", module), {
    keras <- local_keras(module)
    model <- iris_norm_model("sgd", keras)
    for (i in 1:2) {
      said <- heard(update_batch_norm(model, two_batches(), steps = 3, verbose = 0))
      expect_identical(said$texts, "`steps` is 3, but `x` held 2 batches only: the statistics are of those.")
      expect_identical(said$value, model)
      expect_s3_class(said$warnings[[1]], "kerasoptimizers_warning")
      expect_identical(conditionCall(said$warnings[[1]])[[1]], quote(update_batch_norm))
    }
    momentum <- keras$optimizers$SGD(0.1, momentum = 0.9)
    expect_warning(optimizer_schedule_free(momentum), "`momentum` = 0", class = "kerasoptimizers_warning")
  })

  test_that(paste("a warning during fit() comes when fit() is done:", module), {
    keras <- local_keras(module)
    model <- iris_model(optimizer_schedule_free("sgd"), keras)
    said <- heard({
      history <- fit(model)
      length(history$history$loss)
    })
    expect_identical(said$value, 3L)
    expect_match(said$texts, "the model now holds the weights to train on")
    expect_identical(conditionCall(said$warnings[[1]])[[1]], quote(fit))
  })

  test_that(paste("a handler that leaves fit() finds everything in order:", module), {
    keras <- local_keras(module)
    model <- iris_model("sgd", keras)
    stops <- keras$callbacks$LambdaCallback(on_epoch_end = function(epoch, logs) model$stop_training <- TRUE)
    caught <- tryCatch(fit(model, 5, list(callback_swa(3), stops)), warning = conditionMessage)
    expect_match(caught, "There is no average: training ended before epoch 3 did")
    expect_identical(as.integer(model$optimizer$iterations$numpy()), 10L)
    expect_silent(fit(model))
  })
}

test_that("warnings of R functions that Python calls come when Python is done", {
  keras <- python_keras()
  model <- iris_norm_model("sgd")
  other <- iris_norm_model("sgd")
  recalibrates <- function(...) update_batch_norm(other, two_batches(), steps = 3, verbose = 0)
  calls <- keras$callbacks$LambdaCallback(on_epoch_end = function(epoch, logs) recalibrates())
  said <- heard(fit(model, 2, list(calls)))
  expect_length(said$texts, 2)
  expect_match(said$texts, "held 2 batches only")
  expect_identical(conditionCall(said$warnings[[2]])[[1]], quote(fit))
  caught <- tryCatch(fit(model, 2, list(calls)), warning = conditionMessage)
  expect_match(caught, "held 2 batches only")
  said <- heard(greedy_soup(list(model), function(model) {
    recalibrates()
    1
  }, data = iris_x))
  expect_match(said$texts, "held 2 batches only")
  expect_identical(conditionCall(said$warnings[[1]])[[1]], quote(greedy_soup))
})

test_that("warnings are errors where R is told so, and after an error nothing is kept", {
  python_keras()
  model <- iris_norm_model("sgd")
  withr::local_options(warn = 2)
  expect_error(update_batch_norm(model, two_batches(), steps = 3, verbose = 0), "converted from warning")
  expect_error(update_batch_norm(model, function() NULL, steps = 3, verbose = 0), "`x` must")
  expect_silent(update_batch_norm(model, iris_x, verbose = 0))
})

test_that("Python's own filters still decide, and other warnings stay with Python", {
  python_keras()
  model <- iris_norm_model("sgd")
  quietly <- reticulate::py_run_string("
def quietly(function):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', category=__import__('kerasoptimizers').KerasOptimizersWarning)
        return function()
", local = TRUE)$quietly
  expect_silent(quietly(function() {
    update_batch_norm(model, two_batches(), steps = 3, verbose = 0)
    NULL
  }))
  expect_silent(reticulate::py_run_string("
import contextlib, io, warnings
with contextlib.redirect_stderr(io.StringIO()) as said:
    warnings.warn('of somebody else')
assert 'of somebody else' in said.getvalue()
", local = TRUE))
})
