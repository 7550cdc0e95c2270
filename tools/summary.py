"""summary.py PYTEST_STATUS TESTTHAT_STATUS PYTEST_XML TESTTHAT_TSV: what was skipped and why, what failed, and the counts."""

import sys
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


def results(suite, status, read, path):
    """The results of one suite; a suite that ended without writing them, or badly without saying where, is one failure."""
    found = list(read(path)) if path.exists() else []
    if not found or (status != 0 and not any(outcome == "failed" for outcome, _, _ in found)):
        found.append(("failed", suite, f"ended with status {status} and {len(found)} results"))
    return [(outcome, f"{suite} {test}", reason) for outcome, test, reason in found]


def main(pytest_status, testthat_status, pytest_xml, testthat_tsv):
    everything = [
        *results("pytest", int(pytest_status), pytest_results, Path(pytest_xml)),
        *results("testthat", int(testthat_status), testthat_results, Path(testthat_tsv)),
    ]
    count = {"passed": 0, "failed": 0, "skipped": 0}
    for outcome, _, _ in everything:
        count[outcome] += 1
    print()
    for outcome in ("skipped", "failed"):
        for found, test, reason in everything:
            if found == outcome:
                print(f"{outcome}: {test}: {reason}")
    print(", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
