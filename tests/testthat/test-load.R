test_that("library() and argument errors start no Python", {
  output <- run_r('
    library(kerasoptimizers)
    cat("reticulate:", isNamespaceLoaded("reticulate"), "\n")
    try(optimizer_swa(NULL), silent = TRUE)
    try(optimizer_lookahead("sgd", 2.5), silent = TRUE)
    cat("started:", reticulate::py_available())
  ')
  expect_match(output, "reticulate: FALSE", all = FALSE)
  expect_match(output, "started: FALSE", all = FALSE)
})

test_that("a missing Python is one line with the command that mends it", {
  output <- run_r('
    library(kerasoptimizers)
    cat(conditionMessage(tryCatch(optimizer_swa("sgd"), error = identity)))
  ', env = paste0("RETICULATE_PYTHON=", file.path(tempdir(), "no-python")))
  expect_match(output, "^Python was not found: .*install_kerasoptimizers", all = FALSE)
})

test_that("a Python without Keras is one line with the command that mends it", {
  python_keras()
  # A module that shadows Keras and can't be imported takes the role of a missing one.
  dir <- withr::local_tempdir()
  writeLines("import keras_is_not_here", file.path(dir, "keras.py"))
  output <- run_r('
    library(kerasoptimizers)
    cat(conditionMessage(tryCatch(optimizer_swa("sgd"), error = identity)))
  ', env = paste0("PYTHONPATH=", dir))
  line <- "^The Python package keras_is_not_here is missing from .*install_kerasoptimizers"
  expect_match(output, line, all = FALSE)
})

test_that("library() after Keras registers the optimizers too", {
  python_keras()
  output <- run_r('
    keras <- reticulate::import("keras")
    library(kerasoptimizers)
    cat(names(keras$saving$get_custom_objects()))
  ')
  expect_match(output, "kerasoptimizers>SWA", all = FALSE)
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("a saved model loads in a fresh session after library() alone:", module), {
    keras <- python_keras(module)
    file <- withr::local_tempfile(fileext = ".keras")
    sgd <- keras$optimizers$SGD(0.01)
    model <- iris_model(optimizer_swa(sgd, start_averaging = 5, average_period = 2), keras)
    train(model)$save(file)
    output <- run_r(sprintf('
      library(kerasoptimizers)
      model <- reticulate::import("%s")$models$load_model("%s")
      cat("optimizer:", class(model$optimizer)[[1]], "\\n")
      assign_average_vars(model)
      cat("weight:", format(model$get_weights()[[1]][1, 1], digits = 15))
    ', module, file))
    expect_match(output, "optimizer: kerasoptimizers.*SWA", all = FALSE)
    weight <- format(averages_of(model)[[1]][1, 1], digits = 15)
    expect_match(output, paste("weight:", weight), fixed = TRUE, all = FALSE)
  })
}

for (module in c("keras", "tf_keras")) {
  test_that(paste("models load again after Keras forgot our classes:", module), {
    keras <- local_keras(module)
    withr::defer(make_known())
    file <- withr::local_tempfile(fileext = ".keras")
    rate <- learning_rate_schedule_swa(0.1, 0.01, 10)
    model <- train(iris_model(optimizer_swa(keras$optimizers$SGD(rate)), keras), 1)
    model$save(file)
    forget <- reticulate::py_eval("lambda keras: keras.saving.get_custom_objects().clear()")
    callback <- callback_swa(2)
    variables <- model$trainable_variables
    # Each of these is enough.
    for (call in expression(
      optimizer_ema(keras$optimizers$SGD()), callback_swa(2), has_shadow_copy(model),
      has_shadow_copy(model$optimizer), swap_weights(model), swap_weights(model$optimizer),
      assign_average_vars(model), assign_average_vars(model$optimizer, variables),
      shadow_copy(model$optimizer, model), update_batch_norm(model, iris_x, verbose = 0),
      summary(model$optimizer)
    )) {
      forget(keras)
      eval(call)
      loaded <- keras$models$load_model(file)
      expect_identical(class(loaded$optimizer), class(model$optimizer), info = deparse(call))
    }
  })
}

test_that("a Python error about an argument is one line, any other stays as it is", {
  python_keras()
  fails <- reticulate::py_eval("lambda kind: (_ for _ in ()).throw(kind('`x` is {wrong}.\\nSo.'))")
  builtins <- reticulate::import_builtins()
  error <- expect_error(call_python(fails(builtins$ValueError)), class = "kerasoptimizers_error")
  expect_identical(conditionMessage(error), "`x` is {wrong}. So.")
  expect_error(call_python(fails(builtins$TypeError)), class = "kerasoptimizers_error")
  other <- expect_error(call_python(fails(builtins$RuntimeError)), "RuntimeError")
  expect_false(inherits(other, "kerasoptimizers_error"))
})

test_that("install_kerasoptimizers() asks reticulate for the packages of the chosen Keras", {
  output <- run_r('
    asked <- function(packages, envname, pip, ...) {
      cat("asked:", setdiff(packages, "numpy<2"), "in", envname, "by", c(pip = pip, ...), "\n")
    }
    utils::assignInNamespace("py_install", asked, "reticulate")
    library(kerasoptimizers)
    install_kerasoptimizers()
    install_kerasoptimizers("mine", backend = "jax", method = "virtualenv")
    install_kerasoptimizers(keras = "keras")
    for (wrong in list(list(1), list(keras = "keras4"), list(backend = NA))) {
      error <- tryCatch(do.call(install_kerasoptimizers, wrong), error = identity)
      cat(conditionMessage(error), "\n")
    }
    cat("started:", reticulate::py_available())
  ')
  expect_identical(trimws(grep("^(asked|`|started)", output, value = TRUE)), c(
    "asked: keras>=3.8 tensorflow in by TRUE",
    "asked: keras>=3.8 jax in mine by TRUE virtualenv",
    "asked: tf_keras>=2.16 tensorflow in by TRUE",
    "`envname` must be a string, not 1.",
    '`keras` must be "keras3" or "keras", not "keras4".',
    '`backend` must be "tensorflow", "jax" or "torch", not NA.',
    "started: FALSE"
  ))
})

test_that("methods go by public names of classes, wherever these stand in Python", {
  methods <- getNamespaceInfo("kerasoptimizers", "S3methods")
  classes <- grep("^kerasoptimizers[.]", unique(methods[, 2]), value = TRUE)
  expect_gt(length(classes), 4)
  for (module in names(modules)) {
    python_keras(keras_modules[[module]])
    keras <- python_module(module)
    mro <- reticulate::py_eval("lambda m: [c.__module__ + '.' + c.__qualname__ for x in
      (m.SWA, m.LARS, m.SWACallback, m.SWAG, m.SwapAverages, m.AverageModelCheckpoint, m.SWALearningRate,
       m.AverageSnapshots, m.LatestAverage, m.AverageEarlyStopping, m.GaussianNLL)
      for c in x.__mro__]")(keras)
    expect_identical(setdiff(classes, mro), character())
    expect_false(any(grepl("^kerasoptimizers[.].*[.]", classes)))
  }
})
