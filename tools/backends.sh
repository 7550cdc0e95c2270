#!/bin/sh
# backends.sh NAME...: adds to .venv what only the tests need: jax, torch, oldest-keras (the oldest Keras 3), lint (ruff and
# mypy). One that can't be installed gets one line here and a file .venv/missing-NAME with the reason, for tools/test.sh and
# tools/lint.sh; the next run tries again.
set -u
cd "$(dirname "$0")/.."

# add NAME DESCRIPTION ARGUMENT...: what requirements-NAME.txt lists, with these arguments for pip.
add() {
    name=$1 description=$2 requirements=requirements-$1.txt
    shift 2
    stamp=.venv/installed-$name-$(cksum <"$requirements" | tr ' ' -)
    [ ! -f "$stamp" ] || return 0
    rm -rf .venv/"$name" .venv/missing-"$name"
    echo "kerasoptimizers: installing $description for the tests in .venv"
    if reason=$(tools/pip-install.sh "$@" --requirement "$requirements"); then
        touch "$stamp"
    else
        reason="$description could not be installed: $reason"
        echo "$reason" >.venv/missing-"$name"
        echo "kerasoptimizers: $reason (what needs it will be skipped)" >&2
    fi
}

for name in "$@"; do
    case $name in
    jax) add jax "JAX" --no-deps ;;
    torch) add torch "PyTorch" --constraint requirements.txt ;;
    oldest-keras) add oldest-keras "the oldest Keras" --no-deps --target .venv/oldest-keras ;;
    lint) add lint "ruff and mypy" --no-deps ;;
    esac
done
