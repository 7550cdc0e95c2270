config <- function(optimizer) reticulate::py_eval("lambda o: o.get_config()")(optimizer)
python_type <- function(optimizer, setting) {
  reticulate::py_eval("lambda o, key: type(o.get_config()[key]).__name__")(optimizer, setting)
}

test_that("optimizer_swa() hands its arguments on, numbers as Python wants them", {
  keras <- python_keras()
  optimizer <- optimizer_swa(
    keras$optimizers$SGD(0.1), start_averaging = 20, average_period = 4, name = "mine",
    clipvalue = 2, decay = 0.01, global_clipnorm = 1
  )
  settings <- config(optimizer)
  expect_identical(settings$start_averaging, 20L)
  expect_identical(settings$average_period, 4L)
  expect_identical(python_type(optimizer, "average_period"), "int")
  expect_identical(settings$name, "mine")
  expect_identical(settings$clipvalue, 2)
  expect_identical(settings$decay, 0.01)
  expect_identical(settings$global_clipnorm, 1)
  expect_null(settings$clipnorm)
})

test_that("optimizer_lookahead() hands its arguments on, numbers as Python wants them", {
  keras <- python_keras()
  optimizer <- optimizer_lookahead(keras$optimizers$SGD(0.1), 5, 1L, clipnorm = 3)
  settings <- config(optimizer)
  expect_identical(settings$sync_period, 5L)
  expect_identical(settings$slow_step_size, 1)
  expect_identical(python_type(optimizer, "sync_period"), "int")
  expect_identical(python_type(optimizer, "slow_step_size"), "float")
  expect_identical(settings$clipnorm, 3)
  expect_identical(settings$name, "Lookahead")
})

test_that("the defaults are those of the help page", {
  python_keras()
  swa <- config(optimizer_swa("sgd"))
  expect_identical(swa[c("name", "start_averaging", "average_period")],
                   list(name = "SWA", start_averaging = 0L, average_period = 10L))
  lookahead <- config(optimizer_lookahead("sgd"))
  expect_identical(lookahead[c("name", "sync_period", "slow_step_size")],
                   list(name = "Lookahead", sync_period = 6L, slow_step_size = 0.5))
})

test_that("arguments stand in the order of the originals", {
  expect_identical(names(formals(optimizer_swa)), c(
    "optimizer", "start_averaging", "average_period", "name", "sequential_update", "clipnorm",
    "clipvalue", "decay", "lr", "global_clipnorm"
  ))
  expect_identical(names(formals(optimizer_lookahead)), c(
    "optimizer", "sync_period", "slow_step_size", "name", "clipnorm", "clipvalue", "decay", "lr",
    "global_clipnorm"
  ))
})

test_that("what comes back is a Keras optimizer around the one given", {
  keras <- python_keras()
  adam <- keras$optimizers$Adam(0.01)
  optimizer <- optimizer_swa(adam)
  expect_s3_class(optimizer, "python.builtin.object")
  expect_true(reticulate::import_builtins()$isinstance(optimizer, keras$optimizers$Optimizer))
  expect_identical(optimizer$optimizer, adam)
  expect_match(class(optimizer_lookahead("adam")$optimizer)[[1]], "Adam$")
})

test_that("both values of sequential_update do the same", {
  python_keras()
  weights <- lapply(c(TRUE, FALSE), function(value) {
    model <- train(iris_model(
      optimizer_swa("sgd", average_period = 2, sequential_update = value)
    ))
    weights_of(assign_average_vars(model))
  })
  expect_identical(weights[[1]], weights[[2]])
})

test_that("lr sets the inner learning rate and says once how to do it now", {
  keras <- python_keras()
  rlang::reset_warning_verbosity("kerasoptimizers_lr")
  sgd <- keras$optimizers$SGD(0.1)
  expect_warning(optimizer_swa(sgd, lr = 0.5), "inner optimizer's `learning_rate`",
                 class = "kerasoptimizers_deprecated")
  expect_identical(as.numeric(sgd$learning_rate$numpy()), 0.5)
  expect_no_warning(optimizer_lookahead("sgd", lr = 0.5))
})

test_that("one averaging optimizer can be the inner one of another", {
  python_keras()
  model <- iris_model(optimizer_swa(optimizer_lookahead("sgd", 3), average_period = 2))
  expect_silent(assign_average_vars(train(model)))
})

test_that("Lookahead goes back the fraction slow_step_size of the way", {
  python_keras()
  plain <- iris_model("sgd")
  start <- weights_of(plain)
  for (i in 1:2) update_once(plain)
  fast <- weights_of(plain)
  model <- iris_model(optimizer_lookahead("sgd", sync_period = 2, slow_step_size = 0.25))
  for (i in 1:2) update_once(model)
  expected <- Map(function(a, b) a + 0.25 * (b - a), start, fast)
  expect_equal(weights_of(model), expected, tolerance = 1e-6)
  expect_gt(max(abs(fast[[1]] - expected[[1]])), 1e-4)
})

for (case in list(
  list("SWA", optimizer_swa, list(start_averaging = 7, average_period = 4, clipnorm = 1)),
  list("Lookahead", optimizer_lookahead, list(sync_period = 4, slow_step_size = 0.3, decay = 0.01))
)) {
  test_that(paste("R and Python end with exactly the same weights:", case[[1]]), {
    keras <- python_keras()
    np <- reticulate::import("numpy")
    x <- withr::local_tempfile(fileext = ".npy")
    y <- withr::local_tempfile(fileext = ".npy")
    out <- withr::local_tempfile(fileext = ".npz")
    np$save(x, iris_x)
    np$save(y, iris_y)
    # One by one, so that 4 stays "4", an integer, beside 0.3.
    settings <- sprintf('"%s": %s', names(case[[3]]), vapply(case[[3]], format, ""))
    settings <- paste0("{", paste(settings, collapse = ", "), "}")
    module <- system.file("python", package = "kerasoptimizers")
    run(reticulate::py_exe(), c(test_path("fixtures", "train.py"), x, y, case[[1]], settings, out),
        env = paste0("PYTHONPATH=", module))

    inner <- keras$optimizers$SGD(0.05, momentum = 0.9)
    model <- train(iris_model(do.call(case[[2]], c(list(inner), case[[3]]))))
    trained <- weights_of(model)
    averaged <- weights_of(assign_average_vars(model))

    saved <- np$load(out)
    python <- lapply(saved$files, function(name) as.array(saved$f[[name]]))
    expect_identical(c(trained, averaged), python)
    expect_false(identical(trained, averaged))
  })
}
