"""`SWA(start_averaging="3 epochs")`: what `fit()` knows about epochs says when averaging starts."""

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers.facts import facts

pytestmark = pytest.mark.sample

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def compiled(generation, start, inner=None, **settings):
    layers = generation.keras.layers
    generation.keras.utils.set_random_seed(0)
    model = generation.keras.Sequential([layers.Input((3,)), layers.Dense(1)])
    inner = inner or generation.keras.optimizers.SGD(0.05)
    model.compile(generation.SWA(inner, start, 2), "mse", **settings)
    return model


def fit(model, epochs, **arguments):
    # Five batches an epoch.
    model.fit(X, X[:, :1], batch_size=4, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return model.optimizer


def averages(model):
    return [np.array(model.optimizer.get_slot(v, "average").numpy()) for v in model.trainable_variables]


def test_averaging_starts_after_so_many_epochs(generation):
    xla = {} if keras.backend.backend() == "torch" and generation.name == "keras3" else {"jit_compile": True}
    by_epochs, by_updates = compiled(generation, "2 epochs", **xla), compiled(generation, 10, **xla)
    assert facts(by_epochs.optimizer)["next_due"] is None
    for epochs in (2, 1, 1):
        for model in (by_epochs, by_updates):
            fit(model, epochs)
        assert by_epochs.optimizer.snapshots == by_updates.optimizer.snapshots
    # After updates 10, 12, ..., 18.
    assert by_epochs.optimizer.snapshots == 5
    for one, other in zip(averages(by_epochs), averages(by_updates)):
        np.testing.assert_array_equal(one, other)
    assert facts(by_epochs.optimizer)["next_due"] == 20
    assert by_epochs.optimizer.get_config()["start_averaging"] == "2 epochs"


def test_one_epoch_and_none_are_words_too(generation):
    assert fit(compiled(generation, "1 epoch"), 2).snapshots == 3
    assert fit(compiled(generation, "0 epochs"), 1).snapshots == 3


@pytest.mark.parametrize("generation", ["keras3"], indirect=True)
def test_accumulated_batches_are_one_update(generation):
    inner = generation.keras.optimizers.SGD(0.05, gradient_accumulation_steps=5)
    # One update an epoch: those numbered 2, 4 and 6.
    assert fit(compiled(generation, "2 epochs", inner), 7).snapshots == 3


def test_a_loaded_model_goes_on_with_it(generation, tmp_path):
    model, file = compiled(generation, "2 epochs"), str(tmp_path / "model.keras")
    fit(model, 3)
    model.save(file)
    loaded = generation.keras.models.load_model(file)
    for one in (model, loaded):
        fit(one, 1)
    assert loaded.optimizer.snapshots == model.optimizer.snapshots == 5


def test_without_a_fit_that_knows_its_batches_it_is_refused(generation):
    model = compiled(generation, "2 epochs", run_eagerly=True)
    before = [w.numpy() for w in model.trainable_variables]
    refused = r"`start_averaging` can't be '2 epochs': that needs a fit\(\) that knows how many batches an epoch has"
    with pytest.raises(ValueError, match=refused):
        model.train_on_batch(X, X[:, :1])

    def batches():
        while True:
            yield X, X[:, :1]

    def some():
        yield from ((X[:4], X[:4, :1]) for _ in range(3))

    with pytest.raises(ValueError, match=refused):
        model.fit(some(), epochs=1, verbose=0)
    for one, weight in zip(before, model.trainable_variables):
        np.testing.assert_array_equal(one, weight.numpy())
    model.fit(batches(), steps_per_epoch=3, epochs=3, verbose=0)
    assert model.optimizer.snapshots == 2
    for wrong in ("2", "epochs", "-1 epochs", "2.5 epochs", "2 weeks"):
        with pytest.raises(ValueError, match="`start_averaging` must be a whole number >= 0 or a text such as"):
            generation.SWA("sgd", start_averaging=wrong)
