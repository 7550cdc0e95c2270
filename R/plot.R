#' Plot learning rates and averaging moments
#'
#' Plots the learning rate of each update, and marks the updates after which the average moves.
#' With [optimizer_swa()] these are the snapshots.
#'
#' For an averaging optimizer or a schedule of [learning_rate_schedule_swa()] the picture shows what is
#' planned. Look at it before training, to see whether schedule and optimizer fit together: in a cyclic
#' schedule, for example, every snapshot should come at the end of a cycle. A schedule does not
#' know how often an optimizer averages; `average_period` tells it.
#'
#' For [callback_swa()] the picture shows what happened in the latest `fit()`. With
#' `lr_schedule = "manual"` the callback sets no learning rates, and the picture shows the number of
#' snapshots instead.
#'
#' @param x,object An averaging optimizer, such as [optimizer_swa()] returns, a schedule of
#'   [learning_rate_schedule_swa()], or after `fit()` a callback of [callback_swa()]. In mixed
#'   precision use [averaging_optimizer()] to get the optimizer of a model.
#' @param updates Number of updates to show: a whole number, 1 or more. `NULL`, the default, shows
#'   twice the updates before averaging starts, or ten moves of the average if that is more.
#' @param average_period Number of updates from one snapshot to the next: a whole number, 1 or more.
#'   `NULL`, the default, is the length of a cycle, or 10 without cycles, as in [optimizer_swa()].
#' @param ... Must be empty. For titles, limits and themes add to the picture, as in
#'   `plot(x) + ggplot2::labs(title = "My schedule")`.
#' @returns A ggplot. Its `$data` is a data frame with the columns
#'   * `update`, counted from 0;
#'   * `learning_rate` (after `decay`; `NA` if the inner optimizer has several);
#'   * `due`: whether the average moves after that update.
#'
#'   For [callback_swa()] it has the columns of its
#'   [`as.data.frame()`][as.data.frame.callback_swa], and `time`: the end of the row, in epochs.
#'
#'   A long series has only the rows that the picture needs: about 2,000 for the line and at most
#'   2,000 for the marks.
#' @section Pictures:
#' All pictures of this package need the R package ggplot2 (3.4.0 or newer), and are ordinary ggplots. Like these
#' they appear when you print them, which R does by itself at the top level but not inside a function or a loop.
#' [ggplot2::autoplot()] draws the same pictures as `plot()`.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. So do objects without
#' such a picture, such as [optimizer_lars()], which averages nothing, or a [callback_swa()]
#' before its first `fit()`.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, figure 2.
#' @family what is going on
#' @name plot.kerasoptimizers
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' rate <- learning_rate_schedule_swa(0.1, 0.02, start_averaging = 200, cycle_updates = 50)
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot(rate) + ggplot2::theme_bw()
#'
#' keras <- reticulate::import("keras")
#' optimizer <- optimizer_swa(keras$optimizers$SGD(rate), start_averaging = 200, average_period = 50)
#' if (requireNamespace("ggplot2", quietly = TRUE)) plot(optimizer)
NULL

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.AveragingOptimizer
#' @export
plot.kerasoptimizers.AveragingOptimizer <- function(x, updates = NULL, ...) {
  no_more_arguments(...)
  require_ggplot2()
  facts <- facts_of(live(x, "optimizer"))
  settings <- facts$settings
  first <- c(settings$start_averaging, settings$start_step, 0)[[1]]
  period <- c(settings$average_period, settings$sync_period, settings$update_period, 1)[[1]]
  updates <- shown_updates(updates, first, period, facts$updates)
  course <- import_ours("kerasoptimizers.facts")$course(x, updates)
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(course$learning_rate),
    due = as.vector(course$due)
  ), facts$method)
}

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.SWALearningRate
#' @export
plot.kerasoptimizers.SWALearningRate <- function(x, updates = NULL, average_period = NULL, ...) {
  no_more_arguments(...)
  require_ggplot2()
  live(x, "schedule")
  period <- c(optional(whole, average_period, 1), x$cycle_updates, 10L)[[1]]
  updates <- shown_updates(updates, x$start_averaging, period)
  rates <- import_ours("kerasoptimizers.facts")$rates(x, updates)
  since <- seq_len(updates) - 1L - x$start_averaging
  draw_course(data.frame(
    update = seq_len(updates) - 1L,
    learning_rate = as.vector(rates),
    due = since >= 0 & since %% period == 0
  ), "SWA")
}

#' @rdname plot.kerasoptimizers
#' @method plot kerasoptimizers.SWACallback
#' @export
plot.kerasoptimizers.SWACallback <- function(x, ...) {
  no_more_arguments(...)
  require_ggplot2()
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
    )
}

# Objects without such a picture: what to do instead.

#' @exportS3Method
plot.kerasoptimizers.SlottedOptimizer <- function(x, ...) {
  no_picture(x, "it averages nothing. Plot its learning-rate schedule instead")
}

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

draw_course <- function(data, method) {
  knows_rates <- !all(is.na(data$learning_rate))
  draw_line(data, "update", "learning_rate", "due", "updates after which the average moves") +
    ggplot2::labs(
      title = if (knows_rates) paste0("Learning rate, and when ", method, " averages") else
        paste("When", method, "averages"),
      x = "update", y = "learning rate"
    )
}
