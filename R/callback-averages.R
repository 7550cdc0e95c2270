#' Validate and predict with the averages
#'
#' A callback for `fit()`, `evaluate()` and `predict()` of a model that is compiled with an
#' averaging optimizer: the averages stand in the model while it is validated, evaluated
#' or predicts, and the weights before and after. Training ends in the same weights, bit for
#' bit, as without it. The weights also come back when the validation in `fit()` fails or is
#' interrupted. (An `evaluate()` or `predict()` of its own that is interrupted between two batches
#' leaves the averages in the model: [swap_weights()] puts the weights back.)
#'
#' Use it to see in the validation metrics how good the averages are, and to have early
#' stopping and checkpoints go by that. It doesn't save the averages
#' ([callback_average_model_checkpoint()] does) nor leave them in the model in the end
#' ([assign_average_vars()] does). While there is no average yet, as before the first
#' snapshot of [optimizer_swa()], it shows the weights. Batch-norm statistics stay those of
#' the weights, so in models that have them validation may look worse than the averages
#' are once [update_batch_norm()] was called.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_ema("adam"), loss = "mse")
#' model |> fit(x, y, validation_split = 0.1, callbacks = callback_swap_averages())
#' ```
#'
#' @param weights_too `TRUE` or `FALSE`, the default: whether `fit()` validates twice, with the
#'   averages and with the weights, whose metrics are in its history as `val_weights_loss` and the
#'   like. [plot_averaging()] draws both.
#' @returns A Python callback for the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Errors:
#' It is an error if `weights_too` is not as described.
#' `fit()`, `evaluate()` or `predict()` stops if the model is not compiled with an averaging
#' optimizer.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family schedules and callbacks
#' @seealso [plot_averaging()]
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema("sgd"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 5L, verbose = 0L, validation_split = 0.2,
#'           callbacks = list(callback_swap_averages()))
callback_swap_averages <- function(weights_too = FALSE) {
  generation <- default_generation(rlang::current_env())
  call_ours("SwapAverages", generation, list(weights_too = flag(weights_too)))
}

#' Checkpoints that hold the averages
#'
#' A callback for `fit()` that saves the model as Keras's own checkpoints do
#' (`callback_model_checkpoint()` of the R packages keras3 and keras), but with the
#' averages in place of the weights.
#'
#' Use it for a model that you will use, not train on; to go on with a training that
#' may break off, take Keras's own, which keeps weights, averages and the optimizer's
#' state. While there is no average yet nothing is saved, and a warning says so once.
#' Batch-norm statistics in the file belong to the weights: call [update_batch_norm()] after
#' loading. `save_best_only` goes by metrics of the weights unless
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
#' @param update_weights `TRUE` or `FALSE`. `TRUE` leaves the averages in the model each time
#'   it was saved, so that training goes on from them. `FALSE` puts the weights back, and
#'   training ends as without this callback.
#' @param filepath Where to save: a string that may hold `{epoch}` and names of metrics,
#'   as in `"model-{epoch:02d}-{val_loss:.2f}.keras"`. Keras 3 wants it to end in `.keras`, or
#'   in `.weights.h5` with `save_weights_only`.
#' @param monitor Name of the metric that `save_best_only` goes by: a string.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param save_best_only `TRUE` or `FALSE`: whether to save only when `monitor` is the best so
#'   far.
#' @param save_weights_only `TRUE` or `FALSE`: whether to leave out the optimizer and the
#'   model's configuration.
#' @param mode `"auto"`, `"min"` or `"max"`: which `monitor` is best. `"auto"` goes by
#'   its name.
#' @param save_freq `"epoch"`, or a whole number, 1 or more: save after so many batches.
#' @param ... Further arguments of Keras's `ModelCheckpoint`, by name, such as
#'   `initial_value_threshold`.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Errors:
#' An argument that is not as described stops with an error that names it, and `fit()` stops
#' if the model is not compiled with an averaging optimizer.
#' @references Arguments are those of `tfa.callbacks.AverageModelCheckpoint` of
#'   TensorFlow Addons, in its order; that of the R package tfaddons has `filepath` first.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema("sgd"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' file <- tempfile(fileext = ".keras")
#' model$fit(x, y, epochs = 5L, verbose = 0L,
#'           callbacks = list(callback_average_model_checkpoint(FALSE, file)))
#' keras$models$load_model(file)
callback_average_model_checkpoint <- function(update_weights, filepath, monitor = "val_loss",
                                              verbose = 0, save_best_only = FALSE,
                                              save_weights_only = FALSE, mode = "auto",
                                              save_freq = "epoch", ...) {
  generation <- default_generation(rlang::current_env())
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
