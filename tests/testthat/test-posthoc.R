# Power averages, their snapshots, and the averages that are made of them.

fit_snapshots <- function(model, epochs, folder, ...) {
  fit(model, epochs, list(callback_average_snapshots(folder, ...)))
  model
}

test_that("optimizer_power_average() hands its arguments on, and shows the width that is chosen", {
  keras <- python_keras()
  optimizer <- optimizer_power_average(keras$optimizers$SGD(0.1), c(0.05, 0.2887), shown_width = 0.2887,
                                       clipnorm = 1)
  expect_identical(unlist(optimizer$sigma_rel), c(0.05, 0.2887))
  expect_identical(optimizer$shown_width, 0.2887)
  expect_identical(optimizer$clipnorm, 1)
  model <- train(iris_model(optimizer, keras), 2)
  swa <- train(iris_model(optimizer_swa(keras$optimizers$SGD(0.1), 0, 1, clipnorm = 1), keras), 2)
  # The widest one is the equal average of all updates.
  expect_identical(averages_of(model, "average_2"), averages_of(swa))
  assign_average_vars(model)
  expect_identical(weights_of(model), averages_of(model, "average_2"))
  optimizer$shown_width <- 0.05
  assign_average_vars(model)
  expect_identical(weights_of(model), averages_of(model))
  expect_output(print(optimizer_power_average("sgd")), "sigma_rel = c(0.05, 0.10)", fixed = TRUE)
})

test_that("widths that cannot be are refused", {
  for (wrong in list("a", NULL, 0, 0.3, NA, c(0.1, 0.3), list(0.1), numeric())) {
    expect_error(optimizer_power_average("sgd", wrong), "`sigma_rel` must be a number > 0 and at most 0.2887",
                 class = "kerasoptimizers_argument_error")
  }
  expect_error(optimizer_power_average("sgd", c(0.1, 0.1)), "each only once, not c(0.1, 0.1)", fixed = TRUE)
  expect_error(optimizer_power_average("sgd", shown_width = 0.2),
               "`shown_width` must be one of `sigma_rel`, 0.05, 0.1, not 0.2", fixed = TRUE)
})

test_that("average_width() translates widths both ways, and says what it lacks by NA", {
  python_keras()
  found <- average_width(sigma_rel = c(0.05, 0.1), updates = 10000)
  expect_equal(found$gamma, c(16.9722, 6.9372), tolerance = 1e-5)
  expect_equal(found$width, c(500, 1000))
  expect_equal(average_width(half_life = found$half_life, updates = 10000)$sigma_rel, c(0.05, 0.1))
  expect_equal(average_width(average_decay = found$average_decay)$half_life, found$half_life)
  expect_true(is.na(average_width(sigma_rel = 0.1)$half_life))
  expect_true(is.na(average_width(half_life = 1000, updates = 1000)$sigma_rel))
  expect_error(average_width(), "Give exactly one of `sigma_rel`, `average_decay` and `half_life`.")
  expect_error(average_width(half_life = -1), "`half_life` must be a number > 0")
  expect_error(average_width(average_decay = 1), "`average_decay` must be a number > 0 and < 1")
  expect_error(average_width(0.1, updates = 0), "`updates` must be a whole number >= 1")
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("one training gives the average of any width, and of any moment:", module), {
    keras <- local_keras(module)
    folder <- file.path(withr::local_tempdir(), "snapshots")
    optimizer <- optimizer_power_average(keras$optimizers$SGD(0.05))
    model <- fit_snapshots(iris_model(optimizer, keras), 4, folder)
    expect_identical(list.files(folder), sprintf("averages-%09d.npz", 1:4 * 10))
    kept <- averages_of(model, "average_2")
    expect_identical(posthoc_average(model, folder, 0.1), model)
    expect_identical(weights_of(model), kept)
    posthoc_average(model, folder, 0.15, at = 25)
    between <- weights_of(model)
    expect_false(isTRUE(all.equal(between, kept)))

    before <- weights_of(model)
    for (call in list(
      list(match = "`at` must be at most 40, the last snapshot", sigma_rel = 0.1, at = 41),
      list(match = "`sigma_rel` must be a number > 0 and at most 0.2887", sigma_rel = 0.4),
      list(match = "there is no folder", directory = paste0(folder, "x"), sigma_rel = 0.1),
      list(match = "`directory` must be a string", directory = 3, sigma_rel = 0.1),
      list(match = "`model` must be a Keras model", model = 3, sigma_rel = 0.1)
    )) {
      arguments <- utils::modifyList(list(model = model, directory = folder), call[-1])
      expect_error(do.call(posthoc_average, arguments), call$match, class = "kerasoptimizers_error")
    }
    writeBin(charToRaw("torn"), file.path(folder, "averages-000000020.npz"))
    expect_error(posthoc_average(model, folder, 0.1), "averages-000000020.npz' can't be read")
    expect_identical(weights_of(model), before)
  })
}

test_that("posthoc_average(data = ) recomputes batch norm", {
  keras <- python_keras()
  folder <- withr::local_tempdir()
  model <- fit_snapshots(iris_norm_model(optimizer_power_average("sgd"), keras), 2, folder, every = 5)
  expect_length(list.files(folder), 4)
  posthoc_average(model, folder, 0.2, data = iris_x)
  expect_statistics(model)
  expect_error(posthoc_average(model, folder, 0.2, data = "x"), "`data` must be an array")
})

test_that("callback_average_snapshots() refuses what it cannot store", {
  python_keras()
  expect_error(callback_average_snapshots(), "`directory` must be given")
  expect_error(callback_average_snapshots("x", every = 0), "`every` must be \"epoch\" or a whole number >= 1")
  expect_error(callback_average_snapshots("x", dtype = "int8"), "`dtype` must be \"float32\"")
  folder <- withr::local_tempdir()
  expect_error(fit_snapshots(iris_model(optimizer_swa("sgd")), 1, folder), "must be compiled with PowerAverage")
  model <- fit_snapshots(iris_model(optimizer_power_average("sgd")), 1, folder)
  expect_error(fit_snapshots(iris_model(optimizer_power_average("sgd")), 1, folder),
               "must be a folder without snapshots for a training that begins")
})

test_that("plot_posthoc() draws a metric against the width, and the model is as it was", {
  skip_if_not_installed("ggplot2")
  keras <- python_keras()
  folder <- withr::local_tempdir()
  model <- fit_snapshots(iris_model(optimizer_power_average(keras$optimizers$SGD(0.05))), 3, folder)
  before <- weights_of(model)
  picture <- plot_posthoc(model, folder, iris_x, iris_y, c(0.2, 0.05, 0.1), verbose = FALSE)
  expect_s3_class(ggplot2::ggplot_build(picture), "ggplot_built")
  expect_named(picture$data, c("sigma_rel", "updates", "tracked", "accuracy", "loss"), ignore.order = TRUE)
  expect_identical(picture$data$sigma_rel, c(0.05, 0.1, 0.2))
  expect_identical(picture$data$tracked, c(TRUE, TRUE, FALSE))
  expect_identical(weights_of(model), before)
  posthoc_average(model, folder, 0.2)
  expect_equal(model$evaluate(iris_x, iris_y, verbose = 0L)[[1]], picture$data$loss[[3]], tolerance = 1e-5)
  two <- plot_posthoc(model, folder, iris_x, iris_y, 0.1, "accuracy", at = c(30, 20), verbose = FALSE)
  expect_identical(two$data$updates, c(20, 30))
  expect_s3_class(ggplot2::ggplot_build(two), "ggplot_built")
  expect_error(plot_posthoc(model, folder, iris_x, iris_y, metric = "auc", verbose = FALSE),
               "`metric` must be one of")
  expect_error(plot_posthoc(model, folder, iris_x, iris_y, at = 31, verbose = FALSE), "`at` must be at most 30")
})
