# Messages about old names, and about a Python that is missing or too old.

heard <- function(code) {
  said <- character()
  value <- withCallingHandlers(code, message = function(m) {
    if (inherits(m, "kerasoptimizers_deprecated")) said <<- c(said, conditionMessage(m))
    rlang::cnd_muffle(m)
  })
  list(said = gsub("\\s+", " ", said), value = value)
}

forget <- function() {
  for (id in c("lr", "decay", "moving_average", "lookahead_mechanism")) {
    rlang::reset_message_verbosity(paste0("kerasoptimizers_", id))
  }
}

test_that("each old name is said once per session, with the new way", {
  python_keras()
  for (old in list(
    list(function() optimizer_swa("sgd", lr = 0.5), "Set the inner optimizer's `learning_rate`"),
    list(function() optimizer_lars(lr = 0.5), "Use `learning_rate` instead"),
    list(function() optimizer_swa("sgd", decay = 0.5), "`learning_rate_schedule_inverse_time_decay()`"),
    list(function() optimizer_lars(decay = 0.5), "`learning_rate_schedule_inverse_time_decay()`"),
    list(function() optimizer_moving_average("sgd"), "`optimizer_ema()`, with `dynamic_decay = FALSE`"),
    list(function() lookahead_mechanism("sgd"), "New scripts use `optimizer_lookahead()`")
  )) {
    forget()
    first <- heard(old[[1]]())
    expect_length(first$said, 1)
    expect_match(first$said, old[[2]], fixed = TRUE)
    expect_true(is_live_python(first$value))
    expect_length(heard(old[[1]]())$said, 0)
  }
})

test_that("new names and settings that are NULL say nothing", {
  python_keras()
  forget()
  said <- heard({
    optimizer_swa("sgd", lr = NULL, decay = NULL)
    optimizer_lookahead("sgd")
    optimizer_ema("sgd", dynamic_decay = FALSE)
    optimizer_lars(0.5)
  })$said
  expect_length(said, 0)
})

test_that("an old script runs where warnings are errors", {
  python_keras()
  forget()
  withr::local_options(warn = 2)
  optimizer <- suppressMessages(optimizer_moving_average("sgd", lr = 0.5, decay = 0.25))
  expect_identical(as.numeric(optimizer$learning_rate$numpy()), 0.5)
  expect_identical(optimizer$decay, 0.25)
})

test_that("the decay that is named in the message gives the same training", {
  keras <- python_keras()
  forget()
  old <- train(iris_model(suppressMessages(
    optimizer_swa(keras$optimizers$SGD(0.1), decay = 0.05)
  )))
  decayed <- keras$optimizers$schedules$InverseTimeDecay(0.1, decay_steps = 1, decay_rate = 0.05)
  new <- train(iris_model(optimizer_swa(keras$optimizers$SGD(decayed))))
  expect_equal(weights_of(old), weights_of(new), tolerance = 1e-5)
})

test_that("the average that is named in the message is the same", {
  python_keras()
  forget()
  old <- train(iris_model(suppressMessages(optimizer_moving_average("sgd", average_decay = 0.9))))
  new <- train(iris_model(optimizer_ema("sgd", average_decay = 0.9, dynamic_decay = FALSE)))
  expect_identical(averages_of(old), averages_of(new))
})

test_that("a missing Python is said with the place where it was looked for", {
  nowhere <- file.path(tempdir(), "no-python")
  output <- run_r('
    library(kerasoptimizers)
    cat(conditionMessage(tryCatch(optimizer_swa("sgd"), error = identity)))
  ', env = paste0("RETICULATE_PYTHON=", nowhere))
  expect_match(output, paste0(
    "Python was not found: looked at ", nowhere, " (RETICULATE_PYTHON); install Python 3.10 or ",
    "newer, then run `install_kerasoptimizers()`."
  ), fixed = TRUE, all = FALSE)
})

test_that("without a Python named, the places are those of reticulate", {
  withr::local_envvar(RETICULATE_PYTHON = NA, RETICULATE_PYTHON_ENV = NA)
  expect_identical(looked_for_python(), 'in the environment "r-reticulate", on the PATH')
  withr::local_envvar(RETICULATE_PYTHON_ENV = "mine")
  expect_match(looked_for_python(), "^in mine \\(RETICULATE_PYTHON_ENV\\), in the environment")
})

# A module that shadows Keras and says that it is older.
with_old <- function(module, version, call) {
  dir <- withr::local_tempdir()
  writeLines(sprintf("__version__ = '%s'", version), file.path(dir, paste0(module, ".py")))
  run_r(sprintf('
    library(kerasoptimizers)
    cat(conditionMessage(tryCatch(%s, error = identity)))
  ', call), env = c(paste0("PYTHONPATH=", dir)))
}

test_that("a Keras that is too old is one line with the command that mends it", {
  python_keras()
  output <- with_old("keras", "3.7.0.dev1", 'optimizer_swa("sgd")')
  expect_match(output, paste0(
    "^The Python package keras in .* is 3.7.0.dev1, and 3.8 or newer is needed: run ",
    "`install_kerasoptimizers\\(\\)` and restart R.$"
  ), all = FALSE)
  output <- with_old("tf_keras", "2.15.1", paste(
    '{options(kerasoptimizers.keras = "keras"); optimizer_swa("sgd")}'
  ))
  expect_match(output, "tf_keras in .* is 2.15.1, and 2.16 .* `install_kerasoptimizers\\(keras = \"keras\"\\)`",
               all = FALSE)
})

# The answer of require_versions() for such a Python, which need not be installed.
with_config <- function(python, keras) {
  check <- require_versions
  environment(check) <- rlang::env(environment(check), `::` = function(package, name) {
    switch(as.character(substitute(name)), py_config = function() list(version = python),
           py_exe = function() "python3")
  })
  tryCatch({
    check(list(`__version__` = keras), "keras3", NULL)
    "fine"
  }, error = conditionMessage)
}

test_that("a Python that is too old is one line, before Keras is blamed", {
  output <- with_config("3.9", "2.0")
  expect_match(output, "is Python 3.9, and 3.10 or newer is needed: restart R, choose another", fixed = TRUE)
  expect_match(with_config("3.10", "3.8.0"), "fine")
})

test_that("an error about an argument has no Python traceback and no backtrace in a script", {
  python_keras()
  output <- tryCatch(run_r('
    library(kerasoptimizers)
    keras <- reticulate::import("keras")
    optimizer_swa("sgd")
    optimizer_swa("no_such_optimizer")
  '), error = conditionMessage)
  lines <- strsplit(output, "\n")[[1]]
  last <- lines[-seq_len(grep("^Error", lines) - 1)]
  expect_match(last[[2]], "`optimizer` must be a Keras 3 optimizer or the name of one", fixed = TRUE)
  expect_false(any(grepl("Traceback|Backtrace|File \"", lines)))
})

config <- function(optimizer) reticulate::py_eval("lambda o: o.get_config()")(optimizer)

test_that("check_finite is handed on", {
  python_keras()
  for (new in list(optimizer_swa, optimizer_lookahead, optimizer_ema, optimizer_moving_average,
                   optimizer_schedule_free, optimizer_primal_averaging, optimizer_power_average)) {
    expect_true(config(suppressMessages(new("sgd")))$check_finite)
    expect_false(config(suppressMessages(new("sgd", check_finite = FALSE)))$check_finite)
  }
})
