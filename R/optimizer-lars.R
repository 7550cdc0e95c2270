#' Layer-wise adaptive rate scaling
#'
#' An optimizer for training with large batches: stochastic gradient descent with
#' momentum in which every weight variable has a learning rate of its own. It is multiplied
#' by the *trust ratio* `eeta * norm(weights) / norm(gradient)`, so no layer moves by
#' more than a small part of its own size. Where one of the norms is zero the ratio is 1.
#'
#' Use it where batches of thousands of examples make SGD diverge at the learning rates
#' that they need, and with a warm-up of the rate over the first epochs. The trust ratio is
#' small, so `learning_rate` is larger than in SGD: with the default `eeta`, usually between 1
#' and 10. With batches of a few hundred and less SGD or Adam do better. Biases and
#' batch-norm weights are usually left out of weight decay and trust ratio:
#' `exclude_from_weight_decay = c("bias", "gamma", "beta")`.
#'
#' It averages nothing; it can be the inner optimizer of one that does, as in
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
#' @param momentum Part of the last step that the next one keeps: a number from 0 to 1.
#' @param weight_decay_rate Weight decay: a number, 0 or more. This many times the weights are
#'   added to the gradient before norms are taken. (The `weight_decay` of Keras's own
#'   optimizers is another one, outside of the trust ratio, and is not to be had here.)
#' @param eeta The trust coefficient of the paper: a number > 0.
#' @param nesterov `TRUE` or `FALSE`: whether to look one momentum step ahead.
#' @param classic_momentum `TRUE` or `FALSE`. `TRUE`, as in the paper, sums steps, each
#'   already multiplied by its learning rate and trust ratio. `FALSE` sums gradients and
#'   multiplies the sum, so that a change of the learning rate acts at once.
#' @param exclude_from_weight_decay A character vector of regular expressions (Python's), or
#'   `NULL` for none: variables in whose path or name one of them is found, such as
#'   `"bias"`, have no weight decay.
#' @param exclude_from_layer_adaptation The same for the trust ratio, which is then 1.
#'   `NULL` means what `exclude_from_weight_decay` says, `character()` no variable.
#' @param name Name of the optimizer: a string.
#' @param ... Further arguments, by name. `clipnorm`, `clipvalue` and `global_clipnorm`
#'   limit gradients, `decay` is inverse-time decay of the learning rate, and `lr`, deprecated, is
#'   `learning_rate`: see [optimizer_swa()]. `use_ema`, `ema_momentum` and
#'   `ema_overwrite_frequency` are those of every Keras optimizer, as are
#'   `loss_scale_factor` and `gradient_accumulation_steps` (Keras 3) or
#'   `jit_compile` (Keras 2).
#' @returns A Python optimizer for the `compile()` of the R package keras3 or keras:
#'   whichever a learning-rate schedule comes from, else as told in
#'   [kerasoptimizers-package] for names.
#' @inheritSection optimizer_swa Errors
#' @references You, Gitman and Ginsburg (2017), *Large Batch Training of Convolutional
#'   Networks*, <https://arxiv.org/abs/1708.03888>. Arguments and arithmetic are those of
#'   `LARS` of the TensorFlow Model Garden.
#' @family optimizers
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
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

check_lars_settings <- function(given, generation, call) {
  known <- c(lars_settings, keras_settings[[generation]])
  unknown <- setdiff(names(given), names(known))
  if (length(unknown) > 0) {
    abort(
      sprintf("optimizer_lars() has no argument `%s`; beside its own it takes %s.",
              unknown[[1]], toString(sprintf("`%s`", names(known)))),
      call, class = "kerasoptimizers_argument_error"
    )
  }
  Map(function(x, name) optional(known[[name]], x, name = name, call = call),
      given, names(given))
}
