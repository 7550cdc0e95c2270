#' Recompute batch-norm statistics
#'
#' A model with batch normalization keeps the mean and variance of what its layers got
#' to see in training. They belong to the weights of that time: after
#' [assign_average_vars()], or whenever weights were set, they are wrong, often badly.
#' This sets them to the exact mean and variance of each layer's inputs over all
#' examples in `x`, however unequal the batches.
#'
#' The model runs in training mode over `x`, once. Nothing else changes: no trainable
#' weight, no momentum, no training flag. All of Keras's batch-norm layers count, also
#' in models inside of models; frozen ones keep their statistics. A model without batch norm
#' returns at once. Call it on the training data, or a few thousand examples of it;
#' never on test data. [callback_swa()] does it by itself.
#'
#' # With keras3 and keras
#' ```r
#' assign_average_vars(model)
#' update_batch_norm(model, x)
#' ```
#'
#' @param model A built Keras model. It need not be compiled.
#' @param x Inputs: an array whose first dimension counts the examples, a list of arrays for
#'   several inputs (named, if the inputs are), or batches: a Python data set or
#'   generator, or a function without arguments that returns the next batch, or `NULL` when
#'   there is none. A batch is inputs, or, as for `fit()`, `list(inputs, targets)` or
#'   `list(inputs, targets, sample_weights)`, of which only the inputs are used.
#' @param batch_size Number of examples in a batch of arrays: a whole number, 1 or more.
#'   Larger is faster and takes more memory.
#' @param steps Number of batches to take: a whole number, 1 or more. `NULL`, the
#'   default, takes all. Generators and functions need it.
#' @param verbose `"auto"`, the default, or `1` (`TRUE`) for a progress bar, `2` for one line,
#'   `0` (`FALSE`) for nothing.
#' @returns `model`, invisibly: it is changed in place.
#' @section Errors:
#' It is an error if an argument is not as described, if the model is not built or if `x` is
#' empty. Then, and when the pass over `x` fails or is interrupted, the statistics are as before.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, section 3.2.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(
#'   keras$layers$Input(list(2L)), keras$layers$BatchNormalization(), keras$layers$Dense(1L)
#' ))
#' x <- matrix(rnorm(200, mean = 3), ncol = 2)
#' update_batch_norm(model, x, verbose = 0)
#' model$layers[[1]]$moving_mean$numpy()
update_batch_norm <- function(model, x, batch_size = 32, steps = NULL, verbose = "auto") {
  if (missing(model) || !is_model(model)) {
    refuse("model", "a Keras model", describe(model), rlang::current_env())
  }
  call_ours("update_batch_norm", model_generation(model), list(
    model, examples(x),
    batch_size = whole(batch_size, 1),
    steps = optional(whole, steps, 1),
    verbose = choice(verbose, list("auto", 0, 1, 2))
  ))
  invisible(model)
}
