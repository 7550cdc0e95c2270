#' Stochastic weight averaging by epochs
#'
#' A callback for `fit()` that averages the weights at the ends of epochs, all with equal
#' weight, and puts the average into the model when training is done. It works with any optimizer,
#' can set learning rates that suit averaging, and recalibrates batch norm.
#'
#' The weights enter the average at the end of epoch `start_epoch`, and then every `swa_freq` epochs (see
#' `snapshot_epoch` for another moment).
#' The learning rate follows `lr_schedule`:
#'
#' * `"manual"`: the callback leaves it alone.
#' * `"constant"`: the optimizer's rate for the first half of the epochs before
#'   `start_epoch`, then a straight line down to `swa_lr`, which is reached after nine tenths of them.
#' * `"cyclic"`: the same before `start_epoch`. From then on the rate falls batch by batch, in a straight
#'   line from `swa_lr2` to `swa_lr` over `swa_freq` epochs, again and again. In keras-swa, and here, a
#'   snapshot is taken after the first epoch of a cycle. The paper takes it where the rate is lowest, at the end of
#'   the cycle: give `snapshot_epoch = "last"` for that.
#'
#' Afterwards the optimizer keeps the last rate, `swa_lr` with `"constant"`. To train on with another one, set
#' `model$optimizer$learning_rate`.
#'
#' Use it if you think in epochs, or want to keep your optimizer as it is. If you want to
#' average more than once per epoch, or to keep the last weights beside the average,
#' use [optimizer_swa()]. Don't combine the two: a warning says so. Start after about three quarters of the
#' epochs: averaging does not help while the weights are still far from a good place.
#'
#' # With keras3 and keras
#' ```r
#' model |> fit(x, y, epochs = 40, callbacks = callback_swa(30, "constant", swa_lr = 0.01))
#' ```
#'
#' @section Start and stop from the validation loss:
#' With `start_epoch = "auto"` you need not know when to start. Averaging begins where the validation loss
#' has not fallen for `n_converge` validations: with the first of these. Training stops when it
#' was above a threshold for `n_tolerance` validations in a row. The threshold is the mean loss of the first
#' `n_converge` validations, times `1 + tolerance_ratio`. The average is that of the weights at the end of the epochs in
#' between. This is the rule of SWAD, and it gives the numbers of its authors' code, which also averages within epochs.
#' Give `fit()` `validation_data` or `validation_split`. Without it, or if the loss falls to the end, there is no
#' average: the model keeps its weights, and a warning says so. The callback holds up to
#' `n_tolerance` copies of the weights in memory (and in `backup_dir`).
#' ```r
#' model |> fit(x, y, epochs = 100, validation_split = 0.1, callbacks = callback_swa("auto"))
#' ```
#'
#' @section Batch normalization:
#' Batch-norm statistics belong to the weights that they were computed with. In a model with batch
#' norm that isn't frozen, the last epoch therefore does not train. Instead the callback puts the average
#' into the model, runs it over the training data, and sets the statistics to the exact mean
#' and variance of that pass. Losses and metrics of this epoch are those of the pass. With `data`
#' the last epoch trains like the others, and a separate pass over `data` follows.
#'
#' @section Other callbacks, errors and interrupts:
#' Put callbacks that look at the model at the end of an epoch, such as `callback_model_checkpoint()`,
#' after `callback_swa()` in the list, so that they see the average in the last epoch. Put
#' `callback_early_stopping(restore_best_weights = TRUE)` before it: at the end of training it overwrites
#' the weights, and a warning says so if that was the average.
#' After an error or an interrupt, in training or validation, the model
#' has its own weights and batch-norm statistics, even in the last epoch.
#'
#' @section Training in several sessions:
#' With `backup_dir` a training that stopped, or was killed, can go on in another R session as if nothing
#' had happened. Make `fit()` go on, by `callback_backup_and_restore()` or by a saved model and
#' `initial_epoch`, and give it the same call of `callback_swa()`. The folder holds the average, the
#' optimizer's learning rate and the place in the schedule.
#' ```r
#' model |> fit(x, y, epochs = 40, callbacks = list(
#'   callback_swa(30, "constant", backup_dir = "average"),
#'   callback_backup_and_restore("backup")
#' ))
#' ```
#'
#' @section Learning rates in the history:
#' The history that `fit()` returns has the learning rates as `lr`, one for each epoch. With `"cyclic"`
#' it is the rate of the last batch; for an epoch without training it is 0.
#' [`as.data.frame()`][as.data.frame.callback_swa] of the callback has the rates of all batches and the
#' snapshots, and [`plot()`][plot.kerasoptimizers] shows them.
#'
#' @param start_epoch The first epoch, counted from 1 as `fit()` prints them, that enters
#'   the average: a whole number, 2 or more, and lower than the `epochs` of `fit()`.
#'   `"auto"` finds the first and the last epoch from the validation loss, see below; it needs
#'   `lr_schedule = "manual"` and `swa_freq = 1`.
#' @param lr_schedule `"manual"`, `"constant"` or `"cyclic"`.
#' @param swa_lr Learning rate while averaging (the lowest one in a cycle): a number from 0 to
#'   the optimizer's rate. `"auto"`, the default, is a tenth of the optimizer's rate.
#' @param swa_lr2 Highest learning rate of a cycle: a number that is at least `swa_lr`,
#'   which must then be given too. `"auto"`, the default, is a quarter of the
#'   way from `swa_lr` to the optimizer's rate. `NULL` is ten times `swa_lr`.
#' @param swa_freq Number of epochs from one snapshot to the next: a whole number, 1 or
#'   more. With `"cyclic"` it is also the length of a cycle, and 2 or more.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#'   `NULL`, the default, is 32. It only matters with `data`.
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param data Inputs to recalibrate batch norm with: an array, a list of arrays or a data frame for several
#'   inputs, or a Python data set. [update_batch_norm()] describes them; generators and functions
#'   are not allowed, because the data may be needed more than once. With `NULL`, the default, the last
#'   epoch recalibrates.
#' @param backup_dir A folder for this training alone: a string. The folder is created if it does not
#'   exist. After each epoch the callback saves the average there (the last two are kept), so that a
#'   `fit()` in another session can go on, and it deletes them when training is done. `NULL`, the
#'   default, saves nothing.
#' @param n_converge Only for `start_epoch = "auto"`: averaging begins where this many validations bring no lower loss.
#'   A whole number, 1 or more.
#' @param n_tolerance Only for `start_epoch = "auto"`: training stops after this many validations above the threshold.
#'   A whole number, 1 or more.
#' @param tolerance_ratio Only for `start_epoch = "auto"`: how far the threshold is above the loss at the start, as a
#'   part of that loss: a number, 0 or more.
#' @param snapshot_epoch After which of the `swa_freq` epochs the weights enter the average: `"first"`, the
#'   default, as in keras-swa, or `"last"`, as in the paper. Then the first snapshot comes after epoch
#'   `start_epoch + swa_freq - 1`.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see
#'   [kerasoptimizers-package] for which).
#' @section Next step:
#' After `fit()` the model holds the average: evaluate and save it. `plot()` and `as.data.frame()` of
#' the callback show what it did.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. An argument that does not
#' fit the `epochs`, the optimizer's rate or the average in `backup_dir` stops `fit()` before it trains.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>. Arguments, schedules and
#'   averages are those of the Python package keras-swa.
#'
#'   Cha et al. (2021), *SWAD: Domain Generalization by Seeking Flat Minima*, <https://arxiv.org/abs/2102.08604>, for
#'   `start_epoch = "auto"`.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' swa <- callback_swa(start_epoch = 5, lr_schedule = "constant")
#' model$fit(x, y, epochs = 8L, verbose = 0L, callbacks = list(swa))
#' as.data.frame(swa) # learning rates and snapshots, epoch by epoch
callback_swa <- function(start_epoch, lr_schedule = "manual", swa_lr = "auto",
                         swa_lr2 = "auto", swa_freq = 1, batch_size = NULL, verbose = 0,
                         data = NULL, backup_dir = NULL, n_converge = 3, n_tolerance = 6,
                         tolerance_ratio = 0.3, snapshot_epoch = "first") {
  generation <- default_generation(rlang::current_env())
  callback <- call_ours("SWACallback", generation, list(
    start_epoch = whole(start_epoch, 2, word = "auto"),
    lr_schedule = choice(lr_schedule, c("manual", "constant", "cyclic")),
    swa_lr = not_negative(swa_lr, word = "auto"),
    swa_lr2 = optional(not_negative, swa_lr2, word = "auto"),
    swa_freq = whole(swa_freq, 1),
    batch_size = optional(whole, batch_size, 1),
    verbose = choice(verbose, c(0, 1)),
    data = data_or_null(data, later = TRUE),
    backup_dir = if (!is.null(backup_dir)) path.expand(string(backup_dir)),
    n_converge = whole(n_converge, 1),
    n_tolerance = whole(n_tolerance, 1),
    tolerance_ratio = not_negative(tolerance_ratio),
    snapshot_epoch = choice(snapshot_epoch, c("first", "last"))
  ))
  # R's plot() and as.data.frame() of a history need one value for each epoch.
  callback$history_by_epoch <- TRUE
  callback
}
