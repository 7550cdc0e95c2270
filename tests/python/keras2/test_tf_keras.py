"""The same optimizers for Keras 2: inner optimizers of both of its kinds."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import kerasoptimizers.tf_keras
from generations import METHODS, assert_same
from kerasoptimizers import averaging_optimizer
from kerasoptimizers.tf_keras import (
    LARS,
    SWA,
    AverageModelCheckpoint,
    ExponentialMovingAverage,
    Lookahead,
    SWACallback,
    SWALearningRate,
    SwapAverages,
)
from processes import run_python  # noqa: E402
from recordings import RECORDED, assert_every_step_equals, cases, method_of

KINDS = {"new": tf_keras.optimizers, "legacy": tf_keras.optimizers.legacy}
each_method = pytest.mark.parametrize("method", [getattr(kerasoptimizers.tf_keras, name) for name in METHODS])
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize("case", cases(*RECORDED))
def test_every_step_equals_the_original(case, kind):
    if kind == "legacy" and not hasattr(KINDS[kind], case["inner"]["class"]):
        pytest.skip("There is no AdamW of the old kind.")
    inner = getattr(KINDS[kind], case["inner"]["class"])(**case["inner"]["config"])
    optimizer = method_of(case, kerasoptimizers.tf_keras)(inner, **case["config"])
    variables = [tf.Variable(np.array(value, "float32")) for value in case["initial"]]

    def apply(gradients):
        optimizer.apply_gradients(zip([tf.constant(g) for g in gradients], variables))

    assert_every_step_equals(case, optimizer, variables, apply)


def train(optimizer, epochs=3, callbacks=(), **fit_arguments):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    generator = np.random.default_rng(1)
    model.data = generator.normal(size=(64, 4)), generator.normal(size=(64, 1))
    model.history = model.fit(
        *model.data,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
        **fit_arguments,
    )
    return model


def sgd(kind="new"):
    return KINDS[kind].SGD(0.05, momentum=0.9)


def state(optimizer):
    return [v.numpy() for v in optimizer.variables]


def assert_goes_on_where_it_was(model, path):
    """A model saved there and loaded is the same, and stays so when both train on."""
    model.save(path)
    loaded = tf_keras.models.load_model(path)
    assert_same(state(loaded.optimizer), state(model.optimizer))
    for m in (model, loaded):
        m.fit(*model.data, batch_size=8, epochs=1, verbose=0, shuffle=False)
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same(state(loaded.optimizer), state(model.optimizer))


def test_compile_of_the_other_generation_says_which_is_which():
    keras = pytest.importorskip("keras", reason="Keras 3 is not installed")
    import kerasoptimizers

    ours = keras.Sequential([keras.layers.Dense(1)]), tf_keras.Sequential([tf_keras.layers.Dense(1)])
    for model, optimizer, text in (
        (ours[0], SWA("sgd"), r"<SWA for Keras 2 \(Python's tf_keras, R's keras::compile\(\)\): SGD, "),
        (ours[0], LARS(0.1), r"<LARS for Keras 2"),
        (ours[1], kerasoptimizers.SWA("sgd"), r"<SWA for Keras 3 \(Python's keras, R's keras3::"),
    ):
        with pytest.raises(ValueError, match=text):
            model.compile(optimizer, "mse")


@each_kind
def test_swa_leaves_training_as_it_is(kind):
    plain, averaged = train(sgd(kind)), train(SWA(sgd(kind), average_period=2))
    assert_same(averaged.get_weights(), plain.get_weights())
    assert averaged.optimizer.snapshots == 12


@pytest.mark.parametrize(
    "kind, suffix",
    [
        ("new", ".keras"),
        ("legacy", ".h5"),
        pytest.param("new", ".h5", marks=pytest.mark.long),
        pytest.param("legacy", ".keras", marks=pytest.mark.long),
    ],
)
@each_method
def test_a_saved_model_goes_on_training_where_it_was(method, kind, suffix, tmp_path):
    model = train(method(sgd(kind)))
    assert_goes_on_where_it_was(model, tmp_path / f"model{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_file_holds_one_method_around_another_and_our_lars_in_both(suffix, tmp_path):
    inner = LARS(SWALearningRate(0.1, 0.05, start_averaging=12))
    model = train(Lookahead(SWA(SWA(inner, average_period=3), average_period=5)))
    assert_goes_on_where_it_was(model, tmp_path / f"model{suffix}")


@pytest.mark.sample
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@each_method
def test_every_file_holds_an_inner_average_of_keras_too(method, suffix, tmp_path):
    inner = tf_keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    assert_goes_on_where_it_was(train(method(SWA(inner, average_period=3))), tmp_path / f"model{suffix}")


def test_inner_optimizers_that_keras_2_does_not_find_by_name_load_in_another_process(tmp_path):
    expected = {}
    for name in ("Lion", "Adafactor"):
        for suffix in ("keras", "h5"):
            model = train(SWA(getattr(tf_keras.optimizers, name)(0.01), average_period=2))
            path = tmp_path / f"{name}.{suffix}"
            model.save(path)
            model.fit(*model.data, batch_size=8, verbose=0, shuffle=False)
            expected[str(path)] = model
            np.savez(tmp_path / "data.npz", *model.data)
    program = """
import sys
import numpy as np
import tf_keras
import kerasoptimizers.tf_keras

data, *paths = sys.argv[1:]
with np.load(data) as file:
    x, y = (file[name] for name in file.files)
for path in paths:
    model = tf_keras.models.load_model(path)
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    np.savez(path + ".npz", *model.get_weights(), *(v.numpy() for v in model.optimizer.variables))
"""
    run = run_python("-c", program, tmp_path / "data.npz", *expected)
    assert run.returncode == 0, run.stderr[-3000:]
    for path, model in expected.items():
        with np.load(f"{path}.npz") as file:
            assert_same([file[name] for name in file.files], [*model.get_weights(), *state(model.optimizer)])


@each_kind
def test_a_savedmodel_loads_with_a_fresh_optimizer(kind, tmp_path):
    # Keras 2 restores no optimizer's state from this format.
    model = train(SWA(sgd(kind)))
    model.save(tmp_path / "model", save_format="tf")
    loaded = tf_keras.models.load_model(tmp_path / "model")
    assert_same(loaded.get_weights(), model.get_weights())
    loaded.fit(*model.data, verbose=0)
    assert loaded.optimizer.snapshots == 1


@each_kind
def test_averages_move_in_and_out(kind):
    model = train(SWA(sgd(kind), average_period=3))
    optimizer = averaging_optimizer(model)
    before = model.get_weights()
    averages = [optimizer.get_slot(v, "average").numpy() for v in model.trainable_variables]
    optimizer.swap_weights()
    assert_same(model.get_weights(), averages)
    optimizer.swap_weights()
    assert_same(model.get_weights(), before)
    optimizer.assign_average_vars(model.variables)
    assert_same(model.get_weights(), averages)


@each_kind
def test_all_variables_of_a_model_with_frozen_layers_may_be_given(kind):
    # They still say that they are trainable.
    tf_keras.utils.set_random_seed(0)
    frozen = tf_keras.layers.Dense(4, trainable=False)
    model = tf_keras.Sequential([tf_keras.Input((4,)), frozen, tf_keras.layers.Dense(1)])
    optimizer = SWA(sgd(kind), average_period=1)
    model.compile(optimizer, "mse")
    model.fit(np.ones((16, 4)), np.ones((16, 1)), batch_size=4, verbose=0)
    before = [w.copy() for w in frozen.get_weights()]
    averages = [optimizer.get_slot(v, "average").numpy() for v in model.trainable_variables]
    optimizer.assign_average_vars(model.variables)
    assert_same(frozen.get_weights(), before)
    assert_same([v.numpy() for v in model.trainable_variables], averages)
    with pytest.raises(ValueError, match="`var_list` must hold at least one variable that has an average"):
        optimizer.assign_average_vars(frozen.variables)


TEXTS = np.array([["red green"], ["green blue"], ["blue red"], ["red red"]] * 4)
LENGTHS = np.arange(16.0)[:, None]


def text_model(optimizer):
    """A model with a lookup table among its weights, which has no type and no value."""
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    words = layers.TextVectorization(output_mode="multi_hot")
    words.adapt(TEXTS)
    shape = tf_keras.Input((1,), dtype=tf.string)
    model = tf_keras.Sequential([shape, words, layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def fit_texts(model, **settings):
    model.fit(TEXTS, LENGTHS, batch_size=4, verbose=0, shuffle=False, **settings)


@pytest.mark.parametrize("everything", [lambda model: model.variables, lambda model: model.weights])
def test_all_variables_of_a_model_with_a_lookup_table_may_be_given(everything):
    model = text_model(SWA(sgd(), average_period=1))
    fit_texts(model)
    optimizer = model.optimizer
    averages = [optimizer.get_slot(v, "average").numpy() for v in model.trainable_variables]
    optimizer.assign_average_vars(everything(model))
    assert_same([v.numpy() for v in model.trainable_variables], averages)


def test_non_trainable_weights_beside_a_lookup_table_are_averaged():
    settings = {"average_decay": 0.5, "dynamic_decay": False, "trainable_weights_only": False}
    model = text_model(ExponentialMovingAverage(sgd(), **settings))
    optimizer, mean = model.optimizer, model.layers[-2].moving_mean
    optimizer.shadow_copy(model)
    average = mean.numpy()
    for _ in range(3):
        model.train_on_batch(TEXTS, LENGTHS)
        average = 0.5 * average + 0.5 * mean.numpy()
    np.testing.assert_allclose(optimizer.get_slot(mean, "average"), average, rtol=1e-6)
    optimizer.swap_weights()
    np.testing.assert_allclose(mean.numpy(), average, rtol=1e-6)
    optimizer.swap_weights()
    optimizer.assign_average_vars(model.variables)
    np.testing.assert_allclose(mean.numpy(), average, rtol=1e-6)


def test_the_callbacks_take_a_model_with_a_lookup_table(tmp_path):
    model = text_model(SWA(sgd(), average_period=1))
    swa = SWACallback(2, backup_dir=tmp_path / "average")
    path = str(tmp_path / "last.weights.h5")
    checkpoint = AverageModelCheckpoint(False, path, save_weights_only=True)
    ends = []
    note = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append([v.numpy() for v in model.trainable_variables])
    )
    callbacks = [note, swa, SwapAverages(), checkpoint]
    fit_texts(model, epochs=4, callbacks=callbacks, validation_data=(TEXTS, LENGTHS))
    assert swa.snapshots == 2
    # The last epoch trains nothing: it recalibrates batch norm.
    expected = [np.mean(pair, axis=0) for pair in zip(ends[1], ends[2])]
    for weight, average in zip(model.trainable_variables, expected):
        np.testing.assert_allclose(weight.numpy(), average, rtol=1e-5, atol=1e-6)


@each_kind
def test_rate_decay_and_clipping_reach_the_inner_optimizer(kind):
    model = train(SWA(sgd(kind), decay=0.1, clipnorm=0.1))
    schedule = tf_keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.1)
    twin = train(KINDS[kind].SGD(schedule, momentum=0.9, clipnorm=0.1))
    for a, b in zip(model.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    model.optimizer.learning_rate = 0.2
    assert float(model.optimizer.optimizer.learning_rate) == pytest.approx(0.2)


def test_variables_are_excluded_from_the_inner_weight_decay():
    models = []
    for excluded_first in (True, False):
        inner = tf_keras.optimizers.AdamW(0.01, weight_decay=0.5)
        optimizer = SWA(inner)
        (inner if excluded_first else optimizer).exclude_from_weight_decay(var_names=["bias"])
        models.append(train(optimizer))
    plain = train(SWA(tf_keras.optimizers.AdamW(0.01, weight_decay=0.5)))
    assert_same(models[0].get_weights(), models[1].get_weights())
    assert not np.allclose(models[0].get_weights()[1], plain.get_weights()[1])


def test_an_optimizer_of_keras_3_is_refused_by_name():
    keras = pytest.importorskip("keras", reason="Keras 3 is not installed")
    with pytest.raises(TypeError, match="`optimizer` must be a Keras 2 optimizer, not one of Keras 3"):
        SWA(keras.optimizers.SGD(0.1))
    from kerasoptimizers import SWA as KerasThreeSWA

    with pytest.raises(TypeError, match="`optimizer` must be a Keras 3 optimizer, not one of Keras 2"):
        KerasThreeSWA(sgd())


def test_an_inner_optimizer_of_another_model_is_refused():
    # A new one; legacy optimizers take variables of any model.
    model = train(sgd())
    with pytest.raises(ValueError, match="`optimizer` was built for other variables"):
        train(SWA(model.optimizer))


def test_graph_mode_is_refused_in_one_line():
    # Once eager execution is off there is no way back: another process.
    program = """
import tensorflow as tf
tf.compat.v1.disable_eager_execution()
import tf_keras
from kerasoptimizers.tf_keras import LARS, SWA

legacy = tf_keras.optimizers.legacy.SGD
for make in (lambda: SWA("sgd"), lambda: SWA(legacy(0.1)), lambda: SWA(legacy(0.1), lr=0.2), lambda: LARS(0.1)):
    try:
        make()
    except RuntimeError as error:
        print(error)
"""
    run = run_python("-c", program)
    said = [line for line in run.stdout.splitlines() if line]
    assert len(said) == 4, run.stdout + run.stderr
    assert all("graph mode is not supported: remove tf.compat.v1.disable_eager_exec" in line for line in said)


def test_an_error_in_building_the_inner_optimizer_is_shown_as_it_is():
    class Unready(tf_keras.optimizers.SGD):
        def build(self, var_list):
            raise RuntimeError("The inner optimizer is not ready.")

    with pytest.raises(RuntimeError, match="The inner optimizer is not ready."):
        train(SWA(Unready(0.1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LARS(0.1),
        lambda: SWA(LARS(0.1)),
        lambda: SWA(sgd()),
        lambda: SWA(sgd("legacy")),
        lambda: Lookahead(SWA(sgd())),
    ],
)
def test_the_training_step_is_traced_once(make):
    # That of an SGD of Keras's own with momentum is traced twice.
    traces = []

    class Model(tf_keras.Sequential):
        def train_step(self, data):
            traces.append(data)
            return super().train_step(data)

    model = Model([tf_keras.Input((4,)), tf_keras.layers.Dense(1)])
    model.compile(make(), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0)
    assert len(traces) == 1


@each_kind
def test_non_trainable_weights_are_averaged_when_asked(kind):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.BatchNormalization(), tf_keras.layers.Dense(1)])
    settings = {"average_decay": 0.5, "dynamic_decay": False, "trainable_weights_only": False}
    optimizer = ExponentialMovingAverage(sgd(kind), **settings)
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(16, 4))
    with pytest.raises(ValueError, match=r"shadow_copy\(model\) before training"):
        model.train_on_batch(x, x[:, :1])
    optimizer.shadow_copy(model)
    model.compile(optimizer, "mse")  # Keras 2 can't use a training step that has failed once
    mean = model.layers[0].moving_mean
    average = mean.numpy()
    for _ in range(4):
        model.train_on_batch(x, x[:, :1])
        average = 0.5 * average + 0.5 * mean.numpy()
    np.testing.assert_allclose(optimizer.get_slot(mean, "average"), average, rtol=1e-6)


@each_kind
def test_validation_and_checkpoints_see_the_averages(kind, tmp_path):
    path = str(tmp_path / "last.keras")
    callbacks = [SwapAverages(), AverageModelCheckpoint(False, path)]
    validation = {"validation_data": (np.ones((8, 4)), np.ones((8, 1)))}
    plain = train(SWA(sgd(kind), 0, 2), **validation)
    model = train(SWA(sgd(kind), 0, 2), callbacks=callbacks, **validation)
    assert_same(model.get_weights(), plain.get_weights())
    loaded = tf_keras.models.load_model(path)
    averages = [plain.optimizer.get_slot(v, "average").numpy() for v in plain.trainable_variables]
    assert_same(loaded.get_weights(), averages)
    assert model.history.history["val_loss"][-1] == pytest.approx(
        loaded.evaluate(*validation["validation_data"], verbose=0), rel=1e-5
    )


@pytest.mark.parametrize("make", [lambda: SWA("sgd"), lambda: SWA(sgd("legacy")), lambda: LARS(0.1)])
def test_the_methods_of_the_originals(make):
    optimizer = make()
    v = tf.Variable([1.0, -2.0])
    assert int(optimizer.minimize(lambda: tf.reduce_sum(v**2), [v])) == 1
    assert np.all(np.abs(v.numpy()) < [1.0, 2.0])
    values = optimizer.get_weights()
    assert values[0] == 1
    optimizer.set_weights(values)
    assert optimizer.add_slot(v, "trace") is optimizer.get_slot(v, "trace")
    assert optimizer.add_weight("scale", (2,)).shape == (2,)
    with pytest.raises(TypeError, match="`grads_and_vars` must be"):
        optimizer.apply_gradients([1.0])
    with pytest.raises(ValueError, match="`grads_and_vars` must hold at least one gradient"):
        optimizer.apply_gradients([(None, v)])
    with pytest.raises(RuntimeError, match="need a graph"):
        optimizer.get_gradients(tf.constant(1.0), [v])


def test_slots_of_the_inner_optimizer_are_found_whatever_scope_it_was_built_in():
    weight = tf.Variable([1.0, 2.0], name="weight")
    inner = tf_keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer = Lookahead(inner, sync_period=2, inner_state="average")
    with tf.name_scope("outer"):
        optimizer.apply_gradients([(tf.constant([1.0, 1.0]), weight)])
    np.testing.assert_allclose(optimizer.get_slot(weight, "m"), [-0.1, -0.1])
    assert len(optimizer.momenta.variables) == 1
