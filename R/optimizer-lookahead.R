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
#' # Momentum
#' With `slow_momentum` the slow steps have their own Nesterov momentum. Every `sync_period` updates, with
#' `d = slow - fast`:
#' `velocity = slow_momentum * velocity + d`, then
#' `slow = slow - slow_step_size * (d + slow_momentum * velocity)`. With `0`, the default, that is
#' Lookahead as published. The authors of SNOO train language models with `sync_period = 28`,
#' `slow_step_size = 0.68` and `slow_momentum = 0.37`; those of DiLoCo with 500, 0.7 and 0.9.
#'
#' `inner_state` is about the momentum of the inner optimizer, the average of gradients that SGD with momentum,
#' Adam, LARS and others have. It was computed on the way to the fast weights, which the step back leaves.
#' `"keep"` leaves it as it is; `"reset"` makes it 0; `"average"` takes it back like the weights, the fraction
#' `slow_step_size` of the way from what it was after the slow step before (0 at first). Averages of *squared*
#' gradients, as Adam has, are always kept: without them its next steps would be too long.
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
#' @param slow_momentum Nesterov momentum of the slow steps: a number from 0, the default, to 1. It takes the
#'   memory of one more copy of the weights.
#' @param inner_state What becomes of the inner optimizer's momentum at a slow step: `"keep"`, the default,
#'   `"reset"` or `"average"`. The latter two take the memory of one more copy of it. An inner optimizer
#'   without momentum is left as it is.
#' @inherit optimizer_swa return
#' @section Next step:
#' After `fit()`, call [assign_average_vars()] to end with the slow weights, and [update_batch_norm()]
#' if the model has batch norm. To average as well, put it into another optimizer, as in
#' `optimizer_swa(optimizer_lookahead("sgd"))`.
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it. So does an `inner_state` other than `"keep"` around Keras's
#' `ScheduleFreeAdamW`, which keeps weights under the name of momentum.
#' @references Zhang, Lucas, Hinton and Ba (2019), *Lookahead Optimizer: k steps
#'   forward, 1 step back*, <https://arxiv.org/abs/1907.08610>. Arguments and
#'   arithmetic are those of `tfa.optimizers.Lookahead` of TensorFlow Addons.
#'
#'   For `slow_momentum`: Kallusky et al. (2025), *SNOO: Step-K Nesterov Outer Optimizer*,
#'   <https://arxiv.org/abs/2510.15830>, and Douillard et al. (2023), *DiLoCo: Distributed
#'   Low-Communication Training of Language Models*, <https://arxiv.org/abs/2311.08105>.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the slow weights.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_lookahead("sgd", sync_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' assign_average_vars(model) # the slow weights
optimizer_lookahead <- function(optimizer, sync_period = 6, slow_step_size = 0.5,
                                name = "Lookahead", clipnorm = NULL, clipvalue = NULL,
                                decay = NULL, lr = NULL, global_clipnorm = NULL,
                                check_finite = TRUE, slow_momentum = 0, inner_state = "keep") {
  new_averaging_optimizer(
    "Lookahead", optimizer,
    sync_period = whole(sync_period, 1),
    slow_step_size = fraction(slow_step_size),
    slow_momentum = fraction(slow_momentum),
    inner_state = choice(inner_state, list("keep", "reset", "average")),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
