# The names and arguments of the R package tfaddons, for scripts written for it.

#' Moving average of weights, as in TensorFlow Addons
#'
#' The exponential moving average of the R package tfaddons, with its arguments. For
#' new work take [optimizer_ema()], which says what it does and when to use it; a message, once
#' per session, says so too. This one differs in two ways: the decay is constant unless
#' `dynamic_decay` is `TRUE`, and a growing decay lags one update behind.
#'
#' @inheritParams optimizer_ema
#' @inheritParams optimizer_swa
#' @param num_updates `NULL` or a whole number, 0 or more, that limits the decay to
#'   `(1 + num_updates) / (10 + num_updates)` throughout.
#' @param dynamic_decay `TRUE` or `FALSE`: whether the decay grows with the
#'   updates, from 0.1 to `average_decay`. After update s (the first is 0) from
#'   `start_step` on it is at most `(1 + s) / (10 + s)`.
#' @inherit optimizer_swa return
#' @inheritSection optimizer_swa Errors
#' @references Arguments and arithmetic are those of `tfa.optimizers.MovingAverage` of
#'   TensorFlow Addons, `optimizer_moving_average()` of the R package tfaddons.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' optimizer_moving_average("sgd", average_decay = 0.9)
optimizer_moving_average <- function(optimizer, sequential_update = TRUE, average_decay = 0.99,
                                     num_updates = NULL, name = "MovingAverage",
                                     clipnorm = NULL, clipvalue = NULL, decay = NULL, lr = NULL,
                                     start_step = 0, dynamic_decay = FALSE,
                                     global_clipnorm = NULL, check_finite = TRUE) {
  result <- new_averaging_optimizer(
    "MovingAverage", optimizer,
    sequential_update = flag(sequential_update),
    average_decay = fraction(average_decay),
    num_updates = optional(whole, num_updates, 0),
    start_step = whole(start_step, 0),
    dynamic_decay = flag(dynamic_decay),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
  say_old("moving_average", "{.fn optimizer_moving_average} is the name in tfaddons.",
          "New scripts use {.fn optimizer_ema}, with {.code dynamic_decay = FALSE} for this decay.")
  result
}

#' The old name of optimizer_lookahead()
#'
#' The R package tfaddons calls [optimizer_lookahead()] so. Old scripts run; a message,
#' once per session, gives the new name. Don't use it in new ones.
#'
#' @param ... Arguments of [optimizer_lookahead()], with the same defaults.
#' @inherit optimizer_swa return
#' @inheritSection optimizer_swa Errors
#' @references Zhang, Lucas, Hinton and Ba (2019), *Lookahead Optimizer: k steps
#'   forward, 1 step back*, <https://arxiv.org/abs/1907.08610>.
#' @family optimizers
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' lookahead_mechanism("sgd", sync_period = 5)
lookahead_mechanism <- function(...) {
  say_old("lookahead_mechanism", "{.fn lookahead_mechanism} is the name in tfaddons.",
          "New scripts use {.fn optimizer_lookahead}, which has the same arguments.")
  optimizer_lookahead(...)
}
