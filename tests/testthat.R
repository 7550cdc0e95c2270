# TensorFlow leaves files in the folder for temporary ones: R deletes its own when it ends.
Sys.setenv(TMPDIR = tempdir())

library(testthat)
library(kerasoptimizers)

test_check("kerasoptimizers")
