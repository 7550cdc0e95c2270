# Python's warnings of this package become R warnings. Python gives the text of each to hear(). R must not signal it
# while Python waits for an R function: a handler, such as that of tryCatch(), would jump over Python's stack. So it
# comes when the R function that called Python returns: one of this package, or fit() of keras3, for example.

# The texts that came while functions of this package call Python: an environment for each call, the innermost last.
hearing <- new.env(parent = emptyenv())
hearing$calls <- list()

# Asks Python for its warnings, once per session.
hear_python <- function() {
  if (isTRUE(hearing$begun)) return(invisible())
  hearing$begun <- TRUE
  notices <- reticulate::import_from_path(
    "kerasoptimizers.notices", path = system.file("python", package = "kerasoptimizers")
  )
  notices$hand_over(hear)
}

hear <- function(text) {
  depth <- length(hearing$calls)
  if (depth > 0) {
    heard <- hearing$calls[[depth]]
    heard$texts <- c(heard$texts, text)
  } else {
    warn_later(text, caller_of_python())
  }
  NULL
}

# Runs code that calls Python. The warnings that come up are signalled when it is done.
with_warnings <- function(code, call) {
  depth <- length(hearing$calls) + 1
  heard <- hearing$calls[[depth]] <- new.env(parent = emptyenv())
  on.exit({
    hearing$calls <- utils::head(hearing$calls, depth - 1)
    outer <- caller_of_python()
    for (text in heard$texts) {
      if (depth > 1) hear(text) else if (is.null(outer)) warn_now(text, rlang::error_call(call)) else
        warn_later(text, outer)
    }
  })
  code
}

warn_now <- function(text, call) {
  warning(warningCondition(text, class = "kerasoptimizers_warning", call = call))
}

warn_later <- function(text, caller) {
  signal <- as.call(list(warn_now, text, base::call("quote", caller$call)))
  do.call(base::on.exit, list(signal, TRUE), envir = caller$frame)
}

# The R function that called Python first: its frame, and its call for messages. NULL where Python is not running.
caller_of_python <- function() {
  python <- Position(function(call) identical(call[[1]], quote(py_call_impl)), sys.calls())
  if (is.na(python)) return(NULL)
  between <- c("reticulate", "base")
  is_between <- function(n) environmentName(topenv(environment(sys.function(n)))) %in% between
  n <- Find(Negate(is_between), rev(seq_len(python - 1)))
  # At the top level it is reticulate's function for a method of a Python object.
  if (is.null(n)) n <- max(python - 1, 1)
  frame <- sys.frame(n)
  call <- sys.call(n)
  generic <- get0(".Generic", frame, inherits = FALSE)
  if (is.character(generic)) call[[1]] <- as.name(generic)
  list(frame = frame, call = call)
}
