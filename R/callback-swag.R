#' SWAG: predictions with uncertainty from one training
#'
#' A callback for `fit()` that collects a Gaussian over the weights while the model trains (SWAG, Maddox et al. 2019).
#' [predict_samples()] then predicts with weights drawn from it, and [predict_interval()] turns these
#' predictions into intervals and probabilities.
#'
#' At the end of epoch `start_epoch`, and then every `freq` epochs, the callback takes a snapshot of the trainable
#' weights. It keeps their mean, their variance, and the last `rank` deviations from the mean, which say how weights
#' vary together. It does not change the training or the weights that the model ends with. Don't combine it with
#' [callback_swa()]: its mean is SWA's average, and `scale = 0` in [predict_samples()] predicts with it.
#'
#' Let the model train until it is nearly done, and then collect at a learning rate that is high enough for the
#' weights to move: `lr_schedule = "constant"` sets one, as in [callback_swa()]. Twenty snapshots are usual.
#' `rank = 0` keeps a diagonal covariance only; draw with `scale = 1` then.
#'
#' The callback is the posterior: keep it, and give it to [predict_interval()]. For a Multi-SWAG, train several
#' models, each with a callback, and give the list of them.
#'
#' # With keras3 and keras
#' ```r
#' swag <- callback_swag(30, lr_schedule = "constant", swa_lr = 0.01)
#' model |> fit(x, y, epochs = 50, callbacks = swag)
#' predict_interval(model, swag, x_test, type = "conf_int")
#' ```
#'
#' @section Memory:
#' Mean and variance are computed in double precision (Welford's recursion), the deviations are kept in single
#' precision. Together they take `rank + 4` times the memory of the weights, beside the model and not on its
#' GPU, and for a moment at each snapshot another 4 times.
#' @section Training in several sessions:
#' With `backup_dir` a training that stopped, or was killed, can go on in another R session, as described for
#' [callback_swa()]. The folder holds all snapshots after each of the last two epochs, so it can be large.
#'
#' A `fit()` with an `initial_epoch` of at least `start_epoch` goes on with the same callback. A `fit()`
#' that begins earlier starts collecting anew.
#'
#' @param start_epoch The first epoch, counted from 1 as `fit()` prints them, whose weights are collected: a whole
#'   number, 2 or more, and lower than the `epochs` of `fit()`. `NULL` is for [collect_snapshot()] without `fit()`.
#' @param rank Number of deviations to keep: a whole number, 0 or more.
#' @param freq Number of epochs from one snapshot to the next: a whole number, 1 or more. With
#'   `"cyclic"` it is also the length of a cycle, and 2 or more.
#' @param lr_schedule `"manual"`, `"constant"` or `"cyclic"`, as in [callback_swa()].
#' @param swa_lr,swa_lr2 Learning rates, as in [callback_swa()].
#' @param verbose `0` (or `FALSE`) for silence, `1` (or `TRUE`) for messages.
#' @param backup_dir A folder for this training alone: a string. `NULL`, the default, saves nothing.
#' @param snapshot_epoch After which of `freq` epochs a snapshot is taken: `"first"`, the default, or `"last"`,
#'   where the rate of a cycle is lowest.
#' @returns A Python callback for `fit()` of the R package keras3 or keras (see [kerasoptimizers-package] for
#'   which). `$snapshots` is the number of snapshots; `$mean`, `$variance` and `$deviations` are lists with an array
#'   for each trainable weight. [print()][print.posterior], summary() and plot() say more.
#' @section Next step:
#' [predict_interval()] makes intervals and probabilities; [measure_predictions()] and
#' [plot_calibration()] say how honest they are. [print()][print.posterior] shows whether the snapshots
#' differ enough.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. An argument that does not fit the
#' `epochs`, the optimizer's rate or the snapshots in `backup_dir` stops `fit()` before it trains. A snapshot
#' with a weight that is not finite is left out, with a warning.
#' @references Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#'   <https://arxiv.org/abs/1902.02476>.
#' @family uncertainty
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(100)
#' swag <- callback_swag(start_epoch = 5)
#' model$fit(x, y, epochs = 15L, verbose = 0L, callbacks = list(swag))
#' swag
#' head(predict_interval(model, swag, x, verbose = 0))
callback_swag <- function(start_epoch, rank = 20, freq = 1, lr_schedule = "manual", swa_lr = "auto",
                          swa_lr2 = "auto", verbose = 0, backup_dir = NULL, snapshot_epoch = "first") {
  generation <- default_generation(rlang::current_env())
  if (missing(start_epoch)) {
    refuse("start_epoch", "a whole number >= 2", start_epoch, rlang::current_env())
  }
  callback <- call_ours("SWAG", generation, list(
    start_epoch = optional(whole, start_epoch, 2),
    rank = whole(rank, 0),
    freq = whole(freq, 1),
    lr_schedule = choice(lr_schedule, c("manual", "constant", "cyclic")),
    swa_lr = not_negative(swa_lr, word = "auto"),
    swa_lr2 = optional(not_negative, swa_lr2, word = "auto"),
    verbose = choice(verbose, c(0, 1)),
    backup_dir = if (!is.null(backup_dir)) path.expand(string(backup_dir)),
    snapshot_epoch = choice(snapshot_epoch, c("first", "last"))
  ))
  # R's plot() and as.data.frame() of a history need one value for each epoch.
  callback$history_by_epoch <- TRUE
  callback
}

#' Work with a posterior
#'
#' `collect_snapshot()` takes one snapshot of a model's weights by hand, for a training loop of your own.
#' `with_sample()` runs code while the model holds weights drawn from the posterior. `save_posterior()` and
#' `load_posterior()` keep a posterior in a file.
#'
#' A posterior is what [callback_swag()] returns. After `with_sample()` the model has its own weights and batch-norm
#' statistics again, bit for bit, even after an error or an interrupt. In a model with batch norm, call
#' [update_batch_norm()] first in `code`: the statistics belong to the weights. `scale = 0` gives the mean of the
#' snapshots, which is SWA's average.
#'
#' # With keras3 and keras
#' ```r
#' swag <- callback_swag(NULL)
#' for (i in 1:20) {
#'   model |> fit(x, y, epochs = 1)
#'   collect_snapshot(swag, model)
#' }
#' save_posterior(swag, "posterior.npz")
#' with_sample(swag, model, evaluate(model, x_test, y_test))
#' ```
#'
#' @param posterior A callback of [callback_swag()].
#' @param model A built Keras model. From the second snapshot on it must have the weights of the first one: their
#'   names (without the numbers that Keras gives) and shapes. For `load_posterior()` also `NULL`, the
#'   default: then the weights are checked when you use the posterior.
#' @param code Code to run.
#' @param scale What multiplies the covariance: a number, 0 or more.
#' @param seed Seed of the draw: a whole number, 0 or more. `NULL`, the default, takes one from R's random numbers, so
#'   that `set.seed()` makes it repeatable.
#' @param path Path of a file: a string. It usually ends in `.npz`. The file holds numbers and settings only, and
#'   replaces an older one only once it is complete.
#' @returns `collect_snapshot()` and `save_posterior()` return `posterior`, invisibly, `load_posterior()` a posterior
#'   that can also go on collecting, `with_sample()` the value of `code`.
#' @section Errors:
#' The functions stop and change nothing if an argument is not as described, if the model has other weights than
#' the snapshots, or if there are too few snapshots. `load_posterior()` also stops if the file is
#' damaged.
#' @references Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#'   <https://arxiv.org/abs/1902.02476>.
#' @family uncertainty
#' @name posterior
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Input(list(2L)), keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1) + rnorm(100)
#' swag <- callback_swag(NULL)
#' for (i in 1:5) {
#'   model$fit(x, y, epochs = 1L, verbose = 0L)
#'   collect_snapshot(swag, model)
#' }
#' with_sample(swag, model, model$evaluate(x, y, verbose = 0L))
#' file <- tempfile(fileext = ".npz")
#' save_posterior(swag, file)
#' load_posterior(file)
NULL

#' @rdname posterior
#' @export
collect_snapshot <- function(posterior, model) {
  call_python(a_posterior(posterior)$collect(a_model(model)))
  invisible(posterior)
}

#' @rdname posterior
#' @export
with_sample <- function(posterior, model, code, scale = 0.5, seed = NULL) {
  sample <- call_python(a_posterior(posterior)$sample(
    a_model(model), scale = not_negative(scale), seed = drawn_seed(seed)
  ))
  on.exit(sample$`__exit__`())
  sample$`__enter__`()
  force(code)
}

#' @rdname posterior
#' @export
save_posterior <- function(posterior, path) {
  call_python(a_posterior(posterior)$save(path.expand(string(path))))
  invisible(posterior)
}

#' @rdname posterior
#' @export
load_posterior <- function(path, model = NULL) {
  path <- path.expand(string(path))
  if (!file.exists(path)) {
    abort_argument(sprintf("`path` must be a file, and there is no %s.", describe(path)),
                   rlang::current_env())
  }
  if (!is.null(model)) a_model(model)
  generation <- if (is.null(model)) default_generation(rlang::current_env()) else model_generation(model)
  posterior <- call_python(python_module(generation)$SWAG$load(path, model))
  posterior$history_by_epoch <- TRUE
  posterior
}

is_posterior <- function(x) "kerasoptimizers.SWAG" %in% python_classes(x)

a_posterior <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !is_posterior(x)) refuse(name, "a callback of callback_swag()", x, call)
  x
}

a_model <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !is_model(x)) refuse(name, "a Keras model", x, call)
  x
}

# R's own random numbers decide, so that set.seed() makes draws repeatable.
drawn_seed <- function(seed, call = rlang::caller_env()) {
  if (is.null(seed)) sample.int(.Machine$integer.max, 1L) else whole(seed, 0, call = call)
}

# print(), summary(), plot() ---------------------------------------------------

#' Look at a posterior
#'
#' `print()` says in a few lines what a [callback_swag()] has collected. `summary()` has a row for each weight of the
#' model. `plot()` shows how much draws from the posterior vary, weight by weight.
#'
#' Use them to check that the snapshots differ: if the deviations are tiny against the weights, the learning rate
#' was too low while they were taken, and intervals will be too narrow.
#'
#' @param x,object A callback of [callback_swag()]; for `print()` and `as.data.frame()` also the result of
#'   `summary()`.
#' @param scale Scale of the draws, as in [predict_samples()]: a number, 0 or more.
#' @param row.names,optional Not used.
#' @param ... Not used, except by `plot()`: labels and limits, as in [plot()][plot.kerasoptimizers] of an optimizer.
#' @returns `print()` returns `x`, invisibly. `summary()` returns a list of class `kerasoptimizers_posterior_summary`
#'   with `settings`, `snapshots`, `rank`, `columns` (number of deviations kept so far), `memory` (bytes) and
#'   `weights`: a data frame with a row for each weight of the model and the columns `name`, `shape`, `size`, `norm`
#'   (root mean square of the mean), `deviation` (median standard deviation of the draws), `q05`, `q25`, `q75`, `q95`
#'   (other quantiles of it) and `low_rank` (share of the draws' variance that the deviations give). `plot()` returns
#'   a ggplot with that data frame as its `$data`.
#'
#'   `as.data.frame()` of the callback has the columns of that of [callback_swa()].
#' @inheritSection plot.kerasoptimizers Pictures
#' @section Errors:
#' `summary()` and `plot()` stop for an object of an R session that has ended; `print()` says so. `plot()`
#' also stops before the first snapshot.
#' @references Maddox et al. (2019), *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#'   <https://arxiv.org/abs/1902.02476>.
#' @family uncertainty
#' @name print.posterior
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' swag <- callback_swag(start_epoch = 5)
#' swag
NULL

#' @rdname print.posterior
#' @method print kerasoptimizers.SWAG
#' @export
print.kerasoptimizers.SWAG <- function(x, ...) {
  if (!is_live_python(x)) {
    print_dead(x)
    return(invisible(x))
  }
  found <- summary(x)
  print_title(found$method)
  print_line("Settings", format_settings(found$settings))
  print_line("Snapshots", c(
    format_count(found$snapshots), sprintf("of which %s as deviations", format_count(found$columns))
  ))
  if (found$snapshots > 0) {
    print_line("Weights", c(
      format_long(sum(found$weights$size)), sprintf("in %d arrays", nrow(found$weights)),
      paste("memory", format_bytes(found$memory))
    ))
  }
  invisible(x)
}

#' @rdname print.posterior
#' @method summary kerasoptimizers.SWAG
#' @export
summary.kerasoptimizers.SWAG <- function(object, scale = 0.5, ...) {
  live(object, "callback")
  facts <- import_ours("kerasoptimizers.facts")$posterior_facts(object, not_negative(scale))
  quantiles <- matrix(as.numeric(unlist(facts$deviations)), ncol = 5, byrow = TRUE)
  share <- vapply(facts$low_rank, function(x) if (is.null(x)) NA_real_ else as.numeric(x), 0)
  weights <- data.frame(
    name = as.character(unlist(facts$names)), shape = as.character(unlist(facts$shapes)),
    size = as.numeric(unlist(facts$sizes)), norm = as.numeric(unlist(facts$norms)),
    deviation = quantiles[, 3], q05 = quantiles[, 1], q25 = quantiles[, 2], q75 = quantiles[, 4],
    q95 = quantiles[, 5], low_rank = share
  )
  settings <- c("start_epoch", "rank", "freq", "lr_schedule", "swa_lr", "swa_lr2", "snapshot_epoch")
  settings <- sapply(settings, function(name) object[[name]], simplify = FALSE)
  structure(list(
    method = "SWAG", settings = Filter(Negate(is.null), settings), snapshots = facts$snapshots,
    rank = facts$rank, columns = facts$columns, memory = facts$bytes, weights = weights
  ), class = "kerasoptimizers_posterior_summary")
}

#' @rdname print.posterior
#' @export
print.kerasoptimizers_posterior_summary <- function(x, ...) {
  print_title(x$method)
  print_line("Settings", format_settings(x$settings))
  print_line("Snapshots", c(
    format_count(x$snapshots), sprintf("of which %s as deviations", format_count(x$columns))
  ))
  if (x$snapshots > 0) {
    shown <- x$weights[c("name", "shape", "norm", "deviation", "low_rank")]
    print(format(shown, digits = 3), row.names = FALSE, right = FALSE)
  }
  invisible(x)
}

#' @rdname print.posterior
#' @export
as.data.frame.kerasoptimizers_posterior_summary <- function(x, row.names = NULL, optional = FALSE, ...) {
  x$weights
}

#' @rdname print.posterior
#' @method as.data.frame kerasoptimizers.SWAG
#' @export
as.data.frame.kerasoptimizers.SWAG <- function(x, row.names = NULL, optional = FALSE, ...) {
  as.data.frame.kerasoptimizers.SWACallback(x)
}

#' @rdname print.posterior
#' @method plot kerasoptimizers.SWAG
#' @export
plot.kerasoptimizers.SWAG <- function(x, scale = 0.5, ...) {
  require_ggplot2()
  settings <- base_settings(...)
  found <- summary(x, scale = scale)
  if (found$snapshots == 0) {
    abort("There is nothing to show: the callback has no snapshots yet.", rlang::current_env())
  }
  .data <- rlang::.data
  weights <- found$weights
  # In the model's order, from the top.
  weights$name <- factor(weights$name, rev(unique(weights$name)))
  ggplot2::ggplot(weights, ggplot2::aes(y = .data$name)) +
    ggplot2::geom_linerange(ggplot2::aes(xmin = .data$q05, xmax = .data$q95), color = colors[["weights"]],
                            linewidth = 0.8) +
    ggplot2::geom_linerange(ggplot2::aes(xmin = .data$q25, xmax = .data$q75), color = colors[["weights"]],
                            linewidth = 2.5) +
    ggplot2::geom_point(ggplot2::aes(x = .data$deviation), shape = 21, color = "white",
                        fill = colors[["averages"]], size = 3) +
    ggplot2::expand_limits(x = 0) +
    ggplot2::labs(
      title = paste("How much draws vary:", format_count(found$snapshots), "snapshots, scale", scale),
      subtitle = "Median, middle half and middle 90 % within each array",
      x = "standard deviation", y = NULL
    ) +
    picture_theme() +
    settings
}

#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SWAG <- function(object, ...) plot(object, ...) # nolint: object_name_linter.
