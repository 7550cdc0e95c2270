"""Reading metrics and order from the names of checkpoints."""

import os

import pytest

from kerasoptimizers.soups.checkpoints import Checkpoints, as_expression, higher_is_better, value_in_name

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model-03-val_loss=0.412.keras", 0.412),
        ("model-03-val_loss-0.412.weights.h5", 0.412),
        ("val_loss0.412-loss0.1.h5", 0.412),
        ("m_val_loss_-1.5e-3_x.hdf5", -0.0015),
        ("loss=0.1_val_loss=12.keras", 12.0),
        ("model_val_loss:nan.keras", None),
        ("model-03-0.412.keras", None),
        ("interval_loss=3.keras", None),
    ],
)
def test_a_metrics_value_stands_after_its_name(name, value):
    found = value_in_name(name, "val_loss")
    assert value == (None if found in (None, "nan") else float(found))


@pytest.mark.parametrize(
    ("pattern", "name", "value"),
    [
        ("model-{epoch:02d}-{val_loss:.3f}.keras", "model-03-0.412.keras", 0.412),
        ("{val_loss:.2e}.h5", "4.12e-01.h5", 0.412),
        ("a+({val_loss}).h5", "a+(-inf).h5", float("-inf")),
        ("x{val_loss:6.2f}.keras", "x  0.41.keras", 0.41),
        ("x{val_loss:.2f}.keras", "y0.41.keras", None),
    ],
)
def test_a_pattern_is_that_of_model_checkpoint(pattern, name, value):
    import re

    match = re.fullmatch(as_expression(pattern, "val_loss"), name)
    assert value == (None if match is None else float(match["metric"]))


@pytest.mark.parametrize(
    ("metric", "higher"),
    [
        *((name, False) for name in ("val_loss", "loss", "mae", "val_mean_squared_error", "binary_crossentropy")),
        *((name, True) for name in ("val_accuracy", "acc", "auc", "val_f1_score", "precision_1", "mean_io_u_iou")),
    ],
)
def test_the_name_of_a_metric_says_which_direction_is_better(metric, higher):
    assert higher_is_better(metric, "auto") is higher
    assert higher_is_better(metric, "max") is True


def test_equal_times_go_by_the_numbers_in_names(tmp_path):
    for name in ("m-9.keras", "m-10.keras", "m-2.keras"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (5, 5))
    assert Checkpoints(tmp_path, None, "auto", None, False).names == ["m-10.keras", "m-9.keras", "m-2.keras"]


def test_of_equally_good_checkpoints_the_newest_is_taken_and_nan_never(tmp_path):
    for second, name in enumerate(("a-loss=1.h5", "b-loss=1.h5", "c-loss=nan.h5", "d-loss=2.h5")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (second, second))
    found = Checkpoints(tmp_path, "loss", "auto", None, False)
    assert found.chosen(2) == (["b-loss=1.h5", "a-loss=1.h5"], [1.0, 1.0])
    with pytest.warns(UserWarning, match="has 3 checkpoints"):
        assert found.chosen(4)[0] == ["b-loss=1.h5", "a-loss=1.h5", "d-loss=2.h5"]
