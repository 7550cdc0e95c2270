# lint.R: lintr, by .lintr, on all R code, and R's own check that help pages document the arguments of their functions;
# prints all findings, and fails if there are any.

folders <- c("R", "tests/testthat", "tools", "inst/examples")
lints <- do.call(c, lapply(folders, lintr::lint_dir, relative_path = FALSE))
for (lint in lints) {
  place <- paste(lint$filename, lint$line_number, lint$column_number, sep = ":")
  cat(place, ": ", lint$message, " [", lint$linter, "]\n", sep = "")
}
pages <- format(tools::checkDocFiles(dir = "."))
writeLines(pages)
quit(status = as.integer(length(lints) + length(pages) > 0))
