# Checks R values and turns them into what Python expects. Each error is one line that
# names the argument, what is allowed and what was given. The Python module raises the
# same texts for the same mistakes.

refuse <- function(name, allowed, x, call, is_element = NULL) {
  text <- if (missing(x)) sprintf("`%s` must be given: %s.", name, allowed) else
    sprintf("`%s` must be %s, not %s.", name, allowed, describe_list(x, is_element))
  abort_argument(text, call)
}

abort_argument <- function(message, call) {
  abort(message, call, class = "kerasoptimizers_argument_error")
}

describe <- function(x) {
  if (is.null(x)) {
    "NULL"
  } else if (is_python(x)) {
    describe_python(x)
  } else if (is.function(x)) {
    "a function"
  } else if (is.data.frame(x)) {
    "a data frame"
  } else if (is.object(x)) {
    paste("an object of class", class(x)[[1]])
  } else if (!is.null(dim(x))) {
    describe_dim(dim(x))
  } else if (is.list(x)) {
    paste("a list of length", length(x))
  } else if (!is.atomic(x)) {
    paste("an object of type", typeof(x))
  } else if (length(x) != 1) {
    paste("a vector of length", length(x))
  } else if (is.character(x) && !is.na(x)) {
    describe_string(x)
  } else {
    format(x, digits = 15)
  }
}

# For a list that must hold certain elements: the first one that is wrong.
describe_list <- function(x, is_element) {
  wrong <- if (!is.null(is_element) && is_plain_list(x)) which(!vapply(x, is_element, NA))
  if (length(wrong) == 0) return(describe(x))
  sprintf("a list whose element %d is %s", wrong[[1]], describe(x[[wrong[[1]]]]))
}

is_plain_list <- function(x) is.list(x) && !is.object(x)

describe_dim <- function(dim) {
  paste("a", paste(dim, collapse = " x "), if (length(dim) == 2) "matrix" else "array")
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
  if (!missing(x) && is_word(x, word)) return(x)
  if (!is_number(x) || x < minimum || x != floor(x)) {
    refuse(name, or_word(word, paste("a whole number >=", minimum)), x, call)
  }
  if (x > .Machine$integer.max) {
    refuse(name, paste("a whole number <=", .Machine$integer.max), x, call)
  }
  as.integer(x)
}

# A number of updates, or a text such as "3 epochs".
updates_or_epochs <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!missing(x) && is_name(x) && grepl("^[0-9]{1,9} epochs?$", x)) return(x)
  if (!is_number(x) || x < 0 || x != floor(x)) {
    refuse(name, "a whole number >= 0 or a text such as '3 epochs'", x, call)
  }
  whole(x, 0, name = name, call = call)
}

number <- function(x, allowed, accepts, name, call) {
  if (!is_number(x) || !accepts(x)) refuse(name, allowed, x, call)
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

# Widths of power averages; 0.2887 is 1 / sqrt(12).
width <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  number(x, "a number > 0 and at most 0.2887 (1 / sqrt(12))", function(x) x > 0 && x <= 0.2887, name, call)
}

widths <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  x <- numbers(x, width, name, call)
  if (anyDuplicated(x) > 0) {
    abort_argument(sprintf("`%s` must hold at least one width, and each only once, not c(%s).", name,
                           toString(format_each(x))), call)
  }
  x
}

between <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  number(x, "a number > 0 and < 1", function(x) x > 0 && x < 1, name, call)
}

# A vector of numbers, each of which a function checks.
numbers <- function(x, check, name, call) {
  if (missing(x) || !is.numeric(x) || is.object(x) || length(x) == 0) return(check(x, name = name, call = call))
  vapply(as.vector(x), function(one) check(one, name = name, call = call), 0)
}

format_each <- function(x) vapply(x, format, "", digits = 6)

# One of the checks, unless the argument is NULL.
optional <- function(check, x, ..., name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is.null(x)) check(x, ..., name = name, call = call)
}

# Some arguments take a word instead of a number.
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
    refuse(name, allowed, x, call)
  }
  if (is.double(value)) as.integer(value) else value
}

is_name <- function(x) {
  !missing(x) && rlang::is_string(x) && !is.object(x) && !is.na(x) && nzchar(x)
}

string <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is_name(x)) refuse(name, "a string", x, call)
  x
}

flag <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (missing(x) || !rlang::is_bool(x)) refuse(name, "TRUE or FALSE", x, call)
  x
}

# Regular expressions: a list, so that one of them is a list in Python too.
patterns <- function(x, name = rlang::caller_arg(x), call = rlang::caller_env()) {
  if (!is.character(x) || is.object(x) || anyNA(x)) {
    refuse(name, "a character vector of regular expressions", x, call)
  }
  as.list(unname(x))
}

# Arguments in `...`, which all need a name.
named <- function(..., call = rlang::caller_env()) {
  given <- list(...)
  if (length(given) > 0 && !all(nzchar(rlang::names2(given)))) {
    abort_argument("Arguments in `...` must have names.", call)
  }
  given
}

# Refuses shortened names of arguments. R completes them, so that an argument for `...` can
# become another one: `weight_decay` became `weight_decay_rate`. Call it first in a function with `...`.
whole_names <- function(known_as = list(), call = rlang::caller_env()) {
  # The call with the arguments in its own `...`, if a function passes some on.
  written <- eval(base::call("substitute", sys.call(-1), parent.frame(2)))
  before_dots <- names(formals(sys.function(-1)))
  before_dots <- before_dots[seq_len(match("...", before_dots) - 1)]
  for (name in setdiff(rlang::names2(written), c("", before_dots))) {
    if (!is.null(known_as[[name]])) abort_argument(known_as[[name]], call)
    meant <- before_dots[startsWith(before_dots, name)]
    if (length(meant) > 0) {
      abort_argument(sprintf("There is no argument `%s`: did you mean `%s`?", name, meant[[1]]), call)
    }
  }
}

# data -------------------------------------------------------------------------

# Data for one pass, or with `again` for several. A function becomes a generator later (see
# call_ours()). With `frames` a data frame is its columns as named inputs, as for keras3's fit().
examples <- function(x, again = FALSE, frames = FALSE, name = rlang::caller_arg(x),
                     call = rlang::caller_env()) {
  if (!missing(x)) {
    if (frames && is.data.frame(x)) return(frame_columns(x, name, call))
    if (is_live_python(x) || (is.function(x) && !is_python(x) && !again)) return(x)
    if (is_array(x)) return(as_array(x))
    if (is_plain_list(x) && length(x) > 0 && all(vapply(x, is_input, NA))) {
      return(lapply(x, as_array))
    }
  }
  allowed <- paste0("an array, ", if (frames) "a data frame, ", "a list of arrays%s a data set%s")
  allowed <- if (again) sprintf(allowed, " or", "") else
    sprintf(allowed, ",", ", a generator or a function")
  refuse(name, allowed, x, call, is_input)
}

is_array <- function(x) (is.numeric(x) || is.logical(x)) && !is.object(x)

is_input <- function(x) is_array(x) || is_live_python(x)

# In Python a vector without dimensions would become a list or a number. NA becomes NaN: NumPy would take an NA of
# integers for a number, and warn of one of doubles.
as_array <- function(x) {
  if (!is_array(x)) return(x)
  if (anyNA(x)) x[is.na(x)] <- NaN
  if (is.null(dim(x))) array(x) else x
}

# The columns of a data frame as arrays. Factors are their codes, counted from 0, as for keras3's fit().
frame_columns <- function(x, name, call) {
  sapply(names(x), function(label) {
    column <- x[[label]]
    if (is.factor(column)) column <- as.integer(column) - 1L
    if (is.character(column) && !is.object(column)) return(array(column))
    if (!is_array(column)) {
      abort_argument(sprintf("`%s` must hold numbers, factors and strings, and its column `%s` is %s.", name, label,
                             describe(column)), call)
    }
    as_array(column)
  }, simplify = FALSE)
}

# An argument `data`, with which batch norm is recalibrated. If it is needed `later` only, after training, what would
# go wrong then is said now.
data_or_null <- function(data, later = FALSE, call = rlang::caller_env()) {
  if (is.null(data)) return(NULL)
  data <- examples(data, again = TRUE, frames = TRUE, name = "data", call = call)
  arrays <- Filter(is.numeric, if (is.list(data)) data else list(data))
  if (later && any(vapply(arrays, anyNA, NA))) {
    warning(warningCondition(
      "`data` has missing values (NA or NaN): unless the model replaces them, batch norm can't be recalibrated.",
      class = "kerasoptimizers_warning", call = rlang::error_call(call)
    ))
  }
  data
}

# Keras objects ----------------------------------------------------------------

is_python <- function(x) inherits(x, "python.builtin.object")

is_live_python <- function(x) is_python(x) && !reticulate::py_is_null_xptr(x)

# The names of an object's Python classes, the most specific first. Not class(): the R package keras
# changes these names.
python_classes <- function(x) {
  if (!is_live_python(x)) return(character())
  mro <- "lambda x: [c.__module__ + '.' + c.__name__ for c in type(x).__mro__]"
  reticulate::py_eval(mro)(x)
}

class_name <- function(x) sub(".*\\.", "", x)

# The generation of Keras of an object of one of these classes; NULL for any other object.
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

# The generation of Keras that such a rate is for.
rate_generation <- function(x, call) {
  generation <- schedule_generation(x)
  if (is.null(generation)) default_generation(call) else generation
}

is_averaging_optimizer <- function(x) {
  "kerasoptimizers.AveragingOptimizer" %in% python_classes(x)
}

# The optimizer inside a LossScaleOptimizer, which Keras puts around it in mixed precision.
without_loss_scaling <- function(x) {
  if (any(startsWith(class_name(python_classes(x)), "LossScaleOptimizer"))) {
    without_loss_scaling(x$inner_optimizer)
  } else {
    x
  }
}

# The generation of Keras that an inner optimizer is for, which may be given by its name.
inner_generation <- function(optimizer, call = rlang::caller_env()) {
  allowed <- "a Keras optimizer or the name of one"
  if (missing(optimizer)) refuse("optimizer", allowed, optimizer, call)
  if (is_name(optimizer)) return(default_generation(call))
  generation <- optimizer_generation(optimizer)
  if (!is.null(generation)) return(generation)
  maker <- if (inherits(optimizer, "python.builtin.type") && is_live_python(optimizer)) {
    optimizer$`__name__`
  } else if (is.function(optimizer) && !is_python(optimizer)) {
    "optimizer_sgd"
  }
  if (is.null(maker)) refuse("optimizer", allowed, optimizer, call)
  abort_argument(sprintf(
    "`optimizer` must be %s, not %s: did you forget the parentheses, as in `%s()`?",
    allowed, describe(optimizer), maker
  ), call)
}

# Without such an object: the option, the R package that is attached, the environment variable.
default_generation <- function(call) {
  chosen <- getOption("kerasoptimizers.keras")
  if (!is.null(chosen)) {
    return(choice(chosen, names(modules), "options(kerasoptimizers.keras)", call))
  }
  attached <- names(modules)[paste0("package:", names(modules)) %in% search()]
  if (length(attached) == 1) return(attached)
  legacy <- tolower(Sys.getenv("TF_USE_LEGACY_KERAS")) %in% c("1", "true")
  if (legacy) "keras" else "keras3"
}
