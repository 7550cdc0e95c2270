#' Validate and predict with the averages
#'
#' A callback for `fit()`, `evaluate()` and `predict()` of a model that is compiled with an
#' averaging optimizer. During validation, evaluation and prediction the model holds the averages;
#' the rest of the time it holds its weights. Training ends with exactly the weights that it would have
#' without the callback.
#'
#' Use it to see in the validation metrics how good the averages are, and to let early
#' stopping and checkpoints use these metrics. It does not save the averages
#' ([callback_average_model_checkpoint()] does), and it does not leave them in the model
#' ([assign_average_vars()] does). While there is no average yet, for example before the first
#' snapshot of [optimizer_swa()], it shows the weights. Batch-norm statistics stay those of
#' the weights. So validation of a model with batch norm may look worse than the averages
#' are after [update_batch_norm()].
#'
#' If validation in `fit()` fails or is interrupted, the model gets its weights back. Only an
#' interrupt of `evaluate()` or `predict()` between two batches leaves the averages in the model:
#' then call [swap_weights()].
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_ema("adam"), loss = "mse")
#' model |> fit(x, y, validation_split = 0.1, callbacks = callback_swap_averages())
#' ```
#'
#' @param weights_too `TRUE` or `FALSE`, the default: whether `fit()` validates twice, with the
#'   averages and with the weights. The metrics of the weights are in its history as
#'   `val_weights_loss` and so on, and [plot_averaging()] plots both.
#' @returns A Python callback for the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Next step:
#' When training is done, call [assign_average_vars()]: the model holds the weights, not the averages.
#' With `weights_too = TRUE`, [plot_averaging()] of the history shows what averaging gains.
#' @section Errors:
#' The function stops if `weights_too` is not as described; `fit()`, `evaluate()` and `predict()` stop
#' if the model is not compiled with an averaging optimizer.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family schedules and callbacks
#' @seealso [plot_averaging()]
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema(keras$optimizers$SGD(0.3), average_decay = 0.9), loss = "mse")
#' x <- matrix(rnorm(400), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(200)
#' history <- model$fit(x, y, epochs = 8L, verbose = 0L, validation_split = 0.2,
#'                      callbacks = list(callback_swap_averages(weights_too = TRUE)))
#' # The losses of the averages, and those of the weights.
#' as.data.frame(history$history)[c("val_loss", "val_weights_loss")]
callback_swap_averages <- function(weights_too = FALSE) {
  generation <- default_generation(rlang::current_env())
  call_ours("SwapAverages", generation, list(weights_too = flag(weights_too)))
}

#' Checkpoints that hold the averages
#'
#' A callback for `fit()` that saves the model like Keras's `callback_model_checkpoint()` (in the R
#' packages keras3 and keras), but with the averages in place of the weights.
#'
#' Use it for a model that you want to use. For a training that may stop early and go on later, use
#' Keras's callback: its files keep weights, averages and the state of the
#' optimizer. While there is no average yet this callback saves nothing, and warns once.
#' Batch-norm statistics in the file belong to the weights: call [update_batch_norm()] after
#' loading. `save_best_only` looks at metrics of the weights, unless
#' [callback_swap_averages()] is among the callbacks, too.
#'
#' # With keras3 and keras
#' ```r
#' model |> fit(x, y, validation_split = 0.1, callbacks = list(
#'   callback_swap_averages(),
#'   callback_average_model_checkpoint(FALSE, "best.keras", save_best_only = TRUE)
#' ))
#' ```
#'
#' @param update_weights `TRUE` or `FALSE`. `TRUE` leaves the averages in the model after each
#'   save, so that training goes on from them. `FALSE` puts the weights back, and
#'   training ends as without this callback.
#' @param filepath Where to save: a string that may hold `{epoch}` and names of metrics,
#'   as in `"model-{epoch:02d}-{val_loss:.2f}.keras"`. With Keras 3 it must end in `.keras`, or
#'   in `.weights.h5` with `save_weights_only`.
#' @param monitor Name of the metric that `save_best_only` looks at: a string.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param save_best_only `TRUE` or `FALSE`: whether to save only when `monitor` is the best so
#'   far.
#' @param save_weights_only `TRUE` or `FALSE`: whether to leave out the optimizer and the
#'   model's configuration.
#' @param mode `"auto"`, `"min"` or `"max"`: which value of `monitor` is best. `"auto"` decides by
#'   the name of the metric.
#' @param save_freq `"epoch"`, or the number of batches from one save to the next: a whole number,
#'   1 or more.
#' @param ... Further arguments of Keras's `ModelCheckpoint`, by name, such as
#'   `initial_value_threshold`.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Next step:
#' Load a file with `load_model()` of keras3, or with `load_model_tf()` or `load_model_hdf5()` of keras. Call
#' [update_batch_norm()] if the model has batch norm, and use it like any other model. [average_checkpoints()] averages
#' several files.
#' @section Errors:
#' An argument that is not as described stops with an error that names it, and `fit()` stops
#' if the model is not compiled with an averaging optimizer.
#' @references Arguments and their order are those of `tfa.callbacks.AverageModelCheckpoint` of
#'   TensorFlow Addons. In the R package tfaddons `filepath` comes first.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema("sgd"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' file <- tempfile(fileext = ".keras")
#' model$fit(x, y, epochs = 5L, verbose = 0L,
#'           callbacks = list(callback_average_model_checkpoint(FALSE, file)))
#' # The model has its weights, the file the averages.
#' averages <- keras$models$load_model(file)
#' data.frame(model = model$get_weights()[[1]], file = averages$get_weights()[[1]])
callback_average_model_checkpoint <- function(update_weights, filepath, monitor = "val_loss",
                                              verbose = 0, save_best_only = FALSE,
                                              save_weights_only = FALSE, mode = "auto",
                                              save_freq = "epoch", ...) {
  whole_names()
  call <- rlang::current_env()
  generation <- default_generation(call)
  if (is_name(update_weights) && (missing(filepath) || rlang::is_bool(filepath))) {
    abort_argument(paste(
      "`update_weights` must be TRUE or FALSE, and `filepath` comes second:",
      "in the R package tfaddons it came first."
    ), call)
  }
  arguments <- list(
    update_weights = flag(update_weights),
    filepath = path.expand(string(filepath)),
    monitor = string(monitor),
    verbose = choice(verbose, c(0, 1)),
    save_best_only = flag(save_best_only),
    save_weights_only = flag(save_weights_only),
    mode = choice(mode, c("auto", "min", "max")),
    save_freq = whole(save_freq, 1, word = "epoch")
  )
  call_ours("AverageModelCheckpoint", generation, c(arguments, named(...)))
}

#' Early stopping on the averages
#'
#' A callback for `fit()` of a model that is compiled with an averaging optimizer. It stops the training when a
#' metric of the averages gets no better, and at the end puts the best averages into the model.
#'
#' Use it instead of Keras's `callback_early_stopping(restore_best_weights = TRUE)`, which restores the weights
#' of the best epoch, not the averages. Validation sees the averages, as with [callback_swap_averages()], which you
#' need not add. The best averages are restored even if the training was not stopped early. They come with the
#' batch-norm statistics of their epoch, and the optimizer holds them too: [assign_average_vars()] changes nothing then.
#' While there is no average yet, for example before the first snapshot of [optimizer_swa()], epochs don't count.
#' If the training is interrupted or fails, the model keeps its weights.
#'
#' For [callback_swa()], which averages with any optimizer, use its `start_epoch = "auto"`.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_ema("adam"), loss = "mse")
#' model |> fit(x, y, epochs = 100, validation_split = 0.1,
#'              callbacks = callback_average_early_stopping(patience = 5))
#' ```
#'
#' @param monitor Name of the metric to watch: a string.
#' @param min_delta How much the metric must change to count as better: a number, 0 or more.
#' @param patience After how many epochs without anything better to stop: a whole number, 0 or more.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param mode `"auto"`, `"min"` or `"max"`: which value of `monitor` is best. `"auto"` decides by
#'   the name of the metric.
#' @param baseline A number that the metric must get better than, or training stops. `NULL`, the default, for none.
#' @param restore_best_average `TRUE` or `FALSE`: whether to put the best averages into the model at the end.
#' @param start_from_epoch How many epochs to wait at first: a whole number, 0 or more.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Next step:
#' After `fit()` the model holds the best averages: evaluate and save it. If it has batch norm, call
#' [update_batch_norm()] first, because the statistics are those of the weights of that epoch.
#' @section Errors:
#' An argument that is not as described stops with an error that names it, and `fit()` stops
#' if the model is not compiled with an averaging optimizer.
#' @references Arguments and their order are those of Keras's `EarlyStopping`.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema(keras$optimizers$SGD(0.1), average_decay = 0.9), loss = "mse")
#' x <- matrix(rnorm(400), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(200)
#' stopping <- callback_average_early_stopping(min_delta = 0.01, patience = 1)
#' model$fit(x, y, epochs = 20L, verbose = 0L, validation_split = 0.2, callbacks = list(stopping))
#' c(best = stopping$best_epoch, stopped = stopping$stopped_epoch) # counted from 0
callback_average_early_stopping <- function(monitor = "val_loss", min_delta = 0, patience = 0, verbose = 0,
                                            mode = "auto", baseline = NULL, restore_best_average = TRUE,
                                            start_from_epoch = 0) {
  generation <- default_generation(rlang::current_env())
  call_ours("AverageEarlyStopping", generation, list(
    monitor = string(monitor),
    min_delta = not_negative(min_delta),
    patience = whole(patience, 0),
    verbose = choice(verbose, c(0, 1)),
    mode = choice(mode, c("auto", "min", "max")),
    baseline = optional(any_number, baseline),
    restore_best_average = flag(restore_best_average),
    start_from_epoch = whole(start_from_epoch, 0)
  ))
}

any_number <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  number(x, "a number", function(x) TRUE, name, call)
}
