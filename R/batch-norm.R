#' Recompute batch-norm statistics
#'
#' Batch normalization keeps the mean and variance of each layer's inputs during training.
#' These statistics belong to the weights of that time. After
#' [assign_average_vars()], or any other change of the weights, they are wrong, often badly.
#' This function sets them to the exact mean and variance over all examples in `x`, even if
#' batches differ in size.
#'
#' It runs the model once over `x`, in training mode. Nothing else changes: no trainable
#' weight, no momentum, no training flag. It finds batch-norm layers in nested models, too.
#' Frozen layers keep their statistics, and a model without batch norm returns at once. Use the
#' training data, or a few thousand examples of it, and never test data. [callback_swa()] does this
#' by itself.
#'
#' # With keras3 and keras
#' ```r
#' assign_average_vars(model)
#' update_batch_norm(model, x)
#' ```
#'
#' @param model A built Keras model, compiled or not.
#' @param x Inputs: an array whose first dimension counts the examples, a list of arrays for
#'   several inputs (with names if the inputs have names), a data frame whose columns are the named inputs (for a
#'   model with one input use `as.matrix()`), or batches. Batches come from a Python
#'   data set or generator, or from a function without arguments that returns the next batch, and
#'   `NULL` at the end. As in `fit()`, a batch may be `list(inputs, targets)` or
#'   `list(inputs, targets, sample_weights)`; only the inputs are used.
#' @param batch_size Number of examples in a batch of arrays: a whole number, 1 or more.
#'   Larger batches are faster and take more memory.
#' @param steps Number of batches to take: a whole number, 1 or more. `NULL`, the
#'   default, takes all of them. It must be given for generators and functions.
#' @param verbose `"auto"`, the default, or `1` (`TRUE`) for a progress bar, `2` for one line,
#'   `0` (`FALSE`) for nothing.
#' @returns `model`, invisibly. It is changed in place.
#' @section Next step:
#' Evaluate and save the model. `vignette("batch-norm", package = "kerasoptimizers")` measures what
#' wrong statistics cost, and how many examples are enough.
#' @section Errors:
#' The function stops if an argument is not as described, if the model is not built, or if `x` is
#' empty, has another shape than the inputs of the model, or has missing values that reach a batch-norm layer.
#' After an error or an interrupt the statistics are as they were before.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, section 3.2.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(
#'   keras$layers$Input(list(2L)), keras$layers$BatchNormalization(), keras$layers$Dense(1L)
#' ))
#' x <- matrix(rnorm(200, mean = 3), ncol = 2)
#' update_batch_norm(model, x, verbose = 0)
#' model$layers[[1]]$moving_mean$numpy()
update_batch_norm <- function(model, x, batch_size = 32, steps = NULL, verbose = "auto") {
  if (missing(model) || !is_model(model)) {
    refuse("model", "a Keras model", model, rlang::current_env())
  }
  call_ours("update_batch_norm", model_generation(model), list(
    model, examples(x, frames = TRUE),
    batch_size = whole(batch_size, 1),
    steps = optional(whole, steps, 1),
    verbose = choice(verbose, list("auto", 0, 1, 2))
  ))
  invisible(model)
}
