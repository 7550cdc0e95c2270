# Shared by all averaging optimizers: how they are made, and functions for their averages.

new_averaging_optimizer <- function(class, optimizer, ..., name, clipnorm, clipvalue, decay,
                                    lr, global_clipnorm, check_finite,
                                    call = rlang::caller_env()) {
  generation <- inner_generation(optimizer, call)
  arguments <- list(
    optimizer, ...,
    name = string(name, call = call),
    clipnorm = optional(positive, clipnorm, call = call),
    clipvalue = optional(positive, clipvalue, call = call),
    decay = optional(not_negative, decay, call = call),
    lr = optional(not_negative, lr, call = call),
    global_clipnorm = optional(positive, global_clipnorm, call = call),
    check_finite = flag(check_finite, call = call)
  )
  result <- call_ours(class, generation, arguments, call)
  say_old_settings(lr, decay, "Set the inner optimizer's {.arg learning_rate} instead.")
  result
}

# A message, once per session: who knows it need not read it again.
say_once <- function(id, lines, class = "kerasoptimizers_message") {
  cli::cli_inform(lines, class = class, .frequency = "once", .frequency_id = paste0("kerasoptimizers_", id))
}

# Old scripts run; a message names the new way.
say_old <- function(id, old, new) say_once(id, c("!" = old, "i" = new), "kerasoptimizers_deprecated")

say_old_settings <- function(lr, decay, instead_of_lr) {
  if (!is.null(lr)) say_old("lr", "{.arg lr} is deprecated.", instead_of_lr)
  if (!is.null(decay)) {
    say_old("decay", "{.arg decay} is an argument for old scripts.", paste(
      "Give the inner optimizer a learning-rate schedule instead:",
      "{.fn learning_rate_schedule_inverse_time_decay} with {.code decay_steps = 1}."
    ))
  }
}

#' Put the averages into a model's weights
#'
#' When you train with an averaging optimizer, such as [optimizer_swa()], the model
#' ends with the weights of its last update. The optimizer keeps the averages beside
#' them. Call this function when training is done, before you evaluate, predict or save.
#'
#' It overwrites the weights. The averages stay, and further training adds to them; to
#' start new averages, compile with a new optimizer. If you only want to look at the
#' averages and then train on, use [with_averages()] or [swap_weights()]. In a model with
#' batch normalization the statistics no longer fit: give `data` to recompute them, or call
#' [update_batch_norm()] next. A message says so, once per session.
#'
#' @param object A Keras model compiled with one of this package's averaging optimizers,
#'   or such an optimizer.
#' @param variables A list of Keras variables that get their averages. For a model
#'   the default, `NULL`, means all its variables that have an average (see
#'   [optimizer_ema()] for averages of non-trainable variables). For an optimizer there
#'   is no default.
#' @param data Inputs to recompute the batch-norm statistics of a model with, as for [update_batch_norm()], but
#'   not a generator. `NULL`, the default, leaves them. It can't be given together with `variables`.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#' @returns `object`, invisibly. It is changed in place.
#' @section Next step:
#' Evaluate, predict or save: the model is an ordinary one now. To fine-tune it, compile with a new
#' optimizer: `vignette("transfer-learning", package = "kerasoptimizers")`.
#' @section Errors:
#' The function stops and changes nothing if there is no average yet (no training, or no
#' snapshot so far), if the model is not compiled with an averaging optimizer, if weights
#' and averages are swapped, if the pass over `data` fails, or if no variable in `variables` has an average. With
#' Keras 3 it also
#' stops if only one trainable variable among them has none. Keras 2 calls the
#' variables of a frozen layer trainable, so there these are left alone.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>. TensorFlow Addons has this
#'   function as a method of its optimizers.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' sgd <- keras$optimizers$SGD(0.3)
#' model$compile(optimizer_swa(sgd, start_averaging = 20, average_period = 1), loss = "mse")
#' x <- matrix(rnorm(400), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(200)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#'
#' model$evaluate(x, y, verbose = 0L) # the weights
#' assign_average_vars(model)
#' model$evaluate(x, y, verbose = 0L) # the averages
assign_average_vars <- function(object, variables = NULL, data = NULL, batch_size = 32) {
  call <- rlang::current_env()
  optimizer <- find_averaging_optimizer(object)
  data <- data_or_null(data)
  batch_size <- whole(batch_size, 1)
  if (!is.null(data)) {
    if (!is_model(object)) refuse("object", "a model if `data` is given", object, call)
    if (!is.null(variables)) abort_argument("Only one of `variables` and `data` can be given, not both.", call)
    assign <- import_ours("kerasoptimizers")$assign_average_vars
    call_python(assign(object, data, batch_size), rename = c(model = "object"))
    return(invisible(object))
  }
  variables <- if (is.null(variables) && is_model(object)) object$variables else
    variable_list(variables)
  call_python(optimizer$assign_average_vars(variables), rename = c(var_list = "variables"))
  if (is_model(object) && import_ours("kerasoptimizers.finishing")$leaves_statistics(object)) {
    say_once("batch_norm", c("i" = paste(
      "The batch-norm statistics of the model belong to its last weights, not to the averages:",
      "call {.code update_batch_norm(model, x)} next, or give {.arg data}."
    )))
  }
  invisible(object)
}

#' Show the averages for a while
#'
#' Puts the averages into the model, runs an expression, and gives the model its weights back, bit for bit,
#' also after an error or an interrupt. With `data` the batch-norm statistics are those of the averages
#' meanwhile.
#'
#' Use it in the middle of training, to evaluate, predict or save with the averages. When training is done,
#' [assign_average_vars()] puts them in for good. In the expression the model can't be trained.
#'
#' # With keras3 and keras
#' ```r
#' with_averages(model, evaluate(model, x_test, y_test))
#' with_averages(model, save_model(model, "averages.keras"), data = x)
#' ```
#'
#' @param object A Keras model compiled with one of this package's averaging optimizers.
#' @param expr An expression: what to do with the averages.
#' @param data Inputs to recompute batch-norm statistics with, as for [update_batch_norm()], but not a
#'   generator; the old statistics come back, too. `NULL`, the default, leaves those of the weights.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#' @returns The value of `expr`.
#' @section Errors:
#' The function stops before it runs `expr` if there is no average yet, if the model is not compiled with an
#' averaging optimizer, or if an argument is not as described.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_ema(keras$optimizers$SGD(0.3), average_decay = 0.9), loss = "mse")
#' x <- matrix(rnorm(400), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(200)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' with_averages(model, model$evaluate(x, y, verbose = 0L))
#' model$evaluate(x, y, verbose = 0L) # the weights, which are back
with_averages <- function(object, expr, data = NULL, batch_size = 32) {
  call <- rlang::current_env()
  if (missing(object) || !is_model(object)) refuse("object", "a compiled Keras model", object, call)
  data <- data_or_null(data)
  batch_size <- whole(batch_size, 1)
  make_known()
  show <- import_ours("kerasoptimizers")$averages
  shown <- call_python(show(object, data, batch_size), call, rename = c(model = "object"))
  on.exit(shown$`__exit__`())
  call_python(shown$`__enter__`(), call, rename = c(model = "object"))
  force(expr)
}

#' Exchange weights and averages
#'
#' Puts the averages into the model and keeps the weights in their place. A second call
#' restores both, bit for bit. Swap to evaluate or save the averages in the middle of
#' training, and swap back before you train on.
#'
#' When training is done, call [assign_average_vars()] instead. To see the averages in the validation
#' of `fit()`, use [callback_swap_averages()].
#'
#' @inheritParams assign_average_vars
#' @returns `object`, invisibly. It is changed in place.
#' @section Errors:
#' The function stops and changes nothing if there is no average yet, or if the model
#' is not compiled with an averaging optimizer.
#' @references TensorFlow Addons and the TensorFlow Model Garden have this function as a
#'   method of their moving-average optimizers. They add and subtract, so that two
#'   swaps do not always restore the exact weights.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' sgd <- keras$optimizers$SGD(0.3)
#' model$compile(optimizer_swa(sgd, start_averaging = 20, average_period = 1), loss = "mse")
#' x <- matrix(rnorm(400), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(200)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#'
#' model$evaluate(x, y, verbose = 0L) # the weights
#' swap_weights(model)
#' model$evaluate(x, y, verbose = 0L) # the averages
#' swap_weights(model)
swap_weights <- function(object) {
  optimizer <- find_averaging_optimizer(object)
  call_python(optimizer$swap_weights())
  invisible(object)
}

#' Create the averages before training
#'
#' An averaging optimizer creates its averages at the first update, as copies of the
#' weights. `shadow_copy()` creates them now. `has_shadow_copy()` says whether they exist.
#'
#' You need `shadow_copy()` in two cases. [optimizer_ema()] with `trainable_weights_only = FALSE`
#' cannot see the non-trainable weights by itself. And a model that you have built and compiled anew must have averages
#' before `keras3::load_model_weights()` can load them from a file; otherwise it loads the weights only, and a
#' warning says so. (`load_model()` of keras3 and `load_model_hdf5()` of keras, which make the model themselves, need
#' nothing.) A second call changes nothing: averages that exist stay as they are.
#'
#' # With keras3
#' ```r
#' model |> compile(optimizer = optimizer_swa("sgd"), loss = "mse")
#' shadow_copy(model$optimizer, model)
#' load_model_weights(model, "trained.weights.h5")
#' ```
#'
#' @param optimizer One of this package's averaging optimizers.
#' @param model A built Keras model (one whose input shape is known), or a list of its
#'   variables.
#' @param object A Keras model compiled with one of this package's averaging optimizers,
#'   or such an optimizer.
#' @returns `shadow_copy()` returns `optimizer`, invisibly. It is changed in place.
#'   `has_shadow_copy()` returns `TRUE` or `FALSE`. `TRUE` does not mean that there is an
#'   average already: [optimizer_swa()] has none before its first snapshot.
#' @section Next step:
#' Compile the model with the optimizer, and train. Then [assign_average_vars()] also sets the
#' non-trainable weights.
#' @section Errors:
#' The functions stop and change nothing if `optimizer` is not an averaging optimizer,
#' if `model` is not built, or if `object` is not as described.
#' @references TensorFlow Addons and the TensorFlow Model Garden have these functions as
#'   methods of their moving-average optimizers, which cannot train without them.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(
#'   keras$layers$Input(list(2L)), keras$layers$BatchNormalization(), keras$layers$Dense(1L)
#' ))
#' optimizer <- optimizer_ema("sgd", trainable_weights_only = FALSE)
#' shadow_copy(optimizer, model)
#' has_shadow_copy(optimizer)
#' model$compile(optimizer, loss = "mse")
shadow_copy <- function(optimizer, model) {
  averaging <- if (!missing(optimizer)) without_loss_scaling(optimizer)
  if (!is_averaging_optimizer(averaging)) {
    refuse("optimizer", "an averaging optimizer", optimizer, rlang::current_env())
  }
  generation <- optimizer_generation(averaging)
  if (missing(model) ||
      !(identical(model_generation(model), generation) || is_variable_list(model))) {
    allowed <- sprintf("a built %s model or a list of its variables", keras_names[[generation]])
    refuse("model", allowed, model, rlang::current_env(), is_live_python)
  }
  make_known()
  call_python(averaging$shadow_copy(model))
  invisible(optimizer)
}

#' @rdname shadow_copy
#' @export
has_shadow_copy <- function(object) find_averaging_optimizer(object)$has_shadow_copy

#' The averaging optimizer of a model
#'
#' Returns the optimizer that a model is compiled with, if it is one of this package's
#' averaging optimizers.
#'
#' In most models that is `model$optimizer`. In mixed precision Keras wraps the optimizer in a
#' `LossScaleOptimizer`, and this function looks inside. Use it to reach the settings and methods of the optimizer of
#' such a model. ([assign_average_vars()], [swap_weights()], [shadow_copy()], [has_shadow_copy()],
#' [print()][print.kerasoptimizers] and summary() look inside by themselves.)
#'
#' @param object A Keras model compiled with one of this package's averaging optimizers,
#'   or an optimizer: such an averaging optimizer, or a `LossScaleOptimizer` around one.
#' @returns The averaging optimizer.
#' @section Errors:
#' The function stops if the model is not compiled, or not with an averaging optimizer.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", average_period = 5), loss = "mse")
#' summary(averaging_optimizer(model))
averaging_optimizer <- function(object) find_averaging_optimizer(object)

find_averaging_optimizer <- function(object, call = rlang::caller_env()) {
  allowed <- "a compiled Keras model or an averaging optimizer"
  if (missing(object)) refuse("object", allowed, object, call)
  optimizer <- without_loss_scaling(object)
  if (is_averaging_optimizer(optimizer)) {
    make_known()
    return(optimizer)
  }
  if (!is_model(object)) refuse("object", allowed, object, call)
  find <- import_ours("kerasoptimizers")$averaging_optimizer
  call_python(find(object), call, rename = c(model = "object"))
}

is_variable_list <- function(x) {
  (is_plain_list(x) && all(vapply(x, is_live_python, NA))) ||
    inherits(x, c("python.builtin.list", "python.builtin.tuple"))
}

variable_list <- function(variables, call = rlang::caller_env()) {
  if (!is_variable_list(variables)) {
    refuse("variables", "a list of Keras variables", variables, call, is_live_python)
  }
  variables
}
