# vignettes.R [NAME...]: runs vignettes/source/NAME.Rmd.orig, or all without a name, and writes
# vignettes/NAME.Rmd: the same text with numbers and pictures as they came out. Each runs in a
# separate session.

folder <- "vignettes"
names <- commandArgs(trailingOnly = TRUE)
needed <- c("knitr", "mlbench", "keras3", "keras", "ggplot2", "tfruns")
missing <- Filter(function(package) !nzchar(system.file(package = package)), needed)
if (length(missing) > 0) {
  message("kerasoptimizers: the vignettes need these R packages, too: ", toString(missing))
  quit(status = 1)
}
if ((length(names) == 0 || "tuning" %in% names) && !reticulate::py_module_available("tensorboard")) {
  message("kerasoptimizers: keras3 needs the Python package tensorboard for the vignette tuning")
  quit(status = 1)
}

rscript <- file.path(R.home("bin"), "Rscript")

# A chunk of this engine is a whole script and runs in a separate session: keras3 and keras can't
# share one.
run_script <- function(options) {
  file <- tempfile(fileext = ".R")
  said <- tempfile()
  writeLines(options$code, file)
  output <- suppressWarnings(system2(rscript, file, stdout = TRUE, stderr = said))
  if (!is.null(attr(output, "status"))) {
    stop("a script failed: ", paste(readLines(said), collapse = "\n"))
  }
  options$engine <- "r"
  knitr::engine_output(options, options$code, output)
}

# A picture that nobody described can't be read aloud.
described <- function(before, options) {
  if (!before && options$fig.num > 0 && is.null(options$fig.alt)) {
    stop("the chunk ", options$label, " draws a picture and has no fig.alt")
  }
}

knit <- function(name) {
  setwd(folder)
  knitr::knit_engines$set(script = run_script)
  # All pictures have this size, as wide as the text, and the looks of the package's own.
  knitr::opts_chunk$set(
    fig.path = paste0("figures/", name, "-"), fig.width = 7, fig.height = 4.2, dpi = 150, out.width = "100%",
    dev = "png", dev.args = list(type = "cairo"), message = FALSE, comment = "#>", error = FALSE,
    described = TRUE
  )
  knitr::knit_hooks$set(described = described)
  own <- getNamespace("kerasoptimizers")
  ggplot2::theme_set(own$picture_theme())
  options(ggplot2.discrete.colour = own$looks$color, ggplot2.discrete.fill = own$looks$color)
  knitr::knit(file.path("source", paste0(name, ".Rmd.orig")), paste0(name, ".Rmd"), quiet = TRUE)
}

if (length(names) == 1) {
  invisible(knit(names))
} else {
  if (length(names) == 0) names <- sub("[.]Rmd[.]orig$", "", dir(file.path(folder, "source")))
  for (name in names) {
    cat("running", name, "\n")
    if (system2(rscript, c("tools/vignettes.R", name)) != 0) quit(status = 1)
  }
}
