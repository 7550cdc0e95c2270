#' Schedule-Free learning: no schedule, and no end to choose before
#'
#' An optimizer that wraps another one, the inner optimizer, and needs no learning-rate schedule. It
#' averages the weights and takes the gradients near the average, so that the average is good at
#' every moment of the training.
#'
#' Three sets of weights play together. The inner optimizer moves the *fast* weights z. Their *average* is
#' x: the weights to use. The model holds y in between, and there the gradients are taken. Each update is
#' ```
#' z = the inner optimizer's step from z, with the gradient at y
#' x = (1 - c) * x + c * z
#' y = beta * x + (1 - beta) * z
#' ```
#' where `c` is the share of this update in the weights of all updates so far. Update number k, counted
#' from 0, has the weight `(k + 1)^r * (largest learning rate so far)^weight_lr_power`. With a constant
#' learning rate, and with 0 for `r`, all updates count the same.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_schedule_free(optimizer_sgd(1), warmup_steps = 200),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' model |> fit(x, y, epochs = 20, validation_split = 0.1, callbacks = callback_swap_averages())
#' assign_average_vars(model)
#' ```
#'
#' @section When to use it:
#' Use it when you don't know how long you will train, when you want to stop at any time with good weights,
#' or when you don't want to tune a schedule. If you know the number of epochs, a cosine or linear schedule
#' is as good when it is tuned. Don't use it together with a schedule that decays: the average does its work.
#'
#' The authors advise:
#' * a learning rate 10 to 50 times that of plain training for SGD, and 1 to 10 times for Adam; tune it;
#' * a warm-up, by `warmup_steps`: they recommend it strongly;
#' * an inner optimizer without momentum: `optimizer_sgd()`, or an Adam or AdamW with `beta_1 = 0`.
#'   `beta` takes its place. With a momentum one warning says this, and training works;
#' * `beta = 0.9`, and 0.95 or 0.98 for long trainings;
#' * weight decay with `weight_decay_at_y` rather than that of the inner optimizer, which acts on z.
#'
#' @section Which weights the model holds:
#' After `fit()` the model holds y, and one line says so, once for each optimizer. You want x:
#' * when training is done, call [assign_average_vars()]; then evaluate, predict and save;
#' * during training, validate with [callback_swap_averages()], and save with
#'   [callback_average_model_checkpoint()];
#' * [swap_weights()] shows x, and a second call puts y back, bit for bit.
#'
#' Batch-norm statistics are those of y: call [update_batch_norm()] after `assign_average_vars()`.
#'
#' You can train on after `assign_average_vars()`. The first gradient is then taken at x, and after that
#' update the model is at y again. The same holds for other weights that you put into the model: the
#' optimizer goes on from its own fast weights. To start from new weights, compile with a new optimizer.
#'
#' @inheritParams optimizer_swa
#' @param optimizer The inner optimizer: a Keras optimizer, such as
#'   `keras3::optimizer_sgd()` returns, or the name of one, such as `"sgd"`. It must have one learning rate,
#'   so a `MultiOptimizer` of Keras is an error.
#' @param beta Share of the average in y, where the gradients are taken: a number from 0 to 1. With `0` the
#'   inner optimizer trains as it would alone, and x is its average.
#' @param warmup_steps Number of updates in which the learning rate grows from 0 to its full size: a whole
#'   number, 0 or more. It is an error if the inner learning rate is a schedule: put the warm-up
#'   into the schedule.
#' @param weight_lr_power Power of the learning rate in the weight of an update: a number, 0 or more. With
#'   `0` the updates of the warm-up count as much as others.
#' @param r Power of the update's number in its weight: a number, 0 or more. More than 0 makes late updates
#'   count more.
#' @param weight_decay_at_y Weight decay: a number, 0 or more. Each update moves z by
#'   `-learning_rate * weight_decay_at_y * y`.
#' @inherit optimizer_swa return
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it. [optimizer_lookahead()] and others that move a model's weights can
#' be the inner optimizer of this one, but can't wrap it.
#' @references Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky (2024), *The Road Less Scheduled*,
#'   <https://arxiv.org/abs/2405.15682>. The arithmetic is that of the authors'
#'   Python package schedulefree.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_schedule_free(keras$optimizers$SGD(0.1), warmup_steps = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' assign_average_vars(model)
optimizer_schedule_free <- function(optimizer, beta = 0.9, warmup_steps = 0, weight_lr_power = 2,
                                    r = 0, weight_decay_at_y = 0, name = "ScheduleFree",
                                    clipnorm = NULL, clipvalue = NULL, decay = NULL, lr = NULL,
                                    global_clipnorm = NULL, check_finite = TRUE) {
  new_averaging_optimizer(
    "ScheduleFree", optimizer,
    beta = fraction(beta),
    warmup_steps = whole(warmup_steps, 0),
    weight_lr_power = not_negative(weight_lr_power),
    r = not_negative(r),
    weight_decay_at_y = not_negative(weight_decay_at_y),
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
