"""The plane through three weight vectors."""

import numpy as np
import pytest

from generations import GENERATIONS, Generation
from interrupts import interrupt, lines_of
from kerasoptimizers.loss_plane import LossPlane

pytestmark = pytest.mark.oldest_keras


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


@pytest.fixture
def model(generation):
    layers = generation.keras.layers
    model = generation.keras.Sequential(
        [layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
    )
    model.layers[-1].trainable = False
    return model


def vectors(model, seed=0):
    numbers = np.random.default_rng(seed)
    return [[numbers.normal(size=weight.shape).astype("float32") for weight in model.weights] for _ in range(3)]


def trainable(model):
    return np.concatenate([np.array(w.numpy()).ravel() for w in model.trainable_weights])


def test_the_three_points_are_the_three_vectors(model):
    given = vectors(model)
    names = {id(weight) for weight in model.trainable_weights}
    moves = [i for i, weight in enumerate(model.weights) if id(weight) in names]
    assert len(moves) == 4
    before = model.get_weights()
    with LossPlane(model, given) as plane:
        for point, vector in zip(plane.points, given):
            plane.place(*point)
            expected = np.concatenate([vector[i].ravel() for i in moves])
            np.testing.assert_allclose(trainable(model), expected, rtol=1e-5, atol=1e-6)
            for i, weight in enumerate(model.get_weights()):
                assert i in moves or np.array_equal(weight, before[i])
        places = []
        for point in ([0.5, 2.0], [3.0, -1.0]):
            plane.place(*point)
            places.append(trainable(model))
    # Coordinates are distances.
    assert np.linalg.norm(places[1] - places[0]) == pytest.approx(np.hypot(2.5, 3.0), rel=1e-5)


def test_the_model_has_its_own_weights_back_whatever_happens(model):
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        with LossPlane(model, vectors(model)) as plane:
            plane.place(1.0, 1.0)
            assert not np.array_equal(model.get_weights()[0], before[0])
            raise KeyboardInterrupt
    for weight, own in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, own)


def test_what_is_no_plane_is_refused_and_nothing_changed(model):
    first, second, third = vectors(model)
    before = model.get_weights()
    line = [0.25 * a + 0.75 * b for a, b in zip(first, second)]
    infinite = [np.full_like(a, np.inf) for a in third]
    for wrong, message in [
        ([first, second], "`weights` must be three weight vectors, not 2"),
        ([first, second, third[:-1]], "`weights` must be of the shapes"),
        ([first, second, line], "`weights` must not be on one line"),
        ([first, first, third], "`weights` must not be on one line"),
        ([first, second, infinite], "`weights` must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            LossPlane(model, wrong)
    for weight, own in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, own)


def test_half_precision_and_double_keep_their_type(generation):
    for dtype in ("bfloat16", "float64"):
        layers = generation.keras.layers
        model = generation.keras.Sequential([layers.Input((3,)), layers.Dense(4, dtype=dtype)])
        before = [np.array(weight.numpy(), "float64") for weight in model.weights]
        with LossPlane(model, vectors(model)) as plane:
            plane.place(*plane.points[1])
            expected = vectors(model)[1][0]
            rounding = 1e-2 if dtype == "bfloat16" else 1e-6
            found = np.array(model.weights[0].numpy(), "float64")
            np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding)
        for weight, own in zip(model.weights, before):
            np.testing.assert_array_equal(np.array(weight.numpy(), "float64"), own)


def everything(model):
    return [np.array(variable.numpy()) for variable in model.variables]


def test_an_interrupt_at_any_line_changes_nothing(model):
    given, before = vectors(model), everything(model)

    def work():
        with LossPlane(model, given) as plane:
            for point in ([0.5, 2.0], [3.0, -1.0]):
                plane.place(*point)

    lines = lines_of(work)
    assert len(lines) > 40
    for at in lines:
        place = interrupt(work, at)
        for now, own in zip(everything(model), before, strict=True):
            np.testing.assert_array_equal(now, own, err_msg=place)


def test_r_enters_and_leaves_it_by_name(model):
    given, before = vectors(model), everything(model)
    plane = LossPlane(model, given)
    plane.__exit__()
    plane.__enter__()
    plane.place(1.0, 1.0)
    plane.__exit__()
    for now, own in zip(everything(model), before, strict=True):
        np.testing.assert_array_equal(now, own)


def test_a_lookup_table_among_the_weights_of_keras_2():
    generation = Generation("tf_keras")
    model, _, _ = generation.model_of_texts(generation.keras.layers.Dense(2))
    kernel, bias = model.layers[-1].weights
    tables = model.get_weights()[:-2]
    random = np.random.default_rng(0)
    given = [[*tables, *(random.normal(size=w.shape) for w in (kernel, bias))] for _ in range(3)]
    before = kernel.numpy()
    with LossPlane(model, given) as plane:
        plane.place(*plane.points[2])
        np.testing.assert_allclose(kernel.numpy(), given[2][-2], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kernel.numpy(), before)
