"""uci.py [--data boston concrete] [--splits 20] [--table]: SWAG on the regressions that papers report.

The protocol of Hernandez-Lobato and Adams (2015): 20 random splits, 90 % to train on, 10 % to test with, and one hidden
layer of 50 ReLU units; inputs and outputs standardized by the training part. Settings are those of Izmailov et al.
(2019, arXiv 1907.07504; wjmaddox/drbayes): outputs mean and variance, SGD with momentum 0.9 and a constant learning
rate of 0.001, L2 decay, SWAG of rank 20 over the last part of the epochs, 30 draws, scale 0.5.

For each split five networks are trained. "SGD" predicts with the last weights of the first, "SWA" with the mean of its
snapshots, "SWAG" with draws; the deep ensemble with the last weights of all five, and Multi-SWAG with draws from
the posteriors of all five, at five times the cost. Log-likelihood, RMSE, coverage and width of 90 % prediction
intervals are in the units of the data.

The rows of all splits are in benchmarks/results-uci.csv, to which missing splits are added, and the table is in
benchmarks/uci.md; --table only writes that. Boston's data are in the R package mlbench, Concrete's in the R package
modeldata: where one is not installed, its data are left out.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
RESULTS, TABLE = FOLDER / "results-uci.csv", FOLDER / "uci.md"

#: R package, R code of the table with the outcome last; epochs, examples in a batch, decay, first epoch of SWAG.
DATA = {
    "boston": ("mlbench", "data(BostonHousing, package = 'mlbench'); x <- BostonHousing", 300, 30, 0.1, 201),
    "concrete": ("modeldata", "data(concrete, package = 'modeldata'); x <- concrete", 1000, 100, 0.01, 501),
}
METHODS = ["SGD", "SWA", "SWAG", "deep ensemble of 5", "Multi-SWAG of 5"]
FIELDS = ["data", "split", "method", "rmse", "ll", "coverage", "width"]

#: (RMSE, log-likelihood) with standard errors or deviations, as printed there.
PUBLISHED = {
    "boston": [
        ("PBP (1612.01474, table 1)", "3.01 ± .18", "-2.57 ± .09"),
        ("MC dropout (1612.01474, table 1)", "2.97 ± .85", "-2.46 ± .25"),
        ("deep ensemble of 5 (1612.01474, table 1)", "3.28 ± 1.00", "-2.41 ± .25"),
        ("MC dropout, Gal's rerun", "2.90 ± .18", "-2.40 ± .04"),
        ("SGD (1907.07504, not verified)", "3.504 ± .975", "-2.752 ± .132"),
        ("SWAG (1907.07504, not verified)", "3.517 ± .981", "-2.761 ± .132"),
    ],
    "concrete": [
        ("PBP (1612.01474, table 1)", "5.67 ± .09", "-3.16 ± .02"),
        ("MC dropout (1612.01474, table 1)", "5.23 ± .53", "-3.04 ± .09"),
        ("deep ensemble of 5 (1612.01474, table 1)", "6.03 ± .58", "-3.06 ± .18"),
        ("MC dropout, Gal's rerun", "4.82 ± .16", "-2.93 ± .02"),
        ("SGD (1907.07504, not verified)", "5.194", "-3.178 ± .198"),
        ("SWAG (1907.07504, not verified)", "5.233", "-3.013 ± .086"),
    ],
}


def read(name):
    """The data as an array with the outcome last, or None where R has no such package."""
    package, code, *_ = DATA[name]
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        script = (
            f"if (!requireNamespace('{package}', quietly = TRUE)) quit(status = 3)\n{code}\n"
            "x[] <- lapply(x, function(column) as.numeric(as.character(column)))\n"
            f"write.csv(x, '{file.name}', row.names = FALSE)"
        )
        ended = subprocess.run(["Rscript", "-e", script], stdout=subprocess.DEVNULL)
        if ended.returncode == 3:
            return None
        ended.check_returncode()
        return np.loadtxt(file.name, delimiter=",", skiprows=1)


def run(name, data, split):
    """The rows of one split."""
    import keras
    from scipy.special import ndtr

    from kerasoptimizers import SWAG, GaussianNLL, measures, predict_samples

    _, _, epochs, batch, decay, start = DATA[name]
    keras.utils.set_random_seed(split)
    order = np.random.default_rng(split).permutation(len(data))
    count = len(data) // 10
    test, train = order[:count], order[count:]
    center, spread = data[train].mean(0), data[train].std(0)
    spread[spread == 0] = 1
    scaled = ((data - center) / spread).astype("float32")
    x, y = scaled[:, :-1], scaled[:, -1:]
    # Through the momentum, as PyTorch's decay goes: half the square has the weight as its gradient.
    decays = {f"{part}_regularizer": keras.regularizers.L2(decay / 2) for part in ("kernel", "bias")}

    def member():
        layers = [keras.layers.Dense(50, "relu", **decays), keras.layers.Dense(2, **decays)]
        model = keras.Sequential([keras.Input((x.shape[1],)), *layers])
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9), GaussianNLL())
        swag = SWAG(start, rank=20)
        model.fit(x[train], y[train], batch_size=batch, epochs=epochs, verbose=0, callbacks=[swag])
        return model, swag

    models, swags = zip(*(member() for _ in range(5)))
    first, given = (models[0], swags[0]), {"verbose": 0, "batch_size": count, "seed": split}
    found = {
        "SGD": predict_samples(first[0], None, x[test], **given),
        "SWA": predict_samples(*first, x[test], 1, scale=0, **given),
        "SWAG": predict_samples(*first, x[test], 30, **given),
        "deep ensemble of 5": predict_samples(models, None, x[test], **given),
        "Multi-SWAG of 5": predict_samples(models, swags, x[test], 30, **given),
    }
    truth = data[test, -1]
    for method, samples in found.items():
        mean = samples[..., 0].astype("float64") * spread[-1] + center[-1]
        sd = np.exp(samples[..., 1].astype("float64") / 2) * spread[-1]
        limits = []
        for level in (0.05, 0.95):
            low, high = (mean - 10 * sd).min(0), (mean + 10 * sd).max(0)
            for _ in range(60):
                middle = (low + high) / 2
                below = ndtr((middle - mean) / sd).mean(0) < level
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            limits.append((low + high) / 2)
        yield {
            "data": name,
            "split": split,
            "method": method,
            "rmse": np.sqrt(((truth - mean.mean(0)) ** 2).mean()),
            "ll": -measures.gaussian_nll(truth, mean, sd**2),
            "coverage": measures.coverage(truth, *limits),
            "width": measures.width(*limits),
        }


def rows():
    if not RESULTS.exists():
        return []
    with RESULTS.open() as file:
        return list(csv.DictReader(file))


def table():
    """The file that says what was measured, beside what is published."""
    lines = ["# SWAG on small regressions", "", *"\n\n".join(__doc__.split("\n\n")[1:3]).split("\n"), ""]
    lines += [
        "Means over the splits with their standard errors. `make uci` runs the splits that `results-uci.csv` lacks,",
        "and writes this page. Published numbers are as printed there, with standard errors or standard deviations.",
        "The last two are from memory of the paper's appendix, and were not found again.",
        "",
    ]
    for name in DATA:
        mine = [row for row in rows() if row["data"] == name]
        if not mine:
            lines += [f"{name.capitalize()}: not run, its R package {DATA[name][0]} was not installed.", ""]
            continue
        count = len({row["split"] for row in mine})
        lines += [f"## {name.capitalize()}, {count} splits", ""]
        lines += ["| | RMSE | log-likelihood | in 90 % intervals | their width |", "|---|---|---|---|---|"]
        for method in METHODS:
            cells = []
            for field in FIELDS[3:]:
                values = np.array([float(row[field]) for row in mine if row["method"] == method])
                cells.append(f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}")
            lines.append(f"| **{method}, measured here** | " + " | ".join(cells) + " |")
        lines += [f"| {source} | {rmse} | {ll} | | |" for source, rmse, ll in PUBLISHED[name]]
        likelihood = {m: np.array([float(r["ll"]) for r in mine if r["method"] == m]) for m in METHODS}
        lines += ["", "Log-likelihood less that of SGD, split by split:", ""]
        for method in METHODS[1:]:
            gain = likelihood[method] - likelihood["SGD"]
            lines.append(f"- {method}: {gain.mean():+.3f} ± {gain.std(ddof=1) / np.sqrt(len(gain)):.3f}")
        lines.append("")
    TABLE.write_text("\n".join(lines))
    print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    for name in [] if options.table else options.data:
        done = {int(row["split"]) for row in rows() if row["data"] == name}
        missing = [split for split in range(options.splits) if split not in done]
        data = read(name) if missing else None
        if missing and data is None:
            print(f"{name}: the R package {DATA[name][0]}, which has the data, is not installed", file=sys.stderr)
            continue
        for split in missing:
            found = list(run(name, data, split))
            new = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                if new:
                    writer.writeheader()
                for row in found:
                    numbers = {key: f"{value:.6g}" for key, value in row.items() if isinstance(value, float)}
                    writer.writerow({**row, **numbers})
            print(name, split, *(f"{row['method']} {row['ll']:.3f}" for row in found), flush=True)
    if rows():
        table()


if __name__ == "__main__":
    # Small networks: a process of one backend, and nothing to gain from its threads.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.path.insert(0, str(FOLDER.parent / "inst" / "python"))
    main()
