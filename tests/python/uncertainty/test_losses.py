"""The loss of networks that predict mean and variance."""

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers import measures

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 2)).astype("float32")
Y = (X[:, :1] + np.exp(X[:, 1:]) * RANDOM.normal(size=(64, 1))).astype("float32")


@pytest.fixture(scope="module", params=GENERATIONS)
def kit(request):
    generation = Generation(request.param)
    generation.keras.utils.set_random_seed(1)
    return generation


def number(tensor):
    return float(keras.ops.convert_to_numpy(tensor)) if hasattr(tensor, "detach") else float(np.array(tensor))


def test_it_is_the_likelihood(kit):
    predicted = RANDOM.normal(size=(64, 2)).astype("float32")
    expected = measures.gaussian_nll(Y, predicted[:, 0], np.exp(predicted[:, 1]))
    for y in (Y, Y[:, 0]):
        assert number(kit.GaussianNLL()(y, predicted)) == pytest.approx(expected, rel=1e-5)
    # Two numbers to predict: means first.
    both = np.concatenate([predicted[:, :1], predicted[:, :1], predicted[:, 1:], predicted[:, 1:]], axis=1)
    assert number(kit.GaussianNLL()(np.concatenate([Y, Y], 1), both)) == pytest.approx(expected, rel=1e-5)
    # In half precision nothing overflows.
    low = number(kit.GaussianNLL(0.5)(np.float16([[1.0]]), np.float16([[1.0, -20.0]])))
    assert low == pytest.approx(0.5 * np.log(2 * np.pi * 0.5), rel=1e-5)


def test_a_network_learns_mean_and_variance_and_is_saved_with_the_loss(kit, tmp_path):
    model = kit.keras.Sequential([kit.keras.Input((2,)), kit.keras.layers.Dense(2, kernel_initializer="zeros")])
    model.compile(kit.keras.optimizers.Adam(0.1), kit.GaussianNLL(1e-4), jit_compile=False)
    model.fit(np.tile(X, (150, 1)), np.tile(Y, (150, 1)), batch_size=64, verbose=0, shuffle=False)
    # The mean is the first input, the logarithm of the variance twice the second; the model fits as well or better.
    kernel = model.get_weights()[0]
    assert kernel[0, 0] == pytest.approx(1, abs=0.3) and kernel[1, 1] > 0.8
    truth = measures.gaussian_nll(Y, X[:, 0], np.exp(2 * X[:, 1]))
    assert model.evaluate(X, Y, verbose=0) < truth
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = kit.keras.models.load_model(path)
    assert type(loaded.loss) is kit.GaussianNLL and loaded.loss.min_variance == 1e-4
    assert loaded.evaluate(X, Y, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0))


def test_what_it_cannot_take_is_refused(kit):
    with pytest.raises(ValueError, match="a last axis of even size, not of 3"):
        kit.GaussianNLL()(Y, np.zeros((64, 3), "float32"))
    with pytest.raises(ValueError, match="^`min_variance` must be a number > 0, not 0.$"):
        kit.GaussianNLL(0)
