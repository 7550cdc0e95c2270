#!/bin/sh
# with-python.sh COMMAND...: runs it with the Python of .venv and with the package as installed by make, beside the user's
# own R packages.
export RETICULATE_PYTHON="$PWD/.venv/bin/python"
export R_LIBS="$PWD/.R-library${R_LIBS:+:$R_LIBS}"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
# oneDNN rounds differently from one processor to the next, and says so on every start.
export TF_ENABLE_ONEDNN_OPTS="${TF_ENABLE_ONEDNN_OPTS:-0}"
exec "$@"
