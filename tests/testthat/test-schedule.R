for (module in c("keras", "tf_keras")) {
  test_that(paste("rates are held, annealed, and constant or cyclic:", module), {
    keras <- local_keras(module)
    rates <- function(...) {
      as.vector(learning_rate_schedule_swa(0.1, 0.02, start_averaging = 20, ...)(0:39)$numpy())
    }
    # Two fifths of 20 updates for annealing, which so starts at 12.
    done <- pmin(pmax((0:39 - 12) / 8, 0), 1)
    expect_equal(rates(), 0.1 - 0.08 * (1 - cos(pi * done)) / 2, tolerance = 1e-6)
    line <- 0.1 - 0.08 * done
    expect_equal(rates(anneal = "linear"), line, tolerance = 1e-6)
    expect_equal(rates(anneal_updates = 0), rep(c(0.1, 0.02), each = 20), tolerance = 1e-6)
    done <- pmin(pmax((0:39 - 5) / 10, 0), 1)
    expect_equal(rates(anneal = "linear", anneal_updates = 10, start_annealing = 5),
                 0.1 - 0.08 * done, tolerance = 1e-6)
    # From a quarter of the way down to 0.02 again and again, after update 20.
    cycle <- 0.04 - 0.02 * 1:5 / 5
    expect_equal(rates(anneal = "linear", cycle_updates = 5),
                 c(line[1:21], rep(cycle, 4)[1:19]), tolerance = 1e-6)
    cycle <- 0.08 - 0.06 * 1:5 / 5
    expect_equal(rates(anneal = "linear", cycle_updates = 5, cycle_learning_rate = 0.08),
                 c(line[1:21], rep(cycle, 4)[1:19]), tolerance = 1e-6)
  })

  test_that(paste("the schedule is the learning rate of an optimizer, and is saved:", module), {
    keras <- local_keras(module)
    file <- withr::local_tempfile(fileext = ".keras")
    first <- keras$optimizers$schedules$ExponentialDecay(0.1, 10L, 0.5)
    schedule <- learning_rate_schedule_swa(first, 0.01, start_averaging = 15)
    optimizer <- optimizer_swa(keras$optimizers$SGD(schedule), start_averaging = 15)
    model <- train(iris_model(optimizer, keras))
    expect_silent(assign_average_vars(model))
    model$save(file)
    loaded <- keras$models$load_model(file)$optimizer$optimizer
    config <- reticulate::py_eval("lambda o: o.get_config()['learning_rate']['class_name']")
    expect_match(config(loaded), "SWALearningRate")
  })
}

test_that("arguments stand in the order of the help page", {
  expect_identical(names(formals(learning_rate_schedule_swa)), c(
    "initial_learning_rate", "swa_learning_rate", "start_averaging", "anneal_updates", "anneal",
    "cycle_updates", "cycle_learning_rate", "start_annealing", "name"
  ))
})
