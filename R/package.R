#' kerasoptimizers: weight averaging optimizers for Keras
#'
#' Optimizers that average the weights of a model while it trains, and what goes with
#' them. Each wraps another optimizer, the *inner optimizer*, and goes to `compile()` in its
#' place.
#'
#' | function | what it does |
#' |---|---|
#' | [optimizer_swa()] | averages snapshots of the weights with equal weight |
#' | [optimizer_lookahead()] | every few fast steps, one slow step towards them |
#' | [optimizer_ema()] | averages the weights so that recent ones count most |
#' | [optimizer_lars()] | a learning rate for each layer, for large batches; averages nothing |
#' | [callback_swa()] | averages the weights by epochs, whatever the optimizer |
#' | [callback_swap_averages()] | validates and predicts with the averages |
#' | [callback_average_model_checkpoint()] | saves models that hold the averages |
#' | [learning_rate_schedule_swa()] | learning rates that suit averaging |
#' | [assign_average_vars()] | puts the averages into a model's weights |
#' | [swap_weights()] | exchanges a model's weights and averages |
#' | [update_batch_norm()] | recomputes batch-norm statistics for the weights a model has |
#' | [shadow_copy()], [has_shadow_copy()] | create the averages before training |
#' | [print()][print.kerasoptimizers] and summary() | say how far an optimizer has come |
#' | [as.data.frame()][as.data.frame.callback_swa] | what [callback_swa()] recorded |
#' | [plot()][plot.kerasoptimizers] | draws learning rates and the moments of averaging |
#' | [plot_averaging()] | draws metrics of weights and averages side by side |
#' | [plot_loss_plane()] | draws the loss over the plane through three weight vectors |
#' | [optimizer_moving_average()], [lookahead_mechanism()] | names of the R package tfaddons |
#' | [install_kerasoptimizers()] | installs the Python packages |
#'
#' @section Which Keras:
#' The package works with Keras 3 (R package keras3, or Python `keras`) and with
#' Keras 2 (R package keras, or Python `tf_keras`). Which one is meant follows
#' from the object given: an inner optimizer of Keras 2 makes an optimizer for
#' Keras 2. An inner optimizer given by name, such as `"sgd"`, says nothing
#' of the kind, and callbacks are given no such object; then the option
#' `kerasoptimizers.keras` (`"keras3"` or `"keras"`) decides, else the environment
#' variable `TF_USE_LEGACY_KERAS` (`1` or `true` mean Keras 2; the R package keras sets
#' it), else it is Keras 3.
#'
#' @section Python:
#' Loading the package starts no Python; it starts when a function first needs
#' it, as the reticulate package finds it (see [reticulate::use_python()]). With
#' reticulate 1.41 or newer the package declares what it needs, so that reticulate
#' can set Python up by itself. Loading it also makes models load that were
#' saved with one of its optimizers.
#'
#' @section Errors:
#' A wrong argument stops with one line that names it, before anything is changed: a condition
#' of class `kerasoptimizers_error`, and of class `kerasoptimizers_argument_error` too where R sees
#' by itself that it is wrong. What only `fit()` finds out is an error of `fit()`. Where Python,
#' Keras or a version is missing, the error says which, where it was looked for and the command
#' that mends it.
#'
#' @section Options:
#' * `kerasoptimizers.keras`: `"keras3"` or `"keras"`, see above.
#' * `kerasoptimizers.ggplot2`: `FALSE` has pictures drawn with base graphics also where ggplot2 is
#'   installed.
#'
#' @keywords internal
"_PACKAGE"

.onLoad <- function(libname, pkgname) {
  # Loading reticulate takes most of a second: whoever needs it first waits for it.
  if (isNamespaceLoaded("reticulate")) {
    prepare_reticulate()
  } else {
    setHook(packageEvent("reticulate", "onLoad"), function(...) prepare_reticulate())
  }
}

prepare_reticulate <- function() {
  declare_python_packages()
  # Keras finds the classes of a saved optimizer only once they are registered.
  on_python_load("keras", function() python_module("keras3"))
  on_python_load("tf_keras", function() python_module("keras"))
}

# The Python module of a generation, named as the option names it.
modules <- c(keras3 = "kerasoptimizers.keras3", keras = "kerasoptimizers.tf_keras")
keras_modules <- c(keras3 = "keras", keras = "tf_keras")
keras_names <- c(keras3 = "Keras 3", keras = "Keras 2")

# What py_register_load_hook() does, which in reticulate 1.28 starts Python. A
# hook that fails is silent: whoever loads Keras may need nothing of ours.
on_python_load <- function(module, hook) {
  quietly <- function(...) tryCatch(hook(), error = function(e) NULL)
  if (reticulate::py_available() &&
      reticulate::py_eval(sprintf("'%s' in __import__('sys').modules", module))) {
    quietly()
  } else {
    setHook(paste("reticulate", module, "load", sep = "::"), quietly)
  }
}

python_module <- function(generation, call = rlang::caller_env()) {
  tryCatch({
    # Asking for Keras first lets reticulate choose a Python that has it.
    keras <- reticulate::import(keras_modules[[generation]])
    require_versions(keras, generation, call)
    import_ours(modules[[generation]])
  }, kerasoptimizers_error = stop, error = function(e) import_error(e, generation, call))
}

import_ours <- function(module) {
  reticulate::import_from_path(
    module, path = system.file("python", package = "kerasoptimizers")
  )
}

# Calls a function or makes an object of a class of ours. Checked arguments come
# first, so that a wrong one starts no Python.
call_ours <- function(name, generation, arguments, call = rlang::caller_env()) {
  force(arguments)
  module <- python_module(generation, call)
  functions <- vapply(arguments, function(x) is.function(x) && !is_python(x), NA)
  arguments[functions] <- lapply(arguments[functions], as_generator)
  call_python(do.call(module[[name]], arguments), call)
}

# A Python generator of batches: what a function returns until it returns NULL. As in
# fit(), a list is inputs, then targets, then weights.
as_generator <- function(next_batch) {
  as_tuple <- function() {
    batch <- next_batch()
    if (is.null(batch) || is_python(batch)) return(batch)
    parts <- if (is.list(batch)) batch else list(batch)
    reticulate::tuple(lapply(unname(parts), as_array))
  }
  # Not py_iterator(), in which a function that fails only ends the data.
  reticulate::import_builtins(convert = FALSE)$iter(as_tuple, NULL)
}

# Runs a Python call; what Python has to say about an argument comes as one line,
# with the argument's name in R in place of that in Python.
call_python <- function(expr, call = rlang::caller_env(), rename = NULL) {
  tryCatch(expr, error = function(e) python_error(e, call, rename))
}

input_errors <- c("ValueError", "TypeError", "ImportError", "ModuleNotFoundError")

python_error <- function(e, call, rename = NULL) {
  last <- if (reticulate::py_available()) reticulate::py_last_error()
  from_python <- !is.null(last) &&
    startsWith(conditionMessage(e), paste0(last$type, ":"))
  if (!from_python || !last$type %in% input_errors) stop(e)
  message <- gsub("\\s*\n\\s*", " ", trimws(last$value))
  for (python in names(rename)) {
    message <- sub(paste0("`", python, "`"), paste0("`", rename[[python]], "`"), message)
  }
  abort(message, call)
}

# stop() rather than rlang's abort(), which in a script adds a backtrace.
abort <- function(message, call, class = NULL) {
  stop(errorCondition(message, class = c(class, "kerasoptimizers_error"),
                      call = rlang::error_call(call)))
}
