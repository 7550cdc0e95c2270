"""The results of the benchmarks: a table, a picture, and what they were measured on."""

import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

COLUMNS = ("part", "backend", "task", "measure", "method", "model", "value", "unit", "ratio")
LABELS = ("part", "backend", "task", "measure", "method")


def grouped(rows):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[label] for label in LABELS), []).append(row)
    return groups


def table(rows):
    """A table in Markdown: medians over the models, and the range of the models' ratios."""
    lines = [
        "| part | backend | model | what | method | models | median | times plain | range |",
        "|---|---|---|---|---|---:|---:|---:|---:|",
    ]
    for labels, group in grouped(rows).items():
        usual = amount(statistics.median(row["value"] for row in group), group[0]["unit"])
        of = "value" if group[0]["ratio"] is None else "ratio"
        spread = [row[of] for row in group]
        times = "" if of == "value" else f"{statistics.median(spread):.3f}"
        cells = (*labels, str(len(group)), usual, times, f"{min(spread):.2f} to {max(spread):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def amount(value, unit):
    if unit != "s":
        return f"{value:.2f} {unit}"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.2f} ms"


def machine(pythons):
    """Lines on the machine, and for each Python on its version and those of what counts."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8"))
        cpu = found.group(1) if found else cpu
    lines = [f"{platform.system()} {platform.machine()}, {cpu}, {os.cpu_count()} cores"]
    for python in pythons:
        run = subprocess.run([python, "-c", _VERSIONS], capture_output=True, text=True)
        lines.append(run.stdout.strip())
    return "\n".join(f"- {line}" for line in lines)


_VERSIONS = """
import importlib.metadata, platform, re
wanted = "keras tf-keras tensorflow tensorflow-cpu tensorflow-addons jax torch numpy".split()
installed = importlib.metadata.distributions()
found = {re.sub("_", "-", d.metadata["Name"].lower()): d.version for d in installed}
found = [f"{name} {found[name]}" for name in wanted if name in found]
print(", ".join([f"Python {platform.python_version()}", *found]))
"""


def plot(rows, path):
    """A picture of the step times' ratios: one panel per backend. It needs matplotlib."""
    rows = [row for row in rows if row["part"] == "step"]
    if not rows:
        return
    try:
        import matplotlib
    except ImportError:
        print("No picture: `pip install matplotlib` for one.", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    backends = list(dict.fromkeys(row["backend"] for row in rows))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, panels = pyplot.subplots(1, len(backends), figsize=(3 + 2.6 * len(backends), 4), sharex=True, squeeze=False)
    for panel, backend in zip(panels[0], backends, strict=True):
        here = [row for row in rows if row["backend"] == backend and row["method"] != "plain"]
        methods = list(dict.fromkeys(row["method"] for row in here))
        for number, task in enumerate(tasks):
            places, middles, ranges = [], [], []
            for place, method in enumerate(methods):
                ratios = [row["ratio"] for row in here if (row["task"], row["method"]) == (task, method)]
                if ratios:
                    middle = statistics.median(ratios)
                    places.append(-place - 0.15 * number)
                    middles.append(middle)
                    ranges.append((middle - min(ratios), max(ratios) - middle))
            if places:
                spread = list(zip(*ranges, strict=True))
                panel.errorbar(middles, places, xerr=spread, fmt="o", markersize=4, label=task)
        panel.axvline(1, color="gray", linewidth=0.8)
        panel.set_yticks([-place for place in range(len(methods))], methods)
        panel.set_title(backend)
    panels[0][0].legend(fontsize="small")
    figure.supxlabel("step time / step time of the plain optimizer: median and range of the models")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def fill(readme, *texts):
    """Put the results between the markers of a Markdown file."""
    begin, end = "<!-- results: written by run.py --readme -->", "<!-- end of results -->"
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{readme} has no lines '{begin}' and '{end}'.")
    body = "\n\n".join(texts)
    readme.write_text(f"{before}{begin}\n{body}\n{end}{after}", encoding="utf-8")
