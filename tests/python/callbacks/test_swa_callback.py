"""SWACallback: keras-swa's numbers, and a last epoch that recalibrates batch norm exactly."""

import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation, assert_same, value, values
from kerasoptimizers import KerasOptimizersWarning
from recordings import recording

pytestmark = pytest.mark.sample

RANDOM = np.random.default_rng(0)
# 41 examples in batches of 8: the last one has 1.
X = RANDOM.normal(3, 2, size=(41, 5)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture(params=GENERATIONS)
def kit(request):
    generation = Generation(request.param)
    generation.keras.utils.set_random_seed(1)
    return generation


def floating(model):
    return [v for v in model.weights if "float" in str(v.dtype)]


def dense(kit, optimizer="sgd", **settings):
    model = kit.keras.Sequential([kit.keras.Input((5,)), kit.keras.layers.Dense(1)])
    model.compile(optimizer, "mse", **settings)
    return model


def normed(kit, optimizer="sgd", **settings):
    layers = kit.keras.layers
    inner = kit.keras.Sequential([kit.keras.Input((4,)), layers.BatchNormalization()])
    model = kit.keras.Sequential(
        [kit.keras.Input((5,)), layers.BatchNormalization(), layers.Dense(4)] + [inner, layers.Dense(1)]
    )
    model.compile(optimizer, "mse", **settings)
    return model


def fit(model, *callbacks, epochs=5, **settings):
    settings = {"verbose": 0, "batch_size": 8, "shuffle": False, **settings}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings).history


def at_epoch_end(kit, action):
    return kit.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: action(epoch, logs))


def assert_exact_statistics(model, batch_size=8):
    """The statistics are those of all examples, for the weights that the model holds."""
    front, dense, inner = model.layers[:3]
    last = inner.layers[-1]
    seen = []
    for start in range(0, len(X), batch_size):
        x = X[start : start + batch_size].astype("float64")
        normal = (x - x.mean(0)) / np.sqrt(x.var(0) + front.epsilon)
        normal = normal * value(front.gamma) + value(front.beta)
        seen.append(normal @ value(dense.kernel) + value(dense.bias))
    for layer, inputs in ((front, X.astype("float64")), (last, np.concatenate(seen))):
        np.testing.assert_allclose(value(layer.moving_mean), inputs.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(value(layer.moving_variance), inputs.var(0), rtol=1e-5)


def optimizers(kit):
    three = kit.name == "keras3"
    make = kit.keras.optimizers
    decay = {"weight_decay": 0.1}
    yield "sgd with momentum", make.SGD(0.01, momentum=0.9, nesterov=True)
    yield "sgd with weight decay", make.SGD(0.01, **decay)
    yield "adam", make.Adam(0.01)
    yield "adamw", make.AdamW(0.01, **decay)
    yield "inner average", make.Adam(0.01, use_ema=True, ema_momentum=0.9)
    yield "our average", kit.SWA(make.SGD(0.01, momentum=0.9), 0, 1)
    yield "a schedule", make.Adam(make.schedules.ExponentialDecay(0.01, 5, 0.9))
    if three:
        yield "accumulation", make.Adam(0.01, gradient_accumulation_steps=4)
        yield "loss scale", make.LossScaleOptimizer(make.Adam(0.01))
    else:
        yield "legacy", make.legacy.Adam(0.01)
        yield "loss scale", kit.keras.mixed_precision.LossScaleOptimizer(make.Adam(0.01))


# keras-swa's numbers.


@pytest.mark.parametrize("case", recording("SWACallback")["cases"])
def test_weights_and_rates_equal_the_original(kit, case):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1)])
    model.compile(kit.keras.optimizers.SGD(case["learning_rate"]), "mse")
    model.set_weights([np.array(w, "float32") for w in case["initial"]])
    trained = []
    history = model.fit(
        np.array(case["x"], "float32"),
        np.array(case["y"], "float32"),
        batch_size=case["batch_size"],
        epochs=case["epochs"],
        shuffle=False,
        verbose=0,
        callbacks=[
            kit.SWACallback(**case["config"]),
            at_epoch_end(kit, lambda epoch, logs: trained.append(values(model.weights))),
        ],
    ).history
    for weights, recorded in zip(trained, case["weights_at_epoch_end"], strict=True):
        for a, b in zip(weights, recorded, strict=True):
            np.testing.assert_allclose(a, np.array(b), atol=1e-5)
    for a, b in zip(values(model.weights), case["final"], strict=True):
        np.testing.assert_allclose(a, np.array(b), atol=1e-5)
    np.testing.assert_allclose(history.get("lr", []), case["lr_record"], rtol=1e-6)


# The last epoch of a model with batch norm.


@pytest.mark.parametrize("which", range(9))
def test_the_last_epoch_changes_statistics_only(kit, which):
    name, optimizer = list(optimizers(kit))[which]
    model = normed(kit, optimizer)
    callback = kit.SWACallback(2)
    slots = []

    def note(epoch, logs):
        found = optimizer.variables
        slots.append(values(found() if callable(found) else found))

    history = fit(model, callback, at_epoch_end(kit, note))
    assert callback.snapshots == 3
    trainable = {id(v) for v in model.trainable_variables}
    for variable, average in zip(floating(model), callback.swa_weights, strict=True):
        if id(variable) in trainable:
            np.testing.assert_array_equal(value(variable), average)
    assert_exact_statistics(model)
    assert_same(slots[-1], slots[-2])
    assert len(history["loss"]) == 5 and np.all(np.isfinite(history["loss"]))
    # A second fit() trains all weights again.
    before = values(model.trainable_variables)
    fit(model, epochs=1)
    assert all(np.any(a != b) for a, b in zip(before, values(model.trainable_variables)))


def test_validation_of_the_last_epoch_sees_the_recalibrated_model(kit):
    model = normed(kit)
    history = fit(model, kit.SWACallback(2), validation_data=(X, Y))
    loss = model.evaluate(X, Y, verbose=0)
    np.testing.assert_allclose(history["val_loss"][-1], loss, rtol=1e-5)


def test_several_steps_per_execution(kit):
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch makes one step per execution.")
    model = normed(kit, steps_per_execution=4)
    fit(model, kit.SWACallback(2))
    assert_exact_statistics(model)


def test_an_eager_model(kit):
    model = normed(kit, run_eagerly=True)
    fit(model, kit.SWACallback(2))
    assert_exact_statistics(model)


def test_data_sets_and_weights_and_metrics(kit):
    tf = pytest.importorskip("tensorflow")
    model = normed(kit, metrics=["mae"])
    data = tf.data.Dataset.from_tensor_slices((X, Y, np.ones(41, "float32"))).batch(8)
    history = model.fit(data, epochs=5, verbose=0, callbacks=[kit.SWACallback(2)]).history
    assert_exact_statistics(model)
    assert len(history["mae"]) == 5


def test_generators(kit):
    def forever():
        while True:
            for start in range(0, 41, 8):
                yield X[start : start + 8], Y[start : start + 8]

    model = normed(kit)
    model.fit(forever(), epochs=5, steps_per_epoch=6, verbose=0, callbacks=[kit.SWACallback(2)])
    assert_exact_statistics(model)


def test_a_train_step_of_its_own(kit):
    # It knows its loss, and nothing else does: the last epoch only runs forward.
    class Net(kit.keras.Sequential):
        def train_step(self, *args):
            return super().train_step(*args)

    layers = kit.keras.layers
    inner = kit.keras.Sequential([kit.keras.Input((4,)), layers.BatchNormalization()])
    model = Net([kit.keras.Input((5,)), layers.BatchNormalization(), layers.Dense(4)] + [inner, layers.Dense(1)])
    model.compile("adam", "mse")
    history = fit(model, kit.SWACallback(2))
    assert_exact_statistics(model)
    assert len(history["loss"]) == 4


def test_data_gives_the_last_epoch_back_to_training(kit):
    model = normed(kit, "adam")
    callback = kit.SWACallback(2, data=X, batch_size=8, lr_schedule="constant")
    history = fit(model, callback)
    assert callback.snapshots == 4
    assert history["lr"][-1] > 0
    assert_exact_statistics(model)


def test_frozen_batch_norm_keeps_its_statistics_and_the_last_epoch_trains(kit):
    model = normed(kit)
    for layer in (model.layers[0], model.layers[2].layers[-1]):
        layer.trainable = False
    model.compile("sgd", "mse")
    callback = kit.SWACallback(2)
    fit(model, callback)
    assert callback.snapshots == 4
    np.testing.assert_array_equal(value(model.layers[0].moving_mean), 0)


class Broken(Exception):
    pass


def failing_data(kit, at):
    """Batches without end, the one with number `at` broken."""

    def batches():
        for i in range(10**6):
            if i == at:
                raise Broken("Broken")
            start = 8 * (i % 6)
            yield X[start : start + 8], Y[start : start + 8]

    return batches()


@pytest.mark.parametrize("at", [20, 24, 26])
def test_an_error_leaves_the_weights(kit, at):
    # 6 batches an epoch, the last of 5 epochs begins with batch 24.
    model = normed(kit, "adam")
    ends = []
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(model.trainable_variables)))
    with pytest.raises(Exception, match="Broken"):
        model.fit(
            failing_data(kit, at),
            epochs=5,
            steps_per_epoch=6,
            verbose=0,
            callbacks=[kit.SWACallback(2), note],
        )
    if at >= 24:
        assert_same(values(model.trainable_variables), ends[-1])
    fit(model, epochs=1)
    assert any(np.any(a != b) for a, b in zip(values(model.trainable_variables), ends[-1]))


def failing_callback(kit, when, error):
    """A callback that fails in the last of 5 epochs of `normed()`; `when` names its method."""

    class Failing(kit.keras.callbacks.Callback):
        last = False

        def on_epoch_begin(self, epoch, logs=None):
            self.last = epoch == 4

    def fail(self, batch=None, logs=None):
        # Without a batch it is given logs only, or nothing.
        if self.last and batch not in (0, 1, 3):
            raise error

    setattr(Failing, when, fail)
    return Failing()


@pytest.mark.parametrize("error", [Broken("Broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize(
    "when",
    ["on_train_batch_begin", "on_train_batch_end"]
    + ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"],
)
def test_whatever_stops_the_last_epoch_leaves_weights_and_statistics(kit, when, error):
    model = normed(kit, "adam")
    ends = []
    swa = kit.SWACallback(2)
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    with pytest.raises(type(error)):
        fit(model, swa, note, failing_callback(kit, when, error), validation_data=(X, Y))
    assert len(ends) == 4
    assert_same(values(floating(model)), ends[-1])
    # Nothing of the pass is left: what comes next trains.
    model.train_on_batch(X, Y)
    assert all(np.any(a != b) for a, b in zip(values(floating(model)), ends[-1]))
    before = values(model.trainable_variables)
    fit(model, epochs=1)
    assert all(np.any(a != b) for a, b in zip(before, values(model.trainable_variables)))
    model.evaluate(X, Y, verbose=0)
    assert not {"fit", "evaluate", "train_on_batch"} & set(vars(model))


@pytest.mark.parametrize("error", [Broken("Broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("validates", [True, False], ids=["validated", "not validated"])
def test_a_callback_that_fails_at_the_end_of_the_last_epoch_leaves_weights_and_statistics(kit, validates, error):
    model = normed(kit, "adam")
    ends = []
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    validation = {"validation_data": (X, Y)} if validates else {}
    with pytest.raises(type(error)):
        fit(model, kit.SWACallback(2), note, failing_callback(kit, "on_epoch_end", error), **validation)
    assert len(ends) == 5
    assert_same(values(floating(model)), ends[3])
    fit(model, epochs=1)
    assert any(np.any(a != b) for a, b in zip(values(floating(model)), ends[3]))


def test_a_backup_that_cannot_be_written_leaves_weights_and_statistics(kit, tmp_path, monkeypatch):
    model = normed(kit, "adam")
    ends = []
    save = np.savez

    def full(file, **arrays):
        if len(ends) == 4:
            raise OSError("No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    with pytest.raises(OSError, match="No space left"):
        fit(model, kit.SWACallback(2, backup_dir=tmp_path / "average"), note)
    assert len(ends) == 4
    assert_same(values(floating(model)), ends[3])


@pytest.mark.parametrize("when", ["on_test_begin", "on_test_end"])
def test_stop_iteration_of_a_callback_leaves_weights_and_statistics(kit, when):
    # Keras takes that of a batch for the end of the data.
    model = normed(kit, "adam")
    ends = []
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    with pytest.raises((StopIteration, RuntimeError)):
        fit(model, kit.SWACallback(2), note, failing_callback(kit, when, StopIteration()), validation_data=(X, Y))
    assert len(ends) == 4
    assert_same(values(floating(model)), ends[3])


@pytest.mark.parametrize("at", [0, 2])
def test_validation_data_that_fails_in_the_last_epoch_leaves_weights_and_statistics(kit, at):
    model = normed(kit, "adam")
    ends = []

    def validation():
        for batch in range(6):
            if len(ends) == 4 and batch == at:
                raise Broken("Broken")
            yield X[8 * batch : 8 * batch + 8], Y[8 * batch : 8 * batch + 8]

    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    tf = pytest.importorskip("tensorflow")
    kinds = {"output_signature": tuple(tf.TensorSpec((None, n)) for n in (5, 1))}
    data = tf.data.Dataset.from_generator(validation, **kinds)
    with pytest.raises(Exception, match="Broken"):
        fit(model, kit.SWACallback(2), note, validation_data=data)
    assert len(ends) == 4
    assert_same(values(floating(model)), ends[-1])
    fit(model, epochs=1)
    assert any(np.any(a != b) for a, b in zip(values(floating(model)), ends[-1]))


def test_between_the_steps_of_the_last_epoch_the_model_has_its_own_weights(kit):
    if keras.backend.backend() == "jax":
        pytest.skip("on JAX the model's variables have no values between the steps")
    model = normed(kit, "adam")
    ends, between = [], []
    swa = kit.SWACallback(2)
    note = at_epoch_end(kit, lambda epoch, logs: ends.append(values(floating(model))))
    look = kit.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: swa._pass and between.append(values(floating(model)))
    )
    fit(model, note, swa, look)
    assert len(between) == 6
    for weights in between:
        assert_same(weights, ends[3])
    assert_exact_statistics(model)


def test_a_checkpoint_after_the_callback_holds_the_average(kit, tmp_path):
    # Validation also ends where a data set of unknown length does.
    tf = pytest.importorskip("tensorflow")
    model = normed(kit, "adam")
    path = str(tmp_path / "last.keras")
    validation = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    save = kit.keras.callbacks.ModelCheckpoint(path)
    fit(model, kit.SWACallback(2), save, validation_data=validation)
    assert_same(values(floating(kit.keras.models.load_model(path))), values(floating(model)))
    assert_exact_statistics(model)


def test_training_that_stops_early(kit):
    def stop(epoch, logs):
        model.stop_training = epoch == 2

    model = normed(kit)
    callback = kit.SWACallback(2)
    with pytest.warns(UserWarning, match="stopped before its last epoch"):
        fit(model, callback, at_epoch_end(kit, stop))
    assert callback.snapshots == 2
    assert_same(values(floating(model)), callback.swa_weights)
    model = dense(kit)
    callback = kit.SWACallback(4)
    own = []

    def stop_and_note(epoch, logs):
        stop(epoch, logs)
        own[:] = values(model.weights)

    with pytest.warns(UserWarning, match="There is no average"):
        fit(model, callback, at_epoch_end(kit, stop_and_note))
    assert_same(values(model.weights), own)


# The average from one fit() to the next.


def test_an_average_that_goes_on(kit):
    at_once, in_parts = dense(kit), dense(kit)
    in_parts.set_weights(at_once.get_weights())
    whole, part = kit.SWACallback(2), kit.SWACallback(2)
    fit(at_once, whole, epochs=6)
    own = []
    note = at_epoch_end(kit, lambda *_: own.append(values(in_parts.weights)))
    fit(in_parts, part, note, epochs=3)
    in_parts.set_weights(own[-1])
    fit(in_parts, part, epochs=6, initial_epoch=3)
    assert part.snapshots == whole.snapshots == 5
    assert_same(values(in_parts.weights), values(at_once.weights))


def test_an_average_that_begins_again(kit):
    model = dense(kit)
    callback = kit.SWACallback(2)
    fit(model, callback, epochs=4)
    fit(model, callback, epochs=4)
    assert callback.snapshots == 3
    fit(dense(kit), callback, epochs=3)
    assert callback.snapshots == 2


def test_a_new_callback_in_the_midst_says_what_it_lacks(kit):
    callback = kit.SWACallback(2)
    with pytest.warns(UserWarning, match="goes on with epoch 4"):
        fit(dense(kit), callback, initial_epoch=3)
    assert callback.snapshots == 2


def test_an_average_from_another_process(kit):
    model = dense(kit)
    callback = kit.SWACallback(2)
    callback.swa_weights = [np.ones((5, 1), "float32"), np.ones(1, "float32")]
    callback.snapshots = 3
    weights = []
    note = at_epoch_end(kit, lambda *_: weights.append(values(model.weights)))
    fit(model, callback, note, initial_epoch=4)
    assert callback.snapshots == 4
    expected = [(3 + w) / 4 for w in weights[0]]
    np.testing.assert_allclose(value(model.weights[0]), expected[0], rtol=1e-6)
    callback = kit.SWACallback(2)
    callback.swa_weights, callback.snapshots = [np.ones(7)], 3
    with pytest.raises(ValueError, match="`swa_weights` must have the shapes"):
        fit(model, callback, initial_epoch=4)


# The folder. That another process goes on with it is in test_resume.py.


def stopped(kit, folder, epochs, **settings):
    """A model whose training was stopped after some of 6 epochs."""

    def stop(epoch, logs):
        if epoch == epochs:
            raise Broken

    model = dense(kit, kit.keras.optimizers.SGD(0.01), run_eagerly=True)
    callbacks = kit.keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(Broken):
        fit(model, kit.SWACallback(2, backup_dir=folder, **settings), callbacks, epochs=6)
    return model


def test_the_folder_holds_the_last_two_epochs_until_training_is_done(kit, tmp_path):
    folder = tmp_path / "new" / "average"
    model = stopped(kit, folder, 4)
    names = [f"swa-after-epoch-{epoch}.npz" for epoch in (3, 4)]
    assert sorted(path.name for path in folder.iterdir()) == names
    callback = kit.SWACallback(2, backup_dir=str(folder))
    fit(model, callback, epochs=6, initial_epoch=4)
    assert callback.snapshots == 5
    assert not folder.exists()


def test_a_file_of_the_users_stays_in_the_folder(kit, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    model = dense(kit, run_eagerly=True)
    fit(model, kit.SWACallback(2, backup_dir=tmp_path), epochs=3)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_does_not_fit_is_refused_and_kept(kit, tmp_path):
    model = stopped(kit, tmp_path, 4)
    layers = [kit.keras.Input((5,)), kit.keras.layers.Dense(2), kit.keras.layers.Dense(1)]
    other = kit.keras.Sequential(layers)
    other.compile("sgd", "mse", run_eagerly=True)
    for trained, begin, message in (
        (model, 0, "after epoch 0, where fit.. goes on, and '.*' holds that after epoch 3 and 4"),
        (model, 2, "after epoch 2, where fit.. goes on"),
        (model, 6, "after epoch 6, where fit.. goes on"),
        (other, 4, "`backup_dir` must hold the average of this model"),
    ):
        before = values(trained.weights)
        callback = kit.SWACallback(2, backup_dir=tmp_path)
        with pytest.raises(ValueError, match=message) as caught:
            fit(trained, callback, epochs=8, initial_epoch=begin)
        assert "\n" not in str(caught.value)
        assert_same(values(trained.weights), before)
        assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "swa-after-epoch-4.npz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="'.*swa-after-epoch-4.npz' can't be read"):
        fit(model, kit.SWACallback(2, backup_dir=tmp_path), epochs=6, initial_epoch=4)


def test_a_rate_that_was_changed_by_hand_is_the_new_rate(kit, tmp_path):
    settings = {"lr_schedule": "constant", "swa_lr": 0.002}
    for by_hand, expected in ((None, 0.01), (0.05, 0.05)):
        model = stopped(kit, tmp_path / str(by_hand), 4, **settings)
        if by_hand is not None:
            model.optimizer.learning_rate = by_hand
        callback = kit.SWACallback(2, backup_dir=tmp_path / str(by_hand), **settings)
        fit(model, callback, epochs=6, initial_epoch=4)
        assert callback._rates[0] == pytest.approx(expected)


# Learning rates, messages and errors.


def rates(kit, optimizer, callback, **settings):
    model = dense(kit, optimizer)
    used = []
    # By way of the callback: with JAX the model's variables have no values between the steps.
    note = kit.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: used.append(float(value(note.model.optimizer.learning_rate)))
    )
    return fit(model, callback, note, **settings), used


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_rates_are_used(kit, wrapped):
    optimizer = kit.keras.optimizers.SGD(0.1)
    callback = kit.SWACallback(2, "cyclic", 0.01, None, 2)
    history, used = rates(kit, kit.SWA(optimizer) if wrapped else optimizer, callback, epochs=6)
    assert len(used) == 36
    np.testing.assert_allclose(history["lr"], used, rtol=1e-6)
    np.testing.assert_allclose(used[6:18], np.linspace(0.1 - 0.09 / 12, 0.01, 12), rtol=1e-5)


def test_a_second_fit_keeps_the_own_rate_of_the_optimizer(kit):
    model = dense(kit, kit.keras.optimizers.SGD(0.1))
    callback = kit.SWACallback(3, "constant", 0.02)
    first, second = fit(model, callback)["lr"], fit(model, callback)["lr"]
    assert first == second


def test_the_history_may_have_one_rate_for_each_epoch(kit):
    callback = kit.SWACallback(2, "cyclic", 0.01, 0.05, 2)
    callback.history_by_epoch = True
    history, used = rates(kit, kit.keras.optimizers.SGD(0.1), callback, epochs=5)
    assert len(history["lr"]) == len(history["loss"]) == 5
    np.testing.assert_allclose(history["lr"], used[5::6], rtol=1e-6)
    np.testing.assert_allclose(callback.lr_record, used, rtol=1e-6)


def test_cycles_where_the_number_of_batches_shows_itself(kit):
    # Keras finds out in the first epoch.
    model = dense(kit, kit.keras.optimizers.SGD(0.1))
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    callback = kit.SWACallback(2, "cyclic", 0.01, 0.05, 2)
    history = model.fit(data, epochs=5, verbose=0, callbacks=[callback]).history
    assert len(history["lr"]) == 30
    np.testing.assert_allclose(history["lr"][17], 0.01)
    np.testing.assert_allclose(history["lr"][18], 0.05 - 0.04 / 12)


def test_messages(kit, capsys):
    fit(dense(kit), kit.SWACallback(2), epochs=3)
    assert capsys.readouterr().out == ""
    fit(normed(kit), kit.SWACallback(2, verbose=1), epochs=3)
    said = capsys.readouterr().out.split("\n")
    said = [line for line in said if line]
    assert [line[:12] for line in said] == ["The model ha", *(f"Epoch 0000{i}:" for i in (2, 3, 3))]


def test_a_message_says_which_rate_stays(kit, capsys):
    model = dense(kit, optimizer=kit.keras.optimizers.SGD(0.25))
    fit(model, kit.SWACallback(2, "constant", 0.125, verbose=1), epochs=3)
    assert capsys.readouterr().out.endswith(
        "\nEpoch 00003: the optimizer's learning rate stays at 0.125 (it was 0.25 at first)\n"
    )
    assert float(np.array(model.optimizer.learning_rate)) == 0.125


@pytest.mark.parametrize(
    "moment, epochs_taken",
    [("first", [2, 5, 8]), ("last", [4, 7])],
)
def test_the_epoch_of_a_snapshot_in_a_cycle(kit, moment, epochs_taken):
    """The last one is where the rate is lowest."""
    model = dense(kit, optimizer=kit.keras.optimizers.SGD(0.25))
    at_end = {}

    def note(epoch, logs):
        at_end[epoch + 1] = model.get_weights()

    recorder = kit.keras.callbacks.LambdaCallback(on_epoch_end=note)
    callback = kit.SWACallback(2, "cyclic", 0.03125, 0.125, swa_freq=3, snapshot_epoch=moment)
    fit(model, callback, recorder, epochs=9)
    taken = [epoch for epoch, *_ in callback.epoch_record if snapshots_after(callback, epoch)]
    assert taken == epochs_taken
    ends = {epoch: callback.lr_record[rates - 1] for epoch, rates, _ in callback.epoch_record}
    lowest = [ends[epoch] == 0.03125 for epoch in taken]
    assert lowest == [moment == "last"] * len(taken)
    expected = [np.mean([at_end[epoch][i] for epoch in taken], 0) for i in range(len(callback.swa_weights))]
    for average, mean in zip(callback.swa_weights, expected, strict=True):
        np.testing.assert_allclose(average, mean, rtol=1e-5, atol=1e-6)


def snapshots_after(callback, epoch):
    """Whether a snapshot was taken at the end of an epoch."""
    counts = [count for _, _, count in callback.epoch_record] + [callback.snapshots]
    return counts[epoch] > counts[epoch - 1]


def test_the_first_snapshot_must_come_before_the_last_epoch(kit):
    model = dense(kit)
    with pytest.raises(ValueError, match=r"`start_epoch` must be lower than `epochs` \(5\) less the 2 until the first"):
        fit(model, kit.SWACallback(3, swa_freq=3, snapshot_epoch="last"), epochs=5)
    fit(model, callback := kit.SWACallback(2, swa_freq=3, snapshot_epoch="last"), epochs=5)
    assert callback.snapshots == 1


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"start_epoch": 1}, ValueError, "`start_epoch` must be 'auto' or a whole number >= 2, not 1."),
        ({"start_epoch": 2.5}, ValueError, "`start_epoch` must be 'auto' or a whole number >= 2, not 2.5."),
        ({"start_epoch": "2"}, ValueError, "`start_epoch` must be 'auto' or a whole number >= 2, not '2'."),
        ({"start_epoch": None}, TypeError, "`start_epoch` must be 'auto' or a whole number >= 2, not None."),
        ({"lr_schedule": "linear"}, ValueError, "`lr_schedule` must be 'manual', 'constant' or"),
        ({"lr_schedule": None}, TypeError, "`lr_schedule` must be 'manual', 'constant' or"),
        ({"snapshot_epoch": "end"}, ValueError, "`snapshot_epoch` must be 'first' or 'last', not 'end'."),
        ({"swa_freq": 0}, ValueError, "`swa_freq` must be a whole number >= 1, not 0."),
        ({"lr_schedule": "cyclic"}, ValueError, "`swa_freq` must be a whole number >= 2 with a"),
        ({"swa_lr2": 0.1}, ValueError, "`swa_lr2` can only be given together with `swa_lr`."),
        (
            {"lr_schedule": "cyclic", "swa_freq": 2, "swa_lr": 0.2, "swa_lr2": 0.1},
            ValueError,
            "`swa_lr` must be at most `swa_lr2` (0.1), not 0.2.",
        ),
        ({"swa_lr": -1}, ValueError, "`swa_lr` must be 'auto' or a number >= 0, not -1."),
        ({"swa_lr": "low"}, ValueError, "`swa_lr` must be 'auto' or a number >= 0, not 'low'."),
        ({"swa_lr": None}, TypeError, "`swa_lr` must be 'auto' or a number >= 0, not None."),
        ({"swa_lr": float("nan")}, ValueError, "`swa_lr` must be 'auto' or a number >= 0, not nan"),
        ({"swa_lr": 0.1, "swa_lr2": "x"}, ValueError, "`swa_lr2` must be 'auto' or a number >= 0"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a whole number >= 1, not 0."),
        ({"verbose": "no"}, ValueError, "`verbose` must be 0 or 1, not 'no'."),
        ({"data": iter([X])}, TypeError, "`data` must be data that can be drawn more than once"),
        ({"data": 3}, ValueError, "`data` must be an array"),
        ({"backup_dir": 3}, ValueError, "`backup_dir` must be a path, not 3."),
        ({"backup_dir": ""}, ValueError, "`backup_dir` must be a path, not ''."),
        # The first of several, in the original's order.
        (
            {"start_epoch": 1, "lr_schedule": "x", "swa_freq": 0, "swa_lr2": 1},
            ValueError,
            "`start_epoch`",
        ),
        ({"lr_schedule": "x", "swa_freq": 0, "swa_lr2": 1}, ValueError, "`lr_schedule`"),
        ({"lr_schedule": "cyclic", "swa_lr2": 1}, ValueError, "`swa_freq`"),
    ],
)
def test_wrong_arguments(kit, arguments, error, message):
    with pytest.raises(error) as caught:
        kit.SWACallback(**{"start_epoch": 3, **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_the_training(kit):
    model = dense(kit, kit.keras.optimizers.SGD(0.01))
    before = values(model.weights)
    for arguments, message in (
        ({"start_epoch": 3}, r"`start_epoch` must be lower than `epochs` \(3\), not 3"),
        ({"start_epoch": 2, "swa_lr": 0.1}, "`swa_lr` must be at most the optimizer's learning"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(model, kit.SWACallback(**arguments), epochs=3)
    make = kit.keras.optimizers
    model.compile(make.SGD(make.schedules.ExponentialDecay(0.1, 5, 0.9)), "mse")
    with pytest.raises(ValueError, match="`lr_schedule` must be 'manual', not 'constant', for an"):
        fit(model, kit.SWACallback(2, "constant"))
    assert_same(values(model.weights), before)
    fit(model, kit.SWACallback(2, "manual"))


def test_keras_2_looks_words_up():
    kit = Generation("tf_keras")
    norm = kit.keras.layers.BatchNormalization()
    model, words, texts = kit.model_of_texts(norm, kit.keras.layers.Dense(1))
    model.compile("sgd", "mse")
    callback = kit.SWACallback(2)
    model.fit(texts, np.ones((4, 1)), batch_size=3, epochs=4, callbacks=[callback], verbose=0)
    assert callback.snapshots == 2
    assert_same(values(model.layers[-1].weights), callback.swa_weights[-2:])
    np.testing.assert_allclose(value(norm.moving_mean), np.array(words(texts)).mean(0), rtol=1e-5)


def test_keras_2_in_graph_mode_is_refused_before_it_trains():
    kit = Generation("tf_keras")
    import tensorflow as tf

    with tf.Graph().as_default():
        model, callback = normed(kit), kit.SWACallback(2)
        callback.set_model(model)
        callback.set_params({"epochs": 3})
        with pytest.raises(RuntimeError, match="^Keras 2 in graph mode is not supported: remove [^\n]*$"):
            callback.on_train_begin()


@pytest.mark.parametrize("method, warns", [("SWA", True), ("ScheduleFree", True), ("Lookahead", False)])
def test_beside_an_optimizer_with_averages_of_its_own_it_warns(kit, method, warns):
    inner = kit.keras.optimizers.SGD(0.01)
    model = dense(kit, getattr(kit, method)(inner))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(model, kit.SWACallback(3))
    said = [str(w.message) for w in seen if issubclass(w.category, KerasOptimizersWarning)]
    assert sum(text.endswith(f"leave out the callback, or {method}.") for text in said) == warns
