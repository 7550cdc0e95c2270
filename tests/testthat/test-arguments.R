# Each wrong value, named by how an error describes it.
never_a_number <- list(
  "NA" = NA, "NA" = NA_real_, "NaN" = NaN, "Inf" = Inf, '"a"' = "a", "TRUE" = TRUE,
  "-1" = -1, "-1" = -1L, "-Inf" = -Inf,
  "a vector of length 2" = c(1, 2), "a vector of length 0" = numeric(), "a list" = list(1),
  "an object of class factor" = factor(1), "an object of class Date" = as.Date("2024-01-01"),
  "a function" = mean, "an object of type symbol" = as.name("x"), "1+2i" = 1+2i
)
null <- list("NULL" = NULL)
counts <- c(never_a_number, null, list("2.5" = 2.5))
not_a_string <- c(null, list(
  "NA" = NA_character_, "3" = 3, '""' = "", "a vector of length 2" = c("a", "b"),
  "a vector of length 0" = character(), "an object of class factor" = factor("a")
))
not_a_flag <- c(null, list(
  "NA" = NA, "1" = 1, '"TRUE"' = "TRUE", "a vector of length 2" = c(TRUE, FALSE)
))

limits <- list(
  clipnorm = list("a number > 0", c(never_a_number, list("0" = 0))),
  clipvalue = list("a number > 0", c(never_a_number, list("0" = 0))),
  global_clipnorm = list("a number > 0", c(never_a_number, list("0" = 0))),
  decay = list("a number >= 0", never_a_number),
  lr = list("a number >= 0", never_a_number),
  name = list("a string", not_a_string)
)
wrong <- list(
  optimizer_swa = c(limits, list(
    start_averaging = list("a whole number >= 0", counts),
    average_period = list("a whole number >= 1", c(counts, list("0" = 0))),
    sequential_update = list("TRUE or FALSE", not_a_flag)
  )),
  optimizer_lookahead = c(limits, list(
    sync_period = list("a whole number >= 1", c(counts, list("0" = 0))),
    slow_step_size = list("a number from 0 to 1",
                          c(never_a_number, null, list("1.5" = 1.5)))
  ))
)

expect_refused <- function(call, message) {
  error <- expect_error(call, class = "kerasoptimizers_argument_error")
  expect_identical(conditionMessage(error), message)
}

for (f in names(wrong)) for (argument in names(wrong[[f]])) {
  allowed <- wrong[[f]][[argument]][[1]]
  values <- wrong[[f]][[argument]][[2]]
  test_that(sprintf("%s() refuses what `%s` can't be", f, argument), {
    for (i in seq_along(values)) {
      arguments <- list("sgd")
      arguments[argument] <- values[i]
      expect_refused(
        do.call(f, arguments, quote = TRUE),
        sprintf("`%s` must be %s, not %s.", argument, allowed, names(values)[[i]])
      )
    }
  })
}

test_that("a count has to fit an integer", {
  expect_refused(optimizer_swa("sgd", average_period = 3e9),
                 "`average_period` must be a whole number <= 2147483647, not 3e+09.")
})

must_be <- "`optimizer` must be a Keras optimizer or the name of one, not "

test_that("the inner optimizer has to be one", {
  for (f in list(optimizer_swa, optimizer_lookahead)) {
    expect_refused(f(), paste0(must_be, "missing."))
    expect_refused(f(NULL), paste0(must_be, "NULL."))
    expect_refused(f(NA), paste0(must_be, "NA."))
    expect_refused(f(NA_character_), paste0(must_be, "NA."))
    expect_refused(f(0.1), paste0(must_be, "0.1."))
    expect_refused(f(""), paste0(must_be, '"".'))
    expect_refused(f(c("sgd", "adam")), paste0(must_be, "a vector of length 2."))
    expect_refused(f(list("sgd")), paste0(must_be, "a list."))
    expect_refused(f(factor("sgd")), paste0(must_be, "an object of class factor."))
    expect_refused(f(iris), paste0(must_be, "an object of class data.frame."))
    expect_refused(f(mean), paste0(
      must_be, "a function: did you forget the parentheses, as in `optimizer_sgd()`?"
    ))
  }
})

test_that("a Python object that is no optimizer is refused", {
  keras <- python_keras()
  expect_refused(optimizer_swa(keras$optimizers$SGD), paste0(
    must_be, "the Python class SGD: did you forget the parentheses, as in `SGD()`?"
  ))
  expect_refused(optimizer_swa(keras$layers$Dense(1L)),
                 paste0(must_be, "a Python object of class Dense."))
  expect_refused(optimizer_swa(keras$optimizers$get),
                 paste0(must_be, "a Python object of class function."))
  expect_error(optimizer_swa("no such optimizer"), "`optimizer` must be .* 'no such optimizer'",
               class = "kerasoptimizers_error")
})

test_that("an object of an R session that has ended is refused", {
  keras <- python_keras()
  file <- withr::local_tempfile()
  saveRDS(keras$optimizers$SGD(), file)
  dead <- readRDS(file)
  text <- "a Python object of an R session that has ended."
  expect_refused(optimizer_swa(dead), paste0(must_be, text))
  expect_refused(optimizer_swa("sgd", name = dead), paste("`name` must be a string, not", text))
  averages <- "`object` must be a compiled Keras model or an averaging optimizer, not "
  expect_refused(assign_average_vars(dead), paste0(averages, text))
  expect_refused(swap_weights(dead), paste0(averages, text))
})

test_that("an error leaves the inner optimizer as it was", {
  keras <- python_keras()
  sgd <- keras$optimizers$SGD(0.25)
  expect_error(optimizer_swa(sgd, lr = 0.5, average_period = 2.5))
  expect_error(optimizer_swa(sgd, lr = 0.5, clipnorm = 1, global_clipnorm = 1),
               "Only one of `clipnorm` and `global_clipnorm`", class = "kerasoptimizers_error")
  expect_identical(as.numeric(sgd$learning_rate$numpy()), 0.25)
})

test_that("what is no averaging model or optimizer is refused", {
  keras <- python_keras()
  must_be <- "`object` must be a compiled Keras model or an averaging optimizer, not "
  for (f in list(assign_average_vars, swap_weights)) {
    expect_refused(f(), paste0(must_be, "missing."))
    expect_refused(f(NULL), paste0(must_be, "NULL."))
    expect_refused(f("model"), paste0(must_be, '"model".'))
    expect_refused(f(list(1)), paste0(must_be, "a list."))
    expect_refused(f(keras$optimizers$SGD()), paste0(must_be, "a Python object of class SGD."))
    expect_error(f(keras$Sequential()), "`object` must be compiled with an averaging optimizer",
                 class = "kerasoptimizers_error")
    expect_error(f(iris_model("sgd")), "`object` must be compiled with an averaging optimizer",
                 class = "kerasoptimizers_error")
  }
})

test_that("variables have to be a list of variables, and weights stay as they were", {
  keras <- python_keras()
  model <- train(iris_model(optimizer_swa("sgd", average_period = 1)))
  optimizer <- model$optimizer
  before <- weights_of(model)
  must_be <- "`variables` must be a list of Keras variables, not "
  expect_refused(assign_average_vars(optimizer), paste0(must_be, "NULL."))
  expect_refused(assign_average_vars(optimizer, 3), paste0(must_be, "3."))
  expect_refused(assign_average_vars(optimizer, list(1, 2)), paste0(must_be, "a list."))
  expect_refused(assign_average_vars(optimizer, mean), paste0(must_be, "a function."))
  expect_refused(assign_average_vars(model, model$trainable_variables[[1]]),
                 paste0(must_be, "a Python object of class Variable."))
  strange <- c(model$trainable_variables, keras$Variable(1))
  expect_error(assign_average_vars(optimizer, strange), "`variables` must",
               class = "kerasoptimizers_error")
  expect_identical(weights_of(model), before)
})

test_that("the option has to name a Keras", {
  withr::local_options(kerasoptimizers.keras = "keras 3")
  expect_refused(optimizer_swa("sgd"),
                 '`options(kerasoptimizers.keras)` must be "keras3" or "keras", not "keras 3".')
})

test_that("a name of an optimizer means the Keras of the option, else of the environment", {
  withr::local_envvar(TF_USE_LEGACY_KERAS = NA)
  withr::local_options(kerasoptimizers.keras = NULL)
  expect_identical(inner_generation("sgd"), "keras3")
  for (legacy in c("1", "true", "True")) {
    withr::local_envvar(TF_USE_LEGACY_KERAS = legacy)
    expect_identical(inner_generation("sgd"), "keras")
  }
  withr::local_options(kerasoptimizers.keras = "keras3")
  expect_identical(inner_generation("sgd"), "keras3")
})

test_that("an optimizer object means the Keras that it comes from", {
  keras <- python_keras()
  withr::local_options(kerasoptimizers.keras = "keras")
  expect_identical(inner_generation(keras$optimizers$SGD()), "keras3")
  expect_identical(inner_generation(optimizer_swa(keras$optimizers$SGD())), "keras3")
  tf_keras <- python_keras("tf_keras")
  withr::local_options(kerasoptimizers.keras = "keras3")
  expect_identical(inner_generation(tf_keras$optimizers$SGD()), "keras")
  expect_identical(inner_generation(tf_keras$optimizers$legacy$SGD()), "keras")
})
