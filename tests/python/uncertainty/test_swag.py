"""SWAG as a callback: what it collects in `fit()`, how it goes on, and predictions with drawn weights."""

import logging

import keras
import numpy as np
import pytest

import interrupts
from generations import GENERATIONS, Generation, assert_same, value, values
from kerasoptimizers.posterior import Posterior

pytestmark = pytest.mark.sample

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(1, 2, size=(20, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1


@pytest.fixture(scope="module", params=GENERATIONS)
def kit(request):
    generation = Generation(request.param)
    generation.keras.utils.set_random_seed(1)
    return generation


def dense(kit, *first, units=1, **settings):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((3,)), *first, layers.Dense(2, "tanh"), layers.Dense(units)])
    settings = {"optimizer": kit.keras.optimizers.SGD(0.02), "loss": "mse", "run_eagerly": True, **settings}
    model.compile(**settings)
    return model


def normed(kit):
    return dense(kit, kit.keras.layers.BatchNormalization())


def fit(model, *callbacks, epochs=6, **settings):
    return model.fit(
        X, Y, epochs=epochs, callbacks=list(callbacks), **{"batch_size": 10, "verbose": 0, "shuffle": False, **settings}
    ).history


def by_hand(kit, model, rank=4, count=5, scale=0.1, seed=0):
    """A posterior of snapshots around what the model holds, which it holds again afterwards."""
    swag, random = kit.SWAG(None, rank), np.random.default_rng(seed)
    own = values(model.trainable_variables)
    for _ in range(count):
        for variable, w in zip(model.trainable_variables, own):
            variable.assign(w + scale * random.normal(size=w.shape).astype(w.dtype))
        swag.collect(model)
    for variable, w in zip(model.trainable_variables, own):
        variable.assign(w)
    return swag


class Recorder:
    """The trainable weights at the end of each epoch, by its number from 1."""

    def __init__(self, kit):
        self.weights = {}
        self.callback = kit.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self.note(epoch))

    def note(self, epoch):
        self.weights[epoch + 1] = values(self.callback.model.trainable_variables)

    def posterior(self, rank, epochs):
        posterior = Posterior(rank)
        for epoch in epochs:
            posterior.add(self.weights[epoch], ["w"] * len(self.weights[epoch]))
        return posterior


def assert_posterior(swag, expected):
    assert swag.snapshots == expected.state.snapshots
    for name, other in (("mean", expected.state.mean), ("variance", expected.variance)):
        assert_same(getattr(swag, name), other)
    assert_same(swag.deviations, expected.deviations)


# Collecting.


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is about TensorFlow's graphs")
def test_an_ensemble_predicts_without_warnings_of_tracing(kit, caplog):
    models = [dense(kit, run_eagerly=False) for _ in range(7)]
    logger = logging.getLogger("tensorflow")
    logger.addHandler(caplog.handler)
    try:
        found = kit.predict_samples(models, None, X, verbose=0)
    finally:
        logger.removeHandler(caplog.handler)
    assert "retracing" not in caplog.text
    assert found.shape == (7, 20, 1)


def test_inputs_of_another_shape_are_refused_in_one_line(kit):
    model = dense(kit)
    with pytest.raises(ValueError, match=r"^`x` must have the shape \(examples, 3\) of '\w+', not \(examples, 2\)\.$"):
        kit.predict_samples(model, None, X[:, :2], verbose=0)
    swag = by_hand(kit, model := normed(kit))
    with pytest.raises(ValueError, match=r"^`data` must have the shape \(examples, 3\)"):
        swag.predict_samples(model, X, 2, data=X[:, :2], verbose=0)


@pytest.mark.parametrize("freq, epochs", [(1, [3, 4, 5, 6]), (2, [3, 5])])
def test_snapshots_are_taken_from_start_epoch_on(kit, freq, epochs):
    model, record = normed(kit), Recorder(kit)
    swag = kit.SWAG(3, 3, freq)
    fit(model, swag, record.callback)
    assert_posterior(swag, record.posterior(3, epochs))
    # Batch norm's gamma and beta are trained, its statistics are not.
    assert len(swag.mean) == len(model.trainable_variables) == 6
    # The model ends as it was trained.
    assert_same(values(model.trainable_variables), record.weights[6])
    assert swag.epoch_record[-1][2] == sum(epoch < 6 for epoch in epochs)


def test_swa_and_swag_count_epochs_alike(kit):
    model = dense(kit)
    swa, swag = kit.SWACallback(2, swa_freq=2), kit.SWAG(2, freq=2)
    fit(model, swag, swa)
    assert swa.snapshots == swag.snapshots == 3
    for average, mean in zip(swa.swa_weights, swag.mean, strict=True):
        np.testing.assert_allclose(mean, average, rtol=1e-5)


def test_learning_rates_are_those_of_swa(kit):
    for settings in ({"lr_schedule": "constant", "swa_lr": 0.005}, {"lr_schedule": "cyclic", "swa_lr": 0.001}):
        period = 2 if settings["lr_schedule"] == "cyclic" else 1
        swag, swa = kit.SWAG(3, 2, period, **settings), kit.SWACallback(3, swa_freq=period, **settings)
        histories = [fit(dense(kit), callback)["lr"] for callback in (swag, swa)]
        assert histories[0] == histories[1] == swag.lr_record and len(set(histories[0])) > 1


def test_collect_takes_what_the_model_holds_in_any_precision(kit):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((3,)), layers.Dense(2, dtype="bfloat16"), layers.Dense(1)])
    model.layers[1].trainable = False
    swag = by_hand(kit, model)
    assert len(swag.mean) == 2 and {m.dtype.name for m in swag.mean} == {"float64"}
    model.layers[1].trainable = True
    with pytest.raises(ValueError, match="^`model` must have the weights .*has 4 trainable ones, and they have 2.$"):
        swag.collect(model)
    own = values(model.variables)
    with by_hand(kit, model).sample(model, seed=1):
        assert any(np.any(a != b) for a, b in zip(values(model.variables), own))
    assert_same(values(model.variables), own)


def test_compiled_in_mixed_precision_from_a_model_that_fit_builds(kit):
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch's compiler takes long, and compiles nothing of ours.")
    layers = [kit.keras.layers.Dense(2, dtype="mixed_bfloat16"), kit.keras.layers.Dense(1, dtype="float32")]
    model, swag = kit.keras.Sequential(layers), kit.SWAG(2, 2)
    model.compile("sgd", "mse", jit_compile=True)
    fit(model, swag, epochs=4)
    own = values(model.weights)
    assert swag.snapshots == 3 and swag.deviations[0].dtype == "float32"
    found = swag.predict_samples(model, X, 2, verbose=0)
    assert found.shape == (2, 20, 1) and np.any(found[0] != found[1])
    assert_same(values(model.weights), own)


def test_a_weight_that_is_not_finite_is_left_out(kit):
    model = dense(kit)
    swag = by_hand(kit, model)
    before = swag.posterior.state
    own = values(model.trainable_variables)
    model.trainable_variables[1].assign(np.array([1.0, np.nan], "float32"))
    with pytest.raises(ValueError, match="^`model` must have finite weights: .*bias.* is not finite.$"):
        swag.collect(model)
    assert swag.posterior.state is before
    for variable, w in zip(model.trainable_variables, own):
        variable.assign(w)
    late = kit.SWAG(2)

    def spoil(epoch, logs):
        if epoch == 3:
            model.trainable_variables[1].assign(np.array([1.0, np.inf], "float32"))

    spoiler = kit.keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    with pytest.warns(UserWarning, match="^SWAG skipped epoch 4: .* is not finite"):
        fit(model, spoiler, late, epochs=4)
    assert late.snapshots == 2 and all(np.isfinite(m).all() for m in late.mean)


def test_a_training_that_stops_too_soon_warns_and_another_model_starts_anew(kit):
    swag, stop = kit.SWAG(3), kit.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: end(epoch))
    model = dense(kit)

    def end(epoch):
        model.stop_training = epoch == 2

    with pytest.warns(UserWarning, match="^SWAG has one snapshot, and needs two or more"):
        fit(model, swag, stop)
    fit(model, swag, epochs=5, initial_epoch=3)
    assert swag.snapshots == 3
    fit(dense(kit), swag)
    assert swag.snapshots == 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"start_epoch": 1}, "`start_epoch` must be a whole number >= 2, not 1."),
        ({"rank": -1}, "`rank` must be a whole number >= 0, not -1."),
        ({"rank": 2.5}, "`rank` must be a whole number >= 0, not 2.5."),
        ({"freq": 0}, "`freq` must be a whole number >= 1, not 0."),
        ({"lr_schedule": "cyclic"}, "`freq` must be a whole number >= 2 with a cyclic schedule, not 1."),
        ({"swa_lr": -1}, "`swa_lr` must be 'auto' or a number >= 0, not -1."),
        ({"backup_dir": 3}, "`backup_dir` must be a path, not 3."),
    ],
)
def test_wrong_arguments(kit, arguments, message):
    with pytest.raises(ValueError) as caught:
        kit.SWAG(**{"start_epoch": 3, **arguments})
    assert str(caught.value) == message


def test_fit_refuses_what_it_cannot_collect(kit):
    model = dense(kit)
    own = values(model.weights)
    with pytest.raises(ValueError, match=r"^`start_epoch` must be lower than `epochs` \(3\), not 3.$"):
        fit(model, kit.SWAG(3), epochs=3)
    with pytest.raises(ValueError, match=r"^`start_epoch` must be given for fit\(\)"):
        fit(model, kit.SWAG(None))
    assert_same(values(model.weights), own)


# Going on, and files.


def test_a_training_that_broke_off_goes_on(kit, tmp_path):
    class Stop(Exception):
        pass

    def fail(epoch, logs):
        if epoch == 3:
            raise Stop

    path, folder = tmp_path / "model.weights.h5", tmp_path / "swag"
    model, record = dense(kit), Recorder(kit)
    with pytest.raises(Stop):
        broken = kit.keras.callbacks.LambdaCallback(on_epoch_end=fail)
        fit(model, kit.SWAG(2, 2, backup_dir=folder), record.callback, broken)
    assert sorted(p.name for p in folder.iterdir()) == [f"swag-after-epoch-{n}.npz" for n in (3, 4)]
    model.save_weights(path)
    again = dense(kit)
    again.load_weights(path)
    with pytest.raises(ValueError, match=r"^`backup_dir` must hold snapshots of this model, for this `rank` \(3\)"):
        fit(again, kit.SWAG(2, 3, backup_dir=folder), initial_epoch=4)
    with pytest.raises(ValueError, match="^`backup_dir` must hold snapshots of this model"):
        fit(dense(kit, units=2), kit.SWAG(2, 2, backup_dir=folder), initial_epoch=4)
    swag = kit.SWAG(2, 2, backup_dir=folder)
    fit(again, swag, record.callback, initial_epoch=4)
    assert_posterior(swag, record.posterior(2, range(2, 7)))
    assert not folder.exists()


def test_save_and_load(kit, tmp_path):
    model, path = dense(kit), tmp_path / "posterior.npz"
    with pytest.raises(ValueError, match="nothing to save"):
        kit.SWAG(2).save(path)
    swag = kit.SWAG(2, 3, 2, "cyclic", 0.001)
    fit(model, swag)
    swag.save(path)
    loaded = kit.SWAG.load(path, model)
    assert type(loaded) is kit.SWAG and loaded.settings() == swag.settings() and loaded.rank == 3
    assert_posterior(loaded, swag.posterior)
    same = [s.predict_samples(model, X, 2, seed=4, verbose=0) for s in (swag, loaded)]
    assert_same(*same)
    # Names that Keras numbers anew are the same; another model's weights are not.
    loaded.require_fit(dense(kit))
    with pytest.raises(
        ValueError, match="^`model` must have the weights that the snapshots were taken of: where [^\n]*$"
    ):
        kit.SWAG.load(path, dense(kit, units=2))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="^`path` must be a file that save.. wrote: '.*' can't be read"):
        kit.SWAG.load(path)
    with pytest.raises(FileNotFoundError):
        kit.SWAG.load(tmp_path / "none.npz")


# Draws and predictions.


def test_sample_puts_a_draw_into_the_model_and_gives_back_its_own(kit):
    model = normed(kit)
    swag = by_hand(kit, model)
    own = values(model.weights)
    expected = swag.posterior.sample(0.3, np.random.default_rng(7))
    with swag.sample(model, 0.3, seed=7) as same:
        assert same is model
        for variable, w in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(value(variable), w, rtol=1e-6)
        kit.update_batch_norm(model, X, verbose=0)
        assert any(np.any(a != b) for a, b in zip(values(model.non_trainable_variables), own[2:4]))
    assert_same(values(model.weights), own)
    with swag.sample(model, scale=0):
        for variable, w in zip(model.trainable_variables, swag.mean, strict=True):
            np.testing.assert_allclose(value(variable), w, rtol=1e-6)
    with pytest.raises(RuntimeError), swag.sample(model):
        raise RuntimeError
    assert_same(values(model.weights), own)


def test_samples_are_those_of_draws_one_after_the_other(kit):
    model = normed(kit)
    swag, own = by_hand(kit, model), values(model.weights)
    found = swag.predict_samples(model, X, 3, 0.4, X, batch_size=7, seed=5, verbose=0)
    assert found.shape == (3, 20, 1) and found.dtype == "float32"
    assert_same(values(model.weights), own)
    random = np.random.default_rng(5)
    for predicted in found:
        for variable, w in zip(model.trainable_variables, swag.posterior.sample(0.4, random)):
            variable.assign(w.astype("float32"))
        kit.update_batch_norm(model, X, 7, verbose=0)
        np.testing.assert_allclose(predicted, model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    # No statistics of batch norm but those of the draw.
    assert len({float(p[0, 0]) for p in found}) == 3


def test_seeds(kit):
    model = dense(kit)
    swag = by_hand(kit, model)

    def draw(seed=None):
        return swag.predict_samples(model, X[:2], 2, seed=seed, verbose=0)

    assert_same(draw(3), draw(3))
    assert np.any(draw(3) != draw(4)) and np.any(draw() != draw())
    kit.keras.utils.set_random_seed(8)
    first = draw()
    kit.keras.utils.set_random_seed(8)
    assert_same(first, draw())


def test_ensembles(kit):
    first, second = dense(kit), dense(kit)
    one, two = by_hand(kit, first, seed=1), by_hand(kit, second, seed=2)
    settings = {"samples": 2, "seed": 3, "verbose": 0}
    own = values([*first.weights, *second.weights])
    multi = kit.predict_samples(first, [one, two], X, **settings)
    assert multi.shape == (4, 20, 1)
    assert_same(multi[:2], kit.predict_samples(first, one, X, **settings))
    pairs = kit.predict_samples([first, second], [one, two], X, **settings)
    np.testing.assert_allclose(pairs, multi, rtol=1e-5)
    ensemble = kit.predict_samples([first, second], None, X, verbose=0)
    assert_same(ensemble, [m.predict(X, verbose=0) for m in (first, second)])
    assert_same(kit.predict_samples(first, None, X, verbose=0)[0], first.predict(X, verbose=0))
    assert_same(values([*first.weights, *second.weights]), own)


def test_several_inputs_and_outputs_and_data_sets(kit):
    layers = kit.keras.layers
    a, b = kit.keras.Input((2,), name="a"), kit.keras.Input((1,), name="b")
    joined = layers.Concatenate()([a, b])
    model = kit.keras.Model([a, b], [layers.Dense(1)(joined), layers.Dense(4)(joined)])
    swag = by_hand(kit, model)
    parts = [X[:, :2], X[:, 2:]]
    found = swag.predict_samples(model, parts, 3, seed=1, verbose=0)
    assert [f.shape for f in found] == [(3, 20, 1), (3, 20, 4)]
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((tuple(parts),)).batch(8)
    for ours, theirs in zip(swag.predict_samples(model, data, 3, seed=1, verbose=0), found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_the_forward_step_is_traced_once(kit):
    traces = []

    class Counting(kit.keras.layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = dense(kit, Counting(), kit.keras.layers.BatchNormalization(), run_eagerly=False)
    swag = by_hand(kit, model)
    swag.predict_samples(model, X, 2, data=X, batch_size=20, verbose=0)
    before = len(traces)
    swag.predict_samples(model, X, 6, data=X, batch_size=20, verbose=0)
    steps = 12 if keras.backend.backend() == "torch" else 0  # which has no traces
    assert len(traces) - before <= steps


def test_a_progress_bar(kit, capsys):
    model = dense(kit)
    swag = by_hand(kit, model)
    swag.predict_samples(model, X, 3, verbose=0)
    assert capsys.readouterr().out == ""
    swag.predict_samples(model, X, 3)
    assert "3/3" in capsys.readouterr().out


def test_what_cannot_be_sampled_is_refused_in_one_line(kit):
    model, norm, unbuilt = dense(kit), normed(kit), kit.keras.Sequential([kit.keras.layers.Dense(1)])
    swag, own = by_hand(kit, model), values([*model.weights, *norm.weights])
    few = by_hand(kit, model, count=1)
    predict = kit.predict_samples
    for error, message, call in (
        (ValueError, "needs 2 snapshots or more to draw weights from, and it has 1", lambda: few.sample(model)),
        (ValueError, "needs 2 snapshots or more", lambda: predict(model, few, X)),
        (ValueError, "needs 1 snapshot or more", lambda: kit.SWAG(2).sample(model, 0)),
        (ValueError, "`data` must be given: '.*' has batch norm", lambda: predict(norm, by_hand(kit, norm), X)),
        (ValueError, "has 6 trainable ones, and they have 4", lambda: predict(norm, swag, X, data=X)),
        (ValueError, "`model` must be built", lambda: swag.collect(unbuilt)),
        (ValueError, "`samples` must be a whole number >= 1, not 0", lambda: predict(model, swag, X, 0)),
        (ValueError, "`scale` must be a number >= 0, not -1", lambda: predict(model, swag, X, scale=-1)),
        (ValueError, "`seed` must be a whole number >= 0", lambda: predict(model, swag, X, seed=-1)),
        (ValueError, "`verbose` must be 'auto', 0, 1 or 2", lambda: predict(model, swag, X, verbose=3)),
        (ValueError, "`x` must hold at least one example", lambda: predict(model, swag, X[:0])),
        (TypeError, "`x` must be data that can be drawn more than once", lambda: predict(model, swag, iter([X]))),
        (TypeError, "`posterior` must be a SWAG of Keras", lambda: predict(model, 3 * [None], X)),
        (ValueError, "`posterior` must hold one SWAG for each of 1 models", lambda: predict([model], [swag, swag], X)),
        (ValueError, "`posterior` must be a list with one SWAG", lambda: predict([model], swag, X)),
        (ValueError, "not an empty list", lambda: predict(model, [], X)),
        (TypeError, "`model` must be a Keras . model, not a dict|not {}", lambda: predict({}, swag, X)),
    ):
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert_same(values([*model.weights, *norm.weights]), own)
    few.sample(model, 0)


def test_an_error_of_predict_leaves_the_model_its_own(kit):
    model = normed(kit)
    swag, own = by_hand(kit, model), values(model.weights)

    class Bad(kit.keras.utils.PyDataset if kit.name == "keras3" else kit.keras.utils.Sequence):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i == 1:
                raise OSError("no such batch")
            return (X,)

    with pytest.raises(Exception, match="no such batch"):
        swag.predict_samples(model, Bad(), 2, data=X, verbose=0)
    assert_same(values(model.weights), own)


@pytest.mark.parametrize("action", ["predict_samples", "sample", "collect"])
def test_an_interrupt_at_any_line_leaves_the_model_its_own(kit, action):
    model = normed(kit)
    swag, own = by_hand(kit, model, count=3), values(model.weights)

    def work():
        if action == "predict_samples":
            swag.predict_samples(model, X, 2, data=X, batch_size=20, seed=1, verbose=0)
        elif action == "collect":
            swag.collect(model)
        else:
            with swag.sample(model, seed=1):
                pass

    work()
    files = ("sampling.py", "values.py", "posterior.py", "callbacks/swag.py")
    lines = interrupts.lines_of(work, files)
    assert len(lines) > 20
    # Every one for what is quick; a part of the others.
    for number in lines[:: 1 if action != "predict_samples" else 11]:
        before = swag.posterior.state
        place = interrupts.interrupt(work, number, files)
        assert_same(values(model.weights), own)
        state = swag.posterior.state
        assert state is before or (action == "collect" and state.snapshots == before.snapshots + 1), place
    work()
    assert_same(values(model.weights), own)
