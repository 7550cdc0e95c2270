#!/bin/sh
# setup.sh: installs what the example and the tests need and this machine lacks: R, R packages, and in .venv the Python
# packages of requirements.txt. What is there is left alone. PYTHON names the Python to make .venv from.
set -eu
cd "$(dirname "$0")/.."

say() { echo "kerasoptimizers: $*"; }
stop() { say "$*" >&2; exit 1; }
may_use_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# ---- R

if ! command -v Rscript >/dev/null; then
    ! may_use_apt || tools/apt-install.sh r-base-core || exit 1
    command -v Rscript >/dev/null ||
        stop "R is missing: install R, put Rscript on the PATH, and run this again (root on Debian and Ubuntu has it installed by this)."
fi
Rscript --no-save --no-restore tools/r-packages.R

# ---- Python

describe_python() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)' 2>/dev/null; }

# R runs Python inside itself and so needs it as a shared library; reticulate knows best where it looks for that.
loads_in_r() {
    RETICULATE_PYTHON=$1 Rscript --no-save --no-restore \
        -e 'quit(status = !suppressWarnings(reticulate::py_available(initialize = TRUE)))' >/dev/null 2>&1
}

# Sets `python` and `found`, its description, or `problem`, what is the matter with the first.
choose_python() {
    problem=
    for candidate in "$@"; do
        if python=$(command -v "$candidate") && found=$(describe_python "$python"); then
            case $found in
            "3.10 "* | "3.11 "* | "3.12 "* | "3.13 "*) return 0 ;;
            esac
            problem=${problem:-$python is ${found%% *}}
        else
            problem=${problem:-$candidate does not run}
        fi
    done
    return 1
}

# What `python` lacks, by the names of Debian's packages.
missing_parts() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "python${found%% *}-venv"
    loads_in_r "$python" || echo "libpython${found%% *}"
}

complete_python() {
    parts=$(missing_parts)
    [ -n "$parts" ] || return 0
    if may_use_apt && [ "${found#* }" = /usr ]; then
        # shellcheck disable=SC2086 # one word for each package
        tools/apt-install.sh $parts || exit 1
        parts=$(missing_parts)
        [ -n "$parts" ] || return 0
    fi
    stop "$python lacks what Debian and Ubuntu call" $parts "(elsewhere: the modules venv and ensurepip, and the shared library, for R):" \
        "install that, or name another Python with PYTHON=."
}

stamp=.venv/installed-$(cksum <requirements.txt | tr ' ' -)
venv_is_ready() {
    [ -f "$stamp" ] && .venv/bin/python -c 'import pip' 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$(describe_python "$PYTHON")" = "$(cat "$stamp")" ]
}

if ! venv_is_ready; then
    # shellcheck disable=SC2086 # several words, unless PYTHON is set
    choose_python ${PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10} ||
        stop "TensorFlow needs Python 3.10, 3.11, 3.12 or 3.13, and $problem: install one and name it with PYTHON=."
    complete_python
    say "installing the Python packages of requirements.txt in .venv with $python (about 400 MB to fetch)"
    "$python" -m venv --clear .venv
    reason=$(tools/pip-install.sh --no-deps --requirement requirements.txt) ||
        stop "pip could not install the Python packages of requirements.txt: $reason (all it said is in .venv/pip.log)."
    echo "$found" >"$stamp"
fi
