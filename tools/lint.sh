#!/bin/sh
# lint.sh: lintr, ruff and mypy; fails if one of them finds something. A tool that could not be installed is named in one line
# and left out, as in the tests.
set -u
status=0
if Rscript --no-save --no-restore tools/r-packages.R lintr; then
    Rscript tools/lint.R || status=1
else
    echo "kerasoptimizers: lintr could not be installed (R code is not linted)" >&2
fi
if [ ! -f .venv/missing-lint ]; then
    .venv/bin/ruff check --quiet --output-format concise . || status=1
    .venv/bin/mypy --no-error-summary || status=1
fi
exit $status
