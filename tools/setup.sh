#!/bin/sh
# setup.sh [NAME...]: installs the things that the example and the tests need and this machine lacks: R, R packages, and in
# .venv the Python packages of requirements.txt. It leaves existing ones alone. PYTHON names the Python to make .venv from.
#
# Packages for the tests alone are added to .venv by name: jax, torch, oldest-keras (the oldest Keras 3 that pyproject.toml
# promises), lint (ruff and mypy), newest (the newest of everything); and effects (scikit-learn), for `make effects`.
# One that can't be installed gets one line here and a file .venv/missing-NAME with the reason, for tools/test.py and
# tools/lint.sh; the next run tries again.
set -eu
cd "$(dirname "$0")/.."

say() { echo "kerasoptimizers: $*"; }
stop() { say "$*" >&2; exit 1; }

# pip install in .venv, or in $venv; where that fails, the one line that says why is all it prints.
pip_install() {
    "${venv:-.venv}"/bin/python -m pip --disable-pip-version-check install --quiet "$@" >.venv/pip.log 2>&1 && return 0
    why=$(grep '^ERROR' .venv/pip.log | grep -v -m 1 'ERROR: Ignored the following' || tail -n 1 .venv/pip.log)
    # pip calls that, too, a version that it could not find.
    ! grep -q 'connection broken' .venv/pip.log || why="the package index could not be reached"
    # Of all the versions that there are, the list is long.
    echo "$why" | sed 's/^ERROR: //; s/ (from versions: .*//'
    return 1
}

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

# The parts that `python` lacks, by the names of Debian's packages.
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
    reason=$(pip_install --no-deps --requirement requirements.txt) ||
        stop "pip could not install the Python packages of requirements.txt: $reason (all it said is in .venv/pip.log)."
    echo "$found" >"$stamp"
fi

# ---- For the tests alone

# add NAME DESCRIPTION VERSIONS ARGUMENT...: installed with these arguments, and again when VERSIONS changes.
add() {
    name=$1 description=$2
    stamp=.venv/installed-$name-$(echo "$3" | cksum | tr ' ' -)
    shift 3
    [ ! -f "$stamp" ] || return 0
    rm -rf .venv/"$name" .venv/missing-"$name"
    say "installing $description for the tests in .venv"
    if reason=$(pip_install "$@"); then
        touch "$stamp"
    else
        reason="$description could not be installed: $reason"
        echo "$reason" >.venv/missing-"$name"
        say "$reason (what needs it will be skipped)" >&2
    fi
}

for name in "$@"; do
    list=requirements/$name.txt
    case $name in
    jax) add jax "JAX" "$(cat $list)" --no-deps --requirement $list ;;
    torch) add torch "PyTorch" "$(cat $list)" --constraint requirements.txt --requirement $list ;;
    effects) add effects "scikit-learn" "$(cat $list)" --no-deps --requirement $list ;;
    lint) add lint "ruff and mypy" "$(cat $list)" --no-deps --requirement $list ;;
    newest)
        # Every time, because the newest version changes.
        rm -f .venv/installed-newest-*
        .venv/bin/python -m venv --clear .venv/newest-packages
        venv=.venv/newest-packages add newest "the newest of everything" "" --requirement $list
        ;;
    oldest-keras)
        oldest=$(sed -n 's/^dependencies = .*"keras>=\([0-9.]*\)".*/\1.0/p' pyproject.toml)
        # A separate folder, put before the other one.
        add $name "the oldest Keras" "$oldest" --no-deps --target .venv/$name "keras==$oldest"
        [ ! -d .venv/$name ] || echo "$oldest" >.venv/$name/version
        ;;
    esac
done
