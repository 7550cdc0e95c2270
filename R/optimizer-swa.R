#' Stochastic weight averaging
#'
#' An optimizer that trains with another one, the inner optimizer, and keeps the
#' equal-weight average of the weights at regular moments of the training. The
#' average often predicts better than the last weights, at little cost in training
#' time.
#'
#' Updates are counted from 0. After update `start_averaging`, and then after every
#' `average_period`-th, the weights are taken into the average (a *snapshot*); all
#' snapshots count the same. Training itself goes on as with the inner optimizer
#' alone: call [assign_average_vars()] when it is done, else the averages go unused.
#'
#' It helps when the weights move around a good region: with a learning rate
#' that is constant or cyclic and fairly high, in the second half or last quarter
#' of the training. It does not help weights that have not got there, so
#' don't start at 0 in a short training, nor weights that stand still, as with a
#' learning rate that has decayed to almost nothing. One epoch has
#' `ceiling(n / batch_size)` updates; to average the second half of 20 epochs, start
#' after 10 times that.
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
#'   number, 0 or more.
#' @param average_period Number of updates from one snapshot to the next: a whole
#'   number, 1 or more. `1` averages the weights of all updates.
#' @param name Name of the optimizer: a string.
#' @param sequential_update `TRUE` or `FALSE`. It is there for scripts written for
#'   TensorFlow Addons and changes nothing: the average is always taken after the update.
#' @param clipnorm Largest norm (> 0) of each variable's gradient, which is scaled down to
#'   it before the inner optimizer's step. `NULL`, the default, clips nothing; so with
#'   `clipvalue` and `global_clipnorm`. It can't be given together with the latter.
#' @param clipvalue Largest absolute value (> 0) of a gradient's elements.
#' @param decay Decay (>= 0) of the inner learning rate per update: after n updates it
#'   is the first one divided by `1 + decay * n`. `NULL`, the default, is no decay. It is for old
#'   scripts, and a message, once per session, says so: give the inner optimizer a learning-rate
#'   schedule instead.
#' @param lr Learning rate (>= 0) to set on the inner optimizer. Deprecated, as a message, once
#'   per session, says: give it to the inner optimizer as its `learning_rate`.
#' @param global_clipnorm Largest norm (> 0) of all gradients together.
#' @param check_finite `TRUE`, the default, or `FALSE`. `TRUE`: an update after which a
#'   weight is not finite (`NaN` or infinite) moves no average, and one warning names the weight. So
#'   an average outlives a training that diverges. `FALSE` leaves the check out.
#' @returns A Python optimizer for the `compile()` of the R package keras3 or keras,
#'   whichever the inner optimizer comes from (see [kerasoptimizers-package] for names). Its
#'   `learning_rate` is that of the inner optimizer, so Keras's learning-rate
#'   callbacks work on it.
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it.
#' @references Izmailov, Podoprikhin, Garipov, Vetrov and Wilson (2018), *Averaging
#'   Weights Leads to Wider Optima and Better Generalization*,
#'   <https://arxiv.org/abs/1803.05407>. Arguments and arithmetic are those of
#'   `tfa.optimizers.SWA` of TensorFlow Addons.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages,
#'   [print()][print.kerasoptimizers] and [plot()][plot.kerasoptimizers] to see when they are taken.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' sgd <- keras$optimizers$SGD(0.05, momentum = 0.9)
#' model$compile(optimizer_swa(sgd, start_averaging = 10, average_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' assign_average_vars(model)
optimizer_swa <- function(optimizer, start_averaging = 0, average_period = 10, name = "SWA",
                          sequential_update = TRUE, clipnorm = NULL, clipvalue = NULL,
                          decay = NULL, lr = NULL, global_clipnorm = NULL, check_finite = TRUE) {
  new_averaging_optimizer(
    "SWA", optimizer,
    start_averaging = whole(start_averaging, 0),
    average_period = whole(average_period, 1),
    sequential_update = flag(sequential_update),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
