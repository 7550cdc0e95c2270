"""What `effects.py` has measured: rows, the choice of rates, means with standard errors, and tables."""

import csv
import math
import os
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

FIELDS = ("data", "setting", "split", "method", "rate", "held_out", "score", "nll", "ece", "seconds")
KEY = FIELDS[:5]
PLAIN = "plain SGD"
#: Not tuned: it makes one model of trainings with all rates.
UNTUNED = ("greedy soup",)


# ---- Rows


def key(data, setting, split, method, rate):
    """What tells one training from all others."""
    return (data, setting, int(split), method, f"{float(rate):.6g}")


def key_of(row):
    return key(*(row[name] for name in KEY))


def append(path, row):
    """Add one row to a file. It is there at once and whole, also if several processes do so."""
    cells = [f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name]) for name in FIELDS]
    line = ",".join(f'"{cell}"' if "," in cell else cell for cell in cells) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def trainings(path):
    """The rows of a file. A last line that a full disk or a power cut has left unfinished is taken off the file."""
    if not Path(path).exists():
        return []
    text = Path(path).read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, len(whole.encode()))
    rows = {}
    for cells in csv.reader(whole.splitlines()):
        row = dict(zip(FIELDS, cells, strict=True))
        for name in FIELDS:
            if name not in ("data", "setting", "method"):
                row[name] = float(row[name])
        row["split"] = int(row["split"])
        rows[key_of(row)] = row
    return list(rows.values())


# ---- The choice of a rate


def grouped(rows):
    """(data, setting, method) -> rate -> split -> row."""
    groups = {}
    for row in rows:
        of = groups.setdefault((row["data"], row["setting"], row["method"]), {})
        of.setdefault(float(f"{row['rate']:.6g}"), {})[row["split"]] = row
    return groups


def held_out(by_split):
    """The mean of what a rate is chosen by; a training that broke down is worse than all others."""
    values = [row["held_out"] if math.isfinite(row["held_out"]) else -math.inf for row in by_split.values()]
    return sum(values) / len(values)


def best_rate(by_rate):
    """The rate with the best held-out mean, among those that were tried on the most splits; the lowest of equals."""
    most = max(map(len, by_rate.values()))
    return max(
        (rate for rate in sorted(by_rate) if len(by_rate[rate]) == most), key=lambda rate: held_out(by_rate[rate])
    )


def beyond(rows, splits, most=5):
    """Rates to try because the best one is the lowest or the highest so far, or because they are not yet done.

    Args:
        rows: list of trainings.
        splits: dict, how many splits each data set has.
        most: int, how many rates may be added to a group's first five on either side, for an end there must be.

    Returns:
        Dict, (data, setting, method) -> list of rates.
    """
    found = {}
    for group, by_rate in grouped(rows).items():
        rates = sorted(by_rate)
        unfinished = [rate for rate in rates if len(by_rate[rate]) < splits.get(group[0], 0)]
        if unfinished:
            found[group] = unfinished
        elif group[2] not in UNTUNED and 1 < len(rates) < 5 + most:
            best = best_rate(by_rate)
            if best == rates[0]:
                found[group] = [best / 2]
            elif best == rates[-1]:
                found[group] = [best * 2]
    return found


# ---- Means and standard errors


def mean_and_error(values):
    """The mean, and its standard error: the standard deviation (divisor n - 1) through the root of n."""
    values = np.asarray(values, "float64")
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)


def summary(rows):
    """One dict for each data set, setting and method, with the chosen rate.

    `score` is accuracy or RMSE; `gain` is what it is better than that of plain SGD in the same split: higher accuracy,
    or lower RMSE. `nll_gain` and `ece_gain` are positive where it is lower, and `over_cosine` is the gain over plain
    SGD with a rate that falls along a cosine. Each has an `_error` beside it. `time` is the median over the splits of
    seconds, themselves medians over the rates, through those of plain SGD. `clear` is 1 or -1 where a 95 % t interval
    of the gain is above or below 0, otherwise 0: of 40 methods that do nothing, two are clear.
    """
    found, groups = [], grouped(rows)
    for (data, setting, method), by_rate in groups.items():
        plain = groups.get((data, setting, PLAIN))
        if plain is None:
            continue
        rate = best_rate(by_rate)
        chosen, base = by_rate[rate], plain[best_rate(plain)]
        both = sorted(set(chosen) & set(base))
        row = {
            "data": data,
            "setting": setting,
            "method": method,
            "rate": rate,
            "rates": len(by_rate),
            "splits": len(both),
        }
        for name, sign in (("score", -1 if data == "BostonHousing" else 1), ("nll", -1), ("ece", -1)):
            row[name], row[f"{name}_error"] = mean_and_error([chosen[split][name] for split in both])
            gains = [sign * (chosen[split][name] - base[split][name]) for split in both]
            name = "gain" if name == "score" else f"{name}_gain"
            row[name], row[f"{name}_error"] = mean_and_error(gains)
        # Whether averaging can take the place of a schedule: against plain SGD with one, with labels of the same kind.
        schedule = "wrong labels, cosine" if setting.startswith("wrong") else "cosine"
        falling = groups.get((data, schedule, PLAIN))
        other = falling[best_rate(falling)] if falling else {}
        sign = -1 if data == "BostonHousing" else 1
        gains = [sign * (chosen[split]["score"] - other[split]["score"]) for split in both if split in other]
        row["over_cosine"], row["over_cosine_error"] = mean_and_error(gains) if gains else (math.nan, math.nan)
        limit = float(stdtrit(len(both) - 1, 0.975)) * row["gain_error"] if len(both) > 1 else math.inf
        row["clear"] = int(row["gain"] > limit) - int(row["gain"] < -limit)
        ratios = [_seconds(by_rate, split) / _seconds(plain, split) for split in both]
        row["time"] = float(np.median(ratios))
        found.append(row)
    order = {method: place for place, method in enumerate(dict.fromkeys(row["method"] for row in found))}
    return sorted(found, key=lambda row: (row["data"], row["setting"], order[row["method"]]))


def _seconds(by_rate, split):
    return float(np.median([by_split[split]["seconds"] for by_split in by_rate.values() if split in by_split]))


def overall(found):
    """`summary()` over the data sets with classes: one dict for each setting and method.

    The data sets count alike, and are given, not drawn: errors are those of the splits only. `better` and `worse` count
    the data sets with a clear gain or loss.
    """
    groups = {}
    for row in found:
        if row["data"] != "BostonHousing":
            groups.setdefault((row["setting"], row["method"]), []).append(row)
    result = []
    for (setting, method), of in groups.items():
        row = {"setting": setting, "method": method, "sets": len(of)}
        for name in ("score", "gain", "nll", "nll_gain", "ece", "ece_gain"):
            row[name] = sum(one[name] for one in of) / len(of)
            row[f"{name}_error"] = math.sqrt(sum(one[f"{name}_error"] ** 2 for one in of)) / len(of)
        row["better"] = sum(one["clear"] > 0 for one in of)
        row["worse"] = sum(one["clear"] < 0 for one in of)
        # Of the longest training: in the others, what is done once an epoch weighs more than it does in practice.
        row["time"] = next((one["time"] for one in of if one["data"] == "LetterRecognition"), of[0]["time"])
        result.append(row)
    return result


# ---- Tables and files


def pair(row, name, digits, times=1, sign=""):
    """A mean and its standard error."""
    return f"{times * row[name]:{sign}.{digits}f} ± {times * row[name + '_error']:.{digits}f}"


def overview(found):
    """A table for each setting, of the data sets with classes together, in Markdown."""
    lines = []
    rows = overall(found)
    for setting in dict.fromkeys(row["setting"] for row in rows):
        lines += [f"## {setting}: mean of the data sets with classes", ""]
        lines += [
            "| method | accuracy, % | more than plain | better, worse | NLL | less than plain | ECE, % | less | time |"
        ]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
        for row in rows:
            if row["setting"] == setting:
                cells = (row["method"], pair(row, "score", 2, 100), pair(row, "gain", 2, 100, "+"))
                cells += (f"{row['better']}, {row['worse']}", pair(row, "nll", 3), pair(row, "nll_gain", 3, 1, "+"))
                cells += (pair(row, "ece", 1, 100), pair(row, "ece_gain", 1, 100, "+"))
                lines.append(f"| {' | '.join(cells)} | {row['time']:.2f} |")
        lines.append("")
    return lines


def details(found, data):
    """All results of one data set, in Markdown."""
    numbers = data == "BostonHousing"
    what, times, digits = ("RMSE", 1, 3) if numbers else ("accuracy, %", 100, 2)
    lines = [f"## {data}", ""]
    lines.append(f"| rate | method | learning rate | {what} | better than plain | NLL | less | ECE, % | less | time |")
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in found:
        if row["data"] == data:
            cells = (row["setting"], row["method"], f"{row['rate']:g}", pair(row, "score", digits, times))
            cells += (pair(row, "gain", digits, times, "+"), pair(row, "nll", 3), pair(row, "nll_gain", 3, 1, "+"))
            cells += ("", "") if numbers else (pair(row, "ece", 1, 100), pair(row, "ece_gain", 1, 100, "+"))
            cells += (f"{row['time']:.2f}",)
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def save(path, rows):
    """Rows into a CSV file, whole or not at all."""
    unfinished = Path(f"{path}.tmp")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.5g}" if isinstance(v, float) else v for name, v in row.items()})
    os.replace(unfinished, path)


def chosen(rows):
    """The trainings with the chosen rates."""
    best = [by_rate[best_rate(by_rate)].values() for by_rate in grouped(rows).values()]
    return sorted((row for of in best for row in of), key=lambda row: tuple(str(row[name]) for name in KEY[:4]))


def write(rows, folder):
    """Files in the folder of the results: effects.md, summary.csv and chosen.csv. The main tables are printed, too.

    Returns:
        bool, whether there was anything to report.
    """
    found = summary(rows)
    if not found:
        return False
    data = list(dict.fromkeys(row["data"] for row in found))
    everything = overview(found) + [line for name in data for line in details(found, name)]
    (folder / "effects.md").write_text("\n".join(everything), encoding="utf-8")
    save(folder / "summary.csv", found)
    save(folder / "chosen.csv", chosen(rows))
    print("\n".join(overview(found) + details(found, "BostonHousing") * ("BostonHousing" in data)))
    return True
