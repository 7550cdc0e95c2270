# Each wrong value, named by how an error describes it.
never_a_number <- list(
  "NA" = NA, "NA" = NA_real_, "NaN" = NaN, "Inf" = Inf, '"a"' = "a", "TRUE" = TRUE,
  "-1" = -1, "-1" = -1L, "-Inf" = -Inf,
  "a vector of length 2" = c(1, 2), "a vector of length 0" = numeric(), "a list of length 1" = list(1),
  "an object of class factor" = factor(1), "an object of class Date" = as.Date("2024-01-01"),
  "a function" = mean, "an object of type symbol" = as.name("x"), "1+2i" = 1 + 2i,
  "NA" = NA_integer_, '"3"' = "3", "a data frame" = data.frame(x = 1),
  "an object of class difftime" = as.difftime(1, units = "days"),
  "an object of type environment" = globalenv()
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

fractions <- c(never_a_number, null, list("1.5" = 1.5))
at_least_1 <- c(counts, list("0" = 0))
not_null <- function(values) values[!names(values) %in% "NULL"]
not_patterns <- list(
  "NA" = NA, "NA" = NA_character_, "3" = 3, "TRUE" = TRUE, "a list of length 1" = list("bias"),
  "a vector of length 2" = c("bias", NA), "an object of class factor" = factor("bias"),
  "a function" = mean
)
not_0_or_1 <- c(null, list(
  "2" = 2, "-1" = -1L, "0.5" = 0.5, "NA" = NA, "NA" = NA_real_, '"1"' = "1",
  "a vector of length 2" = c(0, 1), "a list of length 1" = list(1), "a function" = mean
))
not_data <- list(
  "NULL" = NULL, '"x"' = "x", "a list of length 0" = list(),
  'a list whose element 2 is "x"' = list(1, "x"),
  "an object of class factor" = factor("a"),
  "an object of type symbol" = as.name("x")
)
names_and <- function(...) c(not_a_string, list(...))

limits <- list(
  clipnorm = list("a number > 0", c(never_a_number, list("0" = 0))),
  clipvalue = list("a number > 0", c(never_a_number, list("0" = 0))),
  global_clipnorm = list("a number > 0", c(never_a_number, list("0" = 0))),
  decay = list("a number >= 0", never_a_number),
  lr = list("a number >= 0", never_a_number)
)
a_name <- list(name = list("a string", not_a_string))
averaging <- c(limits, a_name, list(check_finite = list("TRUE or FALSE", not_a_flag)))
a_rate <- list("a number >= 0 or a Keras learning-rate schedule", c(never_a_number, null))

# A valid call of each function, and the values that each argument refuses.
valid <- list(
  optimizer_swa = list("sgd"), optimizer_lookahead = list("sgd"), optimizer_ema = list("sgd"),
  optimizer_schedule_free = list("sgd"), optimizer_primal_averaging = list("sgd"),
  optimizer_power_average = list("sgd"),
  optimizer_moving_average = list("sgd"), lookahead_mechanism = list("sgd"),
  optimizer_lars = list(), callback_swa = list(2), callback_swap_averages = list(),
  callback_average_early_stopping = list(),
  callback_average_model_checkpoint = list(update_weights = FALSE, filepath = "model.keras"),
  learning_rate_schedule_swa = list(
    initial_learning_rate = 0.1, swa_learning_rate = 0.01, start_averaging = 10
  )
)
wrong <- list(
  optimizer_swa = c(averaging, list(
    start_averaging = list("a whole number >= 0 or a text such as '3 epochs'", counts),
    average_period = list("a whole number >= 1", at_least_1),
    sequential_update = list("TRUE or FALSE", not_a_flag)
  )),
  optimizer_lookahead = c(averaging, list(
    sync_period = list("a whole number >= 1", at_least_1),
    slow_step_size = list("a number from 0 to 1", fractions),
    slow_momentum = list("a number from 0 to 1", fractions),
    inner_state = list('"keep", "reset" or "average"', names_and('"pullback"' = "pullback"))
  )),
  optimizer_ema = c(averaging, list(
    trainable_weights_only = list("TRUE or FALSE", not_a_flag),
    average_decay = list("a number from 0 to 1", fractions),
    start_step = list("a whole number >= 0", counts),
    dynamic_decay = list("TRUE or FALSE", not_a_flag),
    update_period = list("a whole number >= 1", at_least_1),
    half_life = list("a number > 0", c(never_a_number, list("0" = 0))),
    warmup_gamma = list("a number > 0", c(never_a_number, list("0" = 0))),
    warmup_power = list("a number > 0", c(never_a_number, null, list("0" = 0))),
    min_decay = list("a number from 0 to 1", fractions),
    overwrite_period = list("a whole number >= 1", not_null(at_least_1))
  )),
  optimizer_schedule_free = c(averaging, list(
    beta = list("a number from 0 to 1", fractions),
    warmup_steps = list("a whole number >= 0", counts),
    weight_lr_power = list("a number >= 0", c(never_a_number, null)),
    r = list("a number >= 0", c(never_a_number, null)),
    weight_decay_at_y = list("a number >= 0", c(never_a_number, null))
  )),
  optimizer_primal_averaging = c(averaging, list(
    train_interpolation = list("a number from 0 to 1", fractions),
    eval_interpolation = list("a number from 0 to 1", fractions)
  )),
  optimizer_power_average = c(averaging, list(
    sigma_rel = list("a number > 0 and at most 0.2887 (1 / sqrt(12))",
                     c(null, list("0" = 0, "0.3" = 0.3, "-1" = -1, "\"a\"" = "a", "TRUE" = TRUE))),
    shown_width = list("one of `sigma_rel`, 0.05, 0.1", not_null(fractions))
  )),
  optimizer_moving_average = c(averaging, list(
    sequential_update = list("TRUE or FALSE", not_a_flag),
    average_decay = list("a number from 0 to 1", fractions),
    num_updates = list("a whole number >= 0", not_null(counts)),
    start_step = list("a whole number >= 0", counts),
    dynamic_decay = list("TRUE or FALSE", not_a_flag)
  )),
  lookahead_mechanism = list(sync_period = list("a whole number >= 1", at_least_1)),
  optimizer_lars = c(limits, a_name, list(
    learning_rate = a_rate,
    momentum = list("a number from 0 to 1", fractions),
    weight_decay_rate = list("a number >= 0", c(never_a_number, null)),
    eeta = list("a number > 0", c(never_a_number, null, list("0" = 0))),
    nesterov = list("TRUE or FALSE", not_a_flag),
    classic_momentum = list("TRUE or FALSE", not_a_flag),
    exclude_from_weight_decay = list("a character vector of regular expressions", not_patterns),
    exclude_from_layer_adaptation = list("a character vector of regular expressions",
                                         not_patterns),
    use_ema = list("TRUE or FALSE", not_null(not_a_flag)),
    ema_momentum = list("a number from 0 to 1", not_null(fractions)),
    ema_overwrite_frequency = list("a whole number >= 1", not_null(at_least_1)),
    loss_scale_factor = list("a number > 0", c(never_a_number, list("0" = 0))),
    gradient_accumulation_steps = list("a whole number >= 2",
                                       c(not_null(at_least_1), list("1" = 1)))
  )),
  callback_swa = list(
    start_epoch = list("\"auto\" or a whole number >= 2", c(at_least_1, list("1" = 1))),
    lr_schedule = list('"manual", "constant" or "cyclic"', names_and('"linear"' = "linear")),
    swa_lr = list('"auto" or a number >= 0', c(never_a_number, null)),
    swa_lr2 = list('"auto" or a number >= 0', never_a_number),
    swa_freq = list("a whole number >= 1", at_least_1),
    batch_size = list("a whole number >= 1", not_null(at_least_1)),
    verbose = list("0 or 1", not_0_or_1),
    data = list("an array, a data frame, a list of arrays or a data set",
                c(not_null(not_data), list("a function" = mean))),
    backup_dir = list("a string", not_null(not_a_string)),
    n_converge = list("a whole number >= 1", at_least_1),
    n_tolerance = list("a whole number >= 1", at_least_1),
    tolerance_ratio = list("a number >= 0", c(never_a_number, null)),
    snapshot_epoch = list('"first" or "last"', names_and('"middle"' = "middle"))
  ),
  callback_average_early_stopping = list(
    monitor = list("a string", not_a_string),
    min_delta = list("a number >= 0", c(never_a_number, null)),
    verbose = list("0 or 1", not_0_or_1),
    patience = list("a whole number >= 0", counts),
    mode = list('"auto", "min" or "max"', names_and('"up"' = "up")),
    baseline = list("a number", never_a_number[!names(never_a_number) %in% "-1"]),
    restore_best_average = list("TRUE or FALSE", not_a_flag),
    start_from_epoch = list("a whole number >= 0", counts)
  ),
  callback_swap_averages = list(weights_too = list("TRUE or FALSE", not_a_flag)),
  callback_average_model_checkpoint = list(
    update_weights = list("TRUE or FALSE", c(not_a_flag, list('"model.h5"' = "model.h5"))),
    filepath = list("a string", not_a_string),
    monitor = list("a string", not_a_string),
    verbose = list("0 or 1", not_0_or_1),
    save_best_only = list("TRUE or FALSE", not_a_flag),
    save_weights_only = list("TRUE or FALSE", not_a_flag),
    mode = list('"auto", "min" or "max"', names_and('"best"' = "best")),
    save_freq = list('"epoch" or a whole number >= 1', at_least_1)
  ),
  learning_rate_schedule_swa = c(a_name, list(
    initial_learning_rate = a_rate,
    swa_learning_rate = list("a number >= 0", c(never_a_number, null)),
    start_averaging = list("a whole number >= 0", counts),
    anneal_updates = list("a whole number >= 0", not_null(counts)),
    anneal = list('"cosine" or "linear"', names_and('"exponential"' = "exponential")),
    cycle_updates = list("a whole number >= 2", c(not_null(at_least_1), list("1" = 1))),
    cycle_learning_rate = list("a number >= 0", never_a_number),
    start_annealing = list("a whole number >= 0", not_null(counts))
  ))
)

expect_refused <- function(call, message) {
  # expect_error() would take a backtrace of each, which is slow.
  error <- tryCatch(call, error = identity)
  expect_s3_class(error, "kerasoptimizers_argument_error")
  expect_identical(conditionMessage(error), message)
}

for (f in names(wrong)) for (argument in names(wrong[[f]])) {
  allowed <- wrong[[f]][[argument]][[1]]
  values <- wrong[[f]][[argument]][[2]]
  test_that(sprintf("%s() refuses wrong values of `%s`", f, argument), {
    for (i in seq_along(values)) {
      arguments <- valid[[f]]
      arguments[argument] <- values[i]
      expect_refused(
        do.call(f, arguments, quote = TRUE),
        sprintf("`%s` must be %s, not %s.", argument, allowed, names(values)[[i]])
      )
    }
  })
}

test_that("each argument that a help page lists is refused something", {
  for (f in names(wrong)) {
    arguments <- setdiff(names(formals(f)), c("optimizer", "..."))
    expect_identical(setdiff(arguments, names(wrong[[f]])), character(), info = f)
  }
})

test_that("an argument without a default must be given", {
  expect_refused(callback_swa(), '`start_epoch` must be given: "auto" or a whole number >= 2.')
  expect_refused(callback_average_model_checkpoint(), "`update_weights` must be given: TRUE or FALSE.")
  expect_refused(callback_average_model_checkpoint(TRUE), "`filepath` must be given: a string.")
  expect_refused(
    learning_rate_schedule_swa(),
    "`initial_learning_rate` must be given: a number >= 0 or a Keras learning-rate schedule."
  )
  expect_refused(learning_rate_schedule_swa(0.1),
                 "`swa_learning_rate` must be given: a number >= 0.")
  expect_refused(learning_rate_schedule_swa(0.1, 0.01),
                 "`start_averaging` must be given: a whole number >= 0.")
  expect_refused(shadow_copy(), "`optimizer` must be given: an averaging optimizer.")
  expect_refused(update_batch_norm(), "`model` must be given: a Keras model.")
})

test_that("an array is described by its dimensions, a list by its first wrong element", {
  expect_identical(describe(matrix(0, 150, 4)), "a 150 x 4 matrix")
  expect_identical(describe(array(0, 2:4)), "a 2 x 3 x 4 array")
  expect_identical(describe(1:3), "a vector of length 3")
  expect_identical(describe_list(list(1, 2, "a", "b"), is.numeric), 'a list whose element 3 is "a"')
  expect_identical(describe_list(list(), is.numeric), "a list of length 0")
})

test_that("an argument for `...` does not become another one by a shortened name", {
  decay <- paste("`weight_decay` cannot be given: the weight decay of LARS, which is part of its",
                 "trust ratio, is `weight_decay_rate`.")
  expect_refused(optimizer_lars(1, weight_decay = 1e-4), decay)
  expect_refused(optimizer_lars(1, weight_decay = 1e-4, weight_decay_rate = 0), decay)
  expect_refused(do.call(optimizer_lars, list(weight_decay = 1e-4)), decay)
  expect_refused(lapply(1, optimizer_lars, weight_decay = 1e-4), decay)
  through <- function(...) optimizer_lars(...)
  expect_refused(through(1, weight_decay = 1e-4), decay)
  expect_refused(optimizer_lars(exclude_from_w = "bias"), paste(
    "There is no argument `exclude_from_w`: did you mean `exclude_from_weight_decay`?"
  ))
  expect_refused(callback_average_model_checkpoint(FALSE, "a.keras", save_best = TRUE),
                 "There is no argument `save_best`: did you mean `save_best_only`?")
  expect_refused(install_kerasoptimizers(k = "keras"),
                 "There is no argument `k`: did you mean `keras`?")
})

test_that("every function with `...` checks for shortened names, or has nothing to be mixed up", {
  exported <- setdiff(getNamespaceExports("kerasoptimizers"), "lookahead_mechanism")
  dotted <- Filter(function(name) "..." %in% names(formals(name)), exported)
  checks <- vapply(dotted, function(name) "whole_names" %in% all.names(body(name)), NA)
  expect_identical(unname(dotted[!checks]), character())
})

test_that("the order of arguments in tfaddons is noticed", {
  said <- paste("`update_weights` must be TRUE or FALSE, and `filepath` comes second:",
                "in the R package tfaddons it came first.")
  expect_refused(callback_average_model_checkpoint("model.h5", FALSE), said)
  expect_refused(callback_average_model_checkpoint("model.h5"), said)
  expect_refused(callback_average_model_checkpoint("model.h5", "model.h5"),
                 '`update_weights` must be TRUE or FALSE, not "model.h5".')
})

test_that("TRUE and FALSE are the verbosities 1 and 0", {
  expect_identical(choice(TRUE, c(0, 1)), 1L)
  expect_identical(choice(FALSE, list("auto", 0, 1, 2)), 0L)
  expect_identical(choice(2, list("auto", 0, 1, 2)), 2L)
})

test_that("further arguments need a name that is known", {
  expect_refused(
    optimizer_lars(clip = 1),
    paste("optimizer_lars() has no argument `clip`. In `...` it takes `clipnorm`,",
          "`clipvalue`, `global_clipnorm`, `decay`, `lr`, `use_ema`, `ema_momentum`,",
          "`ema_overwrite_frequency`, `loss_scale_factor`, `gradient_accumulation_steps`.")
  )
  withr::local_options(kerasoptimizers.keras = "keras")
  expect_error(optimizer_lars(loss_scale_factor = 2), "no argument `loss_scale_factor`",
               class = "kerasoptimizers_argument_error")
  expect_refused(optimizer_lars(jit_compile = 1), "`jit_compile` must be TRUE or FALSE, not 1.")
  expect_refused(optimizer_lars(0.1, 0.9, 0, 0.1, FALSE, TRUE, NULL, NULL, "LARS", 1),
                 "Arguments in `...` must have names.")
  expect_refused(
    callback_average_model_checkpoint(FALSE, "a", "loss", 0, TRUE, TRUE, "min", "epoch", 1),
    "Arguments in `...` must have names."
  )
})

test_that("arguments that don't fit each other are one line", {
  python_keras()
  refused <- function(call, message) {
    expect_error(call, message, fixed = TRUE, class = "kerasoptimizers_error")
  }
  refused(optimizer_lars(clipnorm = 1, global_clipnorm = 1),
          "Only one of `clipnorm` and `global_clipnorm`")
  refused(optimizer_lars(exclude_from_weight_decay = "("), "`exclude_from_weight_decay` must be")
  refused(callback_swa(2, swa_lr2 = 0.1), "`swa_lr2` can only be given together with `swa_lr`.")
  refused(callback_swa(2, "cyclic"), "`swa_freq` must be a whole number >= 2")
  refused(callback_swa(2, "cyclic", 0.1, 0.01, 2), "`swa_lr` must be at most `swa_lr2`")
  refused(callback_average_model_checkpoint(FALSE, "model.keras", no_such = 1), "no_such")
  refused(learning_rate_schedule_swa(0.1, 0.01, 10, anneal_updates = 11),
          "`anneal_updates` must be")
  refused(learning_rate_schedule_swa(0.1, 0.01, 10, cycle_learning_rate = 0.05),
          "`cycle_learning_rate` needs `cycle_updates`")
})

test_that("a count has to fit an integer", {
  expect_refused(optimizer_swa("sgd", average_period = 3e9),
                 "`average_period` must be a whole number <= 2147483647, not 3e+09.")
})

must_be <- "`optimizer` must be a Keras optimizer or the name of one, not "

test_that("the inner optimizer has to be one", {
  optimizers <- list(optimizer_swa, optimizer_lookahead, optimizer_ema, optimizer_schedule_free,
                     optimizer_primal_averaging, optimizer_power_average,
                     optimizer_moving_average, lookahead_mechanism)
  for (f in optimizers) {
    expect_refused(f(), "`optimizer` must be given: a Keras optimizer or the name of one.")
    expect_refused(f(NULL), paste0(must_be, "NULL."))
    expect_refused(f(NA), paste0(must_be, "NA."))
    expect_refused(f(NA_character_), paste0(must_be, "NA."))
    expect_refused(f(0.1), paste0(must_be, "0.1."))
    expect_refused(f(""), paste0(must_be, '"".'))
    expect_refused(f(c("sgd", "adam")), paste0(must_be, "a vector of length 2."))
    expect_refused(f(list("sgd")), paste0(must_be, "a list of length 1."))
    expect_refused(f(factor("sgd")), paste0(must_be, "an object of class factor."))
    expect_refused(f(iris), paste0(must_be, "a data frame."))
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

test_that("objects that are neither a model nor an averaging optimizer are refused", {
  keras <- python_keras()
  must_be <- "`object` must be a compiled Keras model or an averaging optimizer, not "
  for (f in list(assign_average_vars, swap_weights, has_shadow_copy)) {
    expect_refused(f(), "`object` must be given: a compiled Keras model or an averaging optimizer.")
    expect_refused(f(NULL), paste0(must_be, "NULL."))
    expect_refused(f("model"), paste0(must_be, '"model".'))
    expect_refused(f(list(1)), paste0(must_be, "a list of length 1."))
    expect_refused(f(keras$optimizers$SGD()), paste0(must_be, "a Python object of class SGD."))
    expect_error(f(keras$Sequential()), "`object` must be compiled with an averaging optimizer",
                 class = "kerasoptimizers_error")
    expect_error(f(iris_model("sgd")), "`object` must be compiled with an averaging optimizer",
                 class = "kerasoptimizers_error")
  }
})

test_that("shadow_copy() refuses other optimizers, and models of the other Keras", {
  keras <- python_keras()
  must_be <- "`optimizer` must be an averaging optimizer, not "
  expect_refused(shadow_copy("sgd"), paste0(must_be, '"sgd".'))
  for (class in c("SGD", "LARS")) {
    optimizer <- if (class == "SGD") keras$optimizers$SGD() else optimizer_lars()
    expect_refused(shadow_copy(optimizer), paste0(must_be, "a Python object of class ", class, "."))
  }
  ema <- optimizer_ema("sgd")
  must_be <- "`model` must be a built Keras 3 model or a list of its variables, not "
  expect_refused(shadow_copy(ema),
                 "`model` must be given: a built Keras 3 model or a list of its variables.")
  expect_refused(shadow_copy(ema, 1), paste0(must_be, "1."))
  expect_refused(shadow_copy(ema, keras$layers$Dense(1L)),
                 paste0(must_be, "a Python object of class Dense."))
  expect_error(shadow_copy(ema, keras$Sequential(list(keras$layers$Dense(1L)))),
               "`model` must be built", class = "kerasoptimizers_error")
  tf_keras <- python_keras("tf_keras")
  expect_refused(shadow_copy(ema, tf_keras$Sequential()),
                 paste0(must_be, "a Python object of class Sequential."))
})

for (argument in c("x", "batch_size", "steps", "verbose")) {
  test_that(sprintf("update_batch_norm() refuses wrong values of `%s`", argument), {
    model <- iris_model("sgd", python_keras())
    case <- list(
      x = list("an array, a data frame, a list of arrays, a data set, a generator or a function", not_data),
      batch_size = list("a whole number >= 1", at_least_1),
      steps = list("a whole number >= 1", not_null(at_least_1)),
      verbose = list('"auto", 0, 1 or 2', names_and("-1" = -1, "0.5" = 0.5))
    )[[argument]]
    for (i in seq_along(case[[2]])) {
      arguments <- list(model, x = iris_x)
      arguments[argument] <- case[[2]][i]
      expect_refused(
        do.call(update_batch_norm, arguments, quote = TRUE),
        sprintf("`%s` must be %s, not %s.", argument, case[[1]], names(case[[2]])[[i]])
      )
    }
  })
}

test_that("update_batch_norm() refuses everything but a built model", {
  keras <- python_keras()
  must_be <- "`model` must be a Keras model, not "
  expect_refused(update_batch_norm(NULL, iris_x), paste0(must_be, "NULL."))
  expect_refused(update_batch_norm(iris_x, iris_x), paste0(must_be, "a 150 x 4 matrix."))
  expect_refused(update_batch_norm(keras$layers$Dense(1L), iris_x),
                 paste0(must_be, "a Python object of class Dense."))
  unbuilt <- keras$Sequential(list(keras$layers$BatchNormalization()))
  expect_error(update_batch_norm(unbuilt, iris_x), "`model` must be built",
               class = "kerasoptimizers_error")
})

test_that("variables have to be a list of variables, and weights stay as they were", {
  keras <- python_keras()
  model <- train(iris_model(optimizer_swa("sgd", average_period = 1)))
  optimizer <- model$optimizer
  before <- weights_of(model)
  must_be <- "`variables` must be a list of Keras variables, not "
  expect_refused(assign_average_vars(optimizer), paste0(must_be, "NULL."))
  expect_refused(assign_average_vars(optimizer, 3), paste0(must_be, "3."))
  expect_refused(assign_average_vars(optimizer, c(model$trainable_variables, 2)),
                 paste0(must_be, "a list whose element 5 is 2."))
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

test_that("callbacks and LARS are of the Keras of the option, and a schedule's own", {
  tf_keras <- python_keras("tf_keras")
  keras <- python_keras()
  made_for <- function(x) {
    generation_of(x, c("Callback", "BaseOptimizer", "_BaseOptimizer", "LearningRateSchedule"))
  }
  made <- function() {
    list(
      optimizer_lars(), callback_swa(2), callback_swap_averages(),
      callback_average_model_checkpoint(FALSE, "model.keras"),
      learning_rate_schedule_swa(0.1, 0.01, 10)
    )
  }
  for (generation in c("keras3", "keras")) {
    withr::local_options(kerasoptimizers.keras = generation)
    for (x in made()) expect_identical(made_for(x), generation)
    for (case in list(list(keras, "keras3"), list(tf_keras, "keras"))) {
      schedule <- case[[1]]$optimizers$schedules$ExponentialDecay(0.1, 10L, 0.5)
      expect_identical(made_for(optimizer_lars(schedule)), case[[2]])
      expect_identical(made_for(learning_rate_schedule_swa(schedule, 0.01, 10)), case[[2]])
    }
  }
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

test_that("an attached R package says which Keras is meant, if only one of the two is", {
  withr::local_envvar(TF_USE_LEGACY_KERAS = NA)
  withr::local_options(kerasoptimizers.keras = NULL)
  skip_if(any(c("package:keras3", "package:keras") %in% search()), "one of them is attached")
  attach_one <- function(name, frame = parent.frame()) {
    attach(list(), name = name)
    withr::defer(detach(name, character.only = TRUE), frame)
  }
  local({
    attach_one("package:keras")
    expect_identical(inner_generation("sgd"), "keras")
    attach_one("package:keras3")
    expect_identical(inner_generation("sgd"), "keras3")
    withr::local_envvar(TF_USE_LEGACY_KERAS = "1")
    expect_identical(inner_generation("sgd"), "keras")
  })
  withr::local_envvar(TF_USE_LEGACY_KERAS = "1")
  attach_one("package:keras3")
  expect_identical(inner_generation("sgd"), "keras3")
  withr::local_options(kerasoptimizers.keras = "keras")
  expect_identical(inner_generation("sgd"), "keras")
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
