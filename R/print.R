# What optimizers, callbacks and schedules say of themselves. Methods go by the names of our Python
# classes, which the R packages keras3 and keras leave alone.

#' Look at an optimizer
#'
#' `print()` says in a few lines what an optimizer of this package is and how far it has come;
#' `summary()` adds how much memory it takes, and its parts can be used in programs.
#'
#' Use them to see whether averaging has begun, and when the next snapshot is due. They change
#' nothing and may be asked at any time, also before training and in the middle of it.
#' They are for the optimizer itself: of a compiled model, that is `model$optimizer`.
#'
#' @param x,object An optimizer of this package, such as [optimizer_swa()] returns, or for
#'   `print()` the result of `summary()`, a callback or a learning-rate schedule of this package.
#' @param ... Not used.
#' @returns `print()` returns `x`, invisibly. `summary()` returns a list of class
#'   `kerasoptimizers_summary` with
#'   * `method`, `keras`, `name`: name of the method, `"Keras 3"` or `"Keras 2"`, name of the
#'     optimizer;
#'   * `settings`: a list of its arguments that are not `NULL`;
#'   * `inner`: a list of the inner optimizer's `method` and of its `settings`, as far as they are
#'     not the defaults;
#'   * `learning_rate`: that of the next update, before `decay`, and `schedule`: the name of the
#'     schedule it comes from, or `NULL`;
#'   * `updates`: number of updates made;
#'   * `built`, `has_average`, `swapped`: whether there is room for averages, whether there are any,
#'     and whether they are in the model now, in the place of the weights;
#'   * `snapshots`: number of snapshots in the average; `NULL` for methods that take none;
#'   * `refused`: number of times that the average did not move because a weight was not finite;
#'   * `next_due`: number of the update, counted from 0, after which the average moves next;
#'   * `memory`: bytes of the `weights` that are averaged, of the `averages` and of the variables
#'     of the `inner` optimizer.
#'
#'   Of [optimizer_lars()], which averages nothing, what is about averages is `NULL`.
#' @section Errors:
#' `summary()` of an optimizer of an R session that has ended is an error; `print()` says so.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>, for what a snapshot is.
#' @family what is going on
#' @name print.kerasoptimizers
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' optimizer <- optimizer_swa("sgd", start_averaging = 100)
#' optimizer
#' summary(optimizer)$next_due
NULL

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.surface.Surface
#' @export
print.kerasoptimizers.surface.Surface <- function(x, ...) {
  if (is_live_python(x)) print_facts(facts_of(x)) else print_dead(x)
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method summary kerasoptimizers.surface.Surface
#' @export
summary.kerasoptimizers.surface.Surface <- function(object, ...) {
  structure(facts_of(live(object, "optimizer")), class = "kerasoptimizers_summary")
}

#' @rdname print.kerasoptimizers
#' @export
print.kerasoptimizers_summary <- function(x, ...) {
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

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.swa_callback.SWACallback
#' @export
print.kerasoptimizers.swa_callback.SWACallback <- function(x, ...) {
  settings <- c("start_epoch", "lr_schedule", "swa_lr", "swa_lr2", "swa_freq")
  if (!print_settings(x, settings)) return(invisible(x))
  epochs <- taken_epochs(x)
  print_line("Snapshots", paste0(x$snapshots, if (length(epochs) > 0) {
    sprintf(", in the latest fit() of epoch%s %s", if (length(epochs) > 1) "s" else "",
            format_epochs(epochs))
  }))
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.swap_averages.SwapAverages
#' @export
print.kerasoptimizers.swap_averages.SwapAverages <- function(x, ...) {
  print_settings(x, "weights_too")
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.swap_averages.AverageModelCheckpoint
#' @export
print.kerasoptimizers.swap_averages.AverageModelCheckpoint <- function(x, ...) {
  print_settings(x, c("update_weights", "filepath", "monitor", "save_best_only",
                      "save_weights_only", "save_freq"))
  invisible(x)
}

#' @rdname print.kerasoptimizers
#' @method print kerasoptimizers.schedules.SWALearningRate
#' @export
print.kerasoptimizers.schedules.SWALearningRate <- function(x, ...) {
  print_settings(x, setdiff(names(formals(learning_rate_schedule_swa)), "name"))
  invisible(x)
}

#' What callback_swa() recorded
#'
#' A table of the latest `fit()` with a [callback_swa()]: the learning rates that it set and the
#' snapshots that it took.
#'
#' Use it to check a schedule, or to draw it. Losses and metrics are in the history that `fit()`
#' returns.
#'
#' @param x A callback, as [callback_swa()] returns it, after `fit()`.
#' @param row.names,optional,... As in [as.data.frame()]; not used.
#' @returns A data frame with one row for each epoch, or with `lr_schedule = "cyclic"` for each
#'   batch, and the columns
#'   * `epoch`: number of the epoch, counted from 1;
#'   * `batch`: number of the batch in the epoch, counted from 1; `NA` in rows of epochs;
#'   * `learning_rate`: what was set; `NA` with `lr_schedule = "manual"`, and 0 where the epoch was
#'     a forward pass for batch norm;
#'   * `snapshot`: whether the weights entered the average then, that is, at the end of the epoch;
#'   * `snapshots`: how many the average held after that.
#'
#'   Before any training it has no rows. Where training broke off, rows of the last
#'   epoch are those of the batches that were begun.
#' @section Errors:
#' It is an error if the callback is one of an R session that has ended.
#' @references Izmailov et al. (2018), *Averaging Weights Leads to Wider Optima and
#'   Better Generalization*, <https://arxiv.org/abs/1803.05407>.
#' @family what is going on
#' @method as.data.frame kerasoptimizers.swa_callback.SWACallback
#' @name as.data.frame.callback_swa
#' @export
#' @examplesIf Sys.getenv("RETICULATE_PYTHON") != "" && reticulate::py_module_available("keras")
#' keras <- reticulate::import("keras")
#' model <- keras$Sequential(list(keras$layers$Dense(1L)))
#' model$compile("sgd", loss = "mse")
#' x <- matrix(rnorm(200), ncol = 2)
#' y <- x %*% c(1, -1)
#' swa <- callback_swa(start_epoch = 5, lr_schedule = "constant")
#' model$fit(x, y, epochs = 8L, verbose = 0L, callbacks = list(swa))
#' as.data.frame(swa)
as.data.frame.kerasoptimizers.swa_callback.SWACallback <- function(x, row.names = NULL,
                                                                   optional = FALSE, ...) {
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
    # None where the schedule is manual.
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
  facts <- import_ours("kerasoptimizers.describe")$facts(optimizer)
  names(facts)[names(facts) == "bytes"] <- "memory"
  facts$memory <- if (!is.null(facts$memory)) unlist(facts$memory)
  c(facts["method"], list(keras = keras_names[[optimizer_generation(optimizer)]]),
    facts[setdiff(names(facts), "method")])
}

live <- function(x, what, call = rlang::caller_env()) {
  if (!is_live_python(x)) {
    refuse(rlang::caller_arg(x), paste("a live", what), describe(x), call)
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

# The attributes of a callback or schedule that are not NULL; FALSE where it is dead.
print_settings <- function(x, names) {
  if (!is_live_python(x)) {
    print_dead(x)
    return(FALSE)
  }
  print_title(class_name(class(x)[[1]]))
  settings <- sapply(names, function(name) x[[name]], simplify = FALSE)
  print_line("Settings", format_settings(Filter(Negate(is.null), settings)))
  TRUE
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
  more <- facts$next_due - facts$updates + 1
  c(sprintf("after update number %s (the first is 0)", format_count(facts$next_due)),
    paste(if (more == 1) "1 update" else paste(format_count(more), "updates"), "from now"))
}

format_count <- function(x) format(x, scientific = FALSE, trim = TRUE)

format_bytes <- function(x) {
  format(structure(x, class = "object_size"), units = "auto", standard = "SI")
}

# 3, 4, 5, 7 as "3 to 5, 7".
format_epochs <- function(epochs) {
  runs <- split(epochs, cumsum(c(TRUE, diff(epochs) != 1)))
  toString(vapply(runs, function(run) {
    if (length(run) > 2) paste(run[[1]], "to", run[[length(run)]]) else toString(run)
  }, ""))
}
