"""Callbacks that show the averages to validation, prediction and checkpoints."""

import contextlib
import gc

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation, assert_same
from kerasoptimizers import SWA, AverageModelCheckpoint, ExponentialMovingAverage, SwapAverages

pytestmark = [pytest.mark.oldest_keras, pytest.mark.sample]

DATA = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
LABELS = DATA.sum(axis=1, keepdims=True) + 1.0


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Generation(request.param)


def model_with(optimizer, keras=keras, **settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **settings)
    return model


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def model_of(kit, *swa):
    """A model of either Keras with SWA."""
    return model_with(kit.SWA(kit.keras.optimizers.SGD(0.1, momentum=0.9), *swa), kit.keras)


def fit(model, *callbacks, epochs=3, validate=True):
    validation = (DATA, LABELS) if validate else None
    return model.fit(
        DATA,
        LABELS,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        validation_data=validation,
        callbacks=list(callbacks),
    ).history


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def averages(model):
    return [np.array(model.optimizer.get_slot(v, "average").numpy()) for v in model.trainable_variables]


def loss_with(values, model):
    twin = model_with("sgd")
    twin.set_weights(values)
    return twin.evaluate(DATA, LABELS, verbose=0)


def test_validation_sees_the_averages_and_training_the_weights():
    plain, swapped = model_with(SWA(sgd(), 4, 2)), model_with(SWA(sgd(), 4, 2))
    history, swapped_history = fit(plain), fit(swapped, SwapAverages())
    assert_same(weights(swapped), weights(plain))
    assert_same(averages(swapped), averages(plain))
    assert swapped_history["loss"] == history["loss"]
    # The first snapshot falls into the second epoch: until then the weights are used.
    assert swapped_history["val_loss"][0] == history["val_loss"][0]
    assert swapped_history["val_loss"][1] != history["val_loss"][1]
    assert swapped_history["val_loss"][-1] == pytest.approx(loss_with(averages(swapped), swapped), rel=1e-6)


def test_evaluate_and_predict_use_the_averages():
    model = model_with(SWA(sgd(), 0, 2))
    fit(model)
    before, expected = weights(model), averages(model)
    loss = model.evaluate(DATA, LABELS, verbose=0, callbacks=[SwapAverages()])
    assert loss == pytest.approx(loss_with(expected, model), rel=1e-6)
    predicted = model.predict(DATA, verbose=0, callbacks=[SwapAverages()])
    np.testing.assert_allclose(predicted, DATA @ expected[0] + expected[1], rtol=1e-5, atol=1e-5)
    assert_same(weights(model), before)


class Failing(keras.callbacks.Callback):
    def __init__(self, error, when):
        super().__init__()
        setattr(self, when, self.fail)
        self.error = error

    def fail(self, batch=None, logs=None):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"])
def test_weights_come_back_when_validation_stops(error, when):
    model, plain = model_with(SWA(sgd(), 0, 2)), model_with(SWA(sgd(), 0, 2))
    with pytest.raises(type(error)):
        fit(model, SwapAverages(), Failing(error, when), epochs=1)
    fit(plain, epochs=1)
    assert_same(weights(model), weights(plain))
    assert_same(averages(model), averages(plain))


@pytest.mark.parametrize("when", ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"])
def test_weights_come_back_when_a_callback_raises_stop_iteration(when):
    # Keras may take it for the end of the data, and go on.
    model, plain = model_with(SWA(sgd(), 0, 2)), model_with(SWA(sgd(), 0, 2))
    with contextlib.suppress(StopIteration):
        fit(model, SwapAverages(), Failing(StopIteration(), when), epochs=1)
    fit(plain, epochs=1)
    assert_same(weights(model), weights(plain))
    assert_same(averages(model), averages(plain))


@pytest.mark.parametrize("at", [0, 1])
def test_weights_come_back_when_validation_data_fail(at):
    tf = pytest.importorskip("tensorflow")

    def validation():
        for batch in range(4):
            if batch == at:
                raise RuntimeError("broken")
            yield DATA[:8], LABELS[:8]

    model, plain = model_with(SWA(sgd(), 0, 2)), model_with(SWA(sgd(), 0, 2))
    kinds = {"output_signature": tuple(tf.TensorSpec((None, n)) for n in (3, 1))}
    data = tf.data.Dataset.from_generator(validation, **kinds)
    settings = {"batch_size": 8, "verbose": 0, "shuffle": False}
    with pytest.raises(Exception, match="broken"):
        model.fit(DATA, LABELS, validation_data=data, callbacks=[SwapAverages()], **settings)
    plain.fit(DATA, LABELS, **settings)
    assert_same(weights(model), weights(plain))
    assert_same(averages(model), averages(plain))


def test_a_fit_after_an_interrupted_evaluate_trains_the_weights():
    if keras.backend.backend() == "jax":
        pytest.skip("after an interrupted evaluate() on JAX a model has no values")
    model, plain = model_with(SWA(sgd(), 0, 2)), model_with(SWA(sgd(), 0, 2))
    swap = SwapAverages()
    fit(model)
    stop = Failing(KeyboardInterrupt(), "on_test_batch_end")
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(DATA, LABELS, verbose=0, callbacks=[swap, stop])
    fit(model, swap)
    fit(plain)
    fit(plain)
    assert_same(weights(model), weights(plain))


def test_weights_come_back_when_prediction_fails():
    model = model_with(SWA(sgd(), 0, 2), run_eagerly=True)
    fit(model)
    before = weights(model)
    with pytest.raises(Exception):
        model.predict(np.zeros((4, 7), "float32"), verbose=0, callbacks=[SwapAverages()])
    assert_same(weights(model), before)


@pytest.mark.parametrize("callback", ["SwapAverages", "AverageModelCheckpoint"])
def test_a_model_without_averages_is_refused(callback, tmp_path):
    made = SwapAverages() if callback == "SwapAverages" else AverageModelCheckpoint(False, str(tmp_path / "a.keras"))
    with pytest.raises(ValueError, match="`model` must be compiled with an averaging optimizer"):
        fit(model_with("sgd"), made)


def test_checkpoints_hold_the_averages(tmp_path):
    model, plain = model_with(SWA(sgd(), 4, 2)), model_with(SWA(sgd(), 4, 2))
    checkpoint = AverageModelCheckpoint(False, str(tmp_path / "{epoch}.keras"))
    with pytest.warns(UserWarning, match="saves nothing yet: there is no average"):
        fit(model, checkpoint)
    fit(plain)
    assert_same(weights(model), weights(plain))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.keras", "3.keras"]
    loaded = keras.models.load_model(tmp_path / "3.keras")
    assert_same(weights(loaded), averages(model))
    assert_same(averages(loaded), averages(model))


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("size", [250, 255])
def test_a_checkpoint_may_have_the_longest_name_of_a_file(kit, size, ending, tmp_path):
    name = "a" * (size - len(ending)) + ending
    model = model_of(kit, 0, 2)
    only = {"save_weights_only": True} if ending == ".weights.h5" else {}
    fit(model, kit.AverageModelCheckpoint(False, str(tmp_path / name), **only), epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_checkpoint_may_leave_the_averages_in_the_model(tmp_path):
    model = model_with(ExponentialMovingAverage(sgd()))
    fit(model, AverageModelCheckpoint(True, str(tmp_path / "last.weights.h5"), save_weights_only=True))
    assert_same(weights(model), averages(model))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no averages of non-trainable weights")
def test_checkpoints_hold_averages_of_non_trainable_weights_too(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile(ExponentialMovingAverage(sgd(), trainable_weights_only=False), "mse")
    model.optimizer.shadow_copy(model)
    path = str(tmp_path / "last.weights.h5")
    mean = model.layers[0].moving_mean
    fit(model, AverageModelCheckpoint(False, path, save_weights_only=True))
    average = model.optimizer.get_slot(mean, "average").numpy()
    assert not np.array_equal(mean.numpy(), average)
    model.load_weights(path)
    np.testing.assert_array_equal(mean.numpy(), average)


def test_the_best_averages_are_kept(tmp_path):
    model = model_with(SWA(sgd(), 0, 1))
    path = str(tmp_path / "best.keras")
    history = fit(model, SwapAverages(), AverageModelCheckpoint(False, path, save_best_only=True), epochs=5)
    best = keras.models.load_model(path)
    loss = best.evaluate(DATA, LABELS, verbose=0)
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_two_callbacks_show_the_averages_as_one_does(kit):
    one, two = model_of(kit, 0, 2), model_of(kit, 0, 2)
    history, history_of_two = fit(one, kit.SwapAverages()), fit(two, kit.SwapAverages(), kit.SwapAverages())
    assert history_of_two == history
    assert_same(weights(two), weights(one))
    assert_same(averages(two), averages(one))


def guards(model):
    """Names of the model's functions that others stand in for."""
    found = [name for name in ("fit", "evaluate", "predict", "train_on_batch", "save") if name in vars(model)]
    functions = ("train_function", "test_function", "predict_function")
    # These Keras itself sets: to None, a function, or TensorFlow's kind of one.
    modules = {name: getattr(getattr(model, name, None), "__module__", None) or "" for name in functions}
    return found + [name for name, module in modules.items() if module.startswith("kerasoptimizers")]


def several(kit):
    return kit.SwapAverages(), kit.SWACallback(2), kit.SwapAverages(weights_too=True)


def test_nothing_of_several_callbacks_is_left_on_a_model(kit):
    # Keras ends them in the order in which it began them.
    seen = []
    model = model_of(kit, 0, 2)
    look = kit.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.extend(guards(model)))
    for _ in range(2):
        fit(model, *several(kit), look)
        assert guards(model) == []
    assert "evaluate" in seen
    loss = model.evaluate(DATA, LABELS, verbose=0)
    assert loss == pytest.approx(loss_with(weights(model), model), rel=1e-6)


@pytest.mark.parametrize("when", ["on_epoch_begin", "on_train_batch_end", "on_test_batch_end", "on_epoch_end"])
def test_nothing_of_several_callbacks_is_left_by_a_fit_that_is_interrupted(kit, when):
    model = model_of(kit, 0, 2)

    class Interrupting(kit.keras.callbacks.Callback):
        pass

    def interrupt(self, number, logs=None):
        raise KeyboardInterrupt

    setattr(Interrupting, when, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, *several(kit), Interrupting())
    gc.collect()
    assert guards(model) == []


def test_averages_that_were_swapped_in_by_hand_are_shown_and_stay(kit):
    model = model_of(kit, 0, 2)
    fit(model)
    before, expected = weights(model), averages(model)
    model.optimizer.swap_weights()
    loss = model.evaluate(DATA, LABELS, verbose=0, callbacks=[kit.SwapAverages()])
    assert loss == pytest.approx(loss_with(expected, model), rel=1e-6)
    model.predict(DATA, verbose=0, callbacks=[kit.SwapAverages()])
    assert_same(weights(model), expected)
    model.optimizer.swap_weights()
    assert_same(weights(model), before)
    assert_same(averages(model), expected)


def test_training_while_the_averages_are_swapped_in_is_refused(kit):
    model = model_of(kit, 0, 2)
    model.optimizer.shadow_copy(model)
    model.train_on_batch(DATA, LABELS)
    model.optimizer.swap_weights()
    state = weights(model), averages(model)
    model.compile(model.optimizer, "mse")
    with pytest.raises(ValueError, match=r"SWA can't train while the averages .*call swap_weights\(\) first"):
        fit(model, epochs=1)
    assert_same(weights(model), state[0])
    assert_same(averages(model), state[1])


def test_a_compiled_step_that_trains_swapped_averages_is_warned_of_once(kit):
    if keras.backend.backend() == "torch":
        pytest.skip("on PyTorch no step is compiled: each one is refused")
    model = model_of(kit, 0, 2)
    fit(model, epochs=1)
    model.optimizer.swap_weights()
    with pytest.warns(UserWarning, match="SWA: the model was trained while its averages were swapped in") as caught:
        fit(model, epochs=2, validate=False)
    assert len([w for w in caught if "swapped in" in str(w.message)]) == 1


def test_keras_own_callback_shows_the_weights_before_the_first_snapshot():
    model, plain = model_with(SWA(sgd(), 100)), model_with(SWA(sgd(), 100))
    history, plain_history = fit(model, keras.callbacks.SwapEMAWeights()), fit(plain)
    assert history["val_loss"] == pytest.approx(plain_history["val_loss"], rel=1e-6)
    assert not model.optimizer.has_average


def test_keras_own_callback_swaps_our_averages():
    model, plain = model_with(SWA(sgd(), 0, 2)), model_with(SWA(sgd(), 0, 2))
    history = fit(model, keras.callbacks.SwapEMAWeights())
    fit(plain)
    assert history["val_loss"][-1] == pytest.approx(loss_with(averages(plain), plain), rel=1e-5)
    for a, b in zip(weights(model), weights(plain)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
