#' Averages of finished models and of files
#'
#' These functions average models that are trained already: models in the session, or their files.
#' `average_models()` takes the mean of all of them (a uniform soup). `greedy_soup()` takes only those that make the
#' mean better. `interpolate_models()` goes part of the way from one model to another, and `model_stock()` from
#' the model that all began from. `average_checkpoints()` averages the newest or the best files of one training.
#'
#' The models must have been trained from the same start, for example fine-tuned from one model with different
#' settings or seeds, or be checkpoints of one training. The mean of models that were trained from different random
#' weights is of no use. `average_models()` is the simplest. `greedy_soup()` is safer where some models
#' are bad: on the held-out data it is never worse than the best single model. `model_stock()` needs only
#' two or three models, if you still have the one they began from.
#'
#' The result is a new model, compiled with the settings of the first one; its optimizer starts afresh. The models
#' and files stay as they are. Means are computed in float64 and rounded once. Seeds and counters are
#' the first model's. Files are read piece by piece, so any number of them takes the memory
#' of little more than one model. The functions write temporary files of the size of one model to Python's `tempdir`.
#'
#' # With keras3 and keras
#' ```r
#' model <- average_checkpoints("saves", n = 5, metric = "val_loss")
#' model |> evaluate(x_test, y_test)
#'
#' soup <- greedy_soup(list(model_1, model_2, "model_3.keras"), function(model) {
#'   evaluate(model, x_valid, y_valid, verbose = 0)[["accuracy"]]
#' })
#' soup$soup$chosen
#' ```
#'
#' @section Batch normalization:
#' The mean of batch-norm statistics fits no weights at all. Give `data`, the training inputs, and the statistics are
#' recomputed as by [update_batch_norm()]. Without `data` a warning says that they are not. `greedy_soup()`
#' recomputes them before it scores a mean.
#'
#' @section Files:
#' A path is that of a model (`.keras`, or `.h5` and `.hdf5` as `save_model_hdf5()` writes them) or of
#' weights (`.weights.h5`). With Keras 2 it may also be a checkpoint or a folder in TensorFlow's format. A list may hold
#' models and paths together, but all must be of one Keras. Files of weights hold no architecture: if there is neither a
#' model nor a model's file in the list, give `into`.
#'
#' All models must be alike: weights of the same names and shapes, layers of the same classes, names, activations,
#' strides and paddings. Numbers at the end of names don't count (`dense_7` is `dense`), nor do dropout and
#' other layers that act in training only.
#'
#' @section Metrics in file names:
#' For `average_checkpoints()` the value of `metric` can follow its name, as in `"model-03-val_loss=0.412.keras"`.
#' If the files were written by a callback with
#' `filepath = "model-{epoch:02d}-{val_loss:.3f}.keras"`, give that as `pattern`. Lower is better for
#' losses and errors, higher for accuracies, AUC and the like. For other names, give `mode`.
#'
#' @param models A list of built Keras models and paths (or a character vector of paths), in any mix.
#' @param weights Numbers, 0 or more, one for each model and not all 0. They are divided by their sum. `NULL`, the
#'   default, weighs all alike.
#' @param into A built model that gets the result and is returned. `NULL`, the default, makes a new model like the
#'   first.
#' @param data Inputs to recompute batch norm with: an array, a list of arrays for several inputs, or a
#'   Python data set. `NULL`, the default, leaves the mean of the statistics.
#' @param batch_size Number of examples in a batch of `data`: a whole number, 1 or more.
#' @param progress `TRUE` or `FALSE`: whether to show a progress bar if the work takes more than a moment. The
#'   default is `TRUE` in interactive sessions.
#' @param a,b Two models or paths.
#' @param fraction How far to go from `a` (0) to `b` (1): a number from 0 to 1.
#' @param method `"linear"` for the straight line between the weights. `"slerp"` for the arc between them, for each
#'   array as one vector; where two arrays are almost parallel it is the line.
#' @param score A function of a model that returns one number, such as the accuracy on held-out data. Don't use the
#'   test set: the choice would fit to it. `NaN` stands for a model that failed.
#' @param mode `"max"` if higher is better, `"min"` if lower is better. `average_checkpoints()` also has
#'   `"auto"`: by the name of the metric, and `"max"` for a function.
#' @param base The model or path that all models began from.
#' @param filter_wise `TRUE` or `FALSE`: whether to take one angle for each output of a layer instead of one for each
#'   array.
#' @param directory A folder: a string. Its subfolders and hidden files don't count.
#' @param n How many checkpoints to average: a whole number, 1 or more. If there are fewer, all are averaged, with a
#'   warning.
#' @param metric `NULL`, the default, for the newest files. Or which are the best: the name of a
#'   metric whose value is in the file names, or a function of a model that returns one number.
#' @param pattern The `filepath` with which the files were written: a string. Only files that fit it count.
#' @returns The model with the average: a new one, or `into`. The result of `greedy_soup()` has an element `soup`:
#'   a list of `chosen` (the numbers of the chosen models, best first), `scores` (of the single models) and `score`
#'   (of the soup). For `average_checkpoints()` it is a list of `files` and `scores`. It is not saved with the model.
#' @section Next step:
#' Evaluate the result on data that took no part in the choice, and save it like any other model.
#' @section Errors:
#' The functions stop if an argument is not as described, if a file is torn or was not written by Keras, if the models
#' are not alike or their weights are not finite. Nothing is changed then: `into` keeps its weights.
#' @references Wortsman et al. (2022), *Model soups: averaging weights of multiple fine-tuned models improves accuracy
#'   without increasing inference time*, <https://arxiv.org/abs/2203.05482>.
#'
#'   Wortsman et al. (2022), *Robust fine-tuning of zero-shot models*, <https://arxiv.org/abs/2109.01903>, for
#'   `interpolate_models()`.
#'
#'   Jang et al. (2024), *Model Stock: All we need is just a few fine-tuned models*, <https://arxiv.org/abs/2403.19522>.
#' @family averages
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' start <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' start$compile("sgd", loss = "mse")
#' models <- lapply(1:3, function(i) {
#'   model <- average_models(list(start))
#'   model$fit(x, y, epochs = i, verbose = 0L)
#'   model
#' })
#' mean <- average_models(models)
#' soup <- greedy_soup(models, function(model) model$evaluate(x, y, verbose = 0L), mode = "min")
#' soup$soup
average_models <- function(models, weights = NULL, into = NULL, data = NULL, batch_size = 32,
                           progress = rlang::is_interactive()) {
  models <- model_list(models)
  weights <- optional(model_weights, weights)
  call_soup("average_models", c(models, into), list(models, weights), into, data, batch_size, progress)
}

#' @rdname average_models
#' @export
interpolate_models <- function(a, b, fraction, method = "linear", into = NULL, data = NULL, batch_size = 32,
                               progress = rlang::is_interactive()) {
  models <- list(model_or_path(a), model_or_path(b))
  arguments <- c(models, list(fraction(fraction), choice(method, c("linear", "slerp"))))
  call_soup("interpolate_models", c(models, into), arguments, into, data, batch_size, progress)
}

#' @rdname average_models
#' @export
greedy_soup <- function(models, score, mode = "max", into = NULL, data = NULL, batch_size = 32,
                        progress = rlang::is_interactive()) {
  models <- model_list(models)
  score <- function_of_model(score)
  mode <- choice(mode, c("max", "min"))
  soup <- call_soup("greedy_soup", c(models, into), list(models, score, mode), into, data, batch_size, progress)
  # R counts from 1.
  count <- "lambda model: model.soup.update(chosen=[i + 1 for i in model.soup['chosen']])"
  reticulate::py_eval(count)(soup)
  soup
}

#' @rdname average_models
#' @export
model_stock <- function(models, base, filter_wise = FALSE, into = NULL, data = NULL, batch_size = 32,
                        progress = rlang::is_interactive()) {
  models <- model_list(models)
  base <- model_or_path(base)
  arguments <- list(models, base, flag(filter_wise))
  call_soup("model_stock", c(models, base, into), arguments, into, data, batch_size, progress)
}

#' @rdname average_models
#' @export
average_checkpoints <- function(directory, n = 5, metric = NULL, mode = "auto", pattern = NULL, into = NULL,
                                data = NULL, batch_size = 32, progress = rlang::is_interactive()) {
  directory <- path.expand(string(directory))
  arguments <- list(
    directory, whole(n, 1), optional(metric_or_function, metric), mode = choice(mode, c("auto", "min", "max")),
    pattern = optional(string, pattern)
  )
  files <- as.list(list.files(directory, full.names = TRUE))
  call_soup("average_checkpoints", c(files, into), arguments, into, data, batch_size, progress)
}

# Calls one of these functions with the arguments that all of them have.
call_soup <- function(name, models, arguments, into, data, batch_size, progress, call = rlang::caller_env()) {
  if (!is.null(into) && !is_model(into)) refuse("into", "a built Keras model", into, call)
  common <- list(
    into = into,
    data = data_or_null(data, call = call),
    batch_size = whole(batch_size, 1, name = "batch_size", call = call),
    progress = if (flag(progress, "progress", call)) as_python_function(progress_bar(environment()))
  )
  call_ours(name, generation_of_soup(models, call), c(arguments, common), call)
}

# A model among them says which Keras is meant, then a file.
generation_of_soup <- function(models, call) {
  for (generation in c(lapply(models, model_generation), lapply(models, file_generation))) {
    if (!is.null(generation)) return(generation)
  }
  default_generation(call)
}

# The Keras that wrote a file; NULL where the file doesn't say so to R.
file_generation <- function(path) {
  if (!is_name(path)) return(NULL)
  tensorflow <- c(paste0(path, ".index"), file.path(path, "saved_model.pb"))
  if (endsWith(path, ".index") || any(file.exists(tensorflow))) return("keras")
  if (!endsWith(path, ".keras") || !utils::file_test("-f", path)) return(NULL)
  # Its first entry, which Keras does not compress: unz() can't read what Python writes in pieces.
  start <- readBin(path, "raw", 1000)
  text <- rawToChar(start[start >= as.raw(32) & start < as.raw(127)])
  found <- regmatches(text, regexpr('"keras_version": *"[0-9]', text))
  switch(sub(".*\"", "", c(found, "")[[1]]), "2" = "keras", "3" = "keras3")
}

# Models and paths ---------------------------------------------------------------

model_list <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  allowed <- "a list of Keras models and paths"
  if (missing(x)) refuse(name, allowed, x, call)
  if (is.character(x) && !is.object(x)) x <- as.list(unname(x))
  if (!is_plain_list(x) || length(x) == 0 || !all(vapply(x, is_model_or_path, NA))) {
    refuse(name, allowed, x, call, is_model_or_path)
  }
  lapply(unname(x), expanded)
}

model_or_path <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !is_model_or_path(x)) refuse(name, "a Keras model or a path", x, call)
  expanded(x)
}

is_model_or_path <- function(x) is_name(x) || is_model(x)

expanded <- function(x) if (is.character(x)) path.expand(x) else x

model_weights <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is.numeric(x) || is.object(x) || length(x) == 0 || !all(is.finite(x)) || any(x < 0)) {
    refuse(name, "numbers >= 0, one for each model", x, call)
  }
  as.list(as.double(x))
}

# Functions ----------------------------------------------------------------------

function_of_model <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !is.function(x)) refuse(name, "a function of a model that returns a number", x, call)
  as_python_function(x)
}

metric_or_function <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (is.function(x)) return(as_python_function(x))
  if (!is_name(x)) refuse(name, "the name of a metric or a function of a model", x, call)
  x
}

# Without this, call_ours() makes a generator of it.
as_python_function <- function(x) if (is_python(x)) x else reticulate::r_to_py(x, convert = TRUE)

# A function for Python that shows how far it has come, in a bar that ends with the frame.
progress_bar <- function(frame) {
  bar <- NULL
  function(done, total) {
    if (!show_progress(TRUE)) return(NULL)
    if (is.null(bar)) bar <<- cli::cli_progress_bar("Averaging", total = total, .envir = frame)
    cli::cli_progress_update(set = done, id = bar, .envir = frame)
    NULL
  }
}
