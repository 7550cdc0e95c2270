#' Layer-wise adaptive rate scaling
#'
#' An optimizer for training with large batches (LARS). It is stochastic gradient descent with
#' momentum, with a separate learning rate for each weight variable: the rate is multiplied by
#' the *trust ratio* `eeta * norm(weights) / norm(gradient)`. So each step changes a layer by a
#' small fraction of its size only. If one of the norms is zero, the ratio is 1.
#'
#' Use it if you train with batches of thousands of examples, and SGD diverges at the learning rates
#' that these need. Let the rate warm up over the first epochs. The trust ratio is
#' small, so `learning_rate` is larger than in SGD: usually between 1 and 10 with the default
#' `eeta`. For batches of a few hundred examples or less, SGD or Adam are better. Biases and
#' batch-norm weights usually get no weight decay and no trust ratio:
#' `exclude_from_weight_decay = c("bias", "gamma", "beta")`.
#'
#' LARS averages nothing. It can be the inner optimizer of an averaging optimizer, as in
#' `optimizer_swa(optimizer_lars(2))`.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_lars(2, weight_decay_rate = 1e-4),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' model |> fit(x, y, epochs = 20, batch_size = 4096)
#' ```
#'
#' @param learning_rate The learning rate, before trust ratios: a number, 0 or more, or a
#'   Keras learning-rate schedule, such as [learning_rate_schedule_swa()].
#' @param momentum Fraction of the last step that the next one keeps: a number from 0 to 1.
#' @param weight_decay_rate Weight decay: a number, 0 or more. LARS adds this multiple of the weights
#'   to the gradient before it computes norms. (Keras's own optimizers have a different
#'   `weight_decay`, which knows no trust ratio. LARS does not have it.)
#' @param eeta The trust coefficient of the paper: a number > 0.
#' @param nesterov `TRUE` or `FALSE`: whether to use Nesterov momentum.
#' @param classic_momentum `TRUE` or `FALSE`. With `TRUE`, as in the paper, momentum sums steps that are
#'   already multiplied by their learning rate and trust ratio. With `FALSE` it sums gradients and
#'   multiplies the sum, so that a new learning rate takes effect at once.
#' @param exclude_from_weight_decay A character vector of (Python) regular expressions, such as
#'   `"bias"`, or `NULL` for none. A variable has no weight decay if one of them matches a part of its
#'   path or name.
#' @param exclude_from_layer_adaptation The same for the trust ratio, which is then 1.
#'   With `NULL`, the default, it is the same as `exclude_from_weight_decay`. With `character()` all
#'   variables have a trust ratio.
#' @param name Name of the optimizer: a string.
#' @param ... Further arguments, with their full names. `clipnorm`, `clipvalue` and `global_clipnorm`
#'   limit gradients, `decay` is inverse-time decay of the learning rate, and `lr` is a deprecated name of
#'   `learning_rate`: see [optimizer_swa()]. `use_ema`, `ema_momentum` and
#'   `ema_overwrite_frequency` are those of every Keras optimizer, and so are
#'   `loss_scale_factor` and `gradient_accumulation_steps` (Keras 3) and
#'   `jit_compile` (Keras 2).
#' @returns A Python optimizer for the `compile()` of the R package keras3 or keras. If `learning_rate` is
#'   a schedule, the optimizer is for the same package; for a number see [kerasoptimizers-package].
#' @section Next step:
#' After `fit()` there is nothing to call. For a warm-up of the rate, give `learning_rate` a schedule.
#' To average the weights too, wrap it, or train with [callback_swa()].
#' @inheritSection optimizer_swa Errors
#' @references You, Gitman and Ginsburg (2017), *Large Batch Training of Convolutional
#'   Networks*, <https://arxiv.org/abs/1708.03888>. Arguments and arithmetic are those of
#'   `LARS` of the TensorFlow Model Garden.
#' @family optimizers
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_lars(2, exclude_from_weight_decay = "bias"), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
optimizer_lars <- function(learning_rate = 0.01, momentum = 0.9, weight_decay_rate = 0,
                           eeta = 0.001, nesterov = FALSE, classic_momentum = TRUE,
                           exclude_from_weight_decay = NULL,
                           exclude_from_layer_adaptation = NULL, name = "LARS", ...) {
  call <- rlang::current_env()
  whole_names(lars_names)
  learning_rate <- rate(learning_rate)
  generation <- rate_generation(learning_rate, call)
  arguments <- list(
    learning_rate = learning_rate,
    momentum = fraction(momentum),
    weight_decay_rate = not_negative(weight_decay_rate),
    eeta = positive(eeta),
    nesterov = flag(nesterov),
    classic_momentum = flag(classic_momentum),
    exclude_from_weight_decay = optional(patterns, exclude_from_weight_decay),
    exclude_from_layer_adaptation = optional(patterns, exclude_from_layer_adaptation),
    name = string(name)
  )
  settings <- check_lars_settings(named(...), generation, call)
  result <- call_ours("LARS", generation, c(arguments, settings))
  say_old_settings(settings$lr, settings$decay, "Use {.arg learning_rate} instead.")
  result
}

count_from <- function(minimum) {
  function(x, name, call) whole(x, minimum, name = name, call = call)
}

lars_settings <- list(
  clipnorm = positive,
  clipvalue = positive,
  global_clipnorm = positive,
  decay = not_negative,
  lr = not_negative,
  use_ema = flag,
  ema_momentum = fraction,
  ema_overwrite_frequency = count_from(1)
)
keras_settings <- list(
  keras3 = list(loss_scale_factor = positive, gradient_accumulation_steps = count_from(2)),
  keras = list(jit_compile = flag)
)

# Names that this optimizer does not take, and the reason.
lars_names <- list(weight_decay = paste(
  "`weight_decay` cannot be given: the weight decay of LARS, which is part of its trust ratio,",
  "is `weight_decay_rate`."
))

check_lars_settings <- function(given, generation, call) {
  known <- c(lars_settings, keras_settings[[generation]])
  unknown <- setdiff(names(given), names(known))
  if (length(unknown) > 0) {
    abort_argument(sprintf("optimizer_lars() has no argument `%s`. In `...` it takes %s.", unknown[[1]],
                           toString(sprintf("`%s`", names(known)))), call)
  }
  Map(function(x, name) optional(known[[name]], x, name = name, call = call),
      given, names(given))
}
