#' Stochastic weight averaging by epochs
#'
#' A callback for `fit()` that averages the weights at the ends of epochs, with equal
#' weight, whatever the optimizer, and puts the average into the model when training
#' is done. It can set the learning rates for it, and recalibrates batch norm.
#'
#' At the end of epoch `start_epoch` and every `swa_freq` epochs from there on the
#' weights enter the average. The learning rate follows `lr_schedule`:
#'
#' * `"manual"`: it is left to you.
#' * `"constant"`: the optimizer's rate for the first half of the epochs before
#'   `start_epoch`, then a straight line down to `swa_lr`, reached at nine tenths.
#' * `"cyclic"`: the same before `start_epoch`; from there on, batch by batch, a straight
#'   line from `swa_lr2` down to `swa_lr` over `swa_freq` epochs, again and again.
#'
#' Use it where you think in epochs, or want your optimizer left as it is. To
#' average more often than once per epoch, or to keep the last weights beside the average,
#' use [optimizer_swa()]; don't combine the two. Start after about three quarters of the
#' epochs: it does not help weights that have not got near a good place.
#'
#' # With keras3 and keras
#' ```r
#' model |> fit(x, y, epochs = 40, callbacks = callback_swa(30, "constant", swa_lr = 0.01))
#' ```
#'
#' @section Batch normalization:
#' Its statistics belong to the weights that they were computed with. In a model with batch
#' norm that isn't frozen, the last epoch therefore trains nothing: the average is put
#' into the model first, the epoch is a forward pass over the training data, and
#' the statistics become its exact mean and variance. Losses and metrics of that epoch
#' are those of the pass. With `data` the last epoch trains like the others, and a separate
#' pass over `data` follows.
#'
#' @section Other callbacks, errors and interrupts:
#' Callbacks that look at the model at the ends of epochs, as `callback_model_checkpoint()` does,
#' come after `callback_swa()` in the list: in the last epoch they see the average then.
#' An error or an interrupt while training or in validation, also in the last epoch, leaves the model
#' with its own weights and batch-norm statistics.
#'
#' @section Training in several sessions:
#' With `backup_dir` a training that broke off, or was killed, goes on in another R session as if it
#' had not: give the same call of `callback_swa()` to a `fit()` that goes on, by
#' `callback_backup_and_restore()` or, with a saved model, by `initial_epoch`. The average, the
#' optimizer's own learning rate and the place in the schedule come from the folder.
#' ```r
#' model |> fit(x, y, epochs = 40, callbacks = list(
#'   callback_swa(30, "constant", backup_dir = "average"),
#'   callback_backup_and_restore("backup")
#' ))
#' ```
#'
#' @section Learning rates in the history:
#' The learning rates that were set are in the history that `fit()` returns, as `lr`: one
#' for each epoch, with `"cyclic"` that of its last batch, 0 where the epoch is a forward pass.
#' [`as.data.frame()`][as.data.frame.callback_swa] of the callback has those of all batches, and the
#' snapshots that were taken.
#'
#' @param start_epoch The first epoch, counted from 1 as `fit()` prints them, that enters
#'   the average: a whole number, 2 or more, lower than `epochs` of `fit()`.
#' @param lr_schedule `"manual"`, `"constant"` or `"cyclic"`.
#' @param swa_lr Learning rate while averaging, in a cycle the lowest: a number, 0 or more,
#'   at most the optimizer's rate. `"auto"`, the default, is a tenth of that.
#' @param swa_lr2 Learning rate from which a cycle falls: a number that is at least `swa_lr`,
#'   which must then be given too. `"auto"`, the default, is a quarter of the
#'   way from `swa_lr` to the optimizer's rate; `NULL` is ten times `swa_lr`.
#' @param swa_freq Number of epochs from one snapshot to the next: a whole number, 1 or
#'   more; with `"cyclic"` the length of a cycle, 2 or more.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#'   `NULL`, the default, is 32. Without `data` it isn't needed.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param data Inputs to recalibrate batch norm with: an array, a list of arrays for several
#'   inputs, or a Python data set; anything that [update_batch_norm()] takes and that can
#'   be drawn more than once. `NULL`, the default, gives the last epoch to it instead.
#' @param backup_dir A folder for this training alone, which is made if need be: a string. The
#'   average is kept there after each epoch, of the last two, so that a `fit()` in another
#'   session can go on with it, and is deleted when training is done. `NULL`, the default, keeps
#'   nothing.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Errors:
#' An argument that is not as described stops with an error that names it: at once, or, for
#' what doesn't fit `epochs`, the optimizer's rate or the average in `backup_dir`, when `fit()`
#' begins, before anything is trained.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>. Arguments, schedules and
#'   averages are those of the Python package keras-swa.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' swa <- callback_swa(start_epoch = 5, lr_schedule = "constant")
#' model$fit(x, y, epochs = 8L, verbose = 0L, callbacks = list(swa))
callback_swa <- function(start_epoch, lr_schedule = "manual", swa_lr = "auto",
                         swa_lr2 = "auto", swa_freq = 1, batch_size = NULL, verbose = 0,
                         data = NULL, backup_dir = NULL) {
  generation <- default_generation(rlang::current_env())
  callback <- call_ours("SWACallback", generation, list(
    start_epoch = whole(start_epoch, 2),
    lr_schedule = choice(lr_schedule, c("manual", "constant", "cyclic")),
    swa_lr = not_negative(swa_lr, word = "auto"),
    swa_lr2 = optional(not_negative, swa_lr2, word = "auto"),
    swa_freq = whole(swa_freq, 1),
    batch_size = optional(whole, batch_size, 1),
    verbose = choice(verbose, c(0, 1)),
    data = optional(examples, data, again = TRUE),
    backup_dir = if (!is.null(backup_dir)) path.expand(string(backup_dir))
  ))
  # plot() and as.data.frame() of a history want one value for each epoch.
  callback$history_by_epoch <- TRUE
  callback
}
