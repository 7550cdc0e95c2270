# Wrong calls on objects of Keras, one a row: each is one line that names the argument, and model,
# optimizer and files stay as they were. test-arguments.R has the wrong arguments of constructors.

# The objects of one Keras that the rows below call functions with.
bad_world <- function(module) {
  keras <- python_keras(module)
  other <- python_keras(setdiff(c("keras", "tf_keras"), module))
  inner <- function() keras$optimizers$SGD(0.1, momentum = 0.9)
  model <- train(iris_norm_model(optimizer_swa(inner(), average_period = 2), keras), 1)
  early <- train(iris_model(optimizer_swa(inner(), 1000), keras), 1)
  swapped <- train(iris_model(optimizer_swa(inner(), 0, 1), keras), 1)
  swap_weights(swapped)
  plain <- train(iris_model(inner(), keras), 1)
  lars <- train(iris_model(optimizer_lars(0.1), keras), 1)
  file <- withr::local_tempfile()
  saveRDS(plain, file)
  list(
    keras = keras, model = model, optimizer = model$optimizer, early = early, swapped = swapped,
    plain = plain, lars = lars, fresh = optimizer_ema(inner()), inner = inner(),
    variables = model$trainable_variables, strange = plain$trainable_variables,
    unbuilt = keras$Sequential(list(keras$layers$BatchNormalization())),
    uncompiled = keras$Sequential(list(keras$layers$Input(list(4L)), keras$layers$Dense(3L))),
    schedule = keras$optimizers$schedules$ExponentialDecay(0.1, 10L, 0.9),
    layer = keras$layers$Dense(1L), class = keras$optimizers$SGD, dead = readRDS(file),
    other_model = other$Sequential(list(other$layers$Input(list(4L)), other$layers$Dense(1L))),
    other_optimizer = other$optimizers$SGD(), history = plain$history,
    vectors = list(model$get_weights(), lapply(model$get_weights(), `+`, 1),
                   lapply(model$get_weights(), function(w) w^2))
  )
}

bad_state <- function(world) {
  models <- world[c("model", "early", "swapped", "plain", "lars")]
  config <- reticulate::py_eval("lambda optimizer: repr(optimizer.get_config())")
  list(
    lapply(models, weights_of),
    lapply(models[names(models) != "plain"], function(m) lapply(m$optimizer$get_weights(), as.array)),
    lapply(models, function(m) config(m$optimizer)),
    config(world$inner), has_shadow_copy(world$fresh)
  )
}

bad_rows <- list()
rows <- function(text, ...) {
  bad_rows <<- c(bad_rows, lapply(rlang::exprs(...), function(call) list(text, call)))
}

no_averages <- "`object` must be a compiled Keras model or an averaging optimizer"
averages <- c("assign_average_vars", "swap_weights", "has_shadow_copy", "averaging_optimizer")
for (f in rlang::syms(averages)) {
  rows("`object` must be given: a compiled Keras model or an averaging optimizer", (!!f)())
  rows(
    no_averages,
    (!!f)(NULL), (!!f)(NA), (!!f)("model"), (!!f)(3), (!!f)(list()), (!!f)(mean),
    (!!f)(iris), (!!f)(factor("a")), (!!f)(Sys.Date()), (!!f)(environment()), (!!f)(quote(x)),
    (!!f)(class), (!!f)(inner), (!!f)(layer), (!!f)(dead), (!!f)(list(model)), (!!f)(variables)
  )
  rows(
    "`object` must be compiled with an averaging optimizer",
    (!!f)(plain), (!!f)(lars), (!!f)(uncompiled), (!!f)(unbuilt)
  )
}
rows(
  "needs an average",
  assign_average_vars(early), swap_weights(early), swap_weights(fresh),
  assign_average_vars(fresh, variables)
)
rows("call swap_weights()", assign_average_vars(swapped))
rows(
  "`variables` must be a list of Keras variables",
  assign_average_vars(optimizer), assign_average_vars(optimizer, NULL),
  assign_average_vars(optimizer, NA), assign_average_vars(optimizer, 3),
  assign_average_vars(optimizer, "kernel"), assign_average_vars(optimizer, mean),
  assign_average_vars(optimizer, iris), assign_average_vars(optimizer, list(1)),
  assign_average_vars(optimizer, list(NULL)), assign_average_vars(optimizer, dead),
  assign_average_vars(optimizer, list(dead)), assign_average_vars(optimizer, variables[[1]]),
  assign_average_vars(optimizer, model), assign_average_vars(model, c(variables, 1)),
  assign_average_vars(optimizer, environment()), assign_average_vars(optimizer, factor("a"))
)
rows(
  "`variables` must",
  assign_average_vars(optimizer, list()), assign_average_vars(model, list()),
  assign_average_vars(optimizer, strange), assign_average_vars(model, strange),
  assign_average_vars(optimizer, list(layer)), assign_average_vars(optimizer, list(model)),
  assign_average_vars(optimizer, list(inner))
)
rows(
  "`optimizer` must be an averaging optimizer",
  shadow_copy(NULL), shadow_copy(NA), shadow_copy("sgd", model),
  shadow_copy(3, model), shadow_copy(list(fresh), model), shadow_copy(mean, model),
  shadow_copy(inner, model), shadow_copy(lars$optimizer, lars), shadow_copy(class, model),
  shadow_copy(model, fresh), shadow_copy(dead, model)
)
rows(
  "`model` must be a built Keras",
  shadow_copy(fresh, NULL), shadow_copy(fresh, NA), shadow_copy(fresh, 3),
  shadow_copy(fresh, "model"), shadow_copy(fresh, iris), shadow_copy(fresh, mean),
  shadow_copy(fresh, list(1)), shadow_copy(fresh, layer), shadow_copy(fresh, dead),
  shadow_copy(fresh, list(dead)), shadow_copy(fresh, other_model), shadow_copy(fresh, inner)
)
rows(
  "`model` must be",
  shadow_copy(fresh, unbuilt), shadow_copy(fresh, list()), shadow_copy(fresh, list(layer)),
  shadow_copy(optimizer, plain), shadow_copy(optimizer, strange)
)
rows(
  "`model` must be a Keras model",
  update_batch_norm(NULL, iris_x), update_batch_norm(NA, iris_x),
  update_batch_norm("model", iris_x), update_batch_norm(iris_x, model),
  update_batch_norm(list(model), iris_x), update_batch_norm(layer, iris_x),
  update_batch_norm(optimizer, iris_x), update_batch_norm(dead, iris_x),
  update_batch_norm(mean, iris_x), update_batch_norm(iris, iris_x)
)
rows(
  "must be given:",
  shadow_copy(), shadow_copy(fresh), update_batch_norm(), update_batch_norm(model), optimizer_swa(),
  plot_averaging(), plot_loss_plane(), plot_loss_plane(model), plot_loss_plane(model, vectors),
  callback_average_model_checkpoint(FALSE)
)
rows("`filepath` comes second", callback_average_model_checkpoint("model.keras", FALSE))
rows("`weight_decay_rate`", optimizer_lars(1, weight_decay = 0.1))
rows(
  "must be something that plot() can show",
  plot(callback_swap_averages())
)
rows("There is no argument `col`", plot(optimizer, col = 1), plot(callback_swa(2), col = 1))
rows("`model` must be built", update_batch_norm(unbuilt, iris_x))
rows(
  "`x` must be an array, a data frame, a list of arrays, a data set",
  update_batch_norm(model, NULL), update_batch_norm(model, "x"),
  update_batch_norm(model, character()), update_batch_norm(model, list()),
  update_batch_norm(model, factor("a")),
  update_batch_norm(model, Sys.Date()), update_batch_norm(model, environment()),
  update_batch_norm(model, list(iris_x, "x")), update_batch_norm(model, list(NULL)),
  update_batch_norm(model, dead), update_batch_norm(model, list(dead)),
  update_batch_norm(model, 1i)
)
rows(
  "`x` must",
  update_batch_norm(model, iris_x[0, ], verbose = 0),
  update_batch_norm(model, list(iris_x, iris_x[1:3, ])),
  update_batch_norm(model, inner), update_batch_norm(model, class),
  update_batch_norm(model, function() NULL, steps = 1, verbose = 0)
)
rows(
  "`x` must be one array of shape (examples, 4)", # (a data frame has named inputs)
  update_batch_norm(model, iris), update_batch_norm(model, iris[1:4], verbose = 0)
)
rows(
  "`x` must have the shape (examples, 4)",
  update_batch_norm(model, iris_x[, 1:3], verbose = 0), predict_samples(model, NULL, iris_x[, 1:3], verbose = 0),
  update_batch_norm(model, function() iris_x[, 1:3], steps = 1, verbose = 0)
)
rows(
  "`x` must hold numbers, factors and strings, and its column `day` is an object of class Date",
  update_batch_norm(model, data.frame(day = Sys.Date()))
)
rows(
  "`x` must give finite numbers",
  update_batch_norm(model, rbind(iris_x, NA), verbose = 0), update_batch_norm(model, rbind(1:4, NA), verbose = 0),
  update_batch_norm(model, function() rbind(iris_x, NaN), steps = 1, verbose = 0)
)
rows(
  "`data` must give finite numbers",
  average_models(list(model, model), data = rbind(1:4, NA)),
  with_averages(model, 1, data = rbind(iris_x, NA))
)
rows(
  "The predictions must be finite, and those of 2 examples are not (the first is number 151)",
  predict_interval(model, NULL, rbind(iris_x, NA, NaN), verbose = 0)
)
rows("`steps` must be given for a generator", update_batch_norm(model, function() iris_x))
rows(
  "`optimizer` must be a Keras optimizer",
  optimizer_lookahead(NULL), optimizer_ema(iris), optimizer_swa(Sys.time()),
  optimizer_moving_average(environment()), optimizer_swa(list(inner)), optimizer_swa(class),
  optimizer_ema(layer), optimizer_lookahead(model), optimizer_swa(schedule), optimizer_swa(dead),
  optimizer_schedule_free(NULL), optimizer_primal_averaging(dead), optimizer_ema(dead),
  optimizer_lookahead(dead), optimizer_moving_average(dead),
  optimizer_swa(character()), optimizer_swa(numeric()), optimizer_swa(NA_integer_)
)
rows("`optimizer` must be a Keras", optimizer_swa("sgd "), optimizer_ema("sgdd"), optimizer_swa("3"))
rows(
  "`average_period` must be a whole number",
  optimizer_swa(inner, lr = 0.9, average_period = 0), optimizer_swa(inner, 0, dead),
  optimizer_swa(inner, 0, iris), optimizer_swa(inner, 0, environment()),
  optimizer_swa(inner, 0, Sys.Date()), optimizer_swa(inner, 0, 2^31), optimizer_swa(inner, 0, 2^63),
  optimizer_swa(inner, 0, as.difftime(1, units = "days")), optimizer_swa(inner, 0, inner)
)
rows(
  "cannot be given",
  optimizer_swa(keras$optimizers$SGD(schedule), lr = 0.1),
  optimizer_swa(keras$optimizers$SGD(schedule), decay = 0.1)
)
rows(
  "Only one of `clipnorm` and `global_clipnorm`",
  optimizer_swa(inner, lr = 0.9, clipnorm = 1, global_clipnorm = 1),
  optimizer_ema(inner, clipnorm = 1, global_clipnorm = 1)
)
rows(
  "`warmup_steps` cannot be given: the learning rate of the inner optimizer is a schedule",
  optimizer_schedule_free(keras$optimizers$SGD(schedule), warmup_steps = 3)
)
rows(
  "`optimizer` must not hold ScheduleFree inside Lookahead",
  optimizer_lookahead(optimizer_schedule_free(keras$optimizers$SGD(0.1)))
)
rows(
  "`learning_rate` must be a number >= 0 or a Keras learning-rate schedule",
  optimizer_lars(dead), optimizer_lars(inner), optimizer_lars(class), optimizer_lars(iris)
)
rows(
  "`initial_learning_rate` must be a number >= 0 or a Keras learning-rate schedule",
  learning_rate_schedule_swa(dead, 0.01, 10), learning_rate_schedule_swa(layer, 0.01, 10)
)
rows(
  "`data` must be an array, a data frame, a list of arrays or a data set",
  callback_swa(2, data = dead), callback_swa(2, data = list(dead)), callback_swa(2, data = Sys.Date())
)
rows("`data` must hold at least one example", callback_swa(2, data = numeric()))
rows("`x` must hold at least one example", update_batch_norm(model, numeric(), verbose = 0))
rows(
  "`filepath` must be a string",
  callback_average_model_checkpoint(FALSE, dead), callback_average_model_checkpoint(FALSE, 1),
  callback_average_model_checkpoint(FALSE, file), callback_average_model_checkpoint(FALSE, iris)
)
rows(
  "`history` must be a training history, as fit() returns it",
  plot_averaging(NULL), plot_averaging(NA), plot_averaging(dead),
  plot_averaging(plain), plot_averaging(iris), plot_averaging(list(val_loss = 1)),
  plot_averaging(mean)
)
rows(
  "`history` must come from a fit() with validation data",
  plot_averaging(history), plot_averaging(history, "loss")
)
rows(
  "`model` must be a compiled Keras model",
  plot_loss_plane(NULL, vectors, iris_x, iris_y),
  plot_loss_plane(dead, vectors, iris_x), plot_loss_plane(optimizer, vectors, iris_x),
  plot_loss_plane(list(model), vectors, iris_x), plot_loss_plane(vectors, model, iris_x)
)
rows(
  "`weights` must be",
  plot_loss_plane(model, NULL, iris_x), plot_loss_plane(model, mean, iris_x),
  plot_loss_plane(model, vectors[1:2], iris_x), plot_loss_plane(model, vectors[[1]], iris_x),
  plot_loss_plane(model, list(1, 2, 3), iris_x), plot_loss_plane(model, c(vectors, 1), iris_x),
  plot_loss_plane(plain, vectors, iris_x), plot_loss_plane(model, rev(iris), iris_x),
  plot_loss_plane(model, list(variables, variables, variables), iris_x),
  plot_loss_plane(model, lapply(vectors, lapply, `*`, NaN), iris_x)
)
rows("`weights` must not be on one line", plot_loss_plane(model, vectors[c(1, 2, 1)], iris_x))
rows(
  "`x` must be an array, a list of arrays or a data set",
  plot_loss_plane(model, vectors, "x"),
  plot_loss_plane(model, vectors, iris), plot_loss_plane(model, vectors, mean)
)
rows(
  "must be",
  plot_loss_plane(model, vectors, iris_x, "y"), plot_loss_plane(model, vectors, iris_x, iris),
  plot_loss_plane(model, vectors, iris_x, iris_y, size = 1),
  plot_loss_plane(model, vectors, iris_x, iris_y, margin = "a"),
  plot_loss_plane(model, vectors, iris_x, iris_y, metric = 1),
  plot_loss_plane(model, vectors, iris_x, iris_y, metric = "no_such", size = 2, verbose = FALSE),
  plot_loss_plane(model, vectors, iris_x, iris_y, batch_size = 0),
  plot_loss_plane(model, vectors, iris_x, iris_y, recalibrate = NULL),
  plot_loss_plane(model, vectors, iris_x, iris_y, verbose = 2)
)
rows("`weights_too` must be TRUE or FALSE", callback_swap_averages(dead), callback_swap_averages("a"))
rows(
  "`backup_dir` must be a string",
  callback_swa(2, backup_dir = dead), callback_swa(2, backup_dir = TRUE)
)
rows(
  "`start_epoch` must be",
  callback_swag(), callback_swag(1), callback_swag("2"), callback_swag(dead), callback_swag(TRUE)
)
rows(
  "`posterior` must be a callback of callback_swag()",
  collect_snapshot(1, model), collect_snapshot(dead, model), with_sample(NULL, model, 1),
  save_posterior(model, "a.npz"), predict_samples(model, 3, iris_x), predict_samples(model, list(1), iris_x),
  predict_interval(model, dead, iris_x)
)
rows(
  "must be",
  collect_snapshot(callback_swag(2), 1), with_sample(callback_swag(2), dead, 1),
  save_posterior(callback_swag(2), 3), load_posterior("no_such.npz"), load_posterior(3),
  predict_samples(dead, NULL, iris_x), predict_samples(list(), NULL, iris_x), predict_samples(model, NULL, "x"),
  predict_samples(model, NULL, iris_x, data = "x"), predict_interval(model, NULL, iris_x, level = 2),
  predict_interval(model, NULL, iris_x, type = "mean"), predict_interval(model, NULL, iris_x, noise = "a"),
  callback_swa(2, snapshot_epoch = "end"), callback_swag(2, snapshot_epoch = 1),
  callback_swag(2, rank = -1), callback_swag(2, freq = 0), callback_swag(2, backup_dir = TRUE),
  loss_gaussian_nll(0), loss_gaussian_nll("a"), measure_probabilities(NULL, 0.5), measure_probabilities(1, "p"),
  measure_probabilities(1, 0.5, bins = 0), measure_predictions(NULL, iris_x, 1),
  measure_predictions(1:4, iris_x, 0), noise_variance(1:4, 1), fit_temperature(NULL, 0.5),
  apply_temperature(0.5, 0), apply_temperature("a", 1), plot_calibration(1), plot_calibration(1, list(1)),
  plot_calibration(1, 0.5, bins = 0), plot_calibration(1:4, iris_x, noise = -1)
)
rows(
  "must be",
  with_averages(), with_averages(3, 1), with_averages(dead, 1), with_averages(plain, 1), with_averages(list(model), 1),
  with_averages(model, 1, data = "x"), with_averages(model, 1, data = iris_x, batch_size = 0),
  assign_average_vars(model, data = "x"), assign_average_vars(optimizer, variables, data = iris_x),
  callback_lawa(0), callback_lawa("a"), callback_lawa(every = 0), callback_lawa(start_epoch = 0),
  callback_lawa(data = "x"), callback_average_early_stopping(3), callback_average_early_stopping(patience = -1),
  callback_average_early_stopping(mode = "best"), callback_average_early_stopping(min_delta = "a")
)
rows(
  "must be",
  optimizer_power_average(), optimizer_power_average(mean), optimizer_power_average("sgd", 0),
  optimizer_power_average("sgd", "a"), optimizer_power_average("sgd", 0.05, shown_width = 0.1),
  average_width(0), average_width(half_life = -1), average_width(average_decay = 1), average_width(0.1, updates = 0),
  callback_average_snapshots(), callback_average_snapshots(3), callback_average_snapshots("a", every = 0),
  callback_average_snapshots("a", dtype = "int8"), posthoc_average(3, "a", 0.1), posthoc_average(dead, "a", 0.1),
  posthoc_average(model, 3, 0.1), posthoc_average(model, "no_such", 0.1), posthoc_average(model, "a", 0.5),
  plot_posthoc(3, "a", iris_x, iris_y), plot_posthoc(model, 3, iris_x, iris_y)
)
rows(
  "must be",
  average_models(), average_models(list()), average_models(3), average_models(list(model, 3)), average_models(dead),
  average_models(list(model, plain), c(1, -1)), average_models(list(model), into = 3),
  average_models(list(model), data = "x"), interpolate_models(model, 2, 0.5), interpolate_models(model, model, 2),
  interpolate_models(model, model, 0.5, "cubic"), greedy_soup(list(model)), greedy_soup(list(model), "loss"),
  greedy_soup(list(model), mean, mode = "best"), model_stock(list(model, model)), model_stock(list(model, model), 3),
  average_checkpoints(3), average_checkpoints("no_such"), average_checkpoints("a", 0),
  average_checkpoints("a", metric = 3)
)

for (module in c("keras", "tf_keras")) {
  test_that(paste("a wrong call is one line and changes nothing:", module), {
    world <- local({
      local_keras(module)
      bad_world(module)
    })
    local_keras(module)
    folder <- withr::local_tempdir()
    withr::local_dir(folder)
    before <- bad_state(world)
    for (row in bad_rows) {
      # Without ggplot2 that is what they say.
      if (grepl("^plot", row[[2]][[1]]) && !requireNamespace("ggplot2", quietly = TRUE)) next
      label <- rlang::expr_label(row[[2]])
      error <- tryCatch(rlang::eval_tidy(row[[2]], world), error = identity)
      expect_s3_class(error, "kerasoptimizers_error")
      message <- conditionMessage(error)
      expect_true(grepl(row[[1]], message, fixed = TRUE), label = paste(label, "->", message))
      expect_false(grepl("\n", message, fixed = TRUE), label = label)
      # Only calls that reach Python can have changed something there.
      if (!inherits(error, "kerasoptimizers_argument_error")) {
        expect_true(identical(bad_state(world), before), label = paste(label, "changed nothing"))
      }
    }
    expect_identical(bad_state(world), before)
    expect_identical(list.files(folder), character())
  })
}

test_that("there are enough wrong calls, and each function is called wrongly", {
  called <- vapply(bad_rows, function(row) as.character(row[[2]][[1]]), "")
  expect_gt(length(bad_rows), 150)
  # test-load.R has the wrong calls of install_kerasoptimizers(), and lookahead_mechanism() passes on its
  # arguments.
  without <- c("lookahead_mechanism", "install_kerasoptimizers")
  expect_identical(setdiff(getNamespaceExports("kerasoptimizers"), c(called, without)), character())
})

test_that("after a restart of R every function says that an object's session has ended", {
  keras <- python_keras()
  folder <- withr::local_tempdir()
  model <- train(iris_model(optimizer_swa("sgd", average_period = 1)), 1)
  objects <- list(
    model = model, optimizer = model$optimizer, variables = model$trainable_variables,
    callback = callback_swa(2), schedule = learning_rate_schedule_swa(0.1, 0.01, 10)
  )
  saveRDS(objects, file.path(folder, "objects.rds"))
  output <- run_r(sprintf('
    library(kerasoptimizers)
    with(readRDS("%s"), {
      calls <- expression(
        assign_average_vars(model), assign_average_vars(optimizer, variables), swap_weights(model),
        swap_weights(optimizer), has_shadow_copy(model), shadow_copy(optimizer, model),
        update_batch_norm(model, 1), optimizer_swa(optimizer), optimizer_lookahead(optimizer),
        optimizer_ema(optimizer), optimizer_schedule_free(optimizer),
        optimizer_primal_averaging(optimizer), optimizer_moving_average(optimizer),
        optimizer_lars(schedule),
        learning_rate_schedule_swa(schedule, 0.01, 10), callback_swa(2, data = model),
        callback_average_model_checkpoint(FALSE, model), optimizer_swa("sgd", average_period = model),
        optimizer_swa("sgd", name = callback), optimizer_ema("sgd", trainable_weights_only = model)
      )
      for (call in calls) {
        error <- tryCatch(eval(call), error = identity)
        cat(class(error)[[1]], conditionMessage(error), "\\n", sep = "|")
      }
      cat("started:", reticulate::py_available())
    })
  ', file.path(folder, "objects.rds")))
  refused <- grep("^kerasoptimizers_argument_error[|]`[a-z_]+` must be .*R session that has ended[.]",
                  output)
  expect_length(refused, 20)
  expect_match(output, "started: FALSE", all = FALSE)
})

test_that("a callback that finds no averaging optimizer stops fit() before anything is trained", {
  for (module in c("keras", "tf_keras")) {
    keras <- local_keras(module)
    model <- train(iris_model("sgd", keras), 1)
    before <- weights_of(model)
    file <- file.path(withr::local_tempdir(), "new.keras")
    for (callback in list(callback_swap_averages(), callback_average_model_checkpoint(FALSE, file))) {
      expect_error(fit(model, callbacks = list(callback)),
                   "`model` must be compiled with an averaging optimizer")
    }
    expect_identical(weights_of(model), before)
    expect_false(file.exists(file))
  }
})
