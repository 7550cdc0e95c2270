#' Primal averaging: gradients between the weights and their exponential average
#'
#' An optimizer that wraps another one, the inner optimizer, keeps an exponential average of its weights,
#' and takes the gradients between the two. It is an [optimizer_ema()] whose average takes part in the
#' training.
#'
#' The inner optimizer moves the *fast* weights z. Their *average* is x: the weights to use. The model holds y
#' in between, and there the gradients are taken. Each update is
#' ```
#' z = the inner optimizer's step from z, with the gradient at y
#' x = eval_interpolation * x + (1 - eval_interpolation) * z
#' y = train_interpolation * x + (1 - train_interpolation) * z
#' ```
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_primal_averaging(optimizer_adam_w(0.001)), loss = "mse")
#' model |> fit(x, y, epochs = 20, validation_split = 0.1, callbacks = callback_swap_averages())
#' assign_average_vars(model)
#' ```
#'
#' @section When to use it:
#' Use it around AdamW, with its momentum and the learning-rate schedule that you have, to reach the same
#' loss in fewer updates: the authors report 8 to 10 % fewer for language models. It does not make a schedule
#' unnecessary: for that there is [optimizer_schedule_free()]. In a short training choose a small
#' `eval_interpolation`, since the average starts at the first weights and covers about
#' the last `1 / (1 - eval_interpolation)` updates: 300 with the default.
#'
#' It replaces DiLoCo with one worker that takes H steps between two outer ones, with
#' `eval_interpolation = 0.9^(1 / H)`: 0.974 for 4, 0.9934 for 16, 0.9967 for 32, 0.9984 for 64.
#'
#' @inheritSection optimizer_schedule_free Which weights the model holds
#'
#' @inheritParams optimizer_swa
#' @param train_interpolation Share of the average in y, where the gradients are taken: a number from 0 to 1.
#'   With `0` it is [optimizer_ema()] with a constant decay.
#' @param eval_interpolation Fraction of the average that stays at an update: a number from 0 to 1. With `0`
#'   the inner optimizer trains as if it were alone.
#' @inherit optimizer_swa return
#' @inheritSection optimizer_schedule_free Errors
#' @references *Generalized Primal Averaging* (2025), <https://arxiv.org/abs/2512.17131>. The arithmetic is that
#'   of the authors' `GPAAdamW`, except that the inner optimizer's weight decay does not move the average.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_primal_averaging("adam", eval_interpolation = 0.9), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' assign_average_vars(model)
#' assign_average_vars(model)
optimizer_primal_averaging <- function(optimizer, train_interpolation = 0.7,
                                       eval_interpolation = 0.9967, name = "PrimalAveraging",
                                       clipnorm = NULL, clipvalue = NULL, decay = NULL, lr = NULL,
                                       global_clipnorm = NULL, check_finite = TRUE) {
  new_averaging_optimizer(
    "PrimalAveraging", optimizer,
    train_interpolation = fraction(train_interpolation),
    eval_interpolation = fraction(eval_interpolation),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
