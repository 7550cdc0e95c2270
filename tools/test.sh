#!/bin/sh
# test.sh: pytest, then testthat, then one summary of both; fails where either failed.
set -u
results=.test-results
rm -rf "$results"
mkdir "$results"
# A missing Python module is a failure here, not a reason to skip.
export KERASOPTIMIZERS_REQUIRE_PYTHON=true
# Python that a test starts finds the module, too.
PYTHONPATH="$PWD/inst/python" .venv/bin/python -m pytest tests/python -q --junitxml="$results/pytest.xml"
pytest=$?
Rscript tools/testthat.R "$results/testthat.tsv"
testthat=$?
.venv/bin/python tools/summary.py "$pytest" "$testthat" "$results/pytest.xml" "$results/testthat.tsv"
