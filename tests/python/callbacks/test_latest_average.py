"""`LatestAverage`: the mean of the latest snapshots, shown, validated, saved and kept for another process."""

import warnings

import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers.callbacks.moments import Moments
from kerasoptimizers.callbacks.swa import floating_weights

pytestmark = pytest.mark.sample

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def build(generation, norm=False, optimizer=None):
    generation.keras.utils.set_random_seed(0)
    layers = generation.keras.layers
    middle = [layers.BatchNormalization()] if norm else []
    model = generation.keras.Sequential([layers.Input((3,)), layers.Dense(4), *middle, layers.Dense(1)])
    model.compile(optimizer or generation.keras.optimizers.SGD(0.05, momentum=0.9), "mse")
    return model


def values(model):
    return [np.array(variable.numpy()) for variable in floating_weights(model)]


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other))


class Recorder:
    """The model's weights after each epoch, and after the given numbers of batches."""

    def __init__(self, generation):
        self.epochs, self.batches, recorder = [], [], self

        class Record(generation.keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                recorder.batches.append(values(self.model))

            def on_epoch_end(self, epoch, logs=None):
                recorder.epochs.append(values(self.model))

        self.callback = Record()


def fit(model, epochs, *callbacks, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **arguments
        )
    return history.history


def mean(snapshots):
    return [np.mean(np.array(arrays, "float64"), axis=0) for arrays in zip(*snapshots)]


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_the_model_ends_as_the_mean_of_the_k_latest_epochs(generation):
    model, record = build(generation), Recorder(generation)
    callback = generation.LatestAverage(k=3)
    fit(model, 7, record.callback, callback)
    assert callback.snapshots == 3
    assert_close(values(model), mean(record.epochs[-3:]))


def test_snapshots_come_every_so_many_batches_from_an_epoch_on(generation):
    model, record = build(generation), Recorder(generation)
    fit(model, 3, record.callback, generation.LatestAverage(k=2, every=4, start_epoch=2))
    # Twelve batches count: the 4th, the 8th and the 12th of them.
    assert_close(values(model), mean([record.batches[6 + 7], record.batches[6 + 11]]))


def test_with_k_as_large_as_the_number_of_snapshots_it_is_swa_bit_for_bit(generation):
    one, other = build(generation), build(generation)
    fit(one, 6, generation.LatestAverage(k=5, start_epoch=2))
    fit(other, 6, generation.SWACallback(start_epoch=2))
    assert equal(values(one), values(other))


def test_validation_sees_the_average_with_this_epochs_snapshot_and_training_goes_on(generation):
    plain, record = build(generation), Recorder(generation)
    fit(plain, 4, record.callback)
    model, seen = build(generation), []

    class Look(generation.keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            seen.append(values(self.model))

    callback = generation.LatestAverage(k=2, assign=False, weights_too=True)
    history = fit(model, 4, callback, Look(), validation_data=(X, Y), validation_batch_size=48)
    # The weights of a training without the callback.
    assert equal(values(model), values(plain))
    averages = [mean(record.epochs[max(0, i - 1) : i + 1]) for i in range(4)]
    for i in range(4):
        assert_close(seen[2 * i], averages[i])
        assert equal(seen[2 * i + 1], record.epochs[i])
    assert history["val_loss"][3] != history["val_weights_loss"][3]
    # By hand, there and back.
    callback.swap_weights()
    assert_close(values(model), averages[3])
    callback.swap_weights()
    assert equal(values(model), values(plain))
    callback.assign_average_vars(model.trainable_variables)
    assert_close(values(model), averages[3])


def test_checkpoints_and_swap_averages_beside_it_take_its_average(generation, tmp_path):
    # Also in place of an averaging optimizer's.
    for optimizer in (None, generation.SWA(generation.keras.optimizers.SGD(0.05), average_period=1)):
        model, record, file = build(generation, optimizer=optimizer), Recorder(generation), str(tmp_path / "a.keras")
        callbacks = [
            generation.SwapAverages(),
            generation.LatestAverage(k=2, assign=False),
            generation.AverageModelCheckpoint(False, file),
            record.callback,
        ]
        fit(model, 3, *callbacks, validation_data=(X, Y))
        loaded = generation.keras.models.load_model(file)
        assert_close(values(loaded), mean(record.epochs[-2:]))
        assert equal(values(model), record.epochs[-1])
    # Without it, such a callback needs an averaging optimizer as before.
    with pytest.raises(ValueError, match="must be compiled with an averaging optimizer"):
        fit(build(generation), 1, generation.SwapAverages())


def test_an_error_in_validation_leaves_the_model_its_weights(generation):
    model, record = build(generation), Recorder(generation)

    class Fails(generation.keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            if len(record.epochs) == 2:
                record.callback.on_epoch_end(2)
                raise KeyboardInterrupt

    plain = build(generation)
    fit(plain, 3)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 5, Fails(), generation.LatestAverage(), record.callback, validation_data=(X, Y))
    assert not equal(record.epochs[2], values(plain))  # the average
    assert equal(values(model), values(plain))


def test_data_recompute_batch_norm_at_the_end(generation):
    model = build(generation, norm=True)
    fit(model, 3, generation.LatestAverage(k=2, data=X))
    dense, norm = model.layers[:2]
    outputs = X @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(norm.moving_mean.numpy(), outputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), outputs.var(axis=0), rtol=1e-4)
    model, record = build(generation, norm=True), Recorder(generation)
    with pytest.warns(UserWarning, match="LatestAverage: the batch-norm statistics of .* belong to other weights"):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[record.callback, generation.LatestAverage(k=2)])
    assert_close(values(model), mean(record.epochs[-2:]))


@pytest.mark.parametrize("every", ["epoch", 4])
def test_a_training_that_broke_off_goes_on_as_if_it_had_not(generation, tmp_path, every):
    def average():
        return generation.LatestAverage(k=4, every=every, backup_dir=tmp_path / "average")

    class Stop(generation.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    whole = build(generation)
    fit(whole, 6, generation.LatestAverage(k=4, every=every))
    model = build(generation)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 6, average(), Stop())
    assert sorted(path.name for path in (tmp_path / "average").iterdir()) == [
        f"latest-after-epoch-{n}.npz" for n in (2, 3)
    ]
    file = str(tmp_path / "model.keras")
    model.save(file)
    loaded = generation.keras.models.load_model(file)
    fit(loaded, 6, average(), initial_epoch=3)
    assert equal(values(loaded), values(whole))
    assert not (tmp_path / "average").exists()


def test_a_backup_of_another_model_is_refused_before_training(generation, tmp_path):
    class Stop(generation.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(build(generation), 2, generation.LatestAverage(backup_dir=tmp_path), Stop())
    other = build(generation, norm=True)
    before = values(other)
    with pytest.raises(ValueError, match="`backup_dir` must hold the snapshots of this model"):
        fit(other, 3, generation.LatestAverage(backup_dir=tmp_path), initial_epoch=1)
    assert equal(values(other), before)


def test_a_callback_goes_on_in_a_second_fit_and_starts_anew_with_another_model(generation):
    model, record, callback = build(generation), Recorder(generation), generation.LatestAverage(k=3, assign=False)
    fit(model, 2, record.callback, callback)
    fit(model, 4, record.callback, callback, initial_epoch=2)
    callback.swap_weights()
    assert_close(values(model), mean(record.epochs[1:4]))
    callback.swap_weights()
    other = build(generation, norm=True)
    fit(other, 1, callback)
    assert callback.snapshots == 1


def test_without_a_snapshot_the_model_keeps_its_weights(generation):
    model, record = build(generation), Recorder(generation)
    with pytest.warns(UserWarning, match="There is no average: training ended before the first snapshot"):
        model.fit(X, Y, epochs=1, verbose=0, callbacks=[record.callback, generation.LatestAverage(start_epoch=3)])
    assert equal(values(model), record.epochs[-1])


def test_arguments_are_checked(generation):
    wrong = {"k": 0, "every": "batch", "start_epoch": 0, "verbose": 2, "assign": 1, "data": "x", "batch_size": 0}
    for name, value in {**wrong, "backup_dir": 3, "weights_too": None}.items():
        with pytest.raises((TypeError, ValueError), match=f"`{name}` must be"):
            generation.LatestAverage(**{name: value})


@pytest.mark.once
def test_moments_are_counted_across_epochs_and_calls_of_several_batches():
    moments, due = Moments(5), []
    for _ in range(3):
        moments.begin_epoch()
        due += [moments.batch_is_due(batch) for batch in range(4)]
    assert [i + 1 for i, is_due in enumerate(due) if is_due] == [5, 10]
    # Three batches in a call: due with the call in which the moment came.
    moments = Moments(5)
    moments.begin_epoch()
    assert [moments.batch_is_due(batch) for batch in (2, 5, 8, 11)] == [False, True, False, True]
    assert not Moments("epoch").batch_is_due(3)
