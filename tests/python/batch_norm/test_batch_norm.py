"""update_batch_norm(): exact statistics from whatever fit() takes, and nothing else changed."""

import importlib
import inspect
import textwrap
import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from interrupts import interrupt, lines_of
from kerasoptimizers import batch_norm
from processes import run_python

RANDOM = np.random.default_rng(0)
# 103 examples in batches of 16: the last one has 7.
X = RANDOM.normal(3, 2, size=(103, 5)).astype("float32")
IMAGES = RANDOM.normal(-1, 3, size=(21, 4, 6, 3)).astype("float32")
BATCH = 16

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="is about TensorFlow's graphs")


@pytest.fixture(params=GENERATIONS)
def kit(request):
    generation = Generation(request.param)
    generation.keras.utils.set_random_seed(1)
    return generation


def update(kit, model, x, batch_size=BATCH, **settings):
    kit.update_batch_norm(model, x, batch_size, verbose=0, **settings)


def value(variable):
    return np.array(keras.ops.convert_to_numpy(variable) if is_keras3(variable) else variable)


def is_keras3(variable):
    return isinstance(variable, keras.Variable)


def state(model):
    variables = [*model.variables, *(v for m in model.metrics for v in m.variables)]
    return [value(v) for v in variables]


def assert_exact(layer, inputs, axis=None):
    """The layer's statistics are NumPy's over all `inputs`, channels last or on `axis`."""
    inputs = np.moveaxis(inputs.astype("float64"), -1 if axis is None else axis, -1)
    inputs = inputs.reshape(-1, inputs.shape[-1])
    mean, variance = value(layer.moving_mean).ravel(), value(layer.moving_variance).ravel()
    np.testing.assert_allclose(mean, inputs.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variance, inputs.var(0), rtol=1e-5)


def assert_unchanged(before, after):
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def one_layer(kit, shape=(5,), **settings):
    layer = kit.keras.layers.BatchNormalization(**settings)
    return kit.keras.Sequential([kit.keras.Input(shape), layer]), layer


def deep(kit):
    """Batch norm at the front, after a dense layer, and two models deep."""
    layers = kit.keras.layers
    innermost = kit.keras.Sequential([kit.keras.Input((3,)), layers.BatchNormalization()])
    inner = kit.keras.Sequential(
        [kit.keras.Input((4,)), layers.BatchNormalization(), layers.Dense(3, "tanh"), innermost]
    )
    given = kit.keras.Input((5,))
    x = layers.BatchNormalization()(given)
    x = layers.Dense(4, "tanh")(x)
    model = kit.keras.Model(given, layers.Dense(1)(inner(x)))
    # Scale and shift that matter.
    weights = [RANDOM.normal(1, 0.3, size=w.shape) for w in model.get_weights()]
    model.set_weights([np.abs(w) for w in weights])
    front, dense = model.layers[1], model.layers[2]
    return model, [front, dense, inner.layers[0], inner.layers[1], innermost.layers[0]]


def slow_statistics(layers, x, batch_size):
    """Inputs of the three batch-norm layers of `deep()`, batch by batch, in NumPy."""
    front, dense, middle, hidden, last = layers
    seen = {id(layer): [] for layer in (front, middle, last)}

    def normalize(layer, x):
        seen[id(layer)].append(x)
        normal = (x - x.mean(0)) / np.sqrt(x.var(0) + layer.epsilon)
        return normal * value(layer.gamma) + value(layer.beta)

    def through(layer, x):
        return np.tanh(x @ value(layer.kernel) + value(layer.bias))

    for start in range(0, len(x), batch_size):
        h = normalize(front, x[start : start + batch_size].astype("float64"))
        h = normalize(middle, through(dense, h))
        normalize(last, through(hidden, h))
    return {key: np.concatenate(parts) for key, parts in seen.items()}


def test_statistics_are_those_of_all_examples(kit):
    model, layer = one_layer(kit)
    update(kit, model, X)
    assert_exact(layer, X)


def test_a_large_mean_does_not_swamp_the_variance(kit):
    x = (RANDOM.normal(size=X.shape) + 300).astype("float32")
    model, layer = one_layer(kit)
    update(kit, model, x)
    assert_exact(layer, x)


def test_layers_at_any_depth_equal_a_slow_computation(kit):
    model, layers = deep(kit)
    update(kit, model, X)
    expected = slow_statistics(layers, X, BATCH)
    for layer in (layers[0], layers[2], layers[4]):
        assert_exact(layer, expected[id(layer)])


def test_only_the_statistics_change(kit):
    model, layers = deep(kit)
    model.compile("adam", "mse")
    model.fit(X, X[:, :1], verbose=0)
    before = state(model)
    statistics = {id(v) for layer in layers[::2] for v in (layer.moving_mean, layer.moving_variance)}
    momentum = [layer.momentum for layer in layers[::2]]
    update(kit, model, X)
    variables = [*model.variables, *(v for m in model.metrics for v in m.variables)]
    for variable, old, new in zip(variables, before, state(model), strict=True):
        assert np.array_equal(old, new) != (id(variable) in statistics)
    assert momentum == [layer.momentum for layer in layers[::2]]
    assert not any("call" in vars(layer) for layer in layers)


def test_statistics_of_convolutions(kit):
    # Keras 2 fuses these, and its kernel corrects the variance by n / (n - 1).
    model, layer = one_layer(kit, (4, 6, 3))
    update(kit, model, IMAGES, 4)
    assert_exact(layer, IMAGES)


def test_another_axis(kit):
    model, layer = one_layer(kit, (4, 6, 3), axis=1)
    update(kit, model, IMAGES, 4)
    assert_exact(layer, IMAGES, axis=1)


@pytest.mark.parametrize("x", [X, IMAGES], ids=["table", "images"])
def test_non_finite_statistics_are_replaced(kit, x):
    model, layer = one_layer(kit, x.shape[1:])
    layer.moving_mean.assign(np.full(x.shape[-1], np.nan))
    layer.moving_variance.assign(np.full(x.shape[-1], np.inf))
    update(kit, model, x)
    assert_exact(layer, x)


def test_batches_of_different_lengths_in_time(kit):
    model, layer = one_layer(kit, (None, 3))
    parts = [RANDOM.normal(i, 1, size=(4, 2 + 3 * i, 3)).astype("float32") for i in range(3)]
    update(kit, model, iter(parts), steps=3)
    assert_exact(layer, np.concatenate([part.reshape(-1, 3) for part in parts]))


def test_masked_elements_do_not_count(kit):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((6, 3)), layers.Masking(), layers.BatchNormalization()])
    x = RANDOM.normal(2, 1, size=(21, 6, 3)).astype("float32")
    for i in range(21):
        x[i, i % 7 :] = 0
    update(kit, model, x, 8)
    assert_exact(model.layers[-1], x[np.any(x != 0, axis=-1)])


def test_a_layer_used_twice(kit):
    layer = kit.keras.layers.BatchNormalization()
    a, b = kit.keras.Input((5,)), kit.keras.Input((5,))
    model = kit.keras.Model([a, b], [layer(a), layer(b)])
    update(kit, model, [X, 2 * X + 1])
    assert_exact(layer, np.concatenate([X, 2 * X + 1]))


def test_several_inputs(kit):
    layers = kit.keras.layers
    a, b = kit.keras.Input((5,), name="a"), kit.keras.Input((2,), name="b")
    first, second = layers.BatchNormalization(), layers.BatchNormalization()
    model = kit.keras.Model([a, b], [first(a), second(b)])
    other = X[:, :2] - 5
    update(kit, model, [X, other])
    assert_exact(first, X)
    assert_exact(second, other)
    model = kit.keras.Model({"a": a, "b": b}, [first(a), second(b)])
    update(kit, model, {"a": 3 * X, "b": -other})
    assert_exact(first, 3 * X)
    assert_exact(second, -other)


def slices():
    return [X[i : i + BATCH] for i in range(0, len(X), BATCH)]


def sequence(kit, parts):
    base = kit.keras.utils.PyDataset if kit.name == "keras3" else kit.keras.utils.Sequence

    class Parts(base):
        def __len__(self):
            return len(parts)

        def __getitem__(self, i):
            return parts[i], parts[i]

    return Parts()


def data_set(elements):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(elements).batch(BATCH)


def loader(*arrays):
    torch = pytest.importorskip("torch")
    tensors = torch.utils.data.TensorDataset(*(torch.from_numpy(a) for a in arrays))
    return torch.utils.data.DataLoader(tensors, batch_size=BATCH)


SOURCES = {
    "array of float64": lambda kit: X.astype("float64"),
    "data set of inputs": lambda kit: data_set(X),
    "data set of pairs": lambda kit: data_set((X, X)),
    "data set of triples": lambda kit: data_set((X, X, X[:, 0])),
    "Keras sequence": lambda kit: sequence(kit, slices()),
    "PyTorch loader of pairs": lambda kit: loader(X, X),
    "PyTorch loader of inputs": lambda kit: loader(X),
    "iterable": lambda kit: MoreThanOnce(slices()),
}


class MoreThanOnce:
    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)


@pytest.mark.parametrize("source", SOURCES)
def test_sources_of_data(kit, source):
    model, layer = one_layer(kit)
    update(kit, model, SOURCES[source](kit))
    assert_exact(layer, X)


def test_generators_need_steps(kit):
    model, layer = one_layer(kit)
    forever = (part for _ in range(1000) for part in slices())
    with pytest.raises(ValueError, match="`steps` must be given for a generator"):
        update(kit, model, forever)
    update(kit, model, ((x, x) for x in forever), steps=7)
    assert_exact(layer, X)


def test_a_data_set_without_end_needs_steps(kit):
    model, layer = one_layer(kit)
    forever = data_set(X).repeat()
    with pytest.raises(ValueError, match="`steps` must be given for a data set"):
        update(kit, model, forever)
    update(kit, model, forever, steps=7)
    assert_exact(layer, X)


def test_steps_of_arrays_and_short_data(kit):
    model, layer = one_layer(kit)
    update(kit, model, X, steps=2)
    assert_exact(layer, X[: 2 * BATCH])
    with pytest.warns(UserWarning, match="`steps` is 9, but `x` held 7"):
        update(kit, model, iter(slices()), steps=9)
    assert_exact(layer, X)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_pass_changes_nothing(kit, error):
    model, layers = deep(kit)
    before = state(model)

    def interrupted():
        yield from slices()[:3]
        raise error

    with pytest.raises(error):
        update(kit, model, interrupted(), steps=7)
    assert_unchanged(before, state(model))
    assert not any("call" in vars(layer) for layer in layers)
    # And the next one is whole.
    update(kit, model, X)
    assert_exact(layers[0], X)


def test_an_error_in_the_model_changes_nothing(kit):
    model, layers = deep(kit)
    before = state(model)
    with pytest.raises(Exception):
        update(kit, model, X[:, :3])
    assert_unchanged(before, state(model))
    assert not any("call" in vars(layer) for layer in layers)


def everything(kit, model, fitted):
    """All that a pass may touch: values, functions and flags."""
    layers = list(model._flatten_layers())
    norm = kit.keras.layers.BatchNormalization
    flags = [norm.call, norm.__mro__[1].__dict__.get("call")]
    for layer in layers:
        own = {name: mine for name, mine in vars(layer).items() if name in ("call", "momentum", "renorm")}
        flags.append((layer.name, own))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        flags.append(tf.config.functions_run_eagerly())
    if keras.backend.backend() == "torch":
        import torch

        flags.append(torch.is_grad_enabled())
        # fit() sets this one itself.
        flags += [module.training for module in model.modules() if not fitted]
    return flags


def small(kit, eager):
    """A model with all kinds of layers that a pass treats in its own way, and its data."""
    layers = kit.keras.layers

    class Scaled(layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return super().call(2 * inputs, training=training)

    arguments = inspect.signature(layers.BatchNormalization).parameters
    renorm = {"renorm": True} if kit.name == "tf_keras" or "renorm" in arguments else {}
    # In Keras 2 it has a random generator whose state is no variable of the model.
    random = [layers.RandomFlip()] if kit.name == "tf_keras" else []
    model = kit.keras.Sequential(
        [
            kit.keras.Input((2, 2, 3)),
            *random,
            layers.BatchNormalization(),
            layers.BatchNormalization(**renorm),
            layers.Dropout(0.5),
            layers.Flatten(),
            Scaled(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse", run_eagerly=eager)
    return model, RANDOM.normal(2, 1, size=(4, 2, 2, 3)).astype("float32")


def states(kit, model):
    """The values of all variables, with those of Keras 2's random generators."""
    found = [value(v) for v in [*model.trainable_variables, *model.non_trainable_variables]]
    if kit.name == "tf_keras":
        found.append(model.layers[0]._random_generator._generator.state.numpy())
    return found


def check_interrupts(kit, model, work, files, every=1, fitted=False):
    """Raise KeyboardInterrupt at every line of these files that `work()` runs, and look at the model each time.

    It must be as it was, or have all of its new values. `every` 5 is for each fifth line.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    before = states(kit, model)
    work()
    flags = everything(kit, model, fitted)
    all_changed = [not np.array_equal(a, b) for a, b in zip(before, states(kit, model))]
    kept = lost = 0
    for at in lines_of(work, files)[::every]:
        for variable, old in zip(variables, before):
            variable.assign(old)
        place = interrupt(work, at, files)
        print(place)
        assert everything(kit, model, fitted) == flags, place
        changed = [not np.array_equal(a, b) for a, b in zip(before, states(kit, model))]
        assert not any(changed) or changed == all_changed, place
        kept, lost = kept + any(changed), lost + (not any(changed))
    # An interrupt at the last lines comes too late.
    assert 3 * kept < lost


OF_STEPS = ["batch_norm/passes", f"batch_norm/{keras.backend.backend()}", "batch_norm/stateless"]
OF_STEPS += ["keras3/batch_norm", "tf_keras/batch_norm"]


# What is closed while a generator is interrupted is reported, too.
@pytest.mark.sample
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("eager", [False, True])
def test_an_interrupt_at_any_line_changes_nothing_or_all(kit, eager):
    model, x = small(kit, eager)
    # Eagerly a pass takes longer: only for what a compiled step does not run again.
    files = [*OF_STEPS, "values"] if eager else [""]
    check_interrupts(kit, model, lambda: update(kit, model, x, 4 if eager else 2), files)
    update(kit, model, x, 2)
    assert_exact(model.layers[-6], x)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
def test_an_interrupt_at_any_line_of_a_pass_in_fit_changes_nothing_or_all(kit, every):
    model, x = small(kit, eager=True)
    y = np.ones((4, 1), "float32")
    model.fit(x, y, verbose=0)
    average = [value(w) + 0.5 for w in model.weights]

    def work():
        callback = kit.SWACallback(2)
        callback.swa_weights, callback.snapshots = average, 1
        model.fit(x, y, batch_size=4, initial_epoch=2, epochs=3, callbacks=[callback], verbose=0)

    check_interrupts(kit, model, work, OF_STEPS if every > 1 else [""], every, fitted=True)


def test_without_batch_norm_the_data_are_not_touched(kit):
    model = kit.keras.Sequential([kit.keras.Input((5,)), kit.keras.layers.Dense(1)])

    class Untouchable:
        def __iter__(self):
            raise AssertionError("touched")

        __len__ = __getitem__ = __next__ = __iter__

    update(kit, model, Untouchable())


def test_frozen_layers_keep_their_statistics(kit):
    model, layers = deep(kit)
    update(kit, model, X)
    layers[0].trainable = False
    kept = value(layers[0].moving_mean)
    later = value(layers[2].moving_mean)
    update(kit, model, X - 5)
    np.testing.assert_array_equal(value(layers[0].moving_mean), kept)
    # In inference mode the frozen layer lets the shift through. (Upwards tanh() would hide it.)
    assert np.max(np.abs(value(layers[2].moving_mean) - later)) > 0.1
    layers[0].trainable = True
    update(kit, model, X - 5)
    assert_exact(layers[0], X - 5)


def test_layers_called_in_inference_mode_keep_their_statistics(kit):
    class Net(kit.keras.Model):
        def __init__(self):
            super().__init__()
            self.fixed = kit.keras.layers.BatchNormalization()
            self.norm = kit.keras.layers.BatchNormalization()

        def call(self, x, training=None):
            return self.norm(self.fixed(x, training=False), training=training)

    model = Net()
    model(X[:2])
    update(kit, model, X)
    np.testing.assert_array_equal(value(model.fixed.moving_mean), np.zeros(5))
    assert_exact(model.norm, X / np.sqrt(1 + model.fixed.epsilon))


def test_changed_weights_give_new_statistics(kit):
    model, layers = deep(kit)
    update(kit, model, X)
    model.set_weights([0.5 * w for w in model.get_weights()])
    update(kit, model, X)
    expected = slow_statistics(layers, X, BATCH)
    for layer in (layers[0], layers[2], layers[4]):
        assert_exact(layer, expected[id(layer)])


class Counted:
    """How often a layer's call() runs in Python: once a trace where the steps are compiled."""

    calls = 0

    def layer(self, kit):
        counter = self

        class Counting(kit.keras.layers.Layer):
            def call(self, x):
                counter.calls += 1
                return x

        return Counting()


def test_compile_makes_new_settings_of_layers_count(kit):
    layers = kit.keras.layers
    counted = Counted()
    act, dropout, norm = layers.Activation("relu"), layers.Dropout(0.9), layers.BatchNormalization()
    model = kit.keras.Sequential([kit.keras.Input((5,)), counted.layer(kit), act, dropout, norm])
    for compiled in (False, True):
        if compiled:
            model.compile("sgd", "mse")
        update(kit, model, X)
        before = counted.calls
        update(kit, model, X)
        model.predict(X[:2], verbose=0)
        update(kit, model, 2 * X)
        if keras.backend.backend() != "torch":
            # Nothing is traced again but for predict().
            assert counted.calls <= before + 1
    act.activation, dropout.rate = kit.keras.activations.linear, 0.0
    # The same optimizer, so that nothing but compile() tells.
    model.compile(model.optimizer, "mse")
    update(kit, model, X)
    assert_exact(norm, X)


def test_a_fit_between_two_calls_traces_nothing_again(kit):
    layers, counted = kit.keras.layers, Counted()
    model = kit.keras.Sequential(
        [kit.keras.Input((5,)), counted.layer(kit), layers.BatchNormalization(), layers.Dense(1)]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    update(kit, model, X)
    model.fit(X, X[:, :1], batch_size=BATCH, verbose=0)
    before = counted.calls
    update(kit, model, X)
    if keras.backend.backend() != "torch":
        assert counted.calls == before
    assert_exact(model.layers[-2], X)


@on_tensorflow
def test_tensorflow_does_not_warn_of_tracing_for_several_models(kit):
    import logging

    import tensorflow as tf

    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = tf.get_logger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("WARNING")
    try:
        for _ in range(7):
            model, layer = one_layer(kit)
            update(kit, model, X[:BATCH])
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert not messages
    assert_exact(layer, X[:BATCH])


def test_state_of_other_layers_stays(kit):
    class Drifting(kit.keras.layers.Layer):
        """Changes its weights in training, as spectral normalization does."""

        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
            self.calls = self.add_weight(shape=(), initializer="zeros", name="calls", trainable=False)

        def call(self, x, training=None):
            if training:
                self.scale.assign(self.scale * 2.0)
                self.calls.assign(self.calls + 1.0)
            return x

    norm = kit.keras.layers.BatchNormalization()
    model = kit.keras.Sequential([kit.keras.Input((5,)), Drifting(), kit.keras.layers.Dropout(0.5), norm])
    statistics = [id(norm.moving_mean), id(norm.moving_variance)]

    def rest():
        return [value(v) for v in model.variables if id(v) not in statistics]

    before = rest()
    assert len(before) >= 4
    update(kit, model, X)
    assert_unchanged(before, rest())
    assert np.all(value(norm.moving_mean) != 0)


def test_dropout_draws_anew_for_each_batch(kit):
    layers = kit.keras.layers
    norm = layers.BatchNormalization()
    model = kit.keras.Sequential([kit.keras.Input((400,)), layers.Dropout(0.5), norm])
    update(kit, model, np.ones((64, 400), "float32"), 1)
    # The same mask for all batches would leave a mean of 0 or 2.
    assert np.all((value(norm.moving_mean) > 0.2) & (value(norm.moving_mean) < 1.8))


def test_renormalization(kit):
    arguments = inspect.signature(kit.keras.layers.BatchNormalization).parameters
    if "renorm" not in arguments and kit.name == "keras3":
        pytest.skip("This Keras has no batch renormalization.")
    first = kit.keras.layers.BatchNormalization(renorm=True)
    second = kit.keras.layers.BatchNormalization(renorm=True, center=False)
    model = kit.keras.Sequential([kit.keras.Input((5,)), first, second])
    update(kit, model, X)
    assert_exact(first, X)
    np.testing.assert_allclose(value(first.renorm_mean), X.mean(0), rtol=1e-5)
    deviation = np.sqrt(X.var(0) + first.epsilon)
    np.testing.assert_allclose(value(first.renorm_stddev), deviation, rtol=1e-5)
    np.testing.assert_allclose(value(first.moving_stddev), deviation, rtol=1e-5)
    # Normalized by the batch, not by statistics of before.
    np.testing.assert_allclose(value(second.moving_mean), 0, atol=1e-6)
    assert first.renorm is True


def test_subclasses_and_layers_in_attributes(kit):
    layers = kit.keras.layers

    class Scaled(layers.BatchNormalization):
        """The layer normalizes what it gives to Keras's call(), not what it gets."""

        def call(self, inputs, training=None, mask=None):
            return super().call(2 * inputs, training=training)

    class Plain(layers.BatchNormalization):
        """Normalizes by itself."""

        def call(self, inputs, training=None, mask=None):
            return 3 * inputs

    class Net(kit.keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layers.BatchNormalization(), Scaled(), Plain()]

        def call(self, x, training=None):
            first, scaled, plain = self.parts
            return first(x, training=training), scaled(x, training=training), plain(x, training=training)

    model = Net()
    model(X[:2])
    update(kit, model, X)
    assert_exact(model.parts[0], X)
    assert_exact(model.parts[1], 2 * X)
    assert_exact(model.parts[2], X)


def test_layers_that_are_not_told_whether_they_train(kit):
    class Net(kit.keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = kit.keras.layers.BatchNormalization()

        def call(self, x):
            return self.norm(x)

    model = Net()
    model(X[:2])
    update(kit, model, X)
    if kit.name == "tf_keras":
        assert_exact(model.norm, X)
    else:
        # Keras 3 runs the layers of a call() without `training` in inference mode, in fit() too.
        np.testing.assert_array_equal(value(model.norm.moving_mean), 0)


@pytest.mark.parametrize("training", [True, False])
def test_keras_2_takes_a_tensor_for_training(training):
    kit = Generation("tf_keras")
    import tensorflow as tf

    class Net(kit.keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = kit.keras.layers.BatchNormalization()
            self.fused = kit.keras.layers.BatchNormalization()

        def call(self, x):
            flag = tf.reduce_all(tf.equal(x, x)) if training else tf.reduce_any(tf.not_equal(x, x))
            return self.norm(x, training=flag), self.fused(x[:, None, None], training=flag)

    model = Net()
    model(X[:2])
    update(kit, model, X)
    for layer in (model.norm, model.fused):
        if training:
            assert_exact(layer, X)
        else:
            np.testing.assert_array_equal(value(layer.moving_mean), 0)


def test_wrapped_in_time_distributed(kit):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((4, 3)), layers.TimeDistributed(layers.BatchNormalization())])
    x = RANDOM.normal(1, 2, size=(21, 4, 3)).astype("float32")
    update(kit, model, x, 8)
    assert_exact(model.layers[-1].layer, x)


def test_mixed_precision(kit):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((5,)), layers.BatchNormalization(dtype="mixed_float16")])
    update(kit, model, X)
    assert_exact(model.layers[-1], X.astype("float16"))


def test_progress(kit, capsys):
    model, _ = one_layer(kit)
    kit.update_batch_norm(model, X, verbose=0)
    assert capsys.readouterr().out == ""
    kit.update_batch_norm(model, X)
    assert "4/4" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"model": "net"}, ValueError, "`model` must be a Keras"),
        ({"x": 3}, ValueError, "`x` must be an array"),
        ({"x": "file"}, ValueError, "`x` must be an array"),
        ({"x": []}, TypeError, "`x` must be an array"),
        ({"x": None}, TypeError, "`x` must be an array"),
        ({"x": [[1.0, 2.0]]}, TypeError, "`x` must be an array"),
        ({"x": [X, X[:9]]}, ValueError, "`x` must hold arrays of one length, not of 9 and 103"),
        ({"x": X[:0]}, ValueError, "`x` must hold at least one example"),
        ({"x": MoreThanOnce([])}, ValueError, "`x` must hold at least one example"),
        ({"x": MoreThanOnce([(X, X, X, X)])}, ValueError, "`x` must give inputs, or tuples"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a whole number >= 1, not 0"),
        ({"batch_size": 2.5}, ValueError, "`batch_size` must be a whole number >= 1, not 2.5"),
        ({"batch_size": None}, TypeError, "`batch_size` must be a whole number >= 1"),
        ({"steps": 0}, ValueError, "`steps` must be a whole number >= 1, not 0"),
        ({"steps": True}, TypeError, "`steps` must be a whole number >= 1, not True"),
        ({"verbose": 7}, ValueError, "`verbose` must be 'auto', 0, 1 or 2, not 7"),
        ({"verbose": X}, TypeError, "`verbose` must be 'auto', 0, 1 or 2, not a ndarray"),
    ],
)
def test_wrong_arguments(kit, arguments, error, message):
    model, _ = one_layer(kit)
    before = state(model)
    with pytest.raises(error) as caught:
        kit.update_batch_norm(**{"model": model, "x": X, "verbose": 0, **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_unchanged(before, state(model))


def two_inputs(kit):
    layers = kit.keras.layers
    a, b = kit.keras.Input((5,), name="a"), kit.keras.Input((1,), name="b")
    return kit.keras.Model([a, b], layers.BatchNormalization()(layers.Concatenate()([a, layers.Dense(2)(b)])))


def one_input(kit):
    layers = kit.keras.layers
    return kit.keras.Sequential([kit.keras.Input((5,)), layers.Dense(3), layers.BatchNormalization()])


@pytest.mark.parametrize(
    "model, x, message",
    [
        (one_input, X[:, :3], r"`x` must have the shape \(examples, 5\) of '\w+', not \(examples, 3\)\."),
        (one_input, MoreThanOnce([X[:, :3]]), r"`x` must have the shape \(examples, 5\)"),
        (one_input, {"p": X[:, 0], "q": X[:, 1]}, r"`x` must be one array of shape \(examples, 5\), as '\w+' has one"),
        (two_inputs, {"a": X}, r"`x` must hold all inputs of '\w+' \(a, b\), and has no 'b'\."),
        (two_inputs, X, r"`x` must hold 2 inputs for '\w+' \(a, b\), not 1\."),
        (
            two_inputs,
            [X, X],
            r"`x` must have the shape \(examples, 1\) for the input 'b' of '\w+', not \(examples, 5\)",
        ),
    ],
)
def test_inputs_of_another_kind_are_refused_in_one_line(kit, model, x, message):
    model = model(kit)
    before = state(model)
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        update(kit, model, x, steps=1)
    assert "\n" not in str(caught.value)
    assert_unchanged(before, state(model))


def test_named_vectors_are_inputs(kit):
    model, parts = two_inputs(kit), {"a": X, "b": X[:, 0], "c": X}
    update(kit, model, parts)
    found = values_of(model)
    update(kit, model, [X, X[:, :1]])
    assert_unchanged(found, values_of(model))


def test_named_inputs_that_the_model_does_not_have_are_left_out(kit):
    layers = kit.keras.layers
    inputs = {name: kit.keras.Input((1,), name=name) for name in "qpr"}
    model = kit.keras.Model(inputs, layers.BatchNormalization()(layers.Concatenate()(list(inputs.values()))))
    parts = {name: X[:, i] for i, name in enumerate("qpr")}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        update(kit, model, {"a": X[:, 3], **dict(reversed(parts.items())), "z": X[:, 3]})
    assert_exact(model.layers[-1], X[:, :3])


def values_of(model):
    return [value(variable) for variable in model.non_trainable_variables]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values_are_refused_and_the_old_statistics_stay(kit, bad):
    model = one_input(kit)
    update(kit, model, X)
    before, x = state(model), X.astype("float64")
    x[30, 2] = bad
    for name, function in (
        ("x", lambda: update(kit, model, x)),
        ("x", lambda: update(kit, model, iter([x]), steps=1)),
        ("data", lambda: recalibrate_with(kit, model, x)),
    ):
        with pytest.raises(ValueError, match=f"^`{name}` must give finite numbers, and the inputs of layer") as caught:
            function()
        assert "\n" not in str(caught.value)
        assert_unchanged(before, state(model))


def recalibrate_with(kit, model, data):
    pass_type = importlib.import_module(f"kerasoptimizers.{kit.name}").batch_norm.pass_type()
    batch_norm.recalibrate_with(pass_type, model, data, BATCH)


def test_weights_that_are_not_finite_are_not_blamed_on_the_data(kit):
    model = one_input(kit)
    model.trainable_variables[0].assign(np.full((5, 3), np.nan, "float32"))
    update(kit, model, X)
    assert np.isnan(value(model.layers[-1].moving_mean)).all()


def test_an_unbuilt_model(kit):
    model = kit.keras.Sequential([kit.keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="`model` must be built"):
        update(kit, model, X)


@on_tensorflow
def test_a_model_of_the_other_generation():
    three, two = Generation("keras3"), Generation("tf_keras")
    with pytest.raises(TypeError, match="`model` must be a Keras 3 model"):
        update(three, one_layer(two)[0], X)
    with pytest.raises(TypeError, match="`model` must be a Keras 2 model"):
        update(two, one_layer(three)[0], X)


def test_the_other_batch_norm_layers_of_keras_2():
    kit = Generation("tf_keras")
    from tf_keras.src.layers.normalization import batch_normalization_v1

    layers = kit.keras.layers
    for norm in (
        layers.experimental.SyncBatchNormalization(),
        layers.BatchNormalization(synchronized=True),
        batch_normalization_v1.BatchNormalization(),
        layers.BatchNormalization(virtual_batch_size=4),
        layers.BatchNormalization(axis=[1]),
    ):
        model = kit.keras.Sequential([kit.keras.Input((5,)), norm])
        update(kit, model, X[:96])
        assert_exact(norm, X[:96])
    norm = layers.BatchNormalization(axis=[1, 3])
    model = kit.keras.Sequential([kit.keras.Input((4, 6, 3)), norm])
    update(kit, model, IMAGES, 4)
    moments = IMAGES.astype("float64").mean((0, 2)), IMAGES.astype("float64").var((0, 2))
    np.testing.assert_allclose(value(norm.moving_mean)[0, :, 0], moments[0], rtol=1e-4)
    np.testing.assert_allclose(value(norm.moving_variance)[0, :, 0], moments[1], rtol=1e-5)


@on_tensorflow
def test_the_synchronized_layer_of_keras_3():
    kit = Generation("keras3")
    model, layer = one_layer(kit, synchronized=True)
    x = (RANDOM.normal(size=X.shape) + 100).astype("float32")
    update(kit, model, x)
    assert_exact(layer, x)


@on_tensorflow
def test_layers_inside_a_function_or_a_loop(kit):
    import tensorflow as tf

    class Net(kit.keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = kit.keras.layers.BatchNormalization()
            self.looped = kit.keras.layers.BatchNormalization()

        @tf.function
        def once(self, x):
            return self.norm(x, training=True)

        def call(self, x, training=None):
            tf.while_loop(lambda i: i < 3, lambda i: (self._body(x, i),), (tf.constant(0),))
            return self.once(x)

        def _body(self, x, i):
            self.looped(x + tf.cast(i, x.dtype), training=True)
            return i + 1

    model = Net()
    model(X[:2])
    update(kit, model, X)
    assert_exact(model.norm, X)
    assert_exact(model.looped, np.concatenate([X, X + 1, X + 2]))
    assert not tf.config.functions_run_eagerly()


class Rematerialized:
    """Ways to run a batch-norm layer so that it is computed again for the gradients."""

    @staticmethod
    def by_keras(norm, x, training):
        return keras.remat(lambda x: norm(x, training=training))(x)

    @staticmethod
    def by_hand(norm, x, training):
        import jax

        def run(values, state, x):
            return norm.stateless_call(values, state, x, training=training)

        return Rematerialized.assigned(norm, jax.checkpoint(run), x)

    @staticmethod
    def by_a_function_that_is_kept(norm, x, training):
        import jax

        if not training:
            return norm(x)
        if not hasattr(norm, "run"):
            norm.run = jax.checkpoint(lambda *args: norm.stateless_call(*args, training=True))
        return Rematerialized.assigned(norm, norm.run, x)

    @staticmethod
    def in_a_loop(norm, x, training):
        import jax

        values = [v.value for v in norm.trainable_variables]

        def body(state, _):
            y, state = norm.stateless_call(values, state, x, training=training)
            return state, y

        state, y = jax.lax.scan(body, [v.value for v in norm.non_trainable_variables], None, length=3)
        for variable, new in zip(norm.non_trainable_variables, state):
            variable.assign(new)
        return y[0]

    @staticmethod
    def assigned(norm, run, x):
        values = [v.value for v in norm.trainable_variables]
        y, state = run(values, [v.value for v in norm.non_trainable_variables], x)
        for variable, new in zip(norm.non_trainable_variables, state):
            variable.assign(new)
        return y


WAYS = ["by_keras", "by_hand", "by_hand, eagerly", "by_a_function_that_is_kept", "in_a_loop"]


@pytest.mark.parametrize("way", WAYS)
def test_rematerialized_layers(way):
    way, _, eager = way.partition(", ")
    if way == "by_keras" and not hasattr(keras, "remat"):
        pytest.skip("This Keras has no remat().")
    if way != "by_keras" and keras.backend.backend() != "jax":
        pytest.skip("is about JAX's functions")
    kit = Generation("keras3")

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def build(self, shape):
            self.norm.build(shape)

        def call(self, x, training=None):
            return getattr(Rematerialized, way)(self.norm, x, training)

    block, first = Block(), keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((5,)), first, keras.layers.Rescaling(2.0, 1.0), block, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=bool(eager))
    if way == "by_a_function_that_is_kept":
        # JAX knows it then. (What Keras has made by itself it can't train on JAX.)
        model.fit(X, X[:, :1], batch_size=BATCH, verbose=0)
    statistics = [id(v) for layer in (first, block.norm) for v in layer.non_trainable_variables]

    def rest():
        return [value(v) for v in model.variables if id(v) not in statistics]

    for x in (X, 3 * X):
        before = rest()
        update(kit, model, x)
        assert_exact(first, x)
        expected = slow_normalized(x, first)
        assert_exact(block.norm, 2 * expected + 1)
        assert_unchanged(before, rest())


def slow_normalized(x, layer):
    """The output of a batch-norm layer for `x`, batch by batch, in NumPy."""
    parts = [x[i : i + BATCH].astype("float64") for i in range(0, len(x), BATCH)]
    scaled = [(part - part.mean(0)) / np.sqrt(part.var(0) + layer.epsilon) for part in parts]
    return np.concatenate([part * value(layer.gamma) + value(layer.beta) for part in scaled])


def test_keras_2_looks_words_up():
    kit = Generation("tf_keras")
    model, words, texts = kit.model_of_texts(kit.keras.layers.BatchNormalization())
    update(kit, model, texts, 3)
    assert_exact(model.layers[-1], np.array(words(texts)))


@on_tensorflow
def test_keras_2_in_graph_mode():
    import tensorflow as tf

    kit = Generation("tf_keras")
    model, _ = one_layer(kit)
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match="graph mode is not supported"):
        update(kit, model, X)


@on_tensorflow
def test_a_model_of_a_distribution_strategy(kit):
    script = f"""
        import numpy as np, tensorflow as tf
        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        import {"keras" if kit.name == "keras3" else "tf_keras as keras"}
        from kerasoptimizers{"" if kit.name == "keras3" else ".tf_keras"} import (
            SWACallback, update_batch_norm,
        )
        x = np.random.default_rng(0).normal(3, 2, size=(90, 5)).astype("float32")
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            norms = [keras.layers.BatchNormalization(synchronized=s) for s in (True, False)]
            given = keras.Input((5,))
            h = keras.layers.Concatenate()([norm(given) for norm in norms])
            model = keras.Model(given, keras.layers.Dense(1)(h))
            model.compile(keras.optimizers.Adam(), "mse")

        def check():
            for norm in norms:
                np.testing.assert_allclose(norm.moving_mean.numpy(), x.mean(0), rtol=1e-5)
                np.testing.assert_allclose(norm.moving_variance.numpy(), x.var(0), rtol=1e-5)
                norm.moving_mean.assign(np.zeros(5, "float32"))

        update_batch_norm(model, x, batch_size=16, verbose=0)
        check()
        callback = SWACallback(2)
        model.fit(x, x[:, :1], batch_size=16, epochs=4, verbose=0, callbacks=[callback])
        check()
        assert callback.snapshots == 2
    """
    done = run_python("-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr[-3000:]
