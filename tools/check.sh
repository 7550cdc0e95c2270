#!/bin/sh
# check.sh: R CMD build and R CMD check --as-cran, away from the checkout. R CMD build copies a whole folder before it leaves
# out what .Rbuildignore names, so .venv and .R-library stay behind from the start.
set -eu
# These turn the vignettes into pages.
Rscript --no-save --no-restore tools/r-packages.R knitr rmarkdown
if ! command -v pandoc >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    tools/apt-install.sh pandoc
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/kerasoptimizers"
tar -cf - --exclude=./.git --exclude=./.venv --exclude=./.R-library --exclude=./.mypy_cache . | tar -xf - -C "$work/kerasoptimizers"
cd "$work"
R CMD build kerasoptimizers
# Of the suggested packages, those that are not installed are not needed.
export _R_CHECK_FORCE_SUGGESTS_=false
# These would ask CRAN, other sites and a clock on the net, which not every machine reaches: for the packages on CRAN, for the
# targets of links, and for the time.
export _R_CHECK_CRAN_INCOMING_=false
export _R_CHECK_CRAN_INCOMING_REMOTE_=false
export _R_CHECK_SYSTEM_CLOCK_=false
# Whether a package that we need is orphaned is asked of CRAN's list all the same: it gets one without packages.
list=$PWD/cran/web/packages/packages.rds
mkdir -p cran/web/packages
Rscript -e 'saveRDS(data.frame(Package = character(), Maintainer = character()), commandArgs(TRUE))' "$list"
export R_CRAN_WEB="file://$PWD/cran"
R CMD check --as-cran --no-manual kerasoptimizers_*.tar.gz
