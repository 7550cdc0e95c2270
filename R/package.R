#' kerasoptimizers: weight averaging optimizers for Keras
#'
#' Optimizers for Keras that average the weights of a model during training. Each one wraps another
#' optimizer, the *inner optimizer*, and takes its place in `compile()`. Callbacks, learning rates and
#' functions for the averages complete them.
#'
#' | function | what it does |
#' |---|---|
#' | [optimizer_swa()] | averages snapshots of the weights with equal weight |
#' | [optimizer_lookahead()] | every few fast steps, one slow step towards them |
#' | [optimizer_ema()] | averages the weights so that recent ones count most |
#' | [optimizer_schedule_free()] | trains without a schedule: gradients near the average |
#' | [optimizer_primal_averaging()] | the same place for gradients, and an average in which recent weights count most |
#' | [optimizer_power_average()] | keeps averages that widen with training |
#' | [callback_average_snapshots()], [posthoc_average()] | choose the width of the average after training |
#' | [plot_posthoc()], [average_width()] | a metric against the width, and widths in other words |
#' | [optimizer_lars()] | a learning rate for each layer, for large batches; averages nothing |
#' | [callback_swa()] | averages the weights by epochs, with any optimizer |
#' | [callback_swag()] | collects a Gaussian over the weights, with any optimizer |
#' | [predict_samples()], [predict_interval()] | predict with uncertainty: draws, intervals, probabilities |
#' | [collect_snapshot()], [with_sample()], [save_posterior()], [load_posterior()] | work with a posterior |
#' | [loss_gaussian_nll()] | the loss of a network that predicts mean and variance |
#' | [measure_probabilities()], [measure_predictions()], [noise_variance()] | say how honest predictions are |
#' | [fit_temperature()], [apply_temperature()] | make a classifier's probabilities honest |
#' | [plot_calibration()] | shows reliability of probabilities and coverage of intervals |
#' | [callback_lawa()] | averages the latest snapshots, with any optimizer |
#' | [callback_swap_averages()] | validates and predicts with the averages |
#' | [callback_average_model_checkpoint()] | saves models that hold the averages |
#' | [learning_rate_schedule_swa()] | learning rates that suit averaging |
#' | [assign_average_vars()] | puts the averages into a model's weights |
#' | [with_averages()] | shows the averages while an expression runs |
#' | [swap_weights()] | exchanges a model's weights and averages |
#' | [update_batch_norm()] | recomputes batch-norm statistics for the weights of a model |
#' | [average_models()], [greedy_soup()], [interpolate_models()], [model_stock()] | average finished models and files |
#' | [average_checkpoints()] | averages the newest or the best checkpoints of a folder |
#' | [callback_average_early_stopping()] | stops when the averages get no better, and restores the best of them |
#' | [shadow_copy()], [has_shadow_copy()] | create the averages before training |
#' | [averaging_optimizer()] | finds the averaging optimizer of a model |
#' | [print()][print.kerasoptimizers] and summary() | say how far an optimizer has come |
#' | [as.data.frame()][as.data.frame.callback_swa] | returns the record of [callback_swa()] |
#' | [plot()][plot.kerasoptimizers] | shows learning rates and averaging moments |
#' | [plot_averaging()] | shows metrics of weights and averages side by side |
#' | [plot_loss_plane()] | shows the loss over the plane through three weight vectors |
#' | [optimizer_moving_average()], [lookahead_mechanism()] | names of the R package tfaddons |
#' | [install_kerasoptimizers()] | installs the Python packages |
#'
#' @section Which Keras:
#' The package works with Keras 3 (R package keras3, or Python `keras`) and with
#' Keras 2 (R package keras, or Python `tf_keras`). The object that you give to a function decides:
#' with an inner optimizer of Keras 2 you get an optimizer for Keras 2. A name such as `"sgd"`,
#' a callback or a number as learning rate decide nothing. For these the package asks, in this order:
#'
#' 1. the option `kerasoptimizers.keras`, which is `"keras3"` or `"keras"`;
#' 2. which of the R packages keras3 and keras is attached, if only one is;
#' 3. the environment variable `TF_USE_LEGACY_KERAS` (`1` or `true` mean Keras 2; the R package keras
#'    sets it).
#'
#' Otherwise it is Keras 3.
#'
#' @section Python:
#' Loading the package does not start Python. The reticulate package starts it when a function first
#' needs it (see [reticulate::use_python()]). With reticulate 1.41 or newer the package
#' declares the Python packages that it needs, and reticulate can install them by itself. Once the package
#' is loaded, Keras can load models that were saved with one of its optimizers.
#'
#' With reticulate older than 1.37, interrupting a training (Ctrl-C, Esc or the stop button) can crash
#' R: these versions let R jump over Python's stack. Use a newer one if you interrupt trainings.
#'
#' @section Errors:
#' A wrong argument stops with one line that names it, before anything is changed. The condition has the
#' class `kerasoptimizers_error`, and also `kerasoptimizers_argument_error` if R itself found the
#' mistake. Mistakes that only show during training are errors of `fit()`. If Python, Keras or a version is
#' missing, the error says where the package looked and which command helps.
#'
#' @section Warnings:
#' Warnings of this package are R warnings of the class `kerasoptimizers_warning`, even if Python found the
#' reason. A warning that comes up in the middle of `fit()`, or of another function that runs Python, is signalled
#' when that function returns: R can't leave a function that Python is in. With `options(warn = 2)` the training is done
#' then. Warnings of Keras and TensorFlow stay what they are, lines of text.
#'
#' @section Options:
#' * `kerasoptimizers.keras`: `"keras3"` or `"keras"`, see above.
#'
#' @section Examples of the help pages:
#' They need no other R package than reticulate: they call Python's Keras 3, as `keras <- reticulate::import("keras")`.
#' Run them in a session where `library(keras)` is not attached, because with it `"sgd"` and the callbacks mean Keras 2.
#'
#' @section Next step:
#' `vignette("kerasoptimizers")` trains, averages, evaluates and saves a model, with keras3 and with keras, and has a
#' table of the calls that differ.
#'
#' @keywords internal
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_swa("sgd", start_averaging = 10, average_period = 1), loss = "mse")
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' model$optimizer
#' assign_average_vars(model)
"_PACKAGE"

.onLoad <- function(libname, pkgname) {
  register_methods_for_keras()
  # Loading reticulate takes most of a second, so it is loaded only when it is needed.
  if (isNamespaceLoaded("reticulate")) {
    prepare_reticulate()
  } else {
    setHook(packageEvent("reticulate", "onLoad"), function(...) prepare_reticulate())
  }
}

prepare_reticulate <- function() {
  declare_python_packages()
  # Keras can only load a saved optimizer whose class is registered.
  on_python_load("keras", function() python_module("keras3"))
  on_python_load("tf_keras", function() python_module("keras"))
}

# The Python module of a generation, named as the option names it.
modules <- c(keras3 = "kerasoptimizers.keras3", keras = "kerasoptimizers.tf_keras")
keras_modules <- c(keras3 = "keras", keras = "tf_keras")
keras_names <- c(keras3 = "Keras 3", keras = "Keras 2")

# Like py_register_load_hook(), which in reticulate 1.28 starts Python. A hook that fails is
# silent: the user, who only loads Keras, may not need this package.
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
  imported <- reticulate::import_from_path(
    module, path = system.file("python", package = "kerasoptimizers")
  )
  hear_python()
  make_known()
  imported
}

# Registers our classes again, because Keras forgets them when its custom objects are cleared. It
# takes microseconds, so every function does it.
make_known <- function() {
  known <- reticulate::py_eval(
    "lambda names: [m.register() for m in map(__import__('sys').modules.get, names) if m]"
  )
  known(as.list(unname(modules)))
  invisible()
}

# Calls one of our Python functions or classes. The arguments are checked first, so that a wrong one
# does not start Python.
call_ours <- function(name, generation, arguments, call = rlang::caller_env()) {
  force(arguments)
  module <- python_module(generation, call)
  functions <- vapply(arguments, function(x) is.function(x) && !is_python(x), NA)
  arguments[functions] <- lapply(arguments[functions], as_generator)
  call_python(do.call(module[[name]], arguments), call)
}

# A Python generator of the batches that a function returns, until it returns NULL. As in
# fit(), a list is inputs, then targets, then weights.
as_generator <- function(next_batch) {
  as_tuple <- function() {
    batch <- next_batch()
    if (is.null(batch) || is_python(batch)) return(batch)
    parts <- if (is_plain_list(batch)) batch else list(batch)
    reticulate::tuple(lapply(unname(parts), as_part))
  }
  as_part <- function(part) {
    if (is.data.frame(part)) frame_columns(part, "x", NULL) else
      if (is_plain_list(part)) lapply(part, as_array) else as_array(part)
  }
  # Not py_iterator(), in which a function that fails only ends the data.
  reticulate::import_builtins(convert = FALSE)$iter(as_tuple, NULL)
}

# Runs a Python call. Python's error about an argument becomes one line, with the argument's name in
# R in place of its name in Python; its warnings become R warnings.
call_python <- function(expr, call = rlang::caller_env(), rename = NULL) {
  with_warnings(tryCatch(expr, error = function(e) python_error(e, call, rename)), call)
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
