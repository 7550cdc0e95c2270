#!/usr/bin/env python3
"""Measure what the optimizers cost: `python benchmarks/run.py`. See README.md beside this file."""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import report

HERE = Path(__file__).resolve().parent
OURS = ("tensorflow", "jax", "torch", "keras2")
#: In the order of report.PARTS.
PARTS = {
    "step": (*OURS, "tfa"),
    "first_step": (*OURS, "tfa"),
    "growth": OURS,
    "memory": OURS,
    "lars": OURS,
    "schedule_free": OURS,
    "batch_norm": OURS,
    "callback": OURS,
    "from_r": ("tensorflow",),
}


def main():
    options = parse()
    wanted = [
        (part, backend)
        for part in options.parts or PARTS
        for backend in PARTS[part]
        if backend in (options.backends or PARTS[part])
    ]
    found, failed = [], []
    for part, backend in wanted:
        if backend == "tfa" and not options.tfa_python:
            print("tfa: left out (--tfa-python names a Python that has it)", file=sys.stderr)
            continue
        print(f"{part}, {backend} ...", file=sys.stderr, flush=True)
        rows = measure(part, backend, options)
        if rows is None:
            failed.append(f"{part}, {backend}")
        found += rows or []
        # After each part: what was measured is there, whatever happens to the rest.
        write_csv(found, options.out / "benchmarks.csv")
    machine = report.machine([sys.executable, *filter(None, [options.tfa_python])])
    medians = report.medians(found)
    print(f"{report.table(medians)}\n{machine}")
    report.plot(found, options.out / "benchmarks.png")
    if options.readme:
        everything = report.merged(report.load(HERE / "results.csv"), medians)
        report.save(HERE / "results.csv", everything)
        report.fill(HERE / "README.md", report.short_table(everything), machine)
    if failed:
        sys.exit("Failed: " + "; ".join(failed))


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    names = ", ".join
    parser.add_argument("parts", nargs="*", help=f"any of {names(PARTS)}; all if not given")
    parser.add_argument("--backend", type=listed, dest="backends", metavar="A,B", help="only these backends")
    parser.add_argument("--methods", type=listed, metavar="A,B", help="only these: swa,ema")
    parser.add_argument("--tasks", type=listed, metavar="A,B", help="only these models: mlp,cnn")
    sizes = [20, 100, 400, 1000]
    parser.add_argument(
        "--variables",
        type=lambda text: [int(number) for number in text.split(",")],
        default=sizes,
        metavar="N,N",
        help=f"of first_step: models with this many variables (default {sizes})",
    )
    parser.add_argument("--models", type=int, default=5, help="models of each kind (default 5)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds at most (default 40)")
    parser.add_argument("--seconds", type=float, default=120, help="rounds of a model take about so long (120)")
    parser.add_argument("--quick", action="store_true", help="a look: mlp only, few rounds")
    parser.add_argument("--tfa-python", metavar="PATH", help="a Python with TensorFlow Addons 0.23")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of CSV and PNG")
    parser.add_argument(
        "--readme", action="store_true", help="write results.csv, and the lines that matter into README.md"
    )
    options = parser.parse_args()
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"no part {part}: {names(PARTS)}")
    if options.quick:
        options.tasks = options.tasks or ["mlp"]
        options.seconds = min(options.seconds, 20)
        options.variables = options.variables[:2]
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def listed(text):
    return text.split(",")


def measure(part, backend, options):
    """Rows of a part on a backend, measured in a separate process; None if that failed."""
    python = options.tfa_python if backend == "tfa" else sys.executable
    keep = ("methods", "tasks", "variables", "models", "rounds", "seconds", "quick")
    settings = json.dumps({name: getattr(options, name) for name in keep})
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows"
        command = [python, HERE / "parts.py", part, "--backend", backend]
        command += ["--options", settings, "--out", out]
        if subprocess.run(command, env=environment).returncode != 0:
            return None
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def write_csv(rows, path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, report.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
