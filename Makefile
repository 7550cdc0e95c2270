# Everything here starts from a machine with Python 3 and make: what is missing is installed once (tools/setup.sh).
#   PYTHON=/path/to/python3   the Python to make .venv from

.DEFAULT_GOAL := help
.PHONY: help setup backends example test check clean

# The package itself, installed where only this checkout looks.
installed := .R-library/kerasoptimizers/DESCRIPTION
sources := DESCRIPTION NAMESPACE $(shell find R inst ! -path '*__pycache__*')

help:
	@echo 'make example   train on real data with and without averaging: a table, and letters.png'
	@echo 'make test      every test of the R package and of its Python module'
	@echo 'make check     R CMD build and R CMD check'
	@echo 'make clean     remove what the others made here: .venv, .R-library, results'

setup:
	@PYTHON='$(PYTHON)' tools/setup.sh

$(installed): $(sources) | setup
	@mkdir -p .R-library
	@R CMD INSTALL --no-docs --library=.R-library . >.R-library/install.log 2>&1 || { cat .R-library/install.log; exit 1; }
	@touch $@

example: setup $(installed)
	@tools/with-python.sh Rscript inst/examples/letters.R

# What only the tests need, after setup has made .venv.
backends: setup
	@tools/backends.sh

test: backends $(installed)
	@tools/with-python.sh tools/test.sh

check: setup
	@tools/with-python.sh tools/check.sh

clean:
	rm -rf .venv .R-library .test-results .pytest_cache .hypothesis letters.png
	find . -name __pycache__ -prune -exec rm -rf {} +
