#' Learning rates for stochastic weight averaging
#'
#' A Keras learning-rate schedule for [optimizer_swa()]. The rate keeps its initial value, is annealed
#' to the SWA rate, and stays there while snapshots are taken. With `cycle_updates` it
#' falls from `cycle_learning_rate` to the SWA rate instead, again and again.
#'
#' Averaging needs weights that keep moving, so `swa_learning_rate` is usually between a tenth and a half of
#' the initial rate. With cycles, give [optimizer_swa()] the same `start_averaging`
#' and `average_period = cycle_updates`. Then every snapshot comes at the end of a
#' cycle, as in the paper; [`plot()`][plot.kerasoptimizers] shows it. Don't use this schedule with
#' [callback_swa()], which sets learning rates itself: callbacks can't set the rate of an
#' optimizer that has a schedule.
#'
#' # With keras3 and keras
#' ```r
#' rate <- learning_rate_schedule_swa(0.1, 0.02, start_averaging = 1000)
#' model |> compile(optimizer = optimizer_swa(optimizer_sgd(rate), start_averaging = 1000),
#'                  loss = "sparse_categorical_crossentropy", metrics = "accuracy")
#' ```
#'
#' @param initial_learning_rate The first learning rate: a number, 0 or more, or a
#'   Keras learning-rate schedule, which the rate follows until annealing starts.
#' @param swa_learning_rate The rate while averaging (the lowest one in a cycle): a number, 0 or
#'   more.
#' @param start_averaging Number of updates before the first snapshot: a whole number,
#'   0 or more. The first cycle starts right after it.
#' @param anneal_updates Number of updates that annealing takes: a whole number, 0 or more.
#'   With 0 the rate jumps. `NULL`, the default, is two fifths of `start_averaging`.
#' @param anneal Shape of the annealing: `"cosine"` or `"linear"`.
#' @param cycle_updates Number of updates in a cycle: a whole number, 2 or more. `NULL`, the
#'   default, means no cycles.
#' @param cycle_learning_rate Highest rate of a cycle: a number that is at least
#'   `swa_learning_rate`. `NULL`, the default, is a quarter of the way from `swa_learning_rate` to the
#'   initial rate.
#' @param start_annealing Number of the update, counted from 0, after which annealing
#'   starts: a whole number, 0 or more. With `NULL`, the default, annealing ends when averaging
#'   starts.
#' @param name Name of the schedule: a string.
#' @returns A Python learning-rate schedule for the optimizers of the R package keras3 or
#'   keras. If `initial_learning_rate` is a schedule, it is for the same package as that one; for a number see
#'   [kerasoptimizers-package]. Call it with the number of an update to get the rate of
#'   that update.
#' @section Next step:
#' `plot()` the schedule, then give it to the inner optimizer as `learning_rate`. `plot()` of
#' [optimizer_swa()] around that shows whether snapshots and schedule fit together.
#' @section Errors:
#' An argument that is not as described stops with an error that names it. With cycles, annealing must end
#' by `start_averaging`. A `cycle_learning_rate` needs `cycle_updates`.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, section 3.1.
#' @family schedules and callbacks
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' rate <- learning_rate_schedule_swa(0.1, 0.01, start_averaging = 100, cycle_updates = 20)
#' plot(0:200, rate(0:200)$numpy(), type = "l", xlab = "update", ylab = "learning rate")
learning_rate_schedule_swa <- function(initial_learning_rate, swa_learning_rate,
                                       start_averaging, anneal_updates = NULL,
                                       anneal = "cosine", cycle_updates = NULL,
                                       cycle_learning_rate = NULL, start_annealing = NULL,
                                       name = "SWALearningRate") {
  initial_learning_rate <- rate(initial_learning_rate)
  generation <- rate_generation(initial_learning_rate, rlang::current_env())
  call_ours("SWALearningRate", generation, list(
    initial_learning_rate = initial_learning_rate,
    swa_learning_rate = not_negative(swa_learning_rate),
    start_averaging = whole(start_averaging, 0),
    anneal_updates = optional(whole, anneal_updates, 0),
    anneal = choice(anneal, c("cosine", "linear")),
    cycle_updates = optional(whole, cycle_updates, 2),
    cycle_learning_rate = optional(not_negative, cycle_learning_rate),
    start_annealing = optional(whole, start_annealing, 0),
    name = string(name)
  ))
}
