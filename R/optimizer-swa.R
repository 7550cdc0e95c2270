#' Stochastic weight averaging
#'
#' An optimizer that wraps another one, the inner optimizer, and averages the
#' weights at regular moments of the training, all with equal weight. The
#' average often predicts better than the last weights, and costs little training
#' time.
#'
#' Updates are counted from 0. After update `start_averaging`, and then every
#' `average_period` updates, the optimizer adds the weights to the average. This is called a
#' *snapshot*, and all snapshots count the same. The inner optimizer trains as it would
#' alone. When training is done, call [assign_average_vars()] to use the averages.
#'
#' Averaging helps when the weights move around in a good region: in the second half or last quarter
#' of a training whose learning rate is constant or cyclic and fairly high. It does not help if the
#' weights have not reached that region, so don't start at 0 in a short training. Neither
#' does it help if the weights hardly move, because the
#' learning rate has decayed to almost nothing. One epoch has
#' `ceiling(n / batch_size)` updates; to average the second half of 20 epochs, start
#' after 10 times that number, or give `start_averaging = "10 epochs"`.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_swa(optimizer_sgd(0.1), start_averaging = 1000),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' model |> fit(x, y, epochs = 20)
#' assign_average_vars(model)
#' ```
#'
#' @param optimizer The inner optimizer: a Keras optimizer, such as
#'   `keras3::optimizer_sgd()` returns, or the name of one, such as `"sgd"`.
#' @param start_averaging Number of updates before the first snapshot: a whole
#'   number, 0 or more. Or a string such as `"3 epochs"`: that is 3 times the number of batches of an epoch, which
#'   the first `fit()` with this optimizer tells. Updates count from the optimizer's first one, also over several
#'   `fit()`, and accumulated batches count as one. `fit()` must know the number of batches (give
#'   `steps_per_epoch` for a generator), and this does not work under a TensorFlow strategy with several replicas.
#' @param average_period Number of updates from one snapshot to the next: a whole
#'   number, 1 or more. `1` averages the weights of all updates.
#' @param name Name of the optimizer: a string.
#' @param sequential_update `TRUE` or `FALSE`. It changes nothing, and is here for scripts from
#'   TensorFlow Addons: the average is always taken after the update.
#' @param clipnorm Largest norm of each variable's gradient: a number > 0, or `NULL`, the default, for no
#'   limit. A larger gradient is scaled down before the inner optimizer's step. Give `clipnorm` or
#'   `global_clipnorm`, not both.
#' @param clipvalue Largest absolute value of a gradient's elements: a number > 0, or `NULL`.
#' @param decay For old scripts; in new ones give the inner optimizer a learning-rate
#'   schedule instead. A number, 0 or more, or `NULL`, the default, for no decay: after n updates the inner
#'   learning rate is divided by `1 + decay * n`.
#' @param lr Deprecated: give the inner optimizer its `learning_rate` instead. A number, 0 or more, that
#'   becomes the inner learning rate, or `NULL`.
#' @param global_clipnorm Largest norm of all gradients together: a number > 0, or `NULL`.
#' @param check_finite `TRUE`, the default, or `FALSE`. With `TRUE` the average skips every update after
#'   which a weight is not finite (`NaN` or infinite), and one warning names the weight. So
#'   you still have a good average if the training diverges. `FALSE` turns the check off.
#' @returns A Python optimizer for the `compile()` of the R package keras3 or keras, the same one as
#'   the inner optimizer's (if that is given by its name, see [kerasoptimizers-package]). Its
#'   `learning_rate` is that of the inner optimizer, so Keras's learning-rate
#'   callbacks work.
#' @section Next step:
#' After `fit()`, call `assign_average_vars(model)`, with `data = x` if the model has batch norm, and
#' evaluate or save the model. `vignette("tuning", package = "kerasoptimizers")` shows how to choose
#' `start_averaging` and `average_period`.
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it.
#' @references Izmailov, Podoprikhin, Garipov, Vetrov and Wilson (2018), *Averaging
#'   Weights Leads to Wider Optima and Better Generalization*,
#'   <https://arxiv.org/abs/1803.05407>. Arguments and arithmetic are those of
#'   `tfa.optimizers.SWA` of TensorFlow Addons.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages,
#'   [print()][print.kerasoptimizers] and [plot()][plot.kerasoptimizers] to see the snapshots.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' sgd <- keras$optimizers$SGD(0.05, momentum = 0.9)
#' model$compile(optimizer_swa(sgd, start_averaging = 10, average_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' summary(model$optimizer)$snapshots
#' assign_average_vars(model)
optimizer_swa <- function(optimizer, start_averaging = 0, average_period = 10, name = "SWA",
                          sequential_update = TRUE, clipnorm = NULL, clipvalue = NULL,
                          decay = NULL, lr = NULL, global_clipnorm = NULL, check_finite = TRUE) {
  new_averaging_optimizer(
    "SWA", optimizer,
    start_averaging = updates_or_epochs(start_averaging),
    average_period = whole(average_period, 1),
    sequential_update = flag(sequential_update),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
