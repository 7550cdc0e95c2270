"""SWACallback(start_epoch="auto") and AverageEarlyStopping: starts and stops from validation."""

import warnings

import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers.loss_valley import LossValley
from recordings import recording

pytestmark = pytest.mark.sample

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X @ np.array([[1.0], [-1.0], [0.5]], "float32")
CASES = {case["curve"]: case for case in recording("LossValley")["cases"][:6]}


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Generation(request.param)


def model_of(kit, norm=False, optimizer="sgd"):
    kit.keras.utils.set_random_seed(0)
    layers = [kit.keras.Input((3,)), kit.keras.layers.Dense(2)]
    layers += [kit.keras.layers.BatchNormalization()] if norm else []
    model = kit.keras.Sequential([*layers, kit.keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def losses_of(kit, losses, metric="val_loss"):
    """A callback that gives epochs these losses, and keeps the weights at their ends."""

    class Losses(kit.keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self._supports_tf_logs, self.weights, self.epochs = True, {}, 0

        def on_epoch_end(self, epoch, logs=None):
            self.weights[epoch] = [np.array(w) for w in self.model.get_weights()]
            self.epochs += 1
            if losses[epoch] is not None:
                logs[metric] = losses[epoch]

    return Losses()


def fit(model, callbacks, epochs, **settings):
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **settings)


def expected(case, weights, **settings):
    valley = LossValley(**settings)
    for epoch in range(len(weights)):
        valley.add(case["losses"][epoch], weights[epoch])
    return valley.result()


def assert_weights(model, values):
    for found, value in zip(model.get_weights(), values):
        np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-7)


def error_of(call):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("curve", ["fall, flat, rise", "at once"])
def test_the_average_is_that_of_the_valley_and_training_stops_behind_it(kit, curve):
    case, model = CASES[curve], model_of(kit)
    losses, swa = losses_of(kit, case["losses"]), kit.SWACallback("auto")
    fit(model, [losses, swa], 26)
    assert losses.epochs == (26 if case["dead_at"] is None else case["dead_at"] + 1)
    assert swa.snapshots == case["n_averaged"]
    valley = expected(case, losses.weights)
    assert valley.averaged == case["averaged"]
    assert_weights(model, valley.average)


def test_arguments_of_the_rule_are_passed_on(kit):
    case, model = CASES["noisy valley"], model_of(kit)
    settings = {"n_converge": 4, "n_tolerance": 4, "tolerance_ratio": 0.1}
    losses, swa = losses_of(kit, case["losses"]), kit.SWACallback("auto", **settings)
    fit(model, [losses, swa], 26)
    assert (losses.epochs, swa.snapshots) == (19, 5)
    assert_weights(model, expected(case, losses.weights, **settings).average)


@pytest.mark.parametrize("epochs", [26, 14])
def test_batch_norm_is_recomputed_in_one_more_epoch_or_from_data(kit, epochs):
    case = CASES["fall, flat, rise"]
    model, losses, swa = model_of(kit, norm=True), losses_of(kit, case["losses"]), kit.SWACallback("auto")
    fit(model, [losses, swa], epochs, shuffle=False)
    # Validation 21 ends the valley; the pass is epoch 23, or the last one.
    trained = min(22, epochs - 1)
    assert losses.epochs == trained + 1
    del losses.weights[trained]
    average = expected(case, losses.weights).average
    # Arrays 4 and 5 are the statistics.
    assert_weights(model, average[:4] + [np.array(w) for w in model.get_weights()[4:6]] + average[6:])
    other = model_of(kit, norm=True)
    other.set_weights(average)
    kit.update_batch_norm(other, X, 8, verbose=0)
    assert_weights(model, other.get_weights())


def test_without_validation_a_warning_says_so_and_the_model_keeps_its_weights(kit):
    model = model_of(kit)
    losses = losses_of(kit, [None] * 3)
    with pytest.warns(UserWarning) as caught:
        fit(model, [losses, kit.SWACallback("auto")], 3)
    texts = [str(w.message) for w in caught if "start_epoch" in str(w.message)]
    assert len(texts) == 2 and "epoch 1 has none" in texts[0] and "there was none" in texts[1]
    assert_weights(model, losses.weights[2])
    # A loss that falls to the end has no valley.
    model, losses = model_of(kit), losses_of(kit, [3.0, 2.0, 1.0, 0.5])
    with pytest.warns(UserWarning, match="no average: the validation loss fell to the end"):
        fit(model, [losses, kit.SWACallback("auto")], 4)
    assert_weights(model, losses.weights[3])


@pytest.mark.parametrize("stop", [9])
def test_a_training_that_goes_on_elsewhere_ends_where_one_in_one_piece_does(kit, stop, tmp_path):
    case = CASES["two valleys"]
    whole, losses = model_of(kit), losses_of(kit, case["losses"])
    fit(whole, [losses, kit.SWACallback("auto")], 26, shuffle=False)
    model = model_of(kit)

    class Stop(kit.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, [losses_of(kit, case["losses"]), kit.SWACallback("auto", backup_dir=str(tmp_path)), Stop()], 26,
            shuffle=False)  # fmt: skip
    later, swa = losses_of(kit, case["losses"]), kit.SWACallback("auto", backup_dir=str(tmp_path))
    number = kit.SWACallback(5, backup_dir=str(tmp_path))
    assert "same `start_epoch`" in error_of(lambda: fit(model, [number], 26, initial_epoch=stop + 1))
    fit(model, [later, swa], 26, initial_epoch=stop + 1, shuffle=False)
    assert later.epochs == losses.epochs - stop - 1
    assert_weights(model, whole.get_weights())
    assert not any(tmp_path.iterdir()) if tmp_path.exists() else True


def test_another_fit_begins_anew(kit):
    case, model, swa = CASES["two valleys"], model_of(kit), kit.SWACallback("auto")
    fit(model, [losses_of(kit, case["losses"]), swa], 26)
    losses = losses_of(kit, case["losses"])
    fit(model, [losses, swa], 26)
    assert_weights(model, expected(case, losses.weights).average)


@pytest.mark.once
def test_bad_arguments_are_refused_in_one_line(kit):
    for value in ("automatic", 1, 2.5, None, True):
        assert "`start_epoch` must be" in error_of(lambda: kit.SWACallback(value))
    assert "`lr_schedule` must be 'manual'" in error_of(lambda: kit.SWACallback("auto", "constant"))
    assert "`swa_freq` must be 1" in error_of(lambda: kit.SWACallback("auto", swa_freq=2))
    assert "`n_tolerance` must be" in error_of(lambda: kit.SWACallback("auto", n_tolerance=0))
    stopping = kit.AverageEarlyStopping
    wrong = {"monitor": 3, "min_delta": -1, "patience": 1.5, "verbose": 2, "mode": "up", "baseline": "x"}
    for name, value in {**wrong, "restore_best_average": 1, "start_from_epoch": -1}.items():
        assert f"`{name}` must be" in error_of(lambda: stopping(**{name: value}))
    assert "averaging" in error_of(lambda: fit(model_of(kit), [stopping()], 2))


# Early stopping.


def test_a_callback_that_overwrites_the_average_is_named_at_the_end(kit):
    early = {"monitor": "val_loss", "patience": 9, "restore_best_weights": True}
    settings = {"validation_data": (X, Y), "epochs": 5}
    if kit.name == "keras3":
        with pytest.warns(UserWarning, match="EarlyStopping with `restore_best_weights`"):
            fit(model_of(kit), [kit.SWACallback(2), kit.keras.callbacks.EarlyStopping(**early)], **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*EarlyStopping")
        fit(model_of(kit), [kit.keras.callbacks.EarlyStopping(**early), kit.SWACallback(2)], **settings)


class Watched:
    """The averages, and the metric of them, at the end of every epoch."""

    def __init__(self, kit, metric):
        outer = self
        self.averages, self.others, self.metrics = [], [], []

        class Watch(kit.keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                averages = self.model.optimizer.averages
                outer.averages.append([averages.backend.numpy(a) for a in averages.average])
                outer.others.append([np.array(w) for w in self.model.get_weights()])
                outer.metrics.append(float(logs[metric]))

        self.callback = Watch()


def test_the_best_averages_are_restored_and_the_metric_is_theirs(kit):
    model = model_of(
        kit, norm=True, optimizer=kit.ExponentialMovingAverage(kit.keras.optimizers.SGD(0.3), average_decay=0.6)
    )
    watched, early = Watched(kit, "val_loss"), kit.AverageEarlyStopping(patience=2, min_delta=0.0)
    fit(model, [early, watched.callback], 40, validation_data=(X[:4] + 1.0, Y[:4]))
    best = int(np.argmin(watched.metrics))
    assert len(watched.metrics) == best + 3 < 40
    assert (early.best_epoch, early.stopped_epoch) == (best, best + 2)
    np.testing.assert_allclose(early.best, min(watched.metrics), rtol=1e-6)
    for variable, average in zip(model.trainable_variables, watched.averages[best]):
        np.testing.assert_array_equal(np.array(variable), average)
    # The metric was that of the averages, with that epoch's statistics.
    np.testing.assert_array_equal(model.get_weights()[4:6], watched.others[best][4:6])
    np.testing.assert_allclose(model.evaluate(X[:4] + 1.0, Y[:4], verbose=0), early.best, rtol=1e-5)
    before = model.get_weights()
    model.optimizer.assign_average_vars(model.trainable_variables)
    assert_weights(model, before)


def test_epochs_without_an_average_do_not_count_and_weights_may_stay(kit):
    model = model_of(kit, optimizer=kit.SWA("sgd", start_averaging=4, average_period=2))
    watched = Watched(kit, "loss")
    metric = losses_of(kit, [0.0, 0.0, 3.0, 2.0, 2.5, 2.6, 2.7], "quality")
    early = kit.AverageEarlyStopping("quality", patience=1, mode="min", restore_best_average=False)
    fit(model, [metric, early, watched.callback], 7)
    assert (early.best_epoch, early.best, metric.epochs) == (3, 2.0, 5)
    assert_weights(model, watched.others[-1])


def test_an_interrupted_training_keeps_its_weights(kit):
    model = model_of(kit, optimizer=kit.ExponentialMovingAverage("sgd", average_decay=0.5))
    watched = Watched(kit, "loss")

    class Stop(kit.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, [kit.AverageEarlyStopping(), watched.callback, Stop()], 5, validation_data=(X, Y))
    assert_weights(model, watched.others[-1])
