# Everything here starts from a machine with Python 3 and make: missing parts are installed once (tools/setup.sh).
#   PYTHON=/path/to/python3   the Python to make .venv from

.DEFAULT_GOAL := help
.PHONY: help setup backends linters example example-intervals uci lint test test-long test-newest vignettes site check benchmark effects clean

# The package itself, installed where only this checkout looks.
installed := .R-library/kerasoptimizers/DESCRIPTION
sources := DESCRIPTION NAMESPACE $(shell find R inst ! -path '*__pycache__*')

help:
	@echo 'make example   train on real data with and without averaging: a table, and letters.png'
	@echo 'make example-intervals  predictions with uncertainty on real data: a table, and intervals.png'
	@echo 'make test      lint, and the tests of the R package and of its Python module'
	@echo 'make test-long those that take long, too'
	@echo 'make test-newest  Python tests on the newest Keras, TensorFlow, JAX and PyTorch'
	@echo 'make lint      lintr, ruff and mypy'
	@echo 'make check     R CMD build and R CMD check --as-cran'
	@echo 'make benchmark time and memory of everything, measured here; takes hours'
	@echo 'make effects   what each method brings: five data sets, tuned rates; an hour of CPU time; QUICK=1: minutes'
	@echo 'make uci       SWAG and ensembles on 20 splits of Boston (and Concrete): benchmarks/uci.md; minutes'
	@echo 'make site      the package site with help pages and articles, in docs/'
	@echo 'make vignettes run the vignettes again (needs the R packages keras3, keras and tfruns, and tensorboard)'
	@echo 'make clean     remove what the others made here: .venv, .R-library, results'

setup:
	@PYTHON='$(PYTHON)' tools/setup.sh

$(installed): $(sources) | setup
	@mkdir -p .R-library
	@R CMD INSTALL --no-docs --library=.R-library . >.R-library/install.log 2>&1 || { cat .R-library/install.log; exit 1; }
	@touch $@

example: setup $(installed)
	@tools/with-python.sh Rscript inst/examples/letters.R

example-intervals: setup $(installed)
	@tools/with-python.sh Rscript inst/examples/intervals.R

# For the tests alone.
backends:
	@PYTHON='$(PYTHON)' tools/setup.sh jax torch oldest-keras
	@Rscript --no-save --no-restore tools/r-packages.R ggplot2 || \
	    echo 'kerasoptimizers: without ggplot2 no picture is tested' >&2

linters:
	@PYTHON='$(PYTHON)' tools/setup.sh lint

lint: linters
	@tools/lint.sh

test: lint backends $(installed)
	@tools/with-python.sh .venv/bin/python tools/test.py

test-long: lint backends $(installed)
	@tools/with-python.sh .venv/bin/python tools/test.py --long

# Python's tests alone, on other versions than those of requirements.txt.
test-newest: setup
	@tools/setup.sh newest
	@tools/with-python.sh .venv/bin/python tools/test.py --newest

# They are committed as they come out, so that nobody needs Python, keras3 or keras to read or build them.
vignettes: setup $(installed)
	@tools/with-python.sh Rscript tools/vignettes.R

# Needs no Python; where there is one, the help pages show what their examples print and draw.
site:
	@tools/site.sh

benchmark: backends $(installed)
	@tools/with-python.sh .venv/bin/python benchmarks/run.py --readme

# Goes on where it stopped. Then the vignette is to be made anew: it reads vignettes/source/which-averaging.csv.
effects: setup
	@PYTHON='$(PYTHON)' tools/setup.sh jax effects
	@Rscript --no-save --no-restore tools/r-packages.R ggplot2 || true
	@.venv/bin/python benchmarks/effects.py $(if $(QUICK),--quick)

uci: setup
	@PYTHON='$(PYTHON)' tools/setup.sh jax
	@.venv/bin/python benchmarks/uci.py

check: setup
	@tools/with-python.sh tools/check.sh

clean:
	rm -rf .venv .R-library .test-results docs .pytest_cache .mypy_cache .ruff_cache .hypothesis letters.png intervals.png
	find . -name __pycache__ -prune -exec rm -rf {} +
