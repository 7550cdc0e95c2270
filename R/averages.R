# What all averaging optimizers share: how one is made, and what is done with
# its averages.

new_averaging_optimizer <- function(class, optimizer, ..., name, clipnorm, clipvalue, decay,
                                    lr, global_clipnorm, call = rlang::caller_env()) {
  generation <- inner_generation(optimizer, call)
  arguments <- list(
    optimizer, ...,
    name = string(name, call = call),
    clipnorm = positive(clipnorm, call = call),
    clipvalue = positive(clipvalue, call = call),
    decay = not_negative(decay, call = call),
    lr = not_negative(lr, call = call),
    global_clipnorm = positive(global_clipnorm, call = call)
  )
  module <- python_module(generation, call)
  result <- call_python(do.call(module[[class]], arguments), call)
  if (!is.null(lr)) warn_lr()
  result
}

warn_lr <- function() {
  rlang::warn(
    "`lr` is deprecated: set the inner optimizer's `learning_rate` instead.",
    class = "kerasoptimizers_deprecated",
    .frequency = "once", .frequency_id = "kerasoptimizers_lr"
  )
}

#' Put the averages into a model's weights
#'
#' Training with [optimizer_swa()] or [optimizer_lookahead()] leaves a model with
#' the weights of its last update; the averages are kept beside them. Call
#' this once training is done, before you evaluate, predict or save.
#'
#' The weights are overwritten. To look at the averages and then train on, use
#' [swap_weights()], which can be undone. A model with batch normalization needs
#' its statistics recomputed for the new weights.
#'
#' @param object A Keras model compiled with one of this package's optimizers,
#'   or such an optimizer itself.
#' @param variables A list of Keras variables that get their averages. With a model
#'   the default, `NULL`, means all its trainable variables; with an optimizer
#'   they must be given.
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
  if (is.null(variables) && is_model(object)) variables <- object$trainable_variables
  call_python(optimizer$assign_average_vars(variable_list(variables)))
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

# The averaging optimizer that an object is, or that a model is compiled with.
averaging_optimizer <- function(object, call = rlang::caller_env()) {
  allowed <- "a compiled Keras model or an averaging optimizer"
  if (missing(object)) refuse("object", allowed, "missing.", call)
  if (is_averaging_optimizer(object)) return(object)
  if (!is_model(object)) refuse("object", allowed, describe(object), call)
  call_python(import_ours("kerasoptimizers")$averaging_optimizer(object), call)
}

variable_list <- function(variables, call = rlang::caller_env()) {
  is_list <- (is.list(variables) && all(vapply(variables, is_live_python, NA))) ||
    inherits(variables, c("python.builtin.list", "python.builtin.tuple"))
  if (!is_list) refuse("variables", "a list of Keras variables", describe(variables), call)
  variables
}
