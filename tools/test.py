"""test.py [--long] [--newest]: all suites, several at once; then what was skipped and why, what failed, and the counts.

A suite is pytest on one Keras, in a process of its own, or testthat. What each needs and leaves out is in SUITES.
What `tools/setup.sh` could not install is counted as skipped, with the reason.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

VENV, RESULTS = Path(".venv"), Path(".test-results")

#: Name: Keras's backend, and the tests by their markers (pyproject.toml says what these mean). Longest first.
SUITES = {
    "tensorflow": ("tensorflow", "not keras2"),
    "keras2": ("tensorflow", "keras2"),
    "testthat": (None, None),
    "jax": ("jax", "not keras2 and not once"),
    "torch": ("torch", "not keras2 and not once"),
    "oldest-keras": ("tensorflow", "oldest_keras and not keras2"),
}

#: Tests run compiled steps a few times only: XLA does not optimize them, and JAX compiles equal ones once. With --long
#: they are compiled as for users.
COMPILE_FAST = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "JAX_COMPILATION_CACHE_DIR": str((RESULTS / "compiled").resolve()),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

#: With --newest: those of Python, but for the oldest Keras.
NEWEST = ("tensorflow", "keras2", "jax", "torch")


def run(name, long, python):
    """Run a suite; its exit status, and the file of its results."""
    backend, markers = SUITES[name]
    # A missing Python module is a failure here, not a reason to skip.
    environment = {**os.environ, "KERASOPTIMIZERS_REQUIRE_PYTHON": "true", **({} if long else COMPILE_FAST)}
    if backend is None:
        results = RESULTS / "testthat.tsv"
        command = ["Rscript", "tools/test.R", str(results)]
    else:
        results = RESULTS / f"{name}.xml"
        # Python that a test starts finds the module, too.
        folders = [Path("inst/python").resolve()]
        missing = VENV / f"missing-{name}"
        if missing.exists():
            # Collected on TensorFlow, to be counted.
            backend, environment["KERASOPTIMIZERS_TEST_SKIP"] = "tensorflow", missing.read_text().strip()
        elif name == "oldest-keras":
            folders.append((VENV / name).resolve())
            # conftest.py makes sure that it is the one used.
            environment["KERASOPTIMIZERS_TEST_KERAS"] = (VENV / name / "version").read_text().strip()
        environment.update(KERAS_BACKEND=backend, PYTHONPATH=os.pathsep.join(map(str, folders)))
        markers += "" if long else " and not long"
        command = [python, "-m", "pytest", "-q", "-m", markers, f"--junitxml={results}", "--durations=10"]
    begin = time.monotonic()
    # A file, so that it can be looked at meanwhile.
    log = RESULTS / f"{name}.log"
    with log.open("wb") as output:
        ended = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    minutes = (time.monotonic() - begin) / 60
    print(f"---- {name}: {minutes:.1f} minutes\n{log.read_text(errors='replace')}", flush=True)
    return ended.returncode, results


def pytest_results(path):
    for case in ElementTree.parse(path).iter("testcase"):
        outcome, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                reason = (child.get("message") or "").split("\n")[0]
        yield outcome, f"{case.get('classname')}: {case.get('name')}", reason


def testthat_results(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        yield tuple(line.split("\t", 2))


def results_of(suite, status, path):
    """The results of one suite; one that ended without writing them, or badly without saying where, is a failure."""
    read = pytest_results if path.suffix == ".xml" else testthat_results
    found = list(read(path)) if path.exists() else []
    if not found or (status != 0 and not any(outcome == "failed" for outcome, _, _ in found)):
        found.append(("failed", "all of it", f"ended with status {status} and {len(found)} results"))
    return [(outcome, suite, test, reason) for outcome, test, reason in found]


def skips(everything):
    """One line for each reason: the test, or how many tests of which suites."""
    by_reason = {}
    for outcome, suite, test, reason in everything:
        if outcome == "skipped":
            by_reason.setdefault(reason, []).append((suite, test))
    for reason, tests in by_reason.items():
        if len(tests) == 1:
            where = " ".join(tests[0])
        else:
            counts = Counter(suite for suite, _ in tests)
            where = ", ".join(f"{count} of {suite}" for suite, count in counts.items())
        yield f"skipped: {where}: {reason}"


def main(arguments):
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir()
    names, python = list(SUITES), sys.executable
    if "--newest" in arguments:
        names, python = NEWEST, str(VENV / "newest-packages" / "bin" / "python")
        if (VENV / "missing-newest").exists():
            sys.exit((VENV / "missing-newest").read_text().strip())
    # One more than there are cores: a suite often waits for a process that it started.
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        ended = list(pool.map(lambda name: run(name, "--long" in arguments, python), names))
    everything = [result for name, (status, path) in zip(names, ended) for result in results_of(name, status, path)]
    for line in skips(everything):
        print(line)
    for outcome, suite, test, reason in everything:
        if outcome == "failed":
            print(f"failed: {suite} {test}: {reason}")
    count = Counter(outcome for outcome, *_ in everything)
    print(", ".join(f"{count[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped")))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
