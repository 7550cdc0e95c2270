# Power averages, their snapshots, and the averages that are made of them.

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
