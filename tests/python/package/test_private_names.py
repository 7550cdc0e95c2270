"""The private names of Keras that we use: they exist, do what we expect, and only `private.py` uses them."""

import ast
import functools
import importlib
import pathlib
import weakref

import keras
import numpy as np
import pytest

import kerasoptimizers
from generations import GENERATIONS, Generation
from kerasoptimizers.rules import EqualAverage

pytestmark = pytest.mark.oldest_keras

PACKAGE = pathlib.Path(kerasoptimizers.__file__).parent
BACKEND = keras.backend.backend()

#: The private names in each generation's `private.py`. Each has a test below.
TESTED = {
    "keras3": {
        "_all_reduce_sum_gradients",
        "_backend_update_step",
        "_clip_gradients",
        "_compile_config",
        "_distribution_strategy",
        "_flatten_layers",
        "_get_jax_state",
        "_iterations",
        "_jax_state",
        "_jax_state_synced",
        "_layout",
        "_learning_rate",
        "_model",
        "_save_model",
        "_trainable_variables",
        "_trainable_variables_indices",
        "_use_weight_decay",
        "_var_key",
        "_variables",
    },
    "tf_keras": {
        "_build_learning_rate",
        "_built",
        "_clip_gradients",
        "_compile_config",
        "_create_all_weights",
        "_create_iteration_variable",
        "_decayed_lr",
        "_distribution_strategy",
        "_flatten_layers",
        "_generator",
        "_index_dict",
        "_learning_rate",
        "_random_generator",
        "_save_model",
        "_shared_name",
        "_steps_per_execution",
        "_trackable_children",
        "_use_weight_decay",
        "_var_key",
        "_variables",
    },
}
#: Private names elsewhere, by file.
ALLOWED = {
    # The value itself: to ask the variable for it would compute another where Keras has taken it.
    "backends/jax.py": {"_value"},
    # How often a tensor of PyTorch was changed.
    "backends/torch.py": {"_version"},
    "facts.py": {"_iterations", "_learning_rate"},
    # As the optimizers of this Keras say that they are built.
    "tf_keras/base.py": {"_built"},
}


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


@functools.cache
def private(name):
    return importlib.import_module(f"kerasoptimizers.{name}.private")


only_keras3 = pytest.mark.parametrize("generation", ["keras3"], indirect=True)
only_tf_keras = pytest.mark.parametrize("generation", ["tf_keras"], indirect=True)


# Which names there are.


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name.isidentifier() and name != "_"


def names_in(path):
    """(names that a file gives to what is its own, private names that it uses of something)."""
    own, used = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("torch", "sys"):
            used.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            used.update(a.value for a in node.args[1:2] if isinstance(a, ast.Constant))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".update"):
            own.update(keyword.arg for keyword in node.keywords)
    return own, {name for name in used if is_private(name)}


def test_every_private_name_of_keras_has_a_test(generation):
    path = PACKAGE / generation.name / "private.py"
    _, used = names_in(path)
    stored = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    names = {name for name in used | stored if is_private(name)}
    names |= {name for _, name in private(generation.name).OVERRIDDEN}
    assert sorted(names - TESTED[generation.name]) == []


@pytest.mark.once
def test_no_other_file_uses_a_private_name_of_keras():
    files = {str(path.relative_to(PACKAGE)): names_in(path) for path in sorted(PACKAGE.rglob("*.py"))}
    tested = {name for names in TESTED.values() for name in names}
    # A name that one of our files defines itself, unless Keras has it, too; then in that file alone.
    ours = set().union(*(own for own, _ in files.values())) - tested
    ours |= {name for g in GENERATIONS for name in _overridden(PACKAGE / g / "private.py")}
    found = {
        file: sorted(used - own - ours - ALLOWED.get(file, set()))
        for file, (own, used) in files.items()
        if not file.endswith("private.py")
    }
    assert {file: names for file, names in found.items() if names} == {}


def _overridden(path):
    (listed,) = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "OVERRIDDEN"
    ]
    return {ast.literal_eval(pair.elts[1]) for pair in listed.elts}


@pytest.mark.once
def test_no_other_file_imports_what_keras_keeps_to_itself():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            inside = [module for module in modules if ".src" in module]
            assert not inside or path.name == "private.py", f"{path}: {inside}"


# What they do.


def new_model(generation, optimizer=None):
    layers = generation.keras.layers
    inside = generation.keras.Sequential([layers.Input((3,)), layers.Dense(2, name="inner")])
    model = generation.keras.Sequential([layers.Input((3,)), inside, layers.Dropout(0.1), layers.Dense(1, name="last")])
    model.compile(optimizer or generation.keras.optimizers.SGD(0.5, momentum=0.9), "mse")
    return model


def fit(model, **arguments):
    return model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=1, batch_size=2, verbose=0, **arguments)


def test_a_built_optimizer_knows_its_variables_by_their_keys(generation):
    ours, optimizer = private(generation.name), generation.keras.optimizers.SGD(0.1)
    variables = generation.variables([[1.0], [2.0, 3.0]])
    generation.apply(optimizer, [[1.0], [1.0, 1.0]], variables)
    keys = [ours.variable_key(optimizer, variable) for variable in variables]
    assert ours.built_for(optimizer) == {key: i for i, key in enumerate(keys)}
    if generation.name == "keras3":
        assert [id(v) for v in ours.trained_variables(optimizer)] == [id(v) for v in variables]


@only_tf_keras
def test_an_optimizer_that_is_not_built_knows_no_variables(generation):
    assert private("tf_keras").built_for(generation.keras.optimizers.SGD(0.1)) is None


def test_own_variables_are_those_added_after_count_and_rate(generation):
    optimizer = generation.averaging(generation.keras.optimizers.SGD(0.1, momentum=0.9), EqualAverage())
    ours, variables = private(generation.name), generation.variables([[1.0]])
    before = list(ours.own_variables(optimizer))
    generation.apply(optimizer, [[1.0]], variables)
    added = [id(v) for v in ours.own_variables(optimizer)][len(before) :]
    averages = optimizer.averages
    of_averages = [*averages.scalars.values(), averages.refused, *optimizer.all_slots()]
    assert sorted(added) == sorted(map(id, of_averages))
    if generation.name == "keras3":
        plain = keras.optimizers.SGD(0.1)
        assert [id(v) for v in ours.own_variables(plain)] == [id(plain.iterations), id(plain.learning_rate)]


@only_keras3
def test_the_count_of_calls_can_be_set(generation):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    private("keras3").set_iterations(optimizer, 6)
    assert int(optimizer.iterations) == 3


def test_the_source_of_a_learning_rate_is_what_was_given(generation):
    optimizers, source = generation.keras.optimizers, private(generation.name).rate_source
    schedule = optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    kinds = [optimizers.SGD] + ([optimizers.legacy.SGD] if generation.name == "tf_keras" else [])
    for kind in kinds:
        assert source(kind(schedule)) is schedule
        assert hasattr(source(kind(0.25)), "assign")
    if generation.name == "keras3":
        rate = lambda: 0.1  # noqa: E731
        assert source(keras.optimizers.SGD(rate)) is rate


@only_tf_keras
@pytest.mark.parametrize("kind", ["new", "legacy"])
def test_the_rate_of_the_next_step_is_the_schedules(generation, kind):
    optimizers = generation.keras.optimizers
    kinds = optimizers.legacy if kind == "legacy" else optimizers
    optimizer, variables = kinds.SGD(optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)), generation.variables([[1.0]])
    for rate in (1.0, 0.5, 0.25):
        assert float(private("tf_keras").rate_of_step(optimizer)) == rate
        generation.apply(optimizer, [[1.0]], variables)


def test_layers_of_a_model_are_those_at_any_depth(generation):
    model = new_model(generation)
    layers = list(private(generation.name).layers_of(model))
    assert model in layers
    assert {"inner", "last"} <= {layer.name for layer in layers}


def test_the_arguments_of_compile_are_kept_as_they_were_given(generation):
    def loss(y, out):
        return out

    model = generation.keras.Sequential([generation.keras.Input((1,)), generation.keras.layers.Dense(1)])
    assert private(generation.name).compile_arguments(model) == {}
    model.compile("sgd", loss)
    assert private(generation.name).compile_arguments(model)["loss"] is loss


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Strategies are TensorFlow's.")
def test_an_optimizer_knows_the_strategy_it_was_made_under(generation):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        optimizer = generation.keras.optimizers.SGD(0.1)
        variable = generation.variables([[1.0]])[0]
    assert private(generation.name).strategy(optimizer) is strategy
    if generation.name == "keras3":
        gradients = iter([1.0, 10.0])

        def summed():
            pairs = [(tf.constant([next(gradients)]), variable)]
            return private("keras3").sum_over_replicas(optimizer, pairs)[0][0]

        assert [float(value[0]) for value in strategy.run(summed).values] == [11.0, 11.0]


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX Keras spreads variables over devices by itself.")
@only_keras3
def test_a_variable_knows_its_layout(generation):
    assert private("keras3").layout(keras.Variable([1.0])) is None
    devices = keras.distribution.list_devices()
    with keras.distribution.DataParallel(devices=devices).scope():
        assert private("keras3").layout(keras.Variable([1.0])) is not None


@only_tf_keras
def test_a_variables_shared_name_has_no_number(generation):
    import tensorflow as tf

    assert private("tf_keras").shared_name(tf.Variable(1.0, name="dense/kernel")) == "dense/kernel"


@only_tf_keras
def test_an_old_optimizer_makes_its_slots_when_told(generation):
    optimizer = generation.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    variables = generation.variables([[1.0, 2.0]])
    private("tf_keras").build_legacy(optimizer, variables)
    assert optimizer.get_slot(variables[0], "momentum").shape == (2,)


@only_tf_keras
def test_a_model_knows_its_steps_per_execution(generation):
    model, ours = new_model(generation), private("tf_keras")
    assert ours.steps_per_execution(model) == 1
    model.compile("sgd", "mse", steps_per_execution=3)
    assert ours.steps_per_execution(model) == 3
    assert ours.steps_per_execution(generation.keras.Sequential()) == 1


@only_tf_keras
def test_a_models_random_layers_have_generators_with_states(generation):
    experimental = generation.keras.backend.experimental
    previous = experimental.is_tf_random_generator_enabled()
    experimental.enable_tf_random_generator()
    try:
        model = new_model(generation)
        model(np.ones((2, 3)), training=True)
        (state,) = private("tf_keras").random_states(model)
        before = state.numpy().tolist()
        model(np.ones((2, 3)), training=True)
        assert state.numpy().tolist() != before
    finally:
        if not previous:
            experimental.disable_tf_random_generator()


@only_tf_keras
def test_all_batch_norm_layers_are_called_in_one_class(generation):
    layers = generation.keras.layers
    version_1 = importlib.import_module("tf_keras.src.layers.normalization.batch_normalization_v1")
    kinds = [layers.BatchNormalization, layers.experimental.SyncBatchNormalization, version_1.BatchNormalization]
    base = private("tf_keras").BATCH_NORM
    assert "call" in vars(base)
    for kind in kinds:
        assert issubclass(kind, base)
        assert kind is base or "call" not in vars(kind)


@only_keras3
def test_a_step_is_stateless_where_keras_says_so(generation):
    assert not private("keras3").in_stateless_scope()
    with keras.StatelessScope():
        assert private("keras3").in_stateless_scope()


# JAX: where the values are while a function of Keras runs.


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX Keras's functions take the state of a model.")
@only_keras3
def test_functions_of_keras_take_the_state_in_the_order_that_we_return_it(generation):
    model, seen = new_model(generation), {}
    model.compile(model.optimizer, "mse", metrics=["mae"])
    fit(model)

    def watched(name):
        function = getattr(model, name)

        def watch(state, data):
            seen[name] = [len(part) for part in state]
            return function(state, data)

        return watch

    model.evaluate(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    model.predict(np.ones((4, 3)), verbose=0)
    for name in ("train_function", "test_function", "predict_function"):
        setattr(model, name, watched(name))
    fit(model)
    model.evaluate(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    model.predict(np.ones((4, 3)), verbose=0)
    sizes = {
        "trainable": len(model.trainable_variables),
        "non_trainable": len(model.non_trainable_variables),
        "optimizer": len(model.optimizer.variables),
        "metrics": len(model.metrics_variables),
    }
    for name, kinds in private("keras3")._JAX_STATES.items():
        assert seen[name] == [sizes[kind] for kind in kinds], name


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX a model has a state.")
@only_keras3
def test_a_model_has_a_state_while_it_is_trained(generation):
    model, seen = new_model(generation), []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            # Not `self.model`, which puts the state back.
            assert self._model is model
            seen.append((set(model._jax_state), model._jax_state_synced))
            model.jax_state_sync()
            assert model._jax_state_synced

    fit(model, callbacks=[Look()])
    names = {f"{kind}_variables" for kind in ("trainable", "non_trainable", "optimizer", "metrics")}
    assert seen == [(names, False)] * 2


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX a model has a state.")
@only_keras3
def test_a_state_that_is_forgotten_is_not_given_to_the_variables(generation):
    model = new_model(generation)
    fit(model)
    before = [v.numpy() for v in model.trainable_variables]
    model._jax_state = {"trainable_variables": [keras.ops.zeros(v.shape) for v in model.trainable_variables]}
    model._jax_state_synced = False
    private("keras3").forget_values(weakref.ref(model))
    model.jax_state_sync()
    for variable, value in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX a model has a state.")
@only_keras3
def test_the_model_whose_training_asks_for_the_values_of_an_optimizer_is_found(generation):
    model, seen = new_model(generation), []

    class Watched(keras.optimizers.SGD):
        @property
        def variables(self):
            seen.append(private("keras3").training_on_jax())
            return super().variables

    model.compile(Watched(), "mse")
    assert set(seen) <= {None}
    fit(model)
    assert {found for found in seen if found is not None} == {model}


@pytest.mark.skipif(BACKEND != "jax", reason="Only on JAX values are taken.")
@only_keras3
def test_a_variable_whose_value_was_taken_has_none(generation):
    from kerasoptimizers.backends.jax import Jax

    model, seen = new_model(generation), []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.extend(v._value for v in model.trainable_variables)
            assert not any(Jax().has_value(v) for v in model.trainable_variables)

    fit(model, callbacks=[Look()])
    # Keras takes them when an epoch begins.
    assert seen == [None] * 8
    variable = keras.Variable([1.0])
    assert Jax().has_value(variable)
    variable._value.delete()
    assert not Jax().has_value(variable)


# What we override is asked by Keras.


def spied(kind, names):
    """A class that notes which of its methods were called, and these."""
    called = set()

    def noting(name):
        def method(self, *args, **kwargs):
            called.add(name)
            return getattr(super(Spy, self), name)(*args, **kwargs)

        return method

    Spy = type("Spy", (kind,), {name: noting(name) for name in names})
    return Spy, called


def overridden(generation, kind):
    return [name for base, name in private(generation.name).OVERRIDDEN if base is kind]


def test_keras_asks_the_methods_of_an_optimizer_that_we_override(generation, tmp_path):
    names = overridden(generation, generation.keras.optimizers.Optimizer)
    assert names
    Spy, called = spied(generation.keras.optimizers.SGD, names)
    optimizer = Spy(0.1, clipnorm=1.0, weight_decay=0.1)
    generation.apply(optimizer, [[1.0]], generation.variables([[1.0]]))
    if generation.name == "tf_keras":
        import tensorflow as tf

        tf.train.Checkpoint(optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    assert called == set(names)


def test_keras_asks_the_method_of_a_checkpoint_that_we_override(generation, tmp_path):
    kind = generation.keras.callbacks.ModelCheckpoint
    names = overridden(generation, kind)
    assert names == ["_save_model"]
    Spy, called = spied(kind, names)
    fit(new_model(generation), callbacks=[Spy(str(tmp_path / "model.keras"))])
    assert called == set(names)


@only_keras3
def test_keras_shows_averages_from_where_it_looks_for_them(generation):
    # `SwapEMAWeights` asks any optimizer for `_model_variables_moving_average`: ours answers.
    optimizer = generation.SWA(keras.optimizers.SGD(0.1), 0, 1)
    model = new_model(generation, optimizer)
    fit(model)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            seen.extend(v.numpy() for v in model.trainable_variables)

    averages = [optimizer.get_slot(v, "average").numpy() for v in model.trainable_variables]
    model.evaluate(np.ones((2, 3)), np.ones((2, 1)), verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(), Look()])
    for found, expected in zip(seen, averages, strict=True):
        # Keras 3.8 exchanges them by sums and differences.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@only_tf_keras
def test_a_loss_scale_says_to_the_optimizer_inside_that_it_stands_around(generation):
    inner = generation.keras.optimizers.SGD(0.1)
    generation.keras.mixed_precision.LossScaleOptimizer(inner)
    assert inner._is_wrapped_by_loss_scale_optimizer


@only_tf_keras
def test_a_callback_says_whether_it_takes_the_logs_of_tensorflow(generation):
    assert generation.keras.callbacks.Callback()._supports_tf_logs is False
