# test.R FILE: runs tests/testthat and writes to FILE, for each test, a line
# "outcome<tab>test<tab>reason".
library(testthat)
file <- commandArgs(trailingOnly = TRUE)[1]
results <- test_dir(
  "tests/testthat",
  reporter = "summary", package = "kerasoptimizers", load_package = "installed",
  stop_on_failure = FALSE
)

has <- function(test, class) Filter(function(result) inherits(result, class), test$results)
line <- function(test) {
  failed <- c(has(test, "expectation_failure"), has(test, "expectation_error"))
  skipped <- has(test, "expectation_skip")
  outcome <- if (length(failed) > 0) "failed" else if (length(skipped) > 0) "skipped" else "passed"
  reason <- vapply(c(failed, skipped), conditionMessage, "")
  reason <- if (length(reason) > 0) sub("\n.*", "", sub("^Reason: ", "", reason[1])) else ""
  paste(outcome, paste0(test$file, ": ", test$test), reason, sep = "\t")
}
writeLines(vapply(results, line, ""), file, useBytes = TRUE)
