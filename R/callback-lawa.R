#' Average the latest snapshots of the weights
#'
#' A callback for `fit()` that keeps the latest `k` snapshots of the weights and averages them with equal
#' weight (LAWA, latest weight averaging). It works with any optimizer. `fit()` validates with the average and
#' trains on with the weights; when training is done, the model gets the average.
#'
#' The callback takes a snapshot at the end of each epoch, or every few batches (`every`), and keeps the latest `k`.
#' The mean is computed anew from all of them each time. With `k` snapshots or fewer it is that of
#' [callback_swa()], bit for bit.
#'
#' Use it if you don't know when to start averaging: the window moves along. It needs the memory of `k` copies of the
#' weights (main memory, not the GPU's); an [optimizer_ema()] needs one. The authors average 10 snapshots.
#'
#' # With keras3 and keras
#' ```r
#' model |> fit(x, y, epochs = 40, validation_split = 0.1, callbacks = callback_lawa(k = 10, data = x))
#' ```
#'
#' @section Other callbacks, errors and interrupts:
#' Put [callback_average_model_checkpoint()] and [callback_swap_averages()] after this callback in the list:
#' they save and show its average then, even if the optimizer has averages of another kind. Put callbacks that
#' set the weights at the end, such as `callback_early_stopping(restore_best_weights = TRUE)`, before it:
#' whichever comes last wins. After an error or an interrupt the model has its own weights.
#'
#' @section Training in several sessions:
#' With `backup_dir` a training that stopped, or was killed, can go on in another R session, as with [callback_swa()].
#'
#' @param k Number of snapshots in the average: a whole number, 1 or more.
#' @param every `"epoch"`, the default, or the number of batches from one snapshot to the next: a whole number,
#'   1 or more.
#' @param start_epoch The first epoch, counted from 1, whose snapshots count: a whole number, 1 or more.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param assign `TRUE`, the default, or `FALSE`: whether the model gets the average when training is done. With
#'   `FALSE` it keeps its weights, and `callback$swap_weights()` puts the average in and takes it back.
#' @param weights_too `TRUE` or `FALSE`, the default: whether `fit()` validates twice, as with
#'   [callback_swap_averages()].
#' @param data Inputs to recompute batch-norm statistics with when training is done, as for [callback_swa()].
#'   `NULL`, the default, leaves the mean of the snapshots' statistics, and warns if there are any.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#' @param backup_dir A folder for this training alone: a string. After each epoch the callback saves its
#'   snapshots there (those of the last two epochs are kept), and deletes them when training is done. `NULL`,
#'   the default, saves nothing.
#' @inherit callback_swap_averages return
#' @section Next step:
#' After `fit()` the model holds the average: evaluate and save it. Without `data`, call
#' [update_batch_norm()] first if the model has batch norm.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. A `backup_dir` with the snapshots of
#' another model stops `fit()` before it trains.
#' @references Kaddour (2022), *Stop Wasting My Time! Saving Days of ImageNet and BERT Training with LAtest Weight
#'   Averaging*, <https://arxiv.org/abs/2209.14981>.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' lawa <- callback_lawa(k = 3)
#' model$fit(x, y, epochs = 8L, verbose = 0L, validation_split = 0.2, callbacks = list(lawa))
#' lawa$snapshots
callback_lawa <- function(k = 10, every = "epoch", start_epoch = 1, verbose = 0, assign = TRUE,
                          weights_too = FALSE, data = NULL, batch_size = 32, backup_dir = NULL) {
  generation <- default_generation(rlang::current_env())
  call_ours("LatestAverage", generation, list(
    k = whole(k, 1),
    every = whole(every, 1, word = "epoch"),
    start_epoch = whole(start_epoch, 1),
    verbose = choice(verbose, c(0, 1)),
    assign = flag(assign),
    weights_too = flag(weights_too),
    data = data_or_null(data, later = TRUE),
    batch_size = whole(batch_size, 1),
    backup_dir = if (!is.null(backup_dir)) path.expand(string(backup_dir))
  ))
}
