#!/bin/sh
# test.sh [long]: pytest on every Keras, each in a process of its own, then testthat, then one summary of all; fails where any
# did. With "long" the tests that take long are among them.
set -u
markers="not long"
[ "${1:-}" != long ] || markers=
results=.test-results
rm -rf "$results"
mkdir "$results"
# A missing Python module is a failure here, not a reason to skip.
export KERASOPTIMIZERS_REQUIRE_PYTHON=true

# What holds for any backend: all but what is about TensorFlow, about Keras 2, which comes once with it, or about no Keras at all.
any_backend=
for file in tests/python/test_*.py; do
    case $file in
    */test_agreement.py | */test_distribution.py | */test_multi_worker.py | */test_package.py | */test_rules.py) ;;
    # These choose their backends themselves.
    */test_keras_distribution.py | */test_torch_workers.py) ;;
    *tf_keras.py) ;;
    *) any_backend="$any_backend $file" ;;
    esac
done
keras_folder=

# run_pytest NAME BACKEND FILE...: `suites` gets a line "name<tab>status<tab>results" for the summary. What backends.sh
# could not install is collected on TensorFlow, to be counted, and skipped.
run_pytest() {
    name=$1 backend=$2
    shift 2
    if [ -f ".venv/missing-$name" ]; then
        backend=tensorflow
        KERASOPTIMIZERS_TEST_SKIP=$(cat ".venv/missing-$name")
        export KERASOPTIMIZERS_TEST_SKIP
    fi
    echo "pytest: $name"
    # Python that a test starts finds the module, too.
    KERAS_BACKEND=$backend PYTHONPATH="$PWD/inst/python${keras_folder:+:$keras_folder}" \
        .venv/bin/python -m pytest "$@" -q -m "$markers" --junitxml="$results/$name.xml"
    printf 'pytest %s\t%s\t%s\n' "$name" $? "$results/$name.xml" >>"$results/suites"
    unset KERASOPTIMIZERS_TEST_SKIP
}

# shellcheck disable=SC2086 # one word for each file
run_any_backend() { run_pytest "$1" "$2" -k "not tf_keras" $any_backend; }

other_backends() {
    run_any_backend jax jax
    run_any_backend torch torch
    if [ ! -f .venv/missing-oldest-keras ]; then
        keras_folder="$PWD/.venv/oldest-keras"
        # conftest.py makes sure that it is the one used.
        KERASOPTIMIZERS_TEST_KERAS=$(sed -n 's/^keras==//p' requirements-oldest-keras.txt)
        export KERASOPTIMIZERS_TEST_KERAS
    fi
    run_any_backend oldest-keras tensorflow
}

# Two at a time: most of it is Python, which keeps one core busy.
other_backends >"$results/other-backends.log" 2>&1 &
run_pytest tensorflow tensorflow tests/python
wait
cat "$results/other-backends.log"

Rscript tools/testthat.R "$results/testthat.tsv"
printf 'testthat\t%s\t%s\n' $? "$results/testthat.tsv" >>"$results/suites"
.venv/bin/python tools/summary.py "$results/suites"
