#' Exponential moving average of weights
#'
#' An optimizer that wraps another one, the inner optimizer, and keeps a moving
#' average of the weights. Recent weights count most: after every update
#' `average = decay * average + (1 - decay) * weights`. The average starts as a copy of
#' the weights.
#'
#' The average covers about the last `1 / (1 - average_decay)` updates: 100 with the
#' default, 1000 with `0.999`. Use it when you want good weights at any
#' moment: you don't know how long you will train, or validation may stop the training early.
#' Validate with [callback_swap_averages()]. If the learning rate decays to
#' almost nothing, the last weights hardly move, and their average is no better than they
#' are. If you know when training ends, [optimizer_swa()] averages over more of it.
#'
#' The inner optimizer trains as it would alone. When training is done, call
#' [assign_average_vars()] to use the averages.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_ema(optimizer_adam(0.001), average_decay = 0.999),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' model |> fit(x, y, epochs = 20, validation_split = 0.1, callbacks = callback_swap_averages())
#' assign_average_vars(model)
#' ```
#'
#' @inheritParams optimizer_swa
#' @param trainable_weights_only `TRUE` or `FALSE`. `FALSE` also averages the
#'   non-trainable weights, such as batch-norm statistics. Then you must call [shadow_copy()]
#'   before training. The JAX backend does not show these weights to an optimizer, so `FALSE` is
#'   an error there: use [update_batch_norm()] instead.
#' @param average_decay Fraction of the average that stays at an update: a number from
#'   0 to 1.
#' @param start_step Number of updates before averaging: a whole number, 0 or more. Until
#'   then the average equals the weights.
#' @param dynamic_decay `TRUE` or `FALSE`: whether the decay grows with the
#'   updates, from 0.1 to `average_decay`, so that the average soon forgets the first weights.
#'   After s updates from `start_step` on, it is at most `(1 + s) / (10 + s)`.
#' @param update_period Number of updates from one move of the average to the next: a
#'   whole number, 1 or more. Each move makes up for all these updates (its decay is
#'   `average_decay^update_period`), and averaging costs less.
#' @inherit optimizer_swa return
#' @inheritSection optimizer_swa Errors
#' @references Polyak and Juditsky (1992), *Acceleration of Stochastic Approximation by
#'   Averaging*, \doi{10.1137/0330046}. Arguments and decays are those of
#'   `ExponentialMovingAverage` of the TensorFlow Model Garden. Its average starts at
#'   zero, not at the weights, and is too small at first.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema("sgd", average_decay = 0.9), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' assign_average_vars(model)
optimizer_ema <- function(optimizer, trainable_weights_only = TRUE, average_decay = 0.99,
                          start_step = 0, dynamic_decay = TRUE,
                          name = "ExponentialMovingAverage", clipnorm = NULL, clipvalue = NULL,
                          decay = NULL, lr = NULL, global_clipnorm = NULL, update_period = 1,
                          check_finite = TRUE) {
  new_averaging_optimizer(
    "ExponentialMovingAverage", optimizer,
    trainable_weights_only = flag(trainable_weights_only),
    average_decay = fraction(average_decay),
    start_step = whole(start_step, 0),
    dynamic_decay = flag(dynamic_decay),
    update_period = whole(update_period, 1),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
