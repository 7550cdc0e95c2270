# Whether TensorFlow took a worker that waited for the processor, for 10 s or more, for a dead one. It
# has no public setting for that limit. Both workers then end with its error, and with no other.
was_too_slow <- function(output) {
  errors <- sum(grepl("^Error", output))
  engine <- sum(grepl("errors_impl[.](Aborted|DeadlineExceeded|Unavailable)Error", output))
  errors == 2 && engine == 2 && any(grepl("heartbeat", output, ignore.case = TRUE))
}

test_that("two workers of the example end up with the same averages", {
  skip_on_os("windows")
  python_keras("tf_keras")
  script <- system.file("examples", "two-workers.R", package = "kerasoptimizers")
  libraries <- paste0("R_LIBS=", paste(.libPaths(), collapse = .Platform$path.sep))
  python <- paste0("RETICULATE_PYTHON=", reticulate::py_config()$python)
  # Workers that wait for each other without end are stopped, and have not said it.
  output <- suppressWarnings(system2(
    file.path(R.home("bin"), "Rscript"), shQuote(script),
    stdout = TRUE, stderr = TRUE, env = c(libraries, python, "R_TESTS="), timeout = 300
  ))
  skip_if(was_too_slow(output), "this machine is too busy: TensorFlow gave up a worker that waited")
  expect_match(output, "the averages agree", fixed = TRUE, all = FALSE)
  expect_match(output, "one of 2", fixed = TRUE, all = FALSE)
  expect_null(attr(output, "status"))
})

test_that("a worker without a number or with a wrong address is told what is missing", {
  script <- system.file("examples", "two-workers.R", package = "kerasoptimizers")
  for (arguments in list(c("2", "a:1", "b:2"), c("0", "a:1"), c("x", "a:1", "b:2"), c("0", "a", "b:2"))) {
    output <- suppressWarnings(system2(
      file.path(R.home("bin"), "Rscript"), shQuote(c(script, arguments)),
      stdout = TRUE, stderr = TRUE, env = "R_TESTS=", timeout = 300
    ))
    expect_match(output, "give the number of this worker, 0 or 1", all = FALSE)
    expect_identical(attr(output, "status"), 1L)
  }
})
