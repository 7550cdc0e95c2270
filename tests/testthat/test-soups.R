# Three models of the irises with random weights, one in memory and two in files.
soup_models <- function(keras, norm = FALSE) {
  lapply(1:3, function(i) {
    model <- if (norm) iris_norm_model("adam", keras) else iris_model("adam", keras)
    set.seed(i)
    model$set_weights(lapply(weights_of(model), function(w) array(runif(length(w)), dim(w))))
    model
  })
}

saved <- function(models, folder = withr::local_tempdir(.local_envir = parent.frame())) {
  vapply(seq_along(models), function(i) {
    file <- file.path(folder, sprintf("model-%02d-val_loss=0.%d.keras", i, 4 - i))
    models[[i]]$save(file)
    Sys.setFileTime(file, as.POSIXct("2026-01-01", tz = "UTC") + i)
    file
  }, "")
}

mean_weights <- function(models) {
  Reduce(function(a, b) Map(`+`, a, b), lapply(models, weights_of)) |> lapply(function(w) w / length(models))
}

expect_weights <- function(model, expected) expect_equal(weights_of(model), expected, tolerance = 1e-6)

for (module in c("keras", "tf_keras")) {
  test_that(paste("models and files are averaged, in any mix:", module), {
    keras <- local_keras(module)
    models <- soup_models(keras)
    files <- saved(models)
    before <- lapply(models, weights_of)
    expected <- mean_weights(models)
    expect_weights(average_models(models), expected)
    # A file says by itself which Keras it is of.
    withr::local_options(kerasoptimizers.keras = NULL)
    expect_weights(average_models(files), expected)
    into <- soup_models(keras)[[1]]
    expect_identical(average_models(list(models[[1]], files[[2]], models[[3]]), into = into), into)
    expect_weights(into, expected)
    expect_weights(average_models(models, c(1, 0, 1)), mean_weights(models[-2]))
    expect_identical(weights_of(average_models(files[2])), before[[2]])
    expect_identical(lapply(models, weights_of), before)
  })

  test_that(paste("a greedy soup is scored by an R function, and counts from 1:", module), {
    keras <- local_keras(module)
    models <- soup_models(keras)
    target <- mean_weights(models[2:3])
    near <- function(model) -sum(mapply(function(a, b) sum((a - b)^2), weights_of(model), target))
    soup <- greedy_soup(models, near, progress = TRUE)
    expect_setequal(soup$soup$chosen, 2:3)
    expect_equal(unlist(soup$soup$scores), vapply(models, near, 0))
    expect_gte(soup$soup$score, max(unlist(soup$soup$scores)))
    expect_weights(soup, target)
    far <- greedy_soup(models, function(model) -near(model), mode = "min")
    expect_equal(far$soup$score, -near(far))
    accuracy <- function(model) model$evaluate(iris_x, iris_y, verbose = 0L)[[2]]
    best <- greedy_soup(models, accuracy)
    expect_gte(accuracy(best), max(vapply(models, function(m) accuracy(average_models(list(m))), 0)))
  })

  test_that(paste("batch norm is recomputed from data:", module), {
    keras <- local_keras(module)
    models <- soup_models(keras, norm = TRUE)
    expect_statistics(average_models(models, data = iris_x))
    expect_statistics(model_stock(models[1:2], models[[3]], data = iris_x, batch_size = 20))
  })

  test_that(paste("interpolation and Model Stock:", module), {
    keras <- local_keras(module)
    models <- soup_models(keras)
    weights <- lapply(models, weights_of)
    halfway <- interpolate_models(models[[1]], models[[2]], 0.25)
    expect_weights(halfway, Map(function(a, b) 0.75 * a + 0.25 * b, weights[[1]], weights[[2]]))
    expect_identical(weights_of(interpolate_models(models[[1]], models[[2]], 1, "slerp")), weights[[2]])
    expect_weights(model_stock(models[c(1, 1)], models[[2]]), weights[[1]])
  })

  test_that(paste("checkpoints are the newest or the best:", module), {
    keras <- local_keras(module)
    models <- soup_models(keras)
    files <- saved(models)
    folder <- dirname(files[[1]])
    newest <- average_checkpoints(folder, 2)
    expect_weights(newest, mean_weights(models[2:3]))
    expect_equal(unlist(newest$soup$files), basename(files[3:2]))
    best <- average_checkpoints(folder, 1, "val_loss", pattern = "model-{epoch:02d}-val_loss={val_loss:.1f}.keras")
    expect_equal(best$soup, list(files = basename(files[[3]]), scores = 0.1), ignore_attr = TRUE)
    by_score <- average_checkpoints(folder, 1, function(model) weights_of(model)[[1]][[1]], mode = "max")
    firsts <- vapply(models, function(model) weights_of(model)[[1]][[1]], 0)
    expect_equal(unlist(by_score$soup$scores), max(firsts), tolerance = 1e-6)
  })
}

test_that("arguments that are not as described are refused before Python starts", {
  path <- "x.keras"
  expect_error(average_models(), "`models` must be given: a list of Keras models and paths", fixed = TRUE)
  expect_error(average_models(list(path, 3)), "a list whose element 2 is 3", fixed = TRUE)
  expect_error(average_models(list()), "`models` must be a list", fixed = TRUE)
  expect_error(average_models(path, -1), "`weights` must be numbers >= 0", fixed = TRUE)
  expect_error(average_models(path, into = path), "`into` must be a built Keras model", fixed = TRUE)
  expect_error(average_models(path, data = "x"), "`data` must be an array", fixed = TRUE)
  expect_error(average_models(path, batch_size = 0), "`batch_size` must be a whole number", fixed = TRUE)
  expect_error(average_models(path, progress = NA), "`progress` must be TRUE or FALSE", fixed = TRUE)
  expect_error(interpolate_models(path, 2, 0.5), "`b` must be a Keras model or a path", fixed = TRUE)
  expect_error(interpolate_models(path, path, 2), "`fraction` must be a number from 0 to 1", fixed = TRUE)
  expect_error(interpolate_models(path, path, 1, "cubic"), "`method` must be \"linear\" or \"slerp\"", fixed = TRUE)
  expect_error(greedy_soup(path), "`score` must be given", fixed = TRUE)
  expect_error(greedy_soup(path, "loss"), "`score` must be a function", fixed = TRUE)
  expect_error(model_stock(list(path, path)), "`base` must be given: a Keras model or a path", fixed = TRUE)
  expect_error(average_checkpoints("x", 0), "`n` must be a whole number >= 1", fixed = TRUE)
  expect_error(average_checkpoints("x", metric = 3), "`metric` must be the name of a metric", fixed = TRUE)
})

test_that("errors about files are one line", {
  keras <- local_keras("keras")
  models <- soup_models(keras)
  files <- saved(models)
  writeBin(readBin(files[[2]], "raw", 3000), files[[2]])
  error <- tryCatch(average_models(files), error = identity)
  expect_match(conditionMessage(error), "`models` number 2 .*can't be read")
  expect_no_match(conditionMessage(error), "\n")
  expect_error(average_models(c(files[[1]], "missing.keras")), "does not exist")
  expect_error(average_checkpoints("missing"), "`directory` must be a folder")
  expect_error(greedy_soup(models, function(model) "good"), "`score` must return a number", fixed = TRUE)
  expect_error(greedy_soup(models, function(model) stop("no data")), "no data")
})
