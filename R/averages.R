# What all averaging optimizers share: how one is made, and what is done with
# its averages.

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

# Old scripts run; a message, once per session, says what is written today.
say_old <- function(id, old, new) {
  cli::cli_inform(
    c("!" = old, "i" = new), class = "kerasoptimizers_deprecated",
    .frequency = "once", .frequency_id = paste0("kerasoptimizers_", id)
  )
}

say_old_settings <- function(lr, decay, instead_of_lr) {
  if (!is.null(lr)) say_old("lr", "{.arg lr} is deprecated.", instead_of_lr)
  if (!is.null(decay)) {
    say_old("decay", "{.arg decay} is how old scripts have it.", paste(
      "Give the inner optimizer a learning-rate schedule instead:",
      "{.fn learning_rate_schedule_inverse_time_decay} with {.code decay_steps = 1}."
    ))
  }
}

#' Put the averages into a model's weights
#'
#' Training with an averaging optimizer, such as [optimizer_swa()], leaves a model
#' with the weights of its last update; the averages are kept beside them. Call
#' this once training is done, before you evaluate, predict or save.
#'
#' The weights are overwritten; the averages stay, and if training goes on, what comes counts with what was. For
#' averages that start anew, compile with a new optimizer. To look at the averages and then train on, use
#' [swap_weights()], which can be undone. A model with batch normalization needs
#' its statistics recomputed for the new weights: call [update_batch_norm()] next.
#'
#' @param object A Keras model compiled with one of this package's optimizers,
#'   or such an optimizer itself.
#' @param variables A list of Keras variables that get their averages. With a model
#'   the default, `NULL`, means all its trainable variables, and also its others if the
#'   optimizer averages those (see [optimizer_ema()]); with an optimizer they must be
#'   given.
#' @returns `object`, invisibly: it is changed in place.
#' @section Errors:
#' It is an error, and nothing is changed, if there is no average yet (no training,
#' or none that reached the first snapshot), if the model is not compiled with
#' an optimizer of this package, or if a variable is not one that the optimizer trains.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>. The function
#'   is that of the optimizers of TensorFlow Addons.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", average_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 5L, verbose = 0L)
#'
#' assign_average_vars(model)
#' model$evaluate(x, y, verbose = 0L)
assign_average_vars <- function(object, variables = NULL) {
  optimizer <- averaging_optimizer(object)
  if (is.null(variables) && is_model(object)) variables <- object$variables
  variables <- variable_list(variables)
  call_python(optimizer$assign_average_vars(variables), rename = c(var_list = "variables"))
  invisible(object)
}

#' Exchange weights and averages
#'
#' The weights get the averages and the averages get the weights, bit for bit, so
#' that a second call restores the first state exactly. Swap to evaluate or
#' save the averages in the middle of training, and swap back before you train on.
#' When training is done, [assign_average_vars()] says better what you mean.
#'
#' @inheritParams assign_average_vars
#' @returns `object`, invisibly: it is changed in place.
#' @section Errors:
#' It is an error, and nothing is changed, if there is no average yet, or if the model
#' is not compiled with an optimizer of this package.
#' @references The function is that of the moving-average optimizers of TensorFlow
#'   Addons and the TensorFlow Model Garden, where it adds and subtracts,
#'   so that two swaps come near the first state but not always back to it.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", average_period = 5), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 5L, verbose = 0L)
#'
#' swap_weights(model)
#' model$evaluate(x, y, verbose = 0L)
#' swap_weights(model)
swap_weights <- function(object) {
  optimizer <- averaging_optimizer(object)
  call_python(optimizer$swap_weights())
  invisible(object)
}

#' Create the averages before training
#'
#' An averaging optimizer creates its averages, as copies of the weights, at the first
#' update. `shadow_copy()` does it now, and `has_shadow_copy()` says whether it is done.
#'
#' You need `shadow_copy()` for [optimizer_ema()] with `trainable_weights_only = FALSE`,
#' which has to be told of the non-trainable weights. Else training does it by itself,
#' and calling it changes nothing. It can't be repeated to start an average
#' anew: averages that exist are left as they are.
#'
#' @param optimizer One of this package's averaging optimizers.
#' @param model A built Keras model (one whose input shape is known), or a list of its
#'   variables.
#' @param object A Keras model compiled with one of this package's averaging optimizers,
#'   or such an optimizer itself.
#' @returns `shadow_copy()` returns `optimizer`, invisibly: it is changed in place.
#'   `has_shadow_copy()` returns `TRUE` or `FALSE`. `TRUE` says that there is room for the
#'   averages; [optimizer_swa()] has none to give before its first snapshot.
#' @section Errors:
#' It is an error, and nothing is changed, if `optimizer` is not an averaging optimizer,
#' if `model` is not built, or if `object` is neither of what it may be.
#' @references The functions are methods of the moving-average optimizers of TensorFlow
#'   Addons and the TensorFlow Model Garden, where training without them fails.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(
#'   keras$layers$Input(list(2L)), keras$layers$BatchNormalization(), keras$layers$Dense(1L)
#' ))
#' optimizer <- optimizer_ema("sgd", trainable_weights_only = FALSE)
#' shadow_copy(optimizer, model)
#' has_shadow_copy(optimizer)
#' model$compile(optimizer, loss = "mse")
shadow_copy <- function(optimizer, model) {
  if (missing(optimizer) || !is_averaging_optimizer(optimizer)) {
    refuse("optimizer", "an averaging optimizer", describe(optimizer), rlang::current_env())
  }
  generation <- optimizer_generation(optimizer)
  if (missing(model) ||
      !(identical(model_generation(model), generation) || is_variable_list(model))) {
    allowed <- sprintf("a built %s model or a list of its variables", keras_names[[generation]])
    refuse("model", allowed, describe(model), rlang::current_env())
  }
  call_python(optimizer$shadow_copy(model))
  invisible(optimizer)
}

#' @rdname shadow_copy
#' @export
has_shadow_copy <- function(object) averaging_optimizer(object)$has_shadow_copy

# The averaging optimizer that an object is, or that a model is compiled with.
averaging_optimizer <- function(object, call = rlang::caller_env()) {
  allowed <- "a compiled Keras model or an averaging optimizer"
  if (missing(object)) refuse("object", allowed, "missing.", call)
  if (is_averaging_optimizer(object)) return(object)
  if (!is_model(object)) refuse("object", allowed, describe(object), call)
  find <- import_ours("kerasoptimizers")$averaging_optimizer
  call_python(find(object), call, rename = c(model = "object"))
}

is_variable_list <- function(x) {
  (is.list(x) && all(vapply(x, is_live_python, NA))) ||
    inherits(x, c("python.builtin.list", "python.builtin.tuple"))
}

variable_list <- function(variables, call = rlang::caller_env()) {
  if (!is_variable_list(variables)) {
    refuse("variables", "a list of Keras variables", describe(variables), call)
  }
  variables
}
