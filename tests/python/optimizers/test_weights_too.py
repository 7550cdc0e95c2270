"""SwapAverages(weights_too=True): one training, validated with the averages and with the weights."""

import numpy as np
import pytest

from generations import GENERATIONS, Generation

DATA = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
LABELS = DATA.sum(axis=1, keepdims=True) + 1.0


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def model_of(generation):
    keras = generation.keras
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    # 4 updates an epoch: no average in the first.
    model.compile(generation.SWA(keras.optimizers.SGD(0.1), 5, 2), "mse", metrics=["mae"])
    return model


def fit(model, *callbacks):
    history = model.fit(
        DATA,
        LABELS,
        batch_size=8,
        epochs=3,
        verbose=0,
        shuffle=False,
        validation_data=(DATA, LABELS),
        callbacks=list(callbacks),
    )
    return history.history


def test_the_history_holds_the_metrics_of_both(generation):
    both = fit(model_of(generation), generation.SwapAverages(weights_too=True))
    averages = fit(model_of(generation), generation.SwapAverages())
    model = model_of(generation)
    weights = fit(model)
    for metric in ("loss", "mae"):
        np.testing.assert_allclose(both[f"val_{metric}"], averages[f"val_{metric}"], rtol=1e-6)
        np.testing.assert_allclose(both[f"val_weights_{metric}"], weights[f"val_{metric}"], rtol=1e-6)
        np.testing.assert_allclose(both[metric], weights[metric], rtol=1e-6)
    assert both["val_loss"][0] == both["val_weights_loss"][0]
    assert both["val_loss"][2] != both["val_weights_loss"][2]
    assert not any("weights" in name for name in averages)


def test_training_and_evaluate_are_as_without_it(generation):
    plain, model = model_of(generation), model_of(generation)
    fit(plain)
    fit(model, generation.SwapAverages(weights_too=True))
    for own, other in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(own, other)
    assert "evaluate" not in vars(model)
    assert len(model.evaluate(DATA, LABELS, verbose=0)) == 2


def test_a_fit_that_failed_leaves_nothing_behind(generation):
    class Fails(generation.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

        def on_test_batch_end(self, batch, logs=None):
            seen.append(batch)

    seen = []
    model = model_of(generation)
    callback = generation.SwapAverages(weights_too=True)
    with pytest.raises(KeyboardInterrupt):
        fit(model, Fails(), callback)
    assert list(model.evaluate(DATA, LABELS, verbose=0, return_dict=True)) == ["loss", "mae"]
    seen.clear()

    class Counts(generation.keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen.append("validated")

    history = fit(model, callback, Counts())
    assert sum("weights" in name for name in history) == 2
    # The weights were taken into an average by now: twice in each of three epochs.
    assert len(seen) == 6
    assert history["val_loss"][2] != history["val_weights_loss"][2]


def test_weights_too_is_a_flag(generation):
    with pytest.raises(TypeError, match="`weights_too` must be True or False, not None"):
        generation.SwapAverages(weights_too=None)
