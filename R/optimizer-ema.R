# The rows of a table can't be broken.
# nolint start: line_length_linter.

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
#' # From other libraries
#' Their names for these arguments. With all of them `dynamic_decay = FALSE`, unless the table says
#' otherwise. Most make the first update a copy of the weights, which is `start_step` 1 or 2 here; the
#' table has it where `update_after_step` and the like are 0, so add theirs to it.
#'
#' | there | here |
#' |---|---|
#' | timm `ModelEmaV3`: `decay` | `average_decay`, `start_step = 2` |
#' | timm `use_warmup`, `warmup_gamma`, `warmup_power`, `min_decay` | `warmup_gamma = 1` or theirs, `warmup_power`, `min_decay`, `start_step = 1` |
#' | diffusers `EMAModel`: `decay` | `average_decay`, `dynamic_decay = TRUE`, `start_step = 1` (its first update is a copy; here it has a decay of 0.1) |
#' | diffusers `use_ema_warmup`, `inv_gamma`, `power`, `min_decay` | `warmup_gamma = inv_gamma`, `warmup_power = power`, `min_decay`, `start_step = 1` |
#' | ema-pytorch `EMA`: `beta`, `inv_gamma`, `power`, `min_value` | `average_decay = beta`, `warmup_gamma = inv_gamma`, `warmup_power = power`, `min_decay = min_value`, `start_step = 1` |
#' | ema-pytorch `update_every = k` (there 10 if not given) | `update_period = k`, `average_decay = beta^(1 / k)`; it moves one update later, and `start_step` is one less |
#' | ema-pytorch `update_model_with_ema_every` | `overwrite_period` (it overwrites one update later); nothing for `update_model_with_ema_beta` |
#' | Composer `EMA`: `half_life = "100ba"`, `update_interval = "5ba"` | `half_life = 100`, `update_period = 5`, `start_step = 2` |
#' | Composer `smoothing`, with an `update_interval` of k batches | `average_decay = smoothing^(1 / k)`, `update_period = k` |
#' | Lightning `EMAWeightAveraging`: `decay`, `update_every_n_steps = k` | `average_decay = decay^(1 / k)`, `update_period = k`, `start_step = 2` |
#' | PyTorch `AveragedModel` with `get_ema_multi_avg_fn(decay)` | `average_decay = decay`, `start_step = 2` |
#' | `use_buffers = True` (Lightning, PyTorch) | `trainable_weights_only = FALSE` |
#' | Keras `use_ema`, `ema_momentum`, `ema_overwrite_frequency` | `average_decay = ema_momentum`, `overwrite_period = ema_overwrite_frequency`, `start_step = 2` |
#'
#' With these arguments, and but for what the table says, the averages are those of timm, diffusers, ema-pytorch,
#' Composer, PyTorch and Keras after every update. That is tested against recorded numbers. Keras also puts the
#' average into the model at the end of `fit()`: call [assign_average_vars()] for that.
#'
#' @inheritParams optimizer_swa
#' @param trainable_weights_only `TRUE` or `FALSE`. `FALSE` also averages the
#'   non-trainable weights, such as batch-norm statistics. Then you must call [shadow_copy()]
#'   before training. The JAX backend does not show these weights to an optimizer, so `FALSE` is
#'   an error there: use [update_batch_norm()] instead.
#' @param average_decay Fraction of the average that stays at an update: a number from
#'   0 to 1. If you give `half_life`, you can't give this.
#' @param start_step Number of updates before averaging: a whole number, 0 or more. Until
#'   then the average equals the weights.
#' @param dynamic_decay `TRUE` or `FALSE`: whether the decay grows with the
#'   updates, from 0.1 to `average_decay`, so that the average soon forgets the first weights.
#'   After s updates from `start_step` on, it is at most `(1 + s) / (10 + s)`.
#' @param update_period Number of updates from one move of the average to the next: a
#'   whole number, 1 or more. Each move makes up for all these updates (its decay is
#'   `average_decay^update_period`), and averaging costs less.
#' @param half_life Number of updates after which half of what the average was is left in it: a number > 0,
#'   or `NULL`. It takes the place of `average_decay`, which is then `0.5^(1 / half_life)`. `half_life = 69` is
#'   about `average_decay = 0.99`, and 693 is 0.999.
#' @param warmup_gamma A number > 0, or `NULL`. A number takes the place of `dynamic_decay`: the decay grows as
#'   in timm, diffusers and ema-pytorch. s updates after `start_step` the decay of a move is at most
#'   `1 - (1 + s / warmup_gamma)^-warmup_power`; at s = 0 the average becomes the weights. The first update
#'   is number 1 here, so that s is 0 there if `start_step` is 1.
#' @param warmup_power A number > 0: how fast the decay of `warmup_gamma` grows. With
#'   `warmup_gamma = 1` and 2/3, the default, it reaches 0.999 after 31,600 updates and 0.9999 after
#'   1,000,000; with 3/4 after 10,000 and 215,000.
#' @param min_decay Smallest decay of a move while the decay grows: a number from 0, the default, to
#'   `average_decay`.
#' @param overwrite_period Number of updates, a whole number, 1 or more, and a multiple of `update_period`; or
#'   `NULL`, the default, for never. After every `overwrite_period` updates the model gets the average
#'   and trains on from there, as in Switch-EMA and with Keras's `ema_overwrite_frequency`. Once per epoch
#'   is usual. The averages of weights with a constraint obey that constraint, too.
#' @inherit optimizer_swa return
#' @section Next step:
#' After `fit()`, call `assign_average_vars(model)`, with `data = x` if the model has batch norm.
#' [average_width()] translates a decay into updates and half-lives.
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it. So do `average_decay` and `half_life` together, a
#' `min_decay` above `average_decay`, and an `overwrite_period` that is not a multiple of `update_period`.
#' @references Polyak and Juditsky (1992), *Acceleration of Stochastic Approximation by
#'   Averaging*, \doi{10.1137/0330046}. Arguments and decays are those of
#'   `ExponentialMovingAverage` of the TensorFlow Model Garden. Its average starts at
#'   zero, not at the weights, and is too small at first.
#'
#'   For `overwrite_period`: Li et al. (2024), *Switch EMA: A Free Lunch for Better Flatness and Sharpness*,
#'   <https://arxiv.org/abs/2402.09240>.
#' @family optimizers
#' @seealso [assign_average_vars()] and [swap_weights()] to use the averages.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema("sgd", average_decay = 0.9), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' last <- model$get_weights()[[1]]
#' assign_average_vars(model)
#' data.frame(last, average = model$get_weights()[[1]])
# nolint end
optimizer_ema <- function(optimizer, trainable_weights_only = TRUE, average_decay = 0.99,
                          start_step = 0, dynamic_decay = TRUE,
                          name = "ExponentialMovingAverage", clipnorm = NULL, clipvalue = NULL,
                          decay = NULL, lr = NULL, global_clipnorm = NULL, update_period = 1,
                          check_finite = TRUE, half_life = NULL, warmup_gamma = NULL,
                          warmup_power = 2 / 3, min_decay = 0, overwrite_period = NULL) {
  half_life <- optional(positive, half_life)
  if (!is.null(half_life) && !missing(average_decay)) {
    abort_argument("Only one of `average_decay` and `half_life` can be given, not both.",
                   rlang::current_env())
  }
  average_decay <- if (is.null(half_life)) fraction(average_decay)
  update_period <- whole(update_period, 1)
  min_decay <- fraction(min_decay)
  overwrite_period <- optional(whole, overwrite_period, 1)
  per_update <- if (is.null(half_life)) average_decay else 0.5^(1 / half_life)
  if (min_decay > per_update) {
    refuse("min_decay", paste("at most `average_decay`,", format(per_update, digits = 9)),
           min_decay, rlang::current_env())
  }
  if (!is.null(overwrite_period) && overwrite_period %% update_period != 0) {
    refuse("overwrite_period", paste("a multiple of `update_period`,", update_period),
           overwrite_period, rlang::current_env())
  }
  new_averaging_optimizer(
    "ExponentialMovingAverage", optimizer,
    trainable_weights_only = flag(trainable_weights_only),
    average_decay = average_decay,
    start_step = whole(start_step, 0),
    dynamic_decay = flag(dynamic_decay),
    update_period = update_period,
    half_life = half_life,
    warmup_gamma = optional(positive, warmup_gamma),
    warmup_power = positive(warmup_power),
    min_decay = min_decay,
    overwrite_period = overwrite_period,
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}
