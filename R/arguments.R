# R values to what Python expects. Every error about an argument is raised here:
# one line that names the argument, what is allowed and what was given. The
# Python module raises the same texts for the same mistakes.

refuse <- function(name, allowed, given, call) {
  abort(sprintf("`%s` must be %s, not %s", name, allowed, given), call,
        class = "kerasoptimizers_argument_error")
}

describe <- function(x) {
  if (missing(x)) return("missing.")
  if (is.null(x)) return("NULL.")
  text <- if (is_python(x)) {
    describe_python(x)
  } else if (is.function(x)) {
    "a function"
  } else if (is.object(x)) {
    paste("an object of class", class(x)[[1]])
  } else if (is.list(x)) {
    "a list"
  } else if (!is.atomic(x)) {
    paste("an object of type", typeof(x))
  } else if (length(x) != 1) {
    paste("a vector of length", length(x))
  } else if (is.character(x) && !is.na(x)) {
    describe_string(x)
  } else {
    format(x, digits = 15)
  }
  paste0(text, ".")
}

describe_string <- function(x) {
  if (nchar(x) > 60) "a long string" else encodeString(x, quote = '"')
}

describe_python <- function(x) {
  if (!is_live_python(x)) {
    "a Python object of an R session that has ended"
  } else if (inherits(x, "python.builtin.type")) {
    paste("the Python class", x$`__name__`)
  } else {
    paste("a Python object of class", class_name(python_classes(x)[[1]]))
  }
}

# numbers, words, strings, flags -----------------------------------------------

is_number <- function(x) {
  !missing(x) && is.numeric(x) && length(x) == 1 && !is.object(x) && is.finite(x)
}

whole <- function(x, minimum, word = NULL, name = rlang::caller_arg(x),
                  call = rlang::caller_env()) {
  if (is_word(x, word)) return(x)
  if (!is_number(x) || x < minimum || x != floor(x)) {
    refuse(name, or_word(word, paste("a whole number >=", minimum)), describe(x), call)
  }
  if (x > .Machine$integer.max) {
    refuse(name, paste("a whole number <=", .Machine$integer.max), describe(x), call)
  }
  as.integer(x)
}

number <- function(x, allowed, accepts, name, call) {
  if (!is_number(x) || !accepts(x)) refuse(name, allowed, describe(x), call)
  as.double(x)
}

fraction <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  number(x, "a number from 0 to 1", function(x) x >= 0 && x <= 1, name, call)
}

positive <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  number(x, "a number > 0", function(x) x > 0, name, call)
}

not_negative <- function(x, word = NULL, name = rlang::caller_arg(x),
                         call = rlang::caller_env()) {
  if (is_word(x, word)) return(x)
  number(x, or_word(word, "a number >= 0"), function(x) x >= 0, name, call)
}

# One of the checks, where NULL stands for 'not given'.
optional <- function(check, x, ..., name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is.null(x)) check(x, ..., name = name, call = call)
}

# In some arguments a word may stand in place of a number.
is_word <- function(x, word) !is.null(word) && identical(x, word)

or_word <- function(word, allowed) {
  if (is.null(word)) allowed else sprintf('"%s" or %s', word, allowed)
}

# One of several words and whole numbers, of which 1 and 0 may be TRUE and FALSE.
choice <- function(x, choices, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  value <- if (is.numeric(x) || rlang::is_bool(x)) as.double(x) else x
  if (!any(vapply(choices, identical, NA, value))) {
    text <- vapply(choices, function(x) if (is.character(x)) describe_string(x) else format(x), "")
    allowed <- paste(toString(text[-length(text)]), "or", text[[length(text)]])
    refuse(name, allowed, describe(x), call)
  }
  if (is.double(value)) as.integer(value) else value
}

is_name <- function(x) {
  !missing(x) && rlang::is_string(x) && !is.object(x) && !is.na(x) && nzchar(x)
}

string <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is_name(x)) refuse(name, "a string", describe(x), call)
  x
}

flag <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !rlang::is_bool(x)) refuse(name, "TRUE or FALSE", describe(x), call)
  x
}

# Regular expressions: a list, so that one of them is a list in Python too.
patterns <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is.character(x) || is.object(x) || anyNA(x)) {
    refuse(name, "a character vector of regular expressions", describe(x), call)
  }
  as.list(unname(x))
}

# Arguments in `...`, which all need a name.
named <- function(..., call = rlang::caller_env()) {
  given <- list(...)
  if (length(given) > 0 && !all(nzchar(rlang::names2(given)))) {
    abort("Arguments in `...` must have names.", call, class = "kerasoptimizers_argument_error")
  }
  given
}

# data -------------------------------------------------------------------------

# What a pass over data draws from: once, or, with `again`, more than once. A
# function becomes a generator later (see call_ours()).
examples <- function(x, again = FALSE, name = rlang::caller_arg(x),
                     call = rlang::caller_env()) {
  if (!missing(x)) {
    if (is_live_python(x) || (is.function(x) && !is_python(x) && !again)) return(x)
    if (is_array(x)) return(as_array(x))
    if (is.list(x) && !is.object(x) && length(x) > 0 && all(vapply(x, is_input, NA))) {
      return(lapply(x, as_array))
    }
  }
  allowed <- "an array, a list of arrays%s a data set%s"
  allowed <- if (again) sprintf(allowed, " or", "") else
    sprintf(allowed, ",", ", a generator or a function")
  refuse(name, allowed, describe(x), call)
}

is_array <- function(x) (is.numeric(x) || is.logical(x)) && !is.object(x)

is_input <- function(x) is_array(x) || is_live_python(x)

# A vector without dimensions would become a list or a number in Python.
as_array <- function(x) if (is_array(x) && is.null(dim(x))) array(x) else x

# Keras objects ----------------------------------------------------------------

is_python <- function(x) inherits(x, "python.builtin.object")

is_live_python <- function(x) is_python(x) && !reticulate::py_is_null_xptr(x)

# The names of an object's Python classes, its own first. class() won't do: the R
# package keras rewrites what it shows.
python_classes <- function(x) {
  if (!is_live_python(x)) return(character())
  mro <- "lambda x: [c.__module__ + '.' + c.__name__ for c in type(x).__mro__]"
  reticulate::py_eval(mro)(x)
}

class_name <- function(x) sub(".*\\.", "", x)

# The generation of Keras that an object of one of these classes belongs to: NULL
# for any other object.
generation_of <- function(x, classes) {
  all <- python_classes(x)
  root <- sub("\\..*", "", all[class_name(all) %in% classes])
  if ("keras" %in% root) "keras3" else if ("tf_keras" %in% root) "keras"
}

optimizer_generation <- function(x) {
  generation_of(x, c("BaseOptimizer", "_BaseOptimizer", "Optimizer", "OptimizerV2"))
}

schedule_generation <- function(x) generation_of(x, "LearningRateSchedule")

model_generation <- function(x) generation_of(x, "Model")

is_model <- function(x) !is.null(model_generation(x))

# A number, or a schedule of either Keras.
rate <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!missing(x) && !is.null(schedule_generation(x))) return(x)
  number(x, "a number >= 0 or a Keras learning-rate schedule", function(x) x >= 0, name, call)
}

# The generation that such a rate means.
rate_generation <- function(x, call) {
  generation <- schedule_generation(x)
  if (is.null(generation)) default_generation(call) else generation
}

is_averaging_optimizer <- function(x) {
  "kerasoptimizers.averaging.Averaging" %in% python_classes(x)
}

# The generation that an inner optimizer means, which may be given by its name.
inner_generation <- function(optimizer, call = rlang::caller_env()) {
  wrong <- function(...) {
    refuse("optimizer", "a Keras optimizer or the name of one", paste0(...), call)
  }
  did_you_mean <- ": did you forget the parentheses, as in `%s()`?"
  if (missing(optimizer)) wrong("missing.")
  if (is_name(optimizer)) return(default_generation(call))
  generation <- optimizer_generation(optimizer)
  if (!is.null(generation)) return(generation)
  if (inherits(optimizer, "python.builtin.type") && is_live_python(optimizer)) {
    class <- optimizer$`__name__`
    wrong("the Python class ", class, sprintf(did_you_mean, class))
  }
  if (is.function(optimizer) && !is_python(optimizer)) {
    wrong("a function", sprintf(did_you_mean, "optimizer_sgd"))
  }
  wrong(describe(optimizer))
}

default_generation <- function(call) {
  chosen <- getOption("kerasoptimizers.keras")
  if (is.null(chosen)) {
    legacy <- tolower(Sys.getenv("TF_USE_LEGACY_KERAS")) %in% c("1", "true")
    return(if (legacy) "keras" else "keras3")
  }
  choice(chosen, names(modules), "options(kerasoptimizers.keras)", call)
}
