# print(), summary() and as.data.frame(). The methods are those of our Python classes, whose names the R
# packages keras3 and keras do not change.

#' Look at an optimizer
#'
#' `print()` says in a few lines what an optimizer of this package is and how far it has come.
#' `summary()` adds how much memory it takes, and returns all of it as a list for programs.
#'
#' Use them to see whether averaging has begun, and when the next snapshot is due. You can call them at
#' any time, before, during and after training; they change nothing. Give them `model$optimizer` of a compiled
#' model, also in mixed precision, where it is a `LossScaleOptimizer` of Keras around the optimizer. `print()` and
#' `summary()` of the model itself are those of the R packages keras3 and keras, and show its layers.
#'
#' Callbacks, learning-rate schedules and losses of this package have the same methods.
#'
#' @param x,object An optimizer of this package, such as [optimizer_swa()] returns, a callback, a
#'   learning-rate schedule or a loss of this package. For `print()` and `as.data.frame()` also the result of
#'   `summary()`.
#' @param row.names,optional,... Not used.
#' @returns `print()` returns `x`, invisibly. `summary()` returns a list of class
#'   `kerasoptimizers_summary`. For an optimizer it has
#'   * `method`, `keras`, `name`: name of the method, `"Keras 3"` or `"Keras 2"`, name of the
#'     optimizer;
#'   * `settings`: a list of its arguments that are not `NULL`;
#'   * `inner`: a list with the inner optimizer's `method` and those of its `settings` that are
#'     not the default;
#'   * `learning_rate`: the rate of the next update, before `decay` and warm-up, and `schedule`: the name of the
#'     schedule that it comes from, or `NULL`;
#'   * `updates`: number of updates so far;
#'   * `built`, `has_average`, `swapped`: whether the variables for averages exist, whether they hold
#'     an average, and whether the model shows the averages now, in place of the weights;
#'   * `snapshots`: number of snapshots in the average; `NULL` for methods that take none;
#'   * `refused`: number of times that the average did not move because a weight was not finite;
#'   * `next_due`: number of the update, counted from 0, after which the average moves next; `NULL` while it
#'     depends on a `fit()` to come;
#'   * `memory`: bytes of the `weights` that are averaged, of the `averages` and of the variables
#'     of the `inner` optimizer.
#'
#'   For [optimizer_lars()], which averages nothing, everything about averages is `NULL`. For a callback,
#'   a schedule or a loss the list has `method` and `settings`. For [callback_swa()] it also has `snapshots` and
#'   `epochs`: the epochs of the latest `fit()` whose weights are in the average. For
#'   [callback_average_early_stopping()] it has `best` and `best_epoch` (counted from 1).
#'
#'   `as.data.frame()` of an optimizer, or of its summary, has one row, with `NA` for `NULL`, so that
#'   you can bind the rows of several optimizers. `inner` is the name of the inner optimizer's method there;
#'   `memory` has a column for each part, and settings are left out. For a callback, schedule or loss the row has
#'   `method`, the settings, and what else the summary has. [callback_swa()] and [callback_swag()] themselves
#'   give [their record][as.data.frame.callback_swa] instead.
#' @section Errors:
#' `summary()` of an object from an R session that has ended is an error; `print()` says so.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, explains snapshots.
#' @family what is going on
#' @name print.kerasoptimizers
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' optimizer <- optimizer_swa("sgd", start_averaging = 100)
#' optimizer
#' summary(optimizer)$next_due
#' as.data.frame(summary(optimizer))
NULL

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.SlottedOptimizer
#' @export
print.kerasoptimizers.SlottedOptimizer <- function(x, ...) {
  if (is_live_python(x)) print_facts(facts_of(x)) else print_dead(x)
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.SWACallback
#' @export
print.kerasoptimizers.SWACallback <- function(x, ...) {
  if (is_live_python(x)) print(summary(x)) else print_dead(x)
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.SwapAverages
#' @export
print.kerasoptimizers.SwapAverages <- print.kerasoptimizers.SWACallback

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.AverageModelCheckpoint
#' @export
print.kerasoptimizers.AverageModelCheckpoint <- print.kerasoptimizers.SWACallback

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.AverageSnapshots
#' @export
print.kerasoptimizers.AverageSnapshots <- print.kerasoptimizers.SWACallback

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.SWALearningRate
#' @export
print.kerasoptimizers.SWALearningRate <- print.kerasoptimizers.SWACallback

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.GaussianNLL
#' @export
print.kerasoptimizers.GaussianNLL <- print.kerasoptimizers.SWACallback

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.SlottedOptimizer
#' @export
summary.kerasoptimizers.SlottedOptimizer <- function(object, ...) {
  structure(facts_of(live(object, "optimizer")), class = "kerasoptimizers_summary")
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.SWACallback
#' @export
summary.kerasoptimizers.SWACallback <- function(object, ...) {
  live(object, "callback")
  summarize(object, c("start_epoch", "lr_schedule", "swa_lr", "swa_lr2", "swa_freq", "snapshot_epoch"),
            snapshots = object$snapshots, epochs = taken_epochs(object))
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.SwapAverages
#' @export
summary.kerasoptimizers.SwapAverages <- function(object, ...) {
  summarize(live(object, "callback"), "weights_too")
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.AverageModelCheckpoint
#' @export
summary.kerasoptimizers.AverageModelCheckpoint <- function(object, ...) {
  summarize(live(object, "callback"), c("update_weights", "filepath", "monitor", "save_best_only",
                                        "save_weights_only", "save_freq"))
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.LatestAverage
#' @export
summary.kerasoptimizers.LatestAverage <- function(object, ...) {
  settings <- c("k", "every", "start_epoch", "assign", "weights_too", "backup_dir")
  summarize(live(object, "callback"), settings, snapshots = object$snapshots)
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.AverageEarlyStopping
#' @export
summary.kerasoptimizers.AverageEarlyStopping <- function(object, ...) {
  settings <- setdiff(names(formals(callback_average_early_stopping)), "verbose")
  best <- live(object, "callback")$best
  summarize(object, settings, best = best, best_epoch = if (!is.null(best)) as.integer(object$best_epoch) + 1L)
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.AverageSnapshots
#' @export
summary.kerasoptimizers.AverageSnapshots <- function(object, ...) {
  summarize(live(object, "callback"), c("directory", "every", "dtype"))
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.SWALearningRate
#' @export
summary.kerasoptimizers.SWALearningRate <- function(object, ...) {
  summarize(live(object, "schedule"), setdiff(names(formals(learning_rate_schedule_swa)), "name"))
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.GaussianNLL
#' @export
summary.kerasoptimizers.GaussianNLL <- function(object, ...) summarize(live(object, "loss"), "min_variance")

# Keras's own classes that get methods here, as Python calls them; the last of each as the R package keras does. Under
# mixed precision Keras puts a LossScaleOptimizer around an optimizer.
loss_scale_classes <- c(
  "keras.src.optimizers.loss_scale_optimizer.LossScaleOptimizer",
  "tf_keras.src.mixed_precision.loss_scale_optimizer.BaseLossScaleOptimizer",
  "keras.src.mixed_precision.loss_scale_optimizer.BaseLossScaleOptimizer"
)
model_classes <- c(
  "keras.src.trainers.trainer.Trainer", "tf_keras.src.engine.training.Model", "keras.engine.training.Model"
)

# Methods that show this package's optimizer inside, and leave any other to the next method.
register_methods_for_keras <- function() {
  is_ours <- function(x) inherits(x, "kerasoptimizers.SlottedOptimizer")
  inside <- function(x) if (is_live_python(x)) without_loss_scaling(x)
  register <- function(generic, classes, method, package = "base") {
    for (class in classes) registerS3method(generic, class, method, asNamespace(package))
  }
  register("print", loss_scale_classes, function(x, ...) {
    if (!is_ours(inside(x))) return(NextMethod())
    print(inside(x))
    invisible(x)
  })
  register("summary", loss_scale_classes, function(object, ...) {
    if (is_ours(inside(object))) summary(inside(object)) else NextMethod()
  })
  register("as.data.frame", loss_scale_classes, function(x, ...) {
    if (is_ours(inside(x))) as.data.frame(inside(x)) else NextMethod()
  })
  # The R package keras draws its models itself.
  register("plot", c(loss_scale_classes, model_classes[1:2]), plot_optimizer_inside)
  draw <- function(...) register("autoplot", c(loss_scale_classes, model_classes), plot_optimizer_inside, "ggplot2")
  if (isNamespaceLoaded("ggplot2")) draw() else setHook(packageEvent("ggplot2", "onLoad"), draw)
}

# A callback, schedule or loss, with those of its attributes that are not NULL.
summarize <- function(x, settings, ...) {
  settings <- sapply(settings, function(name) x[[name]], simplify = FALSE)
  structure(list(method = class_name(class(x)[[1]]),
                 settings = Filter(Negate(is.null), settings), ...),
            class = "kerasoptimizers_summary")
}

#' @rdname print.kerasoptimizers
#' @export
print.kerasoptimizers_summary <- function(x, ...) {
  if (!is_of_optimizer(x)) {
    print_title(x$method)
    print_line("Settings", format_settings(x$settings))
    if (!is.null(x$snapshots)) print_line("Snapshots", format_snapshots(x$snapshots, x$epochs))
    if (!is.null(x$best)) print_line("Best", sprintf("%s, in epoch %d", format(x$best, digits = 6), x$best_epoch))
    return(invisible(x))
  }
  print_facts(x)
  sizes <- x$memory
  if (!is.null(sizes) && x$built) {
    sizes <- vapply(sizes, format_bytes, "")
    print_line("Memory", c(
      sprintf("averages %s of weights of %s", sizes[["averages"]], sizes[["weights"]]),
      paste("inner optimizer", sizes[["inner"]])
    ))
  }
  invisible(x)
}

is_of_optimizer <- function(summary) !is.null(summary$keras)

#' @rdname print.kerasoptimizers
#' @export
as.data.frame.kerasoptimizers_summary <- function(x, row.names = NULL, optional = FALSE, ...) {
  if (!is_of_optimizer(x)) {
    settings <- lapply(x$settings, function(value) if (is_single(value)) value else format_value(value))
    others <- Filter(is_single, x[setdiff(names(x), c("method", "settings"))])
    return(data.frame(c(list(method = x$method), settings, others)))
  }
  or_na <- function(value, missing) if (is.null(value)) missing else value
  memory <- or_na(x$memory, c(weights = NA_real_, averages = NA_real_, inner = NA_real_))
  data.frame(
    method = x$method, keras = x$keras, name = x$name,
    inner = or_na(x$inner$method, NA_character_),
    learning_rate = or_na(x$learning_rate, NA_real_),
    schedule = or_na(x$schedule, NA_character_),
    updates = x$updates,
    built = or_na(x$built, NA), has_average = or_na(x$has_average, NA),
    swapped = or_na(x$swapped, NA),
    snapshots = or_na(x$snapshots, NA_integer_), refused = or_na(x$refused, NA_integer_),
    next_due = or_na(x$next_due, NA_integer_),
    memory_weights = memory[["weights"]], memory_averages = memory[["averages"]],
    memory_inner = memory[["inner"]]
  )
}

is_single <- function(x) is.atomic(x) && length(x) == 1

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.SlottedOptimizer
#' @export
as.data.frame.kerasoptimizers.SlottedOptimizer <- function(x, row.names = NULL, optional = FALSE, ...) {
  as.data.frame(summary(live(x, "object")))
}

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.SwapAverages
#' @export
as.data.frame.kerasoptimizers.SwapAverages <- as.data.frame.kerasoptimizers.SlottedOptimizer

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.AverageModelCheckpoint
#' @export
as.data.frame.kerasoptimizers.AverageModelCheckpoint <- as.data.frame.kerasoptimizers.SlottedOptimizer

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.AverageSnapshots
#' @export
as.data.frame.kerasoptimizers.AverageSnapshots <- as.data.frame.kerasoptimizers.SlottedOptimizer

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.SWALearningRate
#' @export
as.data.frame.kerasoptimizers.SWALearningRate <- as.data.frame.kerasoptimizers.SlottedOptimizer

#' @rdname print.kerasoptimizers
#' @method as.data.frame kerasoptimizers.GaussianNLL
#' @export
as.data.frame.kerasoptimizers.GaussianNLL <- as.data.frame.kerasoptimizers.SlottedOptimizer

#' The record of callback_swa()
#'
#' Returns a table of the latest `fit()` with a [callback_swa()]: the learning rates that it set and the
#' snapshots that it took.
#'
#' Use it to check a learning-rate schedule; [`plot()`][plot.kerasoptimizers] of the callback shows
#' the same as a picture. Losses and metrics are in the history that `fit()` returns.
#'
#' @param x A callback, as [callback_swa()] returns it, after `fit()`.
#' @param row.names,optional,... Not used.
#' @returns A data frame with one row for each epoch, or with `lr_schedule = "cyclic"` for each
#'   batch, and the columns
#'   * `epoch`: number of the epoch, counted from 1;
#'   * `batch`: number of the batch in the epoch, counted from 1; `NA` if rows are epochs;
#'   * `learning_rate`: the rate that the callback set; `NA` with `lr_schedule = "manual"`, and 0 if
#'     the epoch was a forward pass for batch norm;
#'   * `snapshot`: whether the weights entered the average at the end of this row;
#'   * `snapshots`: number of snapshots in the average after this row.
#'
#'   Before any training it has no rows. If training stopped in the middle of an epoch, the rows of that
#'   epoch are those of its batches up to there.
#' @section Errors:
#' The function stops if the callback is from an R session that has ended.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family what is going on
#' @method as.data.frame kerasoptimizers.SWACallback
#' @name as.data.frame.callback_swa
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras") # Keras 3: without library(keras)
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' swa <- callback_swa(start_epoch = 5, lr_schedule = "constant")
#' model$fit(x, y, epochs = 8L, verbose = 0L, callbacks = list(swa))
#' as.data.frame(swa)
as.data.frame.kerasoptimizers.SWACallback <- function(x, row.names = NULL, optional = FALSE, ...) {
  live(x, "callback")
  # One line for each epoch: its number, how many rates there were at its end, and how many
  # snapshots before.
  epochs <- matrix(as.numeric(unlist(x$epoch_record)), nrow = 3)
  rates <- as.numeric(x$lr_record)
  after <- utils::head(c(epochs[3, ][-1], x$snapshots), ncol(epochs))
  counts <- diff(c(0, epochs[2, ]))
  left <- length(rates) - sum(counts)
  each <- pmax(counts, 1)
  last <- cumsum(each)
  rows <- data.frame(
    epoch = as.integer(rep(epochs[1, ], each)),
    batch = if (identical(x$lr_schedule, "cyclic")) sequence(each) else rep(NA_integer_, sum(each)),
    # A manual schedule has no rates.
    learning_rate = c(rates[seq_len(sum(counts))], rep(NA_real_, sum(each) - sum(counts))),
    snapshot = seq_len(sum(each)) %in% last[after > epochs[3, ]]
  )
  rows$snapshots <- as.integer(rep(epochs[3, ], each))
  rows$snapshots[last] <- as.integer(after)
  if (left > 0) {
    rows <- rbind(rows, data.frame(
      epoch = as.integer(x$`_epoch` + 1),
      batch = if (identical(x$lr_schedule, "cyclic")) seq_len(left) else NA_integer_,
      learning_rate = utils::tail(rates, left), snapshot = FALSE,
      snapshots = as.integer(x$snapshots)
    ))
  }
  rows
}

# The epochs, of the latest fit(), that are in the average.
taken_epochs <- function(callback) {
  rows <- as.data.frame(callback)
  rows$epoch[rows$snapshot]
}

facts_of <- function(optimizer) {
  facts <- import_ours("kerasoptimizers.facts")$facts(optimizer)
  names(facts)[names(facts) == "bytes"] <- "memory"
  facts$memory <- if (!is.null(facts$memory)) unlist(facts$memory)
  c(facts["method"], list(keras = keras_names[[optimizer_generation(optimizer)]]),
    facts[setdiff(names(facts), "method")])
}

live <- function(x, what, call = rlang::caller_env()) {
  if (!is_live_python(x)) {
    refuse(rlang::caller_arg(x), paste("a live", what), x, call)
  }
  x
}

# lines ------------------------------------------------------------------------

print_facts <- function(facts) {
  print_title(facts$method, facts$keras)
  print_line("Settings", format_settings(facts$settings))
  if (!is.null(facts$inner)) {
    settings <- facts$inner$settings
    print_line("Inner optimizer",
               c(facts$inner$method, if (length(settings) > 0) format_settings(settings)))
  }
  print_line("Learning rate", format_rate(facts))
  print_line("Updates", format_count(facts$updates))
  if (is.null(facts$inner)) return(invisible())
  if (!is.null(facts$snapshots)) print_line("Snapshots", format_count(facts$snapshots))
  if (facts$refused > 0) {
    times <- format_count(facts$refused)
    print_line("Not finite", paste("the average did not move after", times, "of these updates"))
  }
  print_line("Next due", format_next(facts))
  if (!facts$built) print_line("Averages", "none yet: training creates them")
  if (facts$swapped) print_line("Swapped", "the model holds the averages now")
}

print_title <- function(...) {
  title <- paste(c(...), collapse = " for ")
  cli::cat_line(cli::style_bold(paste0("<", title, ">")))
}

print_dead <- function(x) {
  cli::cat_line("<", class_name(class(x)[[1]]), " of an R session that has ended>")
}

# A line breaks between items, not in them.
print_line <- function(label, items) {
  lines <- items[[1]]
  for (item in items[-1]) {
    last <- length(lines)
    longer <- paste0(lines[[last]], ", ", item)
    if (cli::ansi_nchar(longer) <= cli::console_width() - 18) {
      lines[[last]] <- longer
    } else {
      lines[[last]] <- paste0(lines[[last]], ",")
      lines <- c(lines, item)
    }
  }
  label <- format(paste0(label, ":"), width = 16)
  cli::cat_line(paste(c(label, rep(strrep(" ", 16), length(lines) - 1)), lines))
}

format_settings <- function(settings) {
  paste(names(settings), vapply(settings, format_value, ""), sep = " = ")
}

format_value <- function(x) {
  if (is_python(x)) return(class_name(python_classes(x)[[1]]))
  text <- if (is.list(x) && length(x) > 0) vapply(x, format_value, "") else
    if (is.character(x)) encodeString(x, quote = '"') else format(x, digits = 6)
  if (length(text) == 1) text else paste0("c(", toString(text), ")")
}

format_rate <- function(facts) {
  if (is.null(facts$learning_rate)) return("several: each part has its own")
  decay <- facts$settings$decay
  decayed <- if (!is.null(decay)) facts$learning_rate / (1 + decay * facts$updates)
  c(format(facts$learning_rate, digits = 6),
    if (!is.null(facts$schedule)) paste("from", facts$schedule),
    if (!is.null(decayed)) paste("with `decay`", format(decayed, digits = 6)))
}

format_next <- function(facts) {
  if (is.null(facts$next_due)) return("known when fit() begins")
  more <- facts$next_due - facts$updates + 1
  if (more == 1) "after the next update" else sprintf("after %s more updates", format_count(more))
}

format_count <- function(x) format(x, scientific = FALSE, trim = TRUE)

format_bytes <- function(x) {
  format(structure(x, class = "object_size"), units = "auto", standard = "SI")
}

format_snapshots <- function(snapshots, epochs) {
  if (length(epochs) == 0) return(format_count(snapshots))
  sprintf("%s, in the latest fit() of epoch%s %s", format_count(snapshots),
          if (length(epochs) > 1) "s" else "", format_epochs(epochs))
}

# 3, 4, 5, 7 as "3 to 5, 7".
format_epochs <- function(epochs) {
  runs <- split(epochs, cumsum(c(TRUE, diff(epochs) != 1)))
  toString(vapply(runs, function(run) {
    if (length(run) > 2) paste(run[[1]], "to", run[[length(run)]]) else toString(run)
  }, ""))
}
