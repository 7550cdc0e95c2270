#' Plot learning rates and averaging moments
#'
#' Plots the learning rate of each update, and marks the updates after which the average moves.
#' With [optimizer_swa()] these are the snapshots.
#'
#' For an averaging optimizer or a schedule of [learning_rate_schedule_swa()] the picture shows what is
#' planned. Look at it before training, to see whether schedule and optimizer fit together: in a cyclic
#' schedule, for example, every snapshot should come at the end of a cycle. A schedule does not
#' know how often an optimizer averages; `average_period` tells it. For [optimizer_lars()], which averages
#' nothing, the picture shows the learning rate alone.
#'
#' For [callback_swa()] the picture shows what happened in the latest `fit()`. With
#' `lr_schedule = "manual"` the callback sets no learning rates, and the picture shows the number of
#' snapshots instead.
#'
#' `plot(model$optimizer)` works in mixed precision, too, where Keras puts a `LossScaleOptimizer` around the
#' optimizer. For a compiled model call `autoplot(model)`: `plot(model)` of the R packages keras3 and keras draws the
#' model's layers.
#'
#' @param x An optimizer of this package, such as [optimizer_swa()] returns, a schedule of
#'   [learning_rate_schedule_swa()], or after `fit()` a callback of [callback_swa()]. For `autoplot()` also
#'   a model compiled with such an optimizer.
#' @param updates Number of updates to show: a whole number, 1 or more. `NULL`, the default, shows
#'   twice the updates before averaging starts, or enough for ten moves of the average if that is more, and at least
#'   those that were made. For [optimizer_lars()], which averages nothing, it shows at least 1001 updates.
#' @param average_period Number of updates from one snapshot to the next: a whole number, 1 or more.
#'   `NULL`, the default, is the length of a cycle, or 10 without cycles, as in [optimizer_swa()].
#' @param ... Labels and limits, as `plot()` elsewhere in R has them: `main`, `sub`, `xlab` and `ylab` are strings,
#'   expressions or `NULL`; `xlim` and `ylim` two numbers, the lower one first. For anything else add to the picture,
#'   as in `plot(x) + ggplot2::theme_bw()`.
#' @returns A ggplot. Its `$data` is a data frame with the columns
#'   * `update`, counted from 0;
#'   * `learning_rate` (after `decay`; `NA` if the inner optimizer has several);
#'   * `due`: whether the average moves after that update.
#'
#'   For [callback_swa()] it has the columns of its
#'   [`as.data.frame()`][as.data.frame.callback_swa], and `time`: the end of the row, in epochs.
#'
#'   A series of more than 2,000 rows has only those that the picture needs: the corners of the line, enough rows to
#'   draw its curves (some 2,000 at most), and at most 2,000 marks.
#' @section Pictures:
#' All pictures of this package need the R package ggplot2 (3.4.0 or newer), and are ordinary ggplots. Like these
#' they appear when you print them, which R does by itself at the top level but not inside a function or a loop.
#' [ggplot2::autoplot()] draws the same pictures as `plot()`. Their colors are those of Okabe and Ito, which
#' color-blind people can tell apart; line types and shapes do the same in grey print.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. So do objects without
#' such a picture, such as [callback_swap_averages()] (see [plot_averaging()]), or a [callback_swa()]
#' before its first `fit()`, and arguments in `...` that are not among those above.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 2.
#' @family what is going on
#' @name plot.kerasoptimizers
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' rate <- learning_rate_schedule_swa(0.1, 0.02, start_averaging = 200, cycle_updates = 50)
#' if (requireNamespace("ggplot2", quietly = TRUE)) {
#'   plot(rate, main = "My schedule") + ggplot2::theme_bw()
#' }
#'
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' optimizer <- optimizer_swa(keras$optimizers$SGD(rate), start_averaging = 200, average_period = 50)
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot(optimizer)
NULL

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.SlottedOptimizer
#' @export
plot.kerasoptimizers.SlottedOptimizer <- function(x, updates = NULL, ...) {
  require_ggplot2()
  settings <- base_settings(...)
  facts <- facts_of(live(x, "optimizer"))
  given <- facts$settings
  first <- c(given$start_averaging, given$start_step, 0)[[1]]
  if (is.character(first)) {
    if (!x$start_is_known && is.null(updates)) {
      abort_argument(sprintf(
        "`updates` must be given: when `start_averaging = \"%s\"` is in updates is known when fit() begins.", first
      ), rlang::current_env())
    }
    first <- if (x$start_is_known) x$averages$rule$first else 0
  }
  # LARS, which averages nothing, has no inner optimizer.
  averages <- !is.null(facts$inner)
  period <- if (averages) c(given$average_period, given$sync_period, given$update_period, 1)[[1]] else 100
  updates <- shown_updates(updates, first, period, facts$updates)
  course <- import_ours("kerasoptimizers.facts")$course(x, updates)
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(course$learning_rate),
    due = as.vector(course$due)
  ), facts$method, averages) + settings
}

# Draws the optimizer inside a LossScaleOptimizer or a compiled model. keras3 and keras have their own plot() for
# models, which comes first; autoplot() always draws the optimizer.
plot_optimizer_inside <- function(x, ...) {
  call <- rlang::current_env()
  optimizer <- without_loss_scaling(live(x, "object"))
  if (is_model(optimizer)) {
    compiled <- reticulate::py_has_attr(optimizer, "optimizer")
    optimizer <- if (compiled) without_loss_scaling(optimizer$optimizer)
  }
  if (!"kerasoptimizers.SlottedOptimizer" %in% python_classes(optimizer)) {
    abort_argument(sprintf("`x` must have an optimizer of this package to be plotted, not %s.",
                           if (is.null(optimizer)) "none" else describe(optimizer)), call)
  }
  plot(optimizer, ...)
}

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.SWALearningRate
#' @export
plot.kerasoptimizers.SWALearningRate <- function(x, updates = NULL, average_period = NULL, ...) {
  require_ggplot2()
  settings <- base_settings(...)
  live(x, "schedule")
  period <- c(optional(whole, average_period, 1), x$cycle_updates, 10L)[[1]]
  updates <- shown_updates(updates, x$start_averaging, period)
  rates <- import_ours("kerasoptimizers.facts")$rates(x, updates)
  since <- seq_len(updates) - 1L - x$start_averaging
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(rates),
    due = since >= 0 & since %% period == 0
  ), "SWA") + settings
}

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.SWACallback
#' @export
plot.kerasoptimizers.SWACallback <- function(x, ...) {
  require_ggplot2()
  settings <- base_settings(...)
  data <- as.data.frame(live(x, "callback"))
  if (nrow(data) == 0) {
    abort_argument("`x` must be a callback after fit(), not before: it has recorded nothing yet.",
                   rlang::current_env())
  }
  batches <- if (anyNA(data$batch)) 1 else max(data$batch)
  data$time <- data$epoch - if (anyNA(data$batch)) 0 else 1 - data$batch / batches
  knows_rates <- !all(is.na(data$learning_rate))
  draw_line(data, "time", if (knows_rates) "learning_rate" else "snapshots", "snapshot", "snapshots",
            if (knows_rates) ggplot2::geom_line else ggplot2::geom_step) +
    ggplot2::labs(
      title = if (knows_rates) "Learning rates and snapshots of callback_swa()" else
        "Snapshots of callback_swa()",
      x = "epoch", y = if (knows_rates) "learning rate" else "snapshots in the average"
    ) + settings
}

# lintr takes these for ordinary functions, because ggplot2 is only suggested.

#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SlottedOptimizer <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SWALearningRate <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

#' @exportS3Method ggplot2::autoplot
autoplot.kerasoptimizers.SWACallback <- function(object, ...) plot(object, ...) # nolint: object_name_linter.

# Objects without such a picture: what to do instead.

#' @exportS3Method
plot.kerasoptimizers.SwapAverages <- function(x, ...) {
  no_picture(x, "give what fit() returned to plot_averaging()")
}

#' @exportS3Method
plot.kerasoptimizers.AverageModelCheckpoint <- plot.kerasoptimizers.SwapAverages

#' @exportS3Method
plot.kerasoptimizers.AverageSnapshots <- function(x, ...) {
  no_picture(x, "give the model and the folder to plot_posthoc()")
}

no_picture <- function(x, instead, call = rlang::caller_env()) {
  live(x, "object", call)
  abort_argument(sprintf("`x` must be something that plot() can show, not %s: %s.",
                         describe(x), instead), call)
}

shown_updates <- function(updates, first, period, made = 0, call = rlang::caller_env()) {
  if (is.null(updates)) {
    # More takes long to compute, and can be asked for.
    updates <- min(max(2 * first, first + 10 * period, made) + 1, 1e6)
  }
  whole(updates, 1, name = "updates", call = call)
}

draw_course <- function(data, method, averages = TRUE) {
  knows_rates <- !all(is.na(data$learning_rate))
  draw_line(data, "update", "learning_rate", "due", "updates after which the average moves") +
    ggplot2::labs(
      title = if (!averages) paste("Learning rate of", method) else
        if (knows_rates) paste0("Learning rate, and when ", method, " averages") else
          paste("When", method, "averages"),
      x = "update", y = "learning rate"
    )
}
