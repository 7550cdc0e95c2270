"""The arithmetic of soups, without Keras: the recorded cases, and what holds for all."""

import numpy as np
import pytest

from kerasoptimizers.soups import arithmetic
from recordings import recording

pytestmark = pytest.mark.once


def recorded(kind):
    cases = recording("Soups")["cases"]
    return [pytest.param(case, id=str(i)) for i, case in enumerate(cases) if case["kind"] == kind]


def arrays(model):
    return [np.asarray(values, "float64") for values in model]


def mean(models):
    """The mean of models, array by array."""
    return [
        arithmetic.combination([1.0] * len(models), [lambda w=w: w for w in tensors], len(models))
        for tensors in zip(*models)
    ]


def held_out(model, target):
    return float(1 / (1 + sum(np.sum((w - t) ** 2) for w, t in zip(model, target))))


def assert_all_close(found, expected):
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", recorded("soup"))
def test_uniform_and_greedy_soups_are_those_of_the_authors(case):
    models, target = list(map(arrays, case["models"])), arrays(case["target"])
    scores = [held_out(model, target) for model in models]
    tried = []

    def try_soup(positions):
        tried.append(held_out(mean([models[i] for i in positions]), target))
        return tried[-1]

    chosen, best = arithmetic.greedy(scores, try_soup)
    assert arithmetic.ranked(scores) == case["greedy_order"]
    assert chosen == case["greedy_ingredients"]
    assert_all_close([scores, tried, best], [case["individual"], case["tried"], case["greedy_metric"]])
    assert_all_close(mean([models[i] for i in chosen]), case["greedy"])
    assert_all_close(mean(models), case["uniform"])


@pytest.mark.parametrize("case", recorded("model_stock"))
def test_model_stock_is_that_of_mergekit(case):
    # Recorded filters are rows, as in PyTorch; in Keras they are columns.
    turned = np.transpose if case["filter_wise"] else np.asarray
    for *tensors, base, merged in zip(*map(arrays, case["models"]), arrays(case["base"]), arrays(case["merged"])):
        tensors, base = [turned(w) for w in tensors], turned(base)
        products = arithmetic.products([[w - base for w in tensors]], case["filter_wise"])
        found = arithmetic.combination(arithmetic.stock(products), [lambda w=w: w for w in [*tensors, base]])
        assert_all_close([turned(found)], [merged])


@pytest.mark.parametrize("case", recorded("slerp"))
def test_spherical_interpolation_is_that_of_mergekit(case):
    for a, b, merged in zip(*map(arrays, case["models"]), arrays(case["merged"])):
        coefficients = arithmetic.spherical(arithmetic.products([[a, b]]), case["t"])
        assert_all_close([arithmetic.combination(coefficients, [lambda a=a: a, lambda b=b: b])], [merged])


def test_model_stock_is_the_mean_of_equal_offsets_and_the_base_of_those_at_right_angles():
    assert_all_close(arithmetic.stock(np.full((3, 3), 2.0)), [1 / 3, 1 / 3, 1 / 3, 0.0])
    assert_all_close(arithmetic.stock(np.eye(3)), [0.0, 0.0, 0.0, 1.0])
    # Where nothing has moved, and where the denominator is 0: two models in opposite directions.
    assert np.isfinite(arithmetic.stock(np.zeros((2, 2)))).all()
    assert_all_close(arithmetic.stock(np.array([[1.0, -1.0], [-1.0, 1.0]])), [0.0, 0.0, 1.0])


@pytest.mark.parametrize("shape", [(), (0,), (7,), (5, 3), (3, 4, 5)])
def test_blocks_cover_an_array_once(shape, monkeypatch):
    monkeypatch.setattr(arithmetic, "BLOCK", 6)
    seen = np.zeros(shape)
    for part in arithmetic.blocks(shape):
        seen[part] += 1
        assert np.ndim(seen) < 2 or seen[part].size <= max(6, seen[0].size)
    assert (seen == 1).all()


def test_products_add_up_over_blocks():
    values = np.random.default_rng(0).normal(size=(3, 10, 4))
    cut = [[w[part] for w in values] for part in (slice(0, 3), slice(3, 10))]
    for filters in (False, True):
        np.testing.assert_allclose(arithmetic.products(cut, filters), arithmetic.products([values], filters))
    assert arithmetic.products(cut, True).shape == (4, 3, 3)


def test_one_array_is_itself_bit_for_bit_and_what_counts_nothing_is_not_read():
    def fails():
        raise AssertionError

    values = np.array([-0.0, 1e-45, 0.1], "float32")
    found = arithmetic.combination([1.0, 0.0], [lambda: values, fails]).astype("float32")
    assert found.tobytes() == values.tobytes()


def test_bfloat16_is_rounded_once():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    # Just above and below halfway between two bfloat16: as float32 both are halfway, which rounds to even.
    values = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8 - 2**-40, 1 + 3 * 2**-8 - 2**-40, -1 - 2**-8 - 2**-40, 0.1, 0.0])
    found = arithmetic.narrowed(values, ml_dtypes.bfloat16).astype("float64")
    np.testing.assert_array_equal(found[:4], [1 + 2**-7, 1, 1 + 2**-7, -1 - 2**-7])
    np.testing.assert_array_equal(found[4:], values[4:].astype(ml_dtypes.bfloat16).astype("float64"))


def test_a_score_that_is_no_number_is_never_taken():
    tried = []
    chosen, best = arithmetic.greedy([np.nan, 1.0, 2.0], lambda of: tried.append(of) or np.nan)
    assert (chosen, best, tried) == ([2], 2.0, [[2, 1]])


def test_a_model_stays_only_where_the_soup_is_strictly_better():
    assert arithmetic.greedy([1.0, 2.0, 1.5], lambda of: 2.0 if len(of) == 2 and of[1] == 2 else 3.0) == ([1, 0], 3.0)
