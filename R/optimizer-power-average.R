# The rows of a table can't be broken.
# nolint start: line_length_linter.

#' Power averages: widen with training, and choose the width afterwards
#'
#' An optimizer that wraps another one, the inner optimizer, and keeps averages of the weights that widen as
#' training goes on: after twice the updates an average covers twice as many. It keeps several of different
#' widths. From snapshots of two of them [posthoc_average()] makes the average of any width when training is
#' done, so that you need not guess the width before.
#'
#' After every update `average = average + fraction * (weights - average)`. With t the number of updates made,
#' `fraction = 1 - (1 - 1 / t)^(gamma + 1)`, so that update t counts as `t^gamma`. The first update's weights
#' soon count for nothing, and no warm-up is needed. The width, `sigma_rel`, is the standard deviation of the
#' updates in the average, as a part of all updates so far. The inner optimizer trains as it would alone.
#'
#' Use it with [callback_average_snapshots()] to choose the width after training, or by itself if you don't know how
#' long you will train: an [optimizer_ema()] has a fixed width, which is too long for a short training and too
#' short for a long one.
#'
#' # With keras3 and keras
#' ```r
#' model |> compile(optimizer = optimizer_power_average(optimizer_adam(0.001)),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' model |> fit(x, y, epochs = 20, callbacks = callback_average_snapshots("snapshots"))
#' posthoc_average(model, "snapshots", sigma_rel = 0.15)
#' ```
#'
#' # Widths
#' [average_width()] translates widths. The columns on the right are [optimizer_ema()]s of the same width after 10,000
#' updates.
#'
#' | `sigma_rel` | `gamma` | width after 10,000 updates | `average_decay` | `half_life` |
#' |---|---|---|---|---|
#' | 0.05 | 16.97 | 500 updates | 0.9980 | 347 |
#' | 0.10 | 6.94 | 1000 updates | 0.9990 | 693 |
#' | 0.15 | 3.56 | 1500 updates | 0.99933 | 1040 |
#' | 0.20 | 1.83 | 2000 updates | 0.99950 | 1386 |
#' | 0.25 | 0.72 | 2500 updates | 0.99960 | 1733 |
#' | 0.2887 | 0 | 2887 updates | 0.99965 | 2001 |
#'
#' `0.2887` is `1 / sqrt(12)`, rounded. It is the equal average of all updates, exactly, and no power average is wider.
#'
#' @inheritParams optimizer_swa
#' @param sigma_rel Widths of the averages: different numbers, more than 0 and at most 0.2887. Each takes the
#'   memory of one copy of the weights. The default is that of the paper; widths between and somewhat beyond
#'   the two can be made afterwards.
#' @param shown_width Which of the widths [assign_average_vars()], [swap_weights()], [callback_swap_averages()]
#'   and [callback_average_model_checkpoint()] take: one of `sigma_rel`, or `NULL`, the default, for the first.
#'   You can change it later: `o <- averaging_optimizer(model)`, then `o$shown_width <- 0.1`. The averages are
#'   the slots `"average"`, `"average_2"` and so on of the optimizer's `get_slot()`, in the order of
#'   `sigma_rel`.
#' @inherit optimizer_swa return
#' @section Errors:
#' An argument that is not as described stops with an error of class
#' `kerasoptimizers_error` that names it.
#' @references Karras, Aittala, Lehtinen, Hellsten, Aila and Laine (2024), *Analyzing and Improving the Training
#'   Dynamics of Diffusion Models*, <https://arxiv.org/abs/2312.02696>.
#' @family optimizers
#' @seealso [posthoc_average()] for the average of any width, [assign_average_vars()] for those that were kept.
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile(optimizer_power_average("sgd", sigma_rel = c(0.05, 0.2)), loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' model$fit(x, y, epochs = 10L, verbose = 0L)
#' # Choose one of the widths that were kept.
#' optimizer <- averaging_optimizer(model)
#' optimizer$shown_width <- 0.2
#' assign_average_vars(model)
# nolint end
optimizer_power_average <- function(optimizer, sigma_rel = c(0.05, 0.10), name = "PowerAverage",
                                    shown_width = NULL, clipnorm = NULL, clipvalue = NULL,
                                    decay = NULL, lr = NULL, global_clipnorm = NULL,
                                    check_finite = TRUE) {
  sigma_rel <- widths(sigma_rel)
  if (!is.null(shown_width)) {
    allowed <- paste("one of `sigma_rel`,", toString(format_each(sigma_rel)))
    shown_width <- number(shown_width, allowed, function(x) x %in% sigma_rel, "shown_width",
                          rlang::current_env())
  }
  new_averaging_optimizer(
    "PowerAverage", optimizer,
    sigma_rel = as.list(sigma_rel), shown_width = shown_width,
    name = name, clipnorm = clipnorm, clipvalue = clipvalue, decay = decay, lr = lr,
    global_clipnorm = global_clipnorm, check_finite = check_finite
  )
}

#' Translate the width of an average
#'
#' Gives the width of an average in the words of each method: `sigma_rel` of [optimizer_power_average()],
#' `average_decay` and `half_life` of [optimizer_ema()].
#'
#' The width is the standard deviation of the updates in the average, counted by their weights. An exponential moving
#' average has the same width always: `sqrt(average_decay) / (1 - average_decay)` updates, which is about
#' `half_life / 0.69`. The width of a power average is `sigma_rel` times the number of updates so
#' far. To go from one to the other, give `updates`.
#'
#' Use it to see which decay a width that [plot_posthoc()] found best stands for, or to compare a setting of
#' another library with yours.
#'
#' @param sigma_rel Widths of power averages: numbers, more than 0 and at most 0.2887.
#' @param average_decay Decays per update: numbers more than 0 and less than 1.
#' @param half_life Half-lives in updates: numbers more than 0.
#' @param updates Number of updates: a whole number, 1 or more. `NULL`, the default, for unknown.
#' @returns A data frame with a row for each number that was given, and the columns `sigma_rel`, `gamma` (in
#'   the power average update t counts as `t^gamma`), `average_decay`, `half_life`, `width` (in updates) and
#'   `updates`. `NA` stands for what needs `updates`, and for the `sigma_rel` of an average that is wider than
#'   the equal average of all updates.
#' @section Errors:
#' The function stops if not exactly one of `sigma_rel`, `average_decay` and `half_life` is given, or
#' if a number is not as described.
#' @references Karras et al. (2024), *Analyzing and Improving the Training Dynamics of Diffusion Models*,
#'   <https://arxiv.org/abs/2312.02696>.
#' @family choosing the average afterwards
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("numpy")
#' average_width(sigma_rel = c(0.05, 0.1, 0.2), updates = 10000)
#' average_width(half_life = 700, updates = 10000)
average_width <- function(sigma_rel = NULL, average_decay = NULL, half_life = NULL,
                          updates = NULL) {
  call <- rlang::current_env()
  given <- list(sigma_rel = sigma_rel, average_decay = average_decay, half_life = half_life)
  given <- given[!vapply(given, is.null, NA)]
  if (length(given) != 1) {
    abort_argument("Give exactly one of `sigma_rel`, `average_decay` and `half_life`.", call)
  }
  check <- switch(names(given), sigma_rel = width, half_life = positive, average_decay = between)
  values <- numbers(given[[1]], check, names(given), call)
  updates <- optional(whole, updates, 1)
  translate <- import_ours("kerasoptimizers")$average_width
  rows <- lapply(values, function(value) {
    arguments <- c(stats::setNames(list(value), names(given)), updates = updates)
    found <- call_python(do.call(translate, arguments), call)
    as.data.frame(lapply(found, function(x) if (is.null(x)) NA_real_ else x))
  })
  do.call(rbind, rows)
}
