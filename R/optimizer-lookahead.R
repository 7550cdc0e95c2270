#' Lookahead: k steps forward, one step back
#'
#' An optimizer that wraps another one, the inner optimizer, and pulls its weights back
#' every `sync_period` updates. The *slow* weights move the fraction `slow_step_size` of the way to
#' the *fast* weights, which the inner optimizer has reached, and the fast weights
#' continue from there.
#'
#' The steps back damp the oscillation of the inner optimizer, so that training
#' depends less on learning rate and momentum. If these are well tuned
#' already, expect little. Unlike with [optimizer_swa()], the model itself trains on the
#' averaged weights. Training may end in the middle of a period: call
#' [assign_average_vars()] to end with the slow weights.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_lookahead(optimizer_adam(0.001)), loss = "mse")
#' ```
#'
#' @inheritParams optimizer_swa
#' @param sync_period Number of updates (fast steps) from one slow step to the next (the
#'   paper's k): a whole number, 1 or more.
#' @param slow_step_size Length of a slow step, as a fraction of the way to the fast weights (the
#'   paper's alpha): a number from 0 to 1. With `1` the inner optimizer trains as if it were alone.
#' @inherit optimizer_swa return
#' @inheritSection optimizer_swa Errors
#' @references Zhang, Lucas, Hinton and Ba (2019), *Lookahead Optimizer: k steps
#'   forward, 1 step back*, <https://arxiv.org/abs/1907.08610>. Arguments and
#'   arithmetic are those of `tfa.optimizers.Lookahead` of TensorFlow Addons.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the slow weights.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_lookahead("sgd", sync_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
optimizer_lookahead <- function(optimizer, sync_period = 6, slow_step_size = 0.5,
                                name = "Lookahead", clipnorm = NULL, clipvalue = NULL,
                                decay = NULL, lr = NULL, global_clipnorm = NULL,
                                check_finite = TRUE) {
  new_averaging_optimizer(
    "Lookahead", optimizer,
    sync_period = whole(sync_period, 1),
    slow_step_size = fraction(slow_step_size),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
