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
  optimizer <- optimizer_lookahead(keras$optimizers$SGD(0.1), 5, 1L, clipnorm = 3,
                                   slow_momentum = 1L, inner_state = "reset")
  settings <- config(optimizer)
  expect_identical(settings[c("slow_momentum", "inner_state")],
                   list(slow_momentum = 1, inner_state = "reset"))
  expect_identical(settings$sync_period, 5L)
  expect_identical(settings$slow_step_size, 1)
  expect_identical(python_type(optimizer, "sync_period"), "int")
  expect_identical(python_type(optimizer, "slow_step_size"), "float")
  expect_identical(settings$clipnorm, 3)
  expect_identical(settings$name, "Lookahead")
})

test_that("optimizer_ema() hands its arguments on, numbers as Python wants them", {
  keras <- python_keras()
  optimizer <- optimizer_ema(keras$optimizers$SGD(0.1), FALSE, 1, 5, FALSE, update_period = 3)
  settings <- config(optimizer)
  expect_identical(
    settings[c("trainable_weights_only", "average_decay", "start_step", "dynamic_decay",
               "update_period")],
    list(trainable_weights_only = FALSE, average_decay = 1, start_step = 5L,
         dynamic_decay = FALSE, update_period = 3L)
  )
  expect_identical(python_type(optimizer, "average_decay"), "float")
  expect_identical(python_type(optimizer, "update_period"), "int")
  optimizer <- optimizer_ema("sgd", half_life = 2L, warmup_gamma = 1L, warmup_power = 1L,
                             min_decay = 0.5, overwrite_period = 4)
  expect_identical(
    config(optimizer)[c("half_life", "warmup_gamma", "warmup_power", "min_decay", "overwrite_period")],
    list(half_life = 2, warmup_gamma = 1, warmup_power = 1, min_decay = 0.5, overwrite_period = 4L)
  )
  expect_null(config(optimizer)$average_decay)
  expect_equal(optimizer$average_decay, sqrt(0.5))
})

test_that("arguments of optimizer_ema() that do not fit together are refused", {
  python_keras()
  expect_error(optimizer_ema("sgd", average_decay = 0.99, half_life = 10),
               "Only one of `average_decay` and `half_life` can be given, not both.",
               class = "kerasoptimizers_argument_error")
  expect_error(optimizer_ema("sgd", half_life = 1, min_decay = 0.75),
               "`min_decay` must be at most `average_decay`, 0.5, not 0.75.",
               class = "kerasoptimizers_argument_error")
  expect_error(optimizer_ema("sgd", update_period = 2, overwrite_period = 3),
               "`overwrite_period` must be a multiple of `update_period`, 2, not 3.",
               class = "kerasoptimizers_argument_error")
})

test_that("optimizer_schedule_free() hands its arguments on, numbers as Python wants them", {
  keras <- python_keras()
  optimizer <- optimizer_schedule_free(keras$optimizers$SGD(0.1), 1, 5, 0, 1L, 0.1, decay = 0.01)
  settings <- config(optimizer)
  expect_identical(
    settings[c("beta", "warmup_steps", "weight_lr_power", "r", "weight_decay_at_y", "decay", "name")],
    list(beta = 1, warmup_steps = 5L, weight_lr_power = 0, r = 1, weight_decay_at_y = 0.1,
         decay = 0.01, name = "ScheduleFree")
  )
  expect_identical(python_type(optimizer, "warmup_steps"), "int")
  expect_identical(python_type(optimizer, "r"), "float")
})

test_that("optimizer_primal_averaging() hands its arguments on, numbers as Python wants them", {
  keras <- python_keras()
  optimizer <- optimizer_primal_averaging(keras$optimizers$SGD(0.1), 1, 0.5, "mine", 3)
  settings <- config(optimizer)
  expect_identical(settings[c("train_interpolation", "eval_interpolation", "name", "clipnorm")],
                   list(train_interpolation = 1, eval_interpolation = 0.5, name = "mine", clipnorm = 3))
  expect_identical(python_type(optimizer, "train_interpolation"), "float")
})

test_that("optimizer_moving_average() takes its arguments in the order of tfaddons", {
  keras <- python_keras()
  sgd <- keras$optimizers$SGD(0.1)
  optimizer <- optimizer_moving_average(sgd, FALSE, 0.5, 4, "mine", NULL, 2)
  settings <- config(optimizer)
  expect_identical(settings[c("average_decay", "num_updates", "name", "clipvalue")],
                   list(average_decay = 0.5, num_updates = 4L, name = "mine", clipvalue = 2))
  expect_match(class(optimizer)[[1]], "MovingAverage$")
})

test_that("optimizer_lars() hands its arguments on, numbers as Python wants them", {
  python_keras()
  optimizer <- optimizer_lars(
    1, 0.5, 1e-4, 0.01, TRUE, FALSE, "bias", c("a", "b"), "mine", clipnorm = 1, decay = 0.1,
    gradient_accumulation_steps = 2, clipvalue = NULL
  )
  settings <- config(optimizer)
  expect_identical(
    settings[c("momentum", "weight_decay_rate", "eeta", "nesterov", "classic_momentum", "name",
               "clipnorm", "decay", "gradient_accumulation_steps")],
    list(momentum = 0.5, weight_decay_rate = 1e-4, eeta = 0.01, nesterov = TRUE,
         classic_momentum = FALSE, name = "mine", clipnorm = 1, decay = 0.1,
         gradient_accumulation_steps = 2L)
  )
  expect_equal(settings$learning_rate, 1)
  # One pattern, too, is a list in Python.
  expect_identical(python_type(optimizer, "exclude_from_weight_decay"), "list")
  expect_identical(settings$exclude_from_weight_decay, "bias")
  expect_identical(settings$exclude_from_layer_adaptation, c("a", "b"))
  excludes_none <- optimizer_lars(exclude_from_layer_adaptation = character())
  expect_identical(config(excludes_none)$exclude_from_layer_adaptation, list())
  expect_null(config(excludes_none)$exclude_from_weight_decay)
})

test_that("the defaults are those of the help page", {
  python_keras()
  swa <- config(optimizer_swa("sgd"))
  expect_identical(swa[c("name", "start_averaging", "average_period")],
                   list(name = "SWA", start_averaging = 0L, average_period = 10L))
  lookahead <- config(optimizer_lookahead("sgd"))
  expect_identical(
    lookahead[c("name", "sync_period", "slow_step_size", "slow_momentum", "inner_state")],
    list(name = "Lookahead", sync_period = 6L, slow_step_size = 0.5, slow_momentum = 0,
         inner_state = "keep")
  )
  decays <- c("name", "average_decay", "start_step", "dynamic_decay")
  ema <- config(optimizer_ema("sgd"))
  expect_identical(ema[c(decays, "trainable_weights_only", "update_period")], list(
    name = "ExponentialMovingAverage", average_decay = 0.99, start_step = 0L,
    dynamic_decay = TRUE, trainable_weights_only = TRUE, update_period = 1L
  ))
  expect_identical(ema[c("warmup_power", "min_decay")], list(warmup_power = 2 / 3, min_decay = 0))
  expect_null(c(ema$half_life, ema$warmup_gamma, ema$overwrite_period))
  own <- list(name = "ScheduleFree", beta = 0.9, warmup_steps = 0L, weight_lr_power = 2, r = 0,
              weight_decay_at_y = 0)
  expect_identical(config(optimizer_schedule_free("sgd"))[names(own)], own)
  own <- list(name = "PrimalAveraging", train_interpolation = 0.7, eval_interpolation = 0.9967)
  expect_identical(config(optimizer_primal_averaging("sgd"))[names(own)], own)
  moving <- config(optimizer_moving_average("sgd"))
  expect_identical(moving[decays], list(
    name = "MovingAverage", average_decay = 0.99, start_step = 0L, dynamic_decay = FALSE
  ))
  expect_null(moving$num_updates)
  lars <- config(optimizer_lars())
  expect_equal(lars$learning_rate, 0.01, tolerance = 1e-6)
  expect_identical(
    lars[c("name", "momentum", "weight_decay_rate", "eeta", "nesterov", "classic_momentum")],
    list(name = "LARS", momentum = 0.9, weight_decay_rate = 0, eeta = 0.001, nesterov = FALSE,
         classic_momentum = TRUE)
  )
  expect_null(lars$exclude_from_weight_decay)
  expect_null(lars$exclude_from_layer_adaptation)
})

test_that("arguments have the order of the original implementations", {
  expect_identical(names(formals(optimizer_swa)), c(
    "optimizer", "start_averaging", "average_period", "name", "sequential_update", "clipnorm",
    "clipvalue", "decay", "lr", "global_clipnorm", "check_finite"
  ))
  expect_identical(names(formals(optimizer_lookahead)), c(
    "optimizer", "sync_period", "slow_step_size", "name", "clipnorm", "clipvalue", "decay", "lr",
    "global_clipnorm", "check_finite", "slow_momentum", "inner_state"
  ))
  expect_identical(names(formals(optimizer_ema)), c(
    "optimizer", "trainable_weights_only", "average_decay", "start_step", "dynamic_decay", "name",
    "clipnorm", "clipvalue", "decay", "lr", "global_clipnorm", "update_period",
    "check_finite", "half_life", "warmup_gamma", "warmup_power", "min_decay", "overwrite_period"
  ))
  for_all <- c("name", "clipnorm", "clipvalue", "decay", "lr", "global_clipnorm", "check_finite")
  expect_identical(names(formals(optimizer_schedule_free)), c(
    "optimizer", "beta", "warmup_steps", "weight_lr_power", "r", "weight_decay_at_y", for_all
  ))
  expect_identical(names(formals(optimizer_primal_averaging)), c(
    "optimizer", "train_interpolation", "eval_interpolation", for_all
  ))
  expect_identical(names(formals(optimizer_power_average)), c(
    "optimizer", "sigma_rel", "name", "shown_width", for_all[-1]
  ))
  expect_identical(names(formals(optimizer_moving_average)), c(
    "optimizer", "sequential_update", "average_decay", "num_updates", "name", "clipnorm",
    "clipvalue", "decay", "lr", "start_step", "dynamic_decay", "global_clipnorm",
    "check_finite"
  ))
  expect_identical(names(formals(optimizer_lars)), c(
    "learning_rate", "momentum", "weight_decay_rate", "eeta", "nesterov", "classic_momentum",
    "exclude_from_weight_decay", "exclude_from_layer_adaptation", "name", "..."
  ))
  expect_identical(names(formals(callback_swa)), c(
    "start_epoch", "lr_schedule", "swa_lr", "swa_lr2", "swa_freq", "batch_size", "verbose", "data",
    "backup_dir", "n_converge", "n_tolerance", "tolerance_ratio", "snapshot_epoch"
  ))
  expect_identical(names(formals(callback_average_model_checkpoint)), c(
    "update_weights", "filepath", "monitor", "verbose", "save_best_only", "save_weights_only",
    "mode", "save_freq", "..."
  ))
})

test_that("the result is a Keras optimizer around the given one", {
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
  rlang::reset_message_verbosity("kerasoptimizers_lr")
  sgd <- keras$optimizers$SGD(0.1)
  expect_message(optimizer_swa(sgd, lr = 0.5), "inner optimizer's `learning_rate`",
                 class = "kerasoptimizers_deprecated")
  expect_identical(as.numeric(sgd$learning_rate$numpy()), 0.5)
  expect_silent(optimizer_lookahead("sgd", lr = 0.5))
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("a model that learns its input shape from the data trains:", module), {
    keras <- local_keras(module)
    for (f in list(optimizer_swa, optimizer_lookahead, optimizer_ema, optimizer_schedule_free,
                   optimizer_primal_averaging, optimizer_moving_average)) {
      model <- keras$Sequential(list(keras$layers$Dense(3L, activation = "softmax")))
      model$compile(f("sgd"), loss = "sparse_categorical_crossentropy")
      # Schedule-Free says that the model then holds the weights to train on.
      expect_silent(suppressWarnings(assign_average_vars(train(model, 1)), "kerasoptimizers_warning"))
    }
  })
}

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

test_that("Lookahead's slow steps have Nesterov momentum", {
  python_keras()
  model <- iris_model(optimizer_lookahead("sgd", sync_period = 1, slow_step_size = 0.5,
                                          slow_momentum = 0.9))
  slow <- weights_of(model)
  velocity <- lapply(slow, function(w) 0 * w)
  for (i in 1:3) {
    plain <- iris_model("sgd")
    plain$set_weights(unname(slow))
    update_once(plain)
    d <- Map(`-`, slow, weights_of(plain))
    velocity <- Map(function(v, d) 0.9 * v + d, velocity, d)
    slow <- Map(function(s, d, v) s - 0.5 * (d + 0.9 * v), slow, d, velocity)
    update_once(model)
    expect_equal(weights_of(model), slow, tolerance = 1e-6)
  }
})

test_that("optimizer_ema(overwrite_period = ) trains on from the average", {
  python_keras()
  model <- iris_model(optimizer_ema("sgd", half_life = 1, dynamic_decay = FALSE,
                                    overwrite_period = 2))
  for (same in c(FALSE, TRUE, FALSE, TRUE)) {
    update_once(model)
    expect_identical(identical(weights_of(model), averages_of(model)), same)
  }
})

# The average after each update, as R works it out from the weights and their decays.
moving_averages <- function(start, weights, decays) {
  move <- function(average, i) {
    Map(function(a, w) decays[[i]] * a + (1 - decays[[i]]) * w, average, weights[[i]])
  }
  Reduce(move, seq_along(weights), start)
}

decays <- list(
  list("optimizer_ema", list(), c(2 / 11, 3 / 12, 0.3, 0.3)),
  list("optimizer_ema", list(dynamic_decay = FALSE), rep(0.3, 4)),
  list("optimizer_ema", list(start_step = 2), c(0, 1 / 10, 2 / 11, 3 / 12)),
  list("optimizer_ema", list(dynamic_decay = FALSE, update_period = 2), c(1, 0.09, 1, 0.09)),
  list("optimizer_ema", list(warmup_gamma = 9, warmup_power = 1, min_decay = 0.2),
       c(0.2, 0.2, 0.25, 0.3)),
  list("optimizer_ema", list(warmup_gamma = 9, warmup_power = 1, start_step = 2),
       c(0, 0, 1 / 10, 2 / 11)),
  list("optimizer_moving_average", list(), rep(0.3, 4)),
  list("optimizer_moving_average", list(num_updates = 1), rep(2 / 11, 4)),
  list("optimizer_moving_average", list(dynamic_decay = TRUE), c(1 / 10, 2 / 11, 3 / 12, 0.3)),
  list("optimizer_moving_average", list(start_step = 2), c(0, 0, 0.3, 0.3))
)
for (case in decays) {
  setting <- paste(names(case[[2]]), unlist(case[[2]]), sep = " = ", collapse = ", ")
  test_that(sprintf("%s(%s) averages with its decays", case[[1]], setting), {
    python_keras()
    optimizer <- do.call(case[[1]], c(list("sgd", average_decay = 0.3), case[[2]]))
    model <- iris_model(optimizer)
    start <- weights_of(model)
    weights <- lapply(1:4, function(i) {
      update_once(model)
      weights_of(model)
    })
    expected <- moving_averages(start, weights, case[[3]])
    expect_equal(averages_of(model), expected, tolerance = 1e-6)
    expect_identical(weights_of(model), weights[[4]])
  })
}

test_that("optimizer_ema(trainable_weights_only = FALSE) also averages batch-norm statistics", {
  python_keras()
  optimizer <- optimizer_ema("sgd", FALSE, average_decay = 0.5, dynamic_decay = FALSE)
  model <- iris_norm_model(optimizer)
  shadow_copy(optimizer, model)
  start <- weights_of(model)
  weights <- lapply(1:3, function(i) {
    update_once(model)
    weights_of(model)
  })
  assign_average_vars(model)
  expected <- moving_averages(start, weights, rep(0.5, 3))
  expect_equal(weights_of(model)[1:4], expected[1:4], tolerance = 1e-6)
  # When in an update the statistics change is the backend's affair.
  expect_false(identical(weights_of(model)[5:6], weights[[3]][5:6]))
  expect_false(identical(weights_of(model)[5:6], start[5:6]))
  untold <- iris_norm_model(optimizer_ema("sgd", FALSE))
  expect_error(update_once(untold), "shadow_copy(model$optimizer, model)", fixed = TRUE)
})

test_that("lookahead_mechanism() is optimizer_lookahead(), and says so once", {
  python_keras()
  rlang::reset_message_verbosity("kerasoptimizers_lookahead_mechanism")
  expect_message(optimizer <- lookahead_mechanism("sgd", 4, slow_step_size = 0.3),
                 "optimizer_lookahead", class = "kerasoptimizers_deprecated")
  expect_match(class(optimizer)[[1]], "Lookahead$")
  expect_identical(config(optimizer)[c("name", "sync_period", "slow_step_size")],
                   list(name = "Lookahead", sync_period = 4L, slow_step_size = 0.3))
  expect_no_message(lookahead_mechanism("sgd"))
})

test_that("optimizer_schedule_free() averages as its authors say, with gradients in between", {
  keras <- python_keras()
  model <- iris_model(optimizer_schedule_free(
    keras$optimizers$SGD(0.5), beta = 0.8, warmup_steps = 3, weight_decay_at_y = 0.1
  ))
  # Gradients at any weights: a step of plain SGD.
  plain <- iris_model(keras$optimizers$SGD(1))
  gradients <- function(weights) {
    plain$set_weights(unname(weights))
    update_once(plain)
    Map(`-`, weights, weights_of(plain))
  }
  x <- y <- z <- weights_of(model)
  total <- 0
  for (rate in 0.5 * c(1, 2, 3, 3, 3) / 3) {
    z <- Map(function(z, y, g) z - rate * (g + 0.1 * y), z, y, gradients(y))
    total <- total + rate^2
    x <- Map(function(x, z) x + rate^2 / total * (z - x), x, z)
    y <- Map(function(x, z) 0.8 * x + 0.2 * z, x, z)
    update_once(model)
    expect_equal(weights_of(model), y, tolerance = 1e-5)
    expect_equal(averages_of(model), x, tolerance = 1e-5)
    expect_equal(averages_of(model, "fast"), z, tolerance = 1e-5)
  }
})

norm <- function(x) sqrt(sum(x^2))

test_that("LARS steps by the trust ratio, but not in what is excluded", {
  keras <- python_keras()
  plain <- iris_model(keras$optimizers$SGD(1))
  start <- weights_of(plain)
  update_once(plain)
  gradients <- Map(`-`, start, weights_of(plain))
  model <- iris_model(optimizer_lars(
    2, weight_decay_rate = 0.1, eeta = 0.05, exclude_from_weight_decay = "bias"
  ))
  update_once(model)
  expected <- Map(function(w, g) {
    if (length(dim(w)) == 1) return(w - 2 * g)
    g <- g + 0.1 * w
    w - 2 * 0.05 * norm(w) / norm(g) * g
  }, start, gradients)
  expect_equal(weights_of(model), expected, tolerance = 1e-5)
})

test_that("LARS trains, alone and inside SWA, with a number and with a schedule", {
  keras <- python_keras()
  schedule <- learning_rate_schedule_swa(10, 5, start_averaging = 100)
  for (optimizer in list(
    optimizer_lars(10, exclude_from_weight_decay = "bias", exclude_from_layer_adaptation = "none"),
    optimizer_lars(schedule, nesterov = TRUE),
    optimizer_swa(optimizer_lars(10), start_averaging = 100)
  )) {
    model <- train(iris_model(optimizer), epochs = 40)
    if (is_averaging_optimizer(optimizer)) assign_average_vars(model)
    accuracy <- model$evaluate(iris_x, iris_y, verbose = 0L)[[2]]
    # Chance is a third. Steps of a fixed share of the weights' size keep it from settling.
    expect_gt(accuracy, 0.6)
  }
})

test_that("LARS takes lr for its learning rate and says once how to do it now", {
  python_keras()
  rlang::reset_message_verbosity("kerasoptimizers_lr")
  expect_message(optimizer <- optimizer_lars(lr = 0.5), "Use `learning_rate` instead",
                 class = "kerasoptimizers_deprecated")
  expect_identical(as.numeric(optimizer$learning_rate$numpy()), 0.5)
})

same_in_python <- list(
  list("SWA", optimizer_swa, list(start_averaging = 7, average_period = 4, clipnorm = 1)),
  list("Lookahead", optimizer_lookahead,
       list(sync_period = 4, slow_step_size = 0.3, decay = 0.01, slow_momentum = 0.5)),
  list("ExponentialMovingAverage", optimizer_ema,
       list(average_decay = 0.9, start_step = 3, clipvalue = 0.5, update_period = 2,
            warmup_gamma = 2, overwrite_period = 8)),
  list("ScheduleFree", optimizer_schedule_free,
       list(beta = 0.8, warmup_steps = 7, weight_lr_power = 1, r = 0.5, weight_decay_at_y = 0.01)),
  list("PrimalAveraging", optimizer_primal_averaging,
       list(train_interpolation = 0.5, eval_interpolation = 0.9)),
  list("PowerAverage", optimizer_power_average, list(sigma_rel = 0.1))
)

# What Python ends with: for each method its weights, then the averages. One process trains all.
python_weights <- local({
  found <- NULL
  function(method) {
    if (is.null(found)) {
      np <- reticulate::import("numpy")
      folder <- withr::local_tempdir()
      np$save(file.path(folder, "x.npy"), iris_x)
      np$save(file.path(folder, "y.npy"), iris_y)
      # One by one, so that 4 stays "4", an integer, beside 0.3.
      settings <- vapply(same_in_python, function(case) {
        each <- sprintf('"%s": %s', names(case[[3]]), vapply(case[[3]], format, ""))
        sprintf('"%s": {%s}', case[[1]], paste(each, collapse = ", "))
      }, "")
      writeLines(sprintf("{%s}", paste(settings, collapse = ", ")), file.path(folder, "settings.json"))
      module <- system.file("python", package = "kerasoptimizers")
      run(reticulate::py_exe(), c(test_path("fixtures", "train.py"), folder), env = paste0("PYTHONPATH=", module))
      found <<- lapply(rlang::set_names(vapply(same_in_python, `[[`, "", 1)), function(method) {
        saved <- np$load(file.path(folder, paste0(method, ".npz")))
        lapply(saved$files, function(name) as.array(saved$f[[name]]))
      })
    }
    found[[method]]
  }
})

for (case in same_in_python) {
  test_that(paste("R and Python end with exactly the same weights:", case[[1]]), {
    keras <- python_keras()
    inner <- keras$optimizers$SGD(0.05, momentum = 0.9)
    model <- train(iris_model(do.call(case[[2]], c(list(inner), case[[3]]))))
    trained <- weights_of(model)
    averaged <- weights_of(assign_average_vars(model))

    expect_identical(c(trained, averaged), python_weights(case[[1]]))
    expect_false(identical(trained, averaged))
  })
}
