#!/bin/sh
# test.sh: pytest on every Keras, each in a process of its own, then testthat, then one summary of all; fails where any did.
set -u
results=.test-results
rm -rf "$results"
mkdir "$results"
# A missing Python module is a failure here, not a reason to skip.
export KERASOPTIMIZERS_REQUIRE_PYTHON=true

# What holds for any backend. The rest is about TensorFlow, about Keras 2, which comes once with it, or about no Keras at all.
any_backend=
for name in averaging batch_norm lars parity schedules surface swa_callback swap_averages; do
    any_backend="$any_backend tests/python/test_$name.py"
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
        .venv/bin/python -m pytest "$@" -q --junitxml="$results/$name.xml"
    printf 'pytest %s\t%s\t%s\n' "$name" $? "$results/$name.xml" >>"$results/suites"
    unset KERASOPTIMIZERS_TEST_SKIP
}

# shellcheck disable=SC2086 # one word for each file
run_any_backend() { run_pytest "$1" "$2" -k "not tf_keras" $any_backend; }

run_pytest tensorflow tensorflow tests/python
run_any_backend jax jax
run_any_backend torch torch
if [ ! -f .venv/missing-oldest-keras ]; then
    keras_folder="$PWD/.venv/oldest-keras"
    # conftest.py makes sure that it is the one used.
    KERASOPTIMIZERS_TEST_KERAS=$(sed -n 's/^keras==//p' requirements-oldest-keras.txt)
    export KERASOPTIMIZERS_TEST_KERAS
fi
run_any_backend oldest-keras tensorflow

Rscript tools/testthat.R "$results/testthat.tsv"
printf 'testthat\t%s\t%s\n' $? "$results/testthat.tsv" >>"$results/suites"
.venv/bin/python tools/summary.py "$results/suites"
