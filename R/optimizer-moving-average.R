# Names and arguments of the R package tfaddons, for its scripts.

#' Moving average of weights, as in TensorFlow Addons
#'
#' The exponential moving average of the R package tfaddons, with the same arguments. In
#' new scripts use [optimizer_ema()], which also explains the method; a message says this once
#' per session. For the optimizers of tfaddons that are not here, such as `optimizer_decay_sgdw()`,
#' `vignette("coming-from", package = "kerasoptimizers")` says what Keras has. The two averages
#' differ in this: here the decay is constant unless
#' `dynamic_decay` is `TRUE`, and a growing decay counts the first update as 0, where [optimizer_ema()] counts it as 1.
#'
#' With the constant decay of 0.99 the average holds the starting weights for some hundred updates: their share is
#' `0.99^n` after n updates, which is 37 % after 100 and 5 % after 300. `dynamic_decay = TRUE` avoids that, and so do a
#' `start_step` after the first part of the training and [optimizer_ema()].
#'
#' @inheritParams optimizer_ema
#' @inheritParams optimizer_swa
#' @param average_decay Fraction of the average that stays at an update: a number from
#'   0 to 1.
#' @param num_updates `NULL`, or a whole number, 0 or more, that limits all decays to
#'   `(1 + num_updates) / (10 + num_updates)`.
#' @param dynamic_decay `TRUE` or `FALSE`: whether the decay grows with the
#'   updates, from 0.1 to `average_decay`. If s counts the updates from `start_step` on, starting with
#'   0, it is at most `(1 + s) / (10 + s)`.
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
#' The name of [optimizer_lookahead()] in the R package tfaddons. Old scripts can use it, and a
#' message gives the new name once per session. Don't use it in new scripts.
#'
#' @param ... Arguments of [optimizer_lookahead()], with the same defaults.
#' @inherit optimizer_swa return
#' @section Next step:
#' Replace the name by `optimizer_lookahead`. Nothing else in the script changes.
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
