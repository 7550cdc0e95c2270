#!/bin/sh
# site.sh: builds the package's site in docs/, which git ignores. Where make setup has put a Python in .venv the examples of
# the help pages run, and their output and pictures are shown; elsewhere they stand there as code.
set -eu
cd "$(dirname "$0")/.."
Rscript --no-save --no-restore tools/r-packages.R pkgdown ggplot2 rmarkdown jsonlite xml2
if ! command -v pandoc >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    tools/apt-install.sh pandoc
fi
command -v pandoc >/dev/null || { echo "kerasoptimizers: pandoc is missing: install it, and run this again." >&2; exit 1; }
if [ -n "$(find .venv/ -maxdepth 1 -name 'installed-*' 2>/dev/null)" ]; then
    exec tools/with-python.sh Rscript --no-save --no-restore tools/site.R examples
else
    exec Rscript --no-save --no-restore tools/site.R
fi
