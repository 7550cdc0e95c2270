"""The results of the benchmarks: a table, a picture, and what they were measured on."""

import csv
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

COLUMNS = ("part", "backend", "task", "measure", "method", "model", "value", "unit", "ratio")
LABELS = ("part", "backend", "task", "measure", "method")
MEDIANS = (*LABELS, "models", "median", "unit", "times plain", "lowest", "highest")
PARTS = ("step", "first_step", "growth", "memory", "lars", "schedule_free", "batch_norm", "callback", "from_r")
COLUMNS_OF_SHORT = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "keras2": "Keras 2"}
#: Line of the short table -> part, task, measure, method.
SHORT = (
    ("**A step of an MLP, times plain SGD:** `optimizer_swa()`, every 10", "step", "mlp", "step", "swa"),
    ("`optimizer_lookahead()`, every 6", "step", "mlp", "step", "lookahead"),
    ("`optimizer_ema()`", "step", "mlp", "step", "ema"),
    ("`optimizer_schedule_free()`", "step", "mlp", "step", "schedule_free"),
    ("`optimizer_schedule_free()` around Adam, times AdamW", "schedule_free", "mlp, AdamW", "step", "schedule_free"),
    ("`optimizer_lars()`", "lars", "mlp", "step", "lars"),
    ("Keras's own `use_ema`", "step", "mlp", "step", "use_ema"),
    ("**A step of a transformer, times plain SGD:** `optimizer_swa()`", "step", "transformer", "step", "swa"),
    ("`optimizer_lookahead()`", "step", "transformer", "step", "lookahead"),
    ("`optimizer_ema()`", "step", "transformer", "step", "ema"),
    ("**The first step, of 100 variables:** `optimizer_swa()`", "first_step", "100 variables", "first step", "swa"),
    ("`optimizer_ema()`", "first_step", "100 variables", "first step", "ema"),
    (
        "**Memory at the peak, in copies of the weights:** `optimizer_swa()`",
        "memory",
        "25 million",
        "peak memory",
        "swa",
    ),
    ("`optimizer_lookahead()`", "memory", "25 million", "peak memory", "lookahead"),
    ("`optimizer_ema()`", "memory", "25 million", "peak memory", "ema"),
    ("`optimizer_schedule_free()`", "memory", "25 million", "peak memory", "schedule_free"),
    ("Keras's own `use_ema`", "memory", "25 million", "peak memory", "use_ema"),
    ("**`update_batch_norm()`**, times a forward pass", "batch_norm", "mlp", "forward pass", "update_batch_norm"),
    ("**`callback_swa()`**, times an epoch without", "callback", "mlp", "epoch of 50 batches", "callback_swa"),
    ("**`fit()` from R**, times that from Python", "from_r", "mlp", "fit", "from R"),
)


def grouped(rows):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[label] for label in LABELS), []).append(row)
    return groups


def medians(rows):
    """A row for each thing that was measured, as dicts with the names of `MEDIANS`: medians over the models.

    `lowest` and `highest` are those of the models' ratios to the plain optimizer, or of their values where there is
    nothing plain to compare with.
    """
    found = []
    for labels, group in grouped(rows).items():
        of = "value" if group[0]["ratio"] is None else "ratio"
        spread = [row[of] for row in group]
        found.append(
            dict(zip(LABELS, labels, strict=True))
            | {"models": len(group), "median": statistics.median(row["value"] for row in group)}
            | {"unit": group[0]["unit"], "times plain": None if of == "value" else statistics.median(spread)}
            | {"lowest": min(spread), "highest": max(spread)}
        )
    return found


def load(path):
    """The rows of `save()`, or none."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        row.update({name: float(row[name]) if row[name] else None for name in MEDIANS[-4:] if name != "unit"})
        row.update(models=int(row["models"]), median=float(row["median"]))
    return found


def save(path, found):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, MEDIANS, lineterminator="\n")
        writer.writeheader()
        for row in found:
            writer.writerow(
                {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in row.items()}
            )


def merged(old, new):
    """Rows of an earlier run, but those of parts and backends that were measured anew."""
    measured = {(row["part"], row["backend"]) for row in new}
    kept = [row for row in old if (row["part"], row["backend"]) not in measured]
    return sorted(kept + new, key=lambda row: PARTS.index(row["part"]))


def table(found):
    """All rows of `medians()` in Markdown."""
    lines = ["| part | backend | model | what | method | models | median | times plain | range |"]
    lines.append("|---|---|---|---|---|---:|---:|---:|---:|")
    for row in found:
        times = "" if row["times plain"] is None else f"{row['times plain']:.3f}"
        spread = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        cells = (*(row[name] for name in LABELS), row["models"], amount(row["median"], row["unit"]), times, spread)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def short_table(found):
    """The lines that matter to users, in Markdown: `SHORT`, a column for each backend."""
    known = {tuple(row[name] for name in LABELS): row for row in found}
    lines = [f"| | {' | '.join(COLUMNS_OF_SHORT.values())} |", "|---|---:|---:|---:|---:|"]
    for title, part, task, measure, method in SHORT:
        cells = []
        for backend in COLUMNS_OF_SHORT:
            row = known.get((part, backend, task, measure, method))
            value = None if row is None else row["times plain"] if row["times plain"] is not None else row["median"]
            cells.append("" if value is None else f"{value:.2f}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
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
