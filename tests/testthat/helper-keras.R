# Python's Keras, or a skip that says why; a failure where Python is required.
python_keras <- function(module = "keras") {
  required <- identical(Sys.getenv("KERASOPTIMIZERS_REQUIRE_PYTHON"), "true")
  # Without a Python named, reticulate may download one: not in a test.
  named <- required || nzchar(Sys.getenv("RETICULATE_PYTHON"))
  if (named && reticulate::py_module_available(module)) return(reticulate::import(module))
  reason <- paste0(
    "Python package ", module, " not found: set RETICULATE_PYTHON to a Python that has it"
  )
  if (required) stop(reason)
  skip(reason)
}

# The same, and until the test is over it is the Keras for functions that are given no Keras object.
local_keras <- function(module, envir = parent.frame()) {
  generation <- names(keras_modules)[keras_modules == module]
  withr::local_options(kerasoptimizers.keras = generation, .local_envir = envir)
  python_keras(module)
}

skip_without_r_package <- function(package) {
  # Not loaded here: the R package keras sets variables that sessions started later inherit.
  if (!nzchar(system.file(package = package))) {
    skip(paste0("R package ", package, " not installed: nothing was tested against it"))
  }
}

# Runs R code in a separate session and returns its output.
run_r <- function(code, env = character()) {
  if (!nzchar(base::system.file("Meta", package = "kerasoptimizers"))) {
    skip("kerasoptimizers is loaded from its sources: a separate session needs it installed")
  }
  script <- tempfile(fileext = ".R")
  on.exit(unlink(script))
  writeLines(code, script)
  libraries <- paste0("R_LIBS=", paste(.libPaths(), collapse = .Platform$path.sep))
  run(file.path(R.home("bin"), "Rscript"), script, c(libraries, "R_TESTS=", env))
}

run <- function(program, arguments, env = character()) {
  output <- suppressWarnings(
    system2(program, shQuote(arguments), stdout = TRUE, stderr = TRUE, env = env)
  )
  if (!is.null(attr(output, "status"))) {
    stop(paste(c("a script failed:", output), collapse = "\n"))
  }
  output
}

iris_x <- unname(as.matrix(iris[, 1:4]))
iris_y <- array(as.integer(iris$Species) - 1L)

# A small classifier of the irises, the same one as in fixtures/train.py.
iris_model <- function(optimizer, keras = python_keras()) {
  keras$utils$set_random_seed(7L)
  model <- keras$Sequential(list(
    keras$layers$Input(list(4L)),
    keras$layers$Dense(8L, activation = "relu"),
    keras$layers$Dense(3L, activation = "softmax")
  ))
  model$compile(optimizer, loss = "sparse_categorical_crossentropy", metrics = list("accuracy"))
  model
}

# The same with batch normalization. Its means and variances are the 5th and 6th of get_weights().
iris_norm_model <- function(optimizer, keras = python_keras()) {
  keras$utils$set_random_seed(7L)
  model <- keras$Sequential(list(
    keras$layers$Input(list(4L)),
    keras$layers$Dense(8L),
    keras$layers$BatchNormalization(momentum = 0.9),
    keras$layers$Dense(3L, activation = "softmax")
  ))
  model$compile(optimizer, loss = "sparse_categorical_crossentropy", metrics = list("accuracy"))
  model
}

# Means and (biased) variances of the inputs of that model's batch-norm layer.
expected_statistics <- function(weights, x = iris_x) {
  inputs <- x %*% weights[[1]] + rep(weights[[2]], each = nrow(x))
  means <- colMeans(inputs)
  list(means, colMeans(sweep(inputs, 2, means)^2))
}

expect_statistics <- function(model, expected = expected_statistics(weights_of(model))) {
  found <- lapply(weights_of(model)[5:6], as.vector)
  expect_equal(found, expected, tolerance = 1e-5)
}

fit <- function(model, epochs = 3, callbacks = list(), ...) {
  model$fit(iris_x, iris_y, epochs = as.integer(epochs), batch_size = 15L, verbose = 0L,
            callbacks = callbacks, ...)
}

# 10 updates an epoch.
train <- function(...) {
  fit(...)
  ..1
}

# One update on all the irises.
update_once <- function(model) model$train_on_batch(iris_x, iris_y)

weights_of <- function(model) lapply(model$get_weights(), as.array)

averages_of <- function(model, slot = "average") {
  lapply(model$trainable_variables, function(v) as.array(model$optimizer$get_slot(v, slot)$numpy()))
}
