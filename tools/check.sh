#!/bin/sh
# check.sh: R CMD build and R CMD check, away from the checkout. R CMD build copies a whole folder before it leaves out what
# .Rbuildignore names, so .venv and .R-library stay behind from the start.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/kerasoptimizers"
tar -cf - --exclude=./.git --exclude=./.venv --exclude=./.R-library . | tar -xf - -C "$work/kerasoptimizers"
cd "$work"
R CMD build kerasoptimizers
# Of the suggested packages, those that are not installed are not needed.
_R_CHECK_FORCE_SUGGESTS_=false R CMD check --no-manual kerasoptimizers_*.tar.gz
