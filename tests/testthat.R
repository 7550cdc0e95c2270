library(testthat)
library(kerasoptimizers)

test_check("kerasoptimizers")
