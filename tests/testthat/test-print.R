printed <- function(x) capture.output(print(x))

# 10 updates an epoch.
swa_model <- function(keras, ...) {
  iris_model(optimizer_swa(keras$optimizers$SGD(0.25, momentum = 0.5), ...), keras)
}

for (module in c("keras", "tf_keras")) {
  test_that(paste("an optimizer says what it is before training:", module), {
    keras <- python_keras(module)
    generation <- c(keras = "Keras 3", tf_keras = "Keras 2")[[module]]
    optimizer <- optimizer_swa(keras$optimizers$SGD(0.25, momentum = 0.5), 12, 4, clipnorm = 1)
    lines <- printed(optimizer)
    expect_identical(lines[[1]], paste0("<SWA for ", generation, ">"))
    expect_match(lines[[2]], "^Settings: +start_averaging = 12, average_period = 4, clipnorm = 1")
    expect_match(lines, "^Inner optimizer: SGD, momentum = 0.5$", all = FALSE)
    expect_match(lines, "^Learning rate: +0.25$", all = FALSE)
    expect_match(lines, "^Updates: +0$", all = FALSE)
    expect_match(lines, "^Snapshots: +0$", all = FALSE)
    expect_match(lines, "^Next due: +after 13 more updates$", all = FALSE)
    expect_match(lines, "^Averages: +none yet", all = FALSE)
    expect_false(any(grepl("Memory", printed(summary(optimizer)))))
  })

  test_that(paste("an optimizer says how far it has come:", module), {
    keras <- python_keras(module)
    model <- train(swa_model(keras, start_averaging = 12, average_period = 4))
    optimizer <- model$optimizer
    lines <- printed(optimizer)
    expect_match(lines, "^Updates: +30$", all = FALSE)
    expect_match(lines, "^Snapshots: +5$", all = FALSE)
    expect_match(lines, "^Next due: +after 3 more updates$", all = FALSE)
    expect_false(any(grepl("^(Averages|Swapped|Memory)", lines)))
    # 67 weights of 4 bytes.
    expect_match(printed(summary(optimizer)),
                 "^Memory: +averages 268 B of weights of 268 B, inner optimizer [0-9]+ B$", all = FALSE)
    swap_weights(model)
    expect_match(printed(optimizer), "^Swapped: +the model holds the averages now$", all = FALSE)
  })

  test_that(paste("summary() is for programs:", module), {
    keras <- python_keras(module)
    facts <- summary(train(swa_model(keras, start_averaging = 12, average_period = 4))$optimizer)
    expect_s3_class(facts, "kerasoptimizers_summary")
    expect_identical(facts$method, "SWA")
    expect_identical(facts$keras, c(keras = "Keras 3", tf_keras = "Keras 2")[[module]])
    expect_identical(facts$settings[c("start_averaging", "average_period")],
                     list(start_averaging = 12L, average_period = 4L))
    expect_identical(facts$inner, list(method = "SGD", settings = list(momentum = 0.5)))
    expect_identical(facts[c("learning_rate", "updates", "snapshots", "next_due")],
                     list(learning_rate = 0.25, updates = 30L, snapshots = 5L, next_due = 32L))
    expect_identical(facts$memory[c("weights", "averages")], c(weights = 268, averages = 268))
    expect_true(facts$built && facts$has_average && !facts$swapped)
  })

  test_that(paste("LARS has no average to tell of:", module), {
    local_keras(module)
    lars <- suppressMessages(
      optimizer_lars(0.5, exclude_from_weight_decay = c("bias", "gamma"), decay = 1)
    )
    lines <- printed(lars)
    expect_match(lines[[1]], "^<LARS for Keras [23]>$")
    expect_match(lines, 'exclude_from_weight_decay = c("bias", "gamma")', fixed = TRUE, all = FALSE)
    expect_match(lines, "^Learning rate: +0.5, with `decay` 0.5$", all = FALSE)
    expect_match(lines, "^Updates: +0$", all = FALSE)
    expect_false(any(grepl("^(Inner|Snapshots|Next|Averages)", lines)))
    expect_null(summary(lars)$memory)
  })

  test_that(paste("callback_swa() says what it has averaged:", module), {
    keras <- local_keras(module)
    callback <- callback_swa(2, swa_freq = 2)
    expect_match(printed(callback), "^Snapshots: +0$", all = FALSE)
    fit(iris_model("sgd", keras), 6, list(callback))
    expect_identical(printed(callback)[[1]], "<SWACallback>")
    expect_match(printed(callback), 'start_epoch = 2, lr_schedule = "manual"', all = FALSE)
    expect_match(printed(callback), "^Snapshots: +3, in the latest fit\\(\\) of epochs 2, 4, 6$",
                 all = FALSE)
  })

  test_that(paste("as.data.frame() of callback_swa() has a row for each epoch:", module), {
    keras <- local_keras(module)
    callback <- callback_swa(4, "constant", swa_lr = 0.05, swa_freq = 2)
    none <- as.data.frame(callback)
    expect_identical(dim(none), c(0L, 5L))
    fit(iris_model(keras$optimizers$SGD(0.25), keras), 6, list(callback))
    rows <- as.data.frame(callback)
    expect_identical(names(rows), names(none))
    expect_identical(rows$epoch, 1:6)
    expect_identical(rows$batch, rep(NA_integer_, 6))
    expect_identical(rows$learning_rate, as.numeric(callback$lr_record))
    expect_equal(rows$learning_rate[c(1, 6)], c(0.25, 0.05))
    expect_identical(which(rows$snapshot), c(4L, 6L))
    expect_identical(rows$snapshots, c(0L, 0L, 0L, 1L, 1L, 2L))
  })

  test_that(paste("as.data.frame() of a cyclic callback_swa() has a row for each batch:", module), {
    keras <- local_keras(module)
    callback <- callback_swa(2, "cyclic", 0.05, 0.25, swa_freq = 2)
    fit(iris_norm_model(keras$optimizers$SGD(0.5), keras), 4, list(callback))
    rows <- as.data.frame(callback)
    expect_identical(rows$epoch, rep(1:4, each = 10))
    expect_identical(rows$batch, rep(1:10, 4))
    # The last epoch is a forward pass, and would have been due.
    expect_identical(rows$learning_rate[31:40], rep(0, 10))
    expect_identical(which(rows$snapshot), 20L)
    expect_identical(rows$snapshots, rep(0:1, c(19, 21)))
  })
}

test_that("rows of an epoch that broke off are those of its batches", {
  keras <- python_keras()
  fails <- keras$callbacks$LambdaCallback(on_train_batch_end = function(batch, logs) {
    if (model$optimizer$iterations$numpy() == 13) stop("enough")
  })
  model <- iris_model(keras$optimizers$SGD(0.5))
  callback <- callback_swa(2, "cyclic", 0.05, 0.25, swa_freq = 2)
  expect_error(fit(model, 4, list(callback, fails)))
  rows <- as.data.frame(callback)
  expect_identical(rows$epoch, rep(1:2, c(10, 3)))
  expect_identical(rows$batch, c(1:10, 1:3))
  expect_false(any(rows$snapshot))
})

test_that("a manual callback_swa() knows no learning rates, but its snapshots", {
  keras <- python_keras()
  callback <- callback_swa(3)
  fit(iris_model("sgd"), 4, list(callback))
  rows <- as.data.frame(callback)
  expect_identical(rows$learning_rate, rep(NA_real_, 4))
  expect_identical(rows$snapshot, c(FALSE, FALSE, TRUE, TRUE))
  expect_identical(rows$snapshots, c(0L, 0L, 1L, 2L))
})

test_that("methods without snapshots say when they move next", {
  keras <- python_keras()
  rate <- learning_rate_schedule_swa(0.5, 0.25, start_averaging = 40, cycle_updates = 5)
  lines <- printed(optimizer_lookahead(keras$optimizers$Adam(rate, beta_1 = 0.5), 4))
  expect_match(lines, "^Inner optimizer: Adam, beta_1 = 0.5$", all = FALSE)
  expect_match(lines, "^Learning rate: +0.5, from SWALearningRate$", all = FALSE)
  expect_match(lines, "^Next due: +after 4 more updates$", all = FALSE)
  expect_false(any(grepl("Snapshots", lines)))
  model <- train(iris_model(optimizer_ema("sgd")))
  expect_match(printed(model$optimizer), "^Next due: +after the next update$", all = FALSE)
})

test_that("what is printed of Schedule-Free has its settings", {
  keras <- python_keras()
  lines <- printed(optimizer_schedule_free(keras$optimizers$SGD(0.5), warmup_steps = 20))
  expect_match(lines, "^<ScheduleFree for Keras 3>$", all = FALSE)
  expect_match(lines, "^Settings: +beta = 0.9, warmup_steps = 20, weight_lr_power = 2, r = 0", all = FALSE)
  expect_match(lines, "^Next due: +after the next update$", all = FALSE)
})

test_that("lines break between settings, at any width and without UTF-8", {
  python_keras()
  rate <- learning_rate_schedule_swa(0.5, 0.25, start_averaging = 40, cycle_updates = 5)
  withr::local_options(cli.width = 60, cli.unicode = FALSE)
  expect_identical(printed(rate), c(
    "<SWALearningRate>",
    "Settings:        initial_learning_rate = 0.5,",
    "                 swa_learning_rate = 0.25,",
    "                 start_averaging = 40, anneal = \"cosine\",",
    "                 cycle_updates = 5"
  ))
})

test_that("the other callbacks say how they were made", {
  python_keras()
  expect_identical(printed(callback_swap_averages(TRUE)),
                   c("<SwapAverages>", "Settings:        weights_too = TRUE"))
  lines <- printed(callback_average_model_checkpoint(FALSE, "best.keras"))
  expect_identical(lines[[1]], "<AverageModelCheckpoint>")
  expect_match(lines, 'update_weights = FALSE, filepath = "best.keras"', all = FALSE)
})

test_that("summary() of callbacks and schedules is a list, printed like them", {
  python_keras()
  callback <- callback_swa(2, swa_freq = 2)
  fit(iris_model("sgd"), 6, list(callback))
  facts <- summary(callback)
  expect_s3_class(facts, "kerasoptimizers_summary")
  expect_identical(facts$method, "SWACallback")
  expect_identical(facts$settings[c("start_epoch", "swa_freq")], list(start_epoch = 2L, swa_freq = 2L))
  expect_identical(facts$snapshots, 3L)
  expect_identical(facts$epochs, c(2L, 4L, 6L))
  rate <- learning_rate_schedule_swa(0.5, 0.25, 40)
  expect_identical(summary(rate)$settings,
                   list(initial_learning_rate = 0.5, swa_learning_rate = 0.25, start_averaging = 40L,
                        anneal = "cosine"))
  checkpoint <- callback_average_model_checkpoint(FALSE, "best.keras")
  expect_identical(summary(checkpoint)$settings$filepath, "best.keras")
  for (x in list(callback, rate, checkpoint, callback_swap_averages())) {
    expect_identical(printed(summary(x)), printed(x))
    expect_false(any(grepl("^0x|at 0x", printed(summary(x)))))
  }
})

test_that("as.data.frame() of the summary of an optimizer is a row, alike for all of them", {
  keras <- python_keras()
  model <- train(swa_model(keras, start_averaging = 12, average_period = 4))
  row <- as.data.frame(summary(model$optimizer))
  expect_identical(nrow(row), 1L)
  expect_identical(row[c("method", "keras", "inner", "schedule")],
                   data.frame(method = "SWA", keras = "Keras 3", inner = "SGD", schedule = NA_character_))
  expect_identical(row[c("updates", "snapshots", "next_due")],
                   data.frame(updates = 30L, snapshots = 5L, next_due = 32L))
  expect_identical(row$memory_weights, 268)
  rate <- learning_rate_schedule_swa(0.5, 0.25, 40)
  rows <- lapply(list(model$optimizer, optimizer_lookahead("adam"), optimizer_lars(rate)),
                 function(x) as.data.frame(summary(x)))
  rows <- do.call(rbind, rows)
  expect_identical(rows$method, c("SWA", "Lookahead", "LARS"))
  expect_identical(rows$schedule, c(NA, NA, "SWALearningRate"))
  expect_identical(rows$has_average, c(TRUE, FALSE, NA))
})

test_that("what is printed, summarized or made a row of is never a Python address or an error of R's", {
  keras <- python_keras()
  objects <- list(
    optimizer_lars(1), optimizer_swa("sgd"), callback_swa(3), callback_swag(3), callback_lawa(3),
    callback_swap_averages(),
    callback_average_model_checkpoint(FALSE, "best.keras"), callback_average_early_stopping(),
    callback_average_snapshots("folder"),
    learning_rate_schedule_swa(keras$optimizers$schedules$CosineDecay(1, 9L), 0.1, 40),
    loss_gaussian_nll()
  )
  for (x in objects) {
    said <- c(printed(x), printed(summary(x)))
    expect_false(any(grepl("0x", said)), label = said[[1]])
    expect_s3_class(as.data.frame(x), "data.frame")
    expect_s3_class(as.data.frame(summary(x)), "data.frame")
    if (!inherits(x, c("kerasoptimizers.SWACallback", "kerasoptimizers.SWAG"))) {
      expect_identical(as.data.frame(x), as.data.frame(summary(x)))
      expect_identical(nrow(as.data.frame(x)), 1L)
    }
  }
})

test_that("as.data.frame() of the summary of a callback or schedule has a column for each setting", {
  python_keras()
  callback <- callback_swa(2, "cyclic", 0.1, 0.2, swa_freq = 3)
  row <- as.data.frame(summary(callback))
  expect_identical(row, data.frame(method = "SWACallback", start_epoch = 2L, lr_schedule = "cyclic", swa_lr = 0.1,
                                   swa_lr2 = 0.2, swa_freq = 3L, snapshot_epoch = "first", snapshots = 0L))
  row <- as.data.frame(learning_rate_schedule_swa(0.5, 0.25, 40))
  expect_identical(row[c("method", "swa_learning_rate", "anneal")],
                   data.frame(method = "SWALearningRate", swa_learning_rate = 0.25, anneal = "cosine"))
})

for (module in c("keras", "tf_keras")) {
  test_that(paste("early stopping says what it watches, and what was best:", module), {
    keras <- local_keras(module)
    callback <- callback_average_early_stopping("loss", patience = 3)
    expect_match(printed(callback), 'monitor = "loss", min_delta = 0, patience = 3', all = FALSE)
    expect_false(any(grepl("Best", printed(callback))))
    fit(iris_model(optimizer_ema("sgd"), keras), 3, list(callback))
    facts <- summary(callback)
    expect_identical(facts$best, callback$best)
    expect_true(facts$best_epoch %in% 1:3)
    expect_match(printed(callback), sprintf("^Best: .* in epoch %d$", facts$best_epoch), all = FALSE)
    expect_identical(as.data.frame(facts)$best_epoch, facts$best_epoch)
  })

  test_that(paste("the LossScaleOptimizer of mixed precision shows the optimizer inside:", module), {
    keras <- local_keras(module)
    scaled <- function(optimizer) {
      wrap <- if (module == "keras") keras$optimizers$LossScaleOptimizer else keras$mixed_precision$LossScaleOptimizer
      wrap(optimizer)
    }
    for (optimizer in list(optimizer_ema("sgd"), optimizer_lars(0.5))) {
      wrapped <- scaled(optimizer)
      expect_identical(printed(wrapped), printed(optimizer))
      expect_identical(summary(wrapped), summary(optimizer))
      expect_identical(as.data.frame(wrapped), as.data.frame(optimizer))
    }
    other <- scaled(keras$optimizers$SGD(0.5))
    expect_match(printed(other), "LossScaleOptimizer", all = FALSE)
    expect_error(as.data.frame(other), "cannot coerce")
  })
}

test_that("print() returns what it got", {
  python_keras()
  for (x in list(optimizer_swa("sgd"), optimizer_lars(), callback_swa(2), callback_swap_averages())) {
    capture.output(returned <- withVisible(print(x)))
    expect_identical(returned$value, x)
    expect_false(returned$visible)
  }
})

test_that("an object of an R session that has ended says so", {
  python_keras()
  file <- withr::local_tempfile()
  run_r(sprintf('
    library(kerasoptimizers)
    saveRDS(list(optimizer_swa("sgd"), callback_swa(2), optimizer_lars(),
                 learning_rate_schedule_swa(0.5, 0.25, 4), callback_swap_averages()), "%s")
  ', file))
  dead <- readRDS(file)
  names <- c("SWA", "SWACallback", "LARS", "SWALearningRate", "SwapAverages")
  for (i in seq_along(dead)) {
    expect_identical(printed(dead[[i]]), paste0("<", names[[i]], " of an R session that has ended>"))
  }
  ended <- "not a Python object of an R session that has ended."
  expect_error(summary(dead[[1]]), paste("`object` must be a live optimizer,", ended), fixed = TRUE)
  expect_error(as.data.frame(dead[[2]]), paste("`x` must be a live callback,", ended), fixed = TRUE)
  expect_error(summary(dead[[2]]), paste("`object` must be a live callback,", ended), fixed = TRUE)
  skip_if_not_installed("ggplot2")
  expect_error(plot(dead[[1]]), paste("`x` must be a live optimizer,", ended), fixed = TRUE)
  expect_error(plot(dead[[4]]), paste("`x` must be a live schedule,", ended), fixed = TRUE)
})
