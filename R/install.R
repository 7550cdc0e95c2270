# The Python packages that this package needs, and their installation.

oldest_keras <- c(keras3 = "3.8", keras = "2.16")

python_packages <- function(generation = "keras3", backend = Sys.getenv("KERAS_BACKEND")) {
  backend <- if (generation == "keras3" && backend %in% c("jax", "torch")) backend else "tensorflow"
  c(paste0(keras_modules[[generation]], ">=", oldest_keras[[generation]]), backend)
}

# reticulate 1.41 and newer can set up a Python with these packages by itself. The R packages
# keras3 and keras choose their own.
declare_python_packages <- function() {
  if ("py_require" %in% getNamespaceExports("reticulate") && !reticulate::py_available() &&
      !any(c("keras3", "keras") %in% loadedNamespaces())) {
    py_require <- getExportedValue("reticulate", "py_require")
    py_require(python_packages())
  }
}

#' Install the Python packages
#'
#' Installs Keras and its backend with the reticulate package. Call it once, if an error of this
#' package says that something is missing.
#'
#' You don't need it after `keras3::install_keras()` or `keras::install_keras()`. You also don't need it with
#' reticulate 1.41 or newer if you have not chosen a Python: reticulate then installs what a session needs. That is
#' Keras 3; for Keras 2 call `keras::py_require_legacy_keras()` right after `library(keras)`, which asks for it when it
#' is attached. After `install_kerasoptimizers(keras = "keras")` you don't need that call.
#'
#' @param envname Name or path of the Python environment to install into. `NULL`, the
#'   default, is the environment of the running Python, or if none runs `"r-reticulate"`, which is
#'   created if it does not exist.
#' @param keras `"keras3"` for Keras 3 or `"keras"` for Keras 2 (Python's `tf_keras`).
#' @param backend The backend of Keras 3: `"tensorflow"`, `"jax"` or `"torch"`. Keras 2
#'   always uses TensorFlow.
#' @param ... Further arguments of [reticulate::py_install()].
#' @returns The names of the installed packages, invisibly.
#' @section Next step:
#' Restart R if Python was running already. Then build a model: `vignette("kerasoptimizers")`.
#' @section Errors:
#' An argument that is not as described stops with an error that names it, before
#' anything is installed.
#' @references `install_keras()` of the R package keras3 was the model for this function.
#' @family setup
#' @seealso [kerasoptimizers-package] for which Keras is used.
#' @export
#' @examples
#' \dontrun{
#' install_kerasoptimizers()
#' install_kerasoptimizers(keras = "keras") # Keras 2
#' }
install_kerasoptimizers <- function(envname = NULL, keras = "keras3", backend = "tensorflow",
                                    ...) {
  whole_names()
  optional(string, envname)
  keras <- choice(keras, names(modules))
  backend <- choice(backend, c("tensorflow", "jax", "torch"))
  packages <- python_packages(keras, backend)
  # Older versions of reticulate can't convert arrays of numpy 2.
  if (utils::packageVersion("reticulate") < "1.38") packages <- c(packages, "numpy<2")
  reticulate::py_install(packages, envname = envname, pip = TRUE, ...)
  invisible(packages)
}

# The one line that says that Python or one of its packages is missing.
import_error <- function(e, generation, call) {
  if (!reticulate::py_available()) {
    abort(sprintf("Python was not found: looked %s; install Python 3.10 or newer, then run %s.",
                  looked_for_python(), install_command(generation)), call)
  }
  missing <- sub(".*No module named '([^'.]+)'.*", "\\1", conditionMessage(e))
  if (missing != conditionMessage(e)) {
    abort(sprintf("The Python package %s is missing from %s: run %s and restart R.",
                  missing, reticulate::py_exe(), install_command(generation)), call)
  }
  python_error(e, call)
}

install_command <- function(generation) {
  if (generation == "keras3") "`install_kerasoptimizers()`" else
    '`install_kerasoptimizers(keras = "keras")`'
}

# The places where reticulate looks for a Python, in order.
looked_for_python <- function() {
  chosen <- Sys.getenv("RETICULATE_PYTHON")
  if (nzchar(chosen)) return(paste("at", chosen, "(RETICULATE_PYTHON)"))
  environment <- Sys.getenv("RETICULATE_PYTHON_ENV")
  paste(c(
    if (nzchar(environment)) paste("in", environment, "(RETICULATE_PYTHON_ENV)"),
    'in the environment "r-reticulate"', "on the PATH"
  ), collapse = ", ")
}

# The version numbers, alone, of a string such as "3.9.0.dev2024".
version_of <- function(x) numeric_version(sub("^([0-9]+(\\.[0-9]+)*).*", "\\1", x))

# Stops if Python, or the Keras of a generation, is too old.
require_versions <- function(keras, generation, call) {
  python <- as.character(reticulate::py_config()$version)
  if (version_of(python) < "3.10") {
    abort(sprintf(paste("%s is Python %s, and 3.10 or newer is needed: restart R, choose another",
                        "Python with `reticulate::use_python()`, and run %s."),
                  reticulate::py_exe(), python, install_command(generation)), call)
  }
  version <- keras$`__version__`
  if (version_of(version) < oldest_keras[[generation]]) {
    abort(sprintf(paste("The Python package %s in %s is %s, and %s or newer is needed: run %s",
                        "and restart R."),
                  keras_modules[[generation]], reticulate::py_exe(), version,
                  oldest_keras[[generation]], install_command(generation)), call)
  }
}
