"""summary.py SUITES: what was skipped and why, what failed, and the counts over all suites.

SUITES has a line "name<tab>exit status<tab>file of results" for each: an .xml file of pytest or a .tsv file of
testthat.R.
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


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


def results(suite, status, path):
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
            where = f"{tests[0][0]} {tests[0][1]}"
        else:
            counts = Counter(suite for suite, _ in tests)
            where = ", ".join(f"{count} of {suite}" for suite, count in counts.items())
        yield f"skipped: {where}: {reason}"


def main(suites):
    everything = []
    for line in Path(suites).read_text(encoding="utf-8").splitlines():
        suite, status, path = line.split("\t")
        everything += results(suite, int(status), Path(path))
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for outcome, *_ in everything:
        count[outcome] += 1
    print()
    for line in skips(everything):
        print(line)
    for outcome, suite, test, reason in everything:
        if outcome == "failed":
            print(f"failed: {suite} {test}: {reason}")
    print(", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
