"""The arithmetic of `make effects`: what is trained, which rate is chosen, means and standard errors."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="scipy, which comes with JAX, is not installed: make effects was not tested")
sys.path.append(str(next(p / "benchmarks" for p in Path(__file__).resolve().parents if (p / "benchmarks").is_dir())))
import effects  # noqa: E402
import effects_report as report  # noqa: E402

pytestmark = pytest.mark.once


def row(method, rate, split, score, held_out=None, data="Vowel", **other):
    found = {"data": data, "setting": "constant", "split": split, "method": method, "rate": float(rate)}
    held_out = score if held_out is None else held_out
    found |= {"held_out": float(held_out), "score": float(score), "nll": 1.0 - score, "ece": 0.1, "seconds": 2.0}
    return found | other


def test_rows_come_back_from_the_file_and_an_unfinished_one_is_taken_off(tmp_path):
    file, rows = tmp_path / "trainings.csv", [row("SWA", 0.1, 0, 0.5), row("SWA", 0.2, 1, 0.25, data="a, b")]
    assert report.trainings(file) == []
    for one in rows:
        report.append(file, one)
    with file.open("a") as stream:
        stream.write("Vowel,constant,2,SW")
    assert report.trainings(file) == rows
    report.append(file, row("SWA", 0.4, 2, 0.75))
    assert [one["score"] for one in report.trainings(file)] == [0.5, 0.25, 0.75]


def test_a_rerun_trains_only_what_is_missing():
    plans = {"Vowel": effects.Plan("Vowel", most_splits=2)}
    everything = effects.jobs(plans, False, set(), {})
    pairs = [(name, setting, split, *pair) for name, setting, split, of in everything for pair in of]
    # Four settings and two splits; five rates of every method, and one soup of all.
    assert len(pairs) == len(set(pairs)) == 4 * 2 * (5 * (len(effects.METHODS) - 1) + 1)
    done = {report.key(*one) for one in pairs[:-2]}
    assert effects.jobs(plans, False, done, {}) == [(*everything[-1][:3], everything[-1][3][-2:])]
    assert effects.jobs(plans, False, {report.key(*one) for one in pairs}, {}) == []
    # A rate that is both usual and asked for is trained with once.
    extra = {("Vowel", "cosine", "SWA"): [0.05, 7.0]}
    again = effects.jobs(plans, False, set(), extra)
    assert sum(len(of) for *_, of in again) == len(pairs) + 2
    found = effects.jobs(plans, False, {report.key(*one) for one in pairs}, extra)
    assert found == [("Vowel", "cosine", split, [("SWA", 7.0)]) for split in (0, 1)]


@pytest.mark.parametrize(
    "scores, wanted", [((1, 3, 2), []), ((3, 2, 1), [0.5]), ((1, 2, 3), [8.0]), ((3, 3, 1), [0.5])]
)
def test_beyond_the_lowest_or_highest_rate_another_one_is_tried(scores, wanted):
    rows = [row("SWA", rate, split, score) for rate, score in zip((1, 2, 4), scores) for split in (0, 1)]
    group = ("Vowel", "constant", "SWA")
    assert report.beyond(rows, {"Vowel": 2}) == ({group: wanted} if wanted else {})
    # What one split lacks comes first.
    assert report.beyond(rows[:-1], {"Vowel": 2}) == {group: [4.0]}


def test_a_training_that_broke_down_is_never_chosen():
    rows = [row("SWA", 1, 0, 0.1), row("SWA", 2, 0, np.nan, held_out=-np.inf), row("SWA", 0.5, 0, np.nan)]
    assert report.best_rate(report.grouped(rows)["Vowel", "constant", "SWA"]) == 1


def test_gains_are_paired_and_their_errors_are_those_of_the_differences():
    plain, swa = [0.5, 0.7, 0.9], [0.52, 0.71, 0.93]
    rows = [row(report.PLAIN, 1, split, score) for split, score in enumerate(plain)]
    rows += [row("SWA", 2, split, score, seconds=3.0) for split, score in enumerate(swa)]
    rows += [row("SWA", 4, split, 0.99, held_out=0.0) for split in range(3)]
    found = report.summary(rows)[1]
    assert (found["method"], found["rate"], found["rates"], found["splits"]) == ("SWA", 2, 2, 3)
    assert found["score"] == pytest.approx(0.72) and found["gain"] == pytest.approx(0.02)
    # By hand: differences 0.02, 0.01, 0.03, so a standard deviation of 0.01.
    assert found["gain_error"] == pytest.approx(0.01 / np.sqrt(3))
    assert found["nll_gain"] == pytest.approx(0.02)
    # Two degrees of freedom: 4.30 standard errors are more than the gain.
    assert found["clear"] == 0 and found["time"] == pytest.approx(1.25)


def test_averages_are_compared_with_a_schedule_too():
    rows = [row(report.PLAIN, 1, split, 0.5) for split in range(3)]
    rows += [row("SWA", 1, split, 0.6 + 0.1 * split) for split in range(3)]
    rows += [row(report.PLAIN, 1, split, 0.5 + 0.2 * split, setting="cosine") for split in range(3)]
    found = {(one["setting"], one["method"]): one for one in report.summary(rows)}
    assert found["constant", "SWA"]["over_cosine"] == pytest.approx(0.0, abs=1e-12)
    assert found["constant", "SWA"]["over_cosine_error"] == pytest.approx(0.1 / np.sqrt(3))
    assert found["cosine", report.PLAIN]["over_cosine"] == 0


def test_a_lower_error_is_a_gain():
    rows = [row(report.PLAIN, 1, split, 3.0, data="BostonHousing") for split in range(5)]
    rows += [row("SWA", 1, split, 2.8 + 0.01 * split, data="BostonHousing") for split in range(5)]
    found = report.summary(rows)[1]
    assert found["gain"] == pytest.approx(0.18) and found["clear"] == 1
    assert report.overall([found]) == []


def test_the_mean_over_data_sets_has_the_error_of_independent_splits():
    found = []
    for data, gains in (("Vowel", (0.02, 0.02, 0.05)), ("digits", (-0.01, 0.01, 0.03))):
        for split, gain in enumerate(gains):
            found += [row(report.PLAIN, 1, split, 0.5, data=data), row("SWA", 1, split, 0.5 + gain, data=data)]
    mean = next(one for one in report.overall(report.summary(found)) if one["method"] == "SWA")
    errors = [np.std(gains, ddof=1) / np.sqrt(3) for gains in ((0.02, 0.02, 0.05), (-0.01, 0.01, 0.03))]
    assert mean["gain"] == pytest.approx(0.02) and mean["gain_error"] == pytest.approx(np.hypot(*errors) / 2)
    assert any("| SWA | 52.00 ± " in line for line in report.overview(report.summary(found)))
