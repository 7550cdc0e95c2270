"""Optimizers that train a model between the fast weights and their average: Schedule-Free, primal averaging."""

import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation, assert_same
from kerasoptimizers import KerasOptimizersWarning

pytestmark = pytest.mark.sample

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = np.tanh(X.sum(axis=1, keepdims=True))
METHODS = ["ScheduleFree", "PrimalAveraging"]
TO_TRAIN_ON = "holds the weights to train on, not their average"
each_method = pytest.mark.parametrize("method", METHODS)
needs_keras_3 = pytest.mark.parametrize("generation", ["keras3"], indirect=True)


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def sgd(generation, rate=0.1, **config):
    return generation.keras.optimizers.SGD(rate, **config)


def compiled(generation, optimizer):
    layers = generation.keras.layers
    generation.keras.utils.set_random_seed(0)
    model = generation.keras.Sequential([generation.keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def fit(model, **arguments):
    model.fit(X, Y, **{"batch_size": 8, "verbose": 0, "shuffle": False, **arguments})
    return model


def trained(generation, optimizer, fits=2):
    model = compiled(generation, optimizer)
    for _ in range(fits):
        fit(model)
    return model


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def slots(model, name="average"):
    return [np.array(model.optimizer.get_slot(v, name).numpy()) for v in model.trainable_variables]


# Special cases.


def test_schedule_free_with_a_beta_of_0_and_equal_weights_is_swa_bit_for_bit(generation):
    ours = trained(generation, generation.ScheduleFree(sgd(generation), beta=0, weight_lr_power=0))
    swa = trained(generation, generation.SWA(sgd(generation), average_period=1))
    assert_same(weights(ours), weights(swa))
    assert_same(slots(ours), slots(swa))


def test_primal_averaging_with_an_eval_interpolation_of_0_is_the_inner_optimizer_bit_for_bit(generation):
    ours = trained(generation, generation.PrimalAveraging(sgd(generation), eval_interpolation=0))
    plain = trained(generation, sgd(generation))
    for found in (weights(ours), slots(ours), slots(ours, "fast")):
        assert_same(found, weights(plain))


def test_primal_averaging_with_a_train_interpolation_of_0_is_an_ema_bit_for_bit(generation):
    ours = trained(generation, generation.PrimalAveraging(sgd(generation), 0, 0.9))
    ema = generation.ExponentialMovingAverage(sgd(generation), average_decay=0.9, dynamic_decay=False)
    ema = trained(generation, ema)
    assert_same(weights(ours), weights(ema))
    assert_same(slots(ours), slots(ema))


def test_with_a_beta_of_1_the_model_holds_the_average(generation):
    model = trained(generation, generation.ScheduleFree(sgd(generation), beta=1))
    assert_same(weights(model), slots(model))
    assert not np.array_equal(slots(model)[0], slots(model, "fast")[0])


@each_method
@pytest.mark.parametrize("share", [0, 1])
def test_at_the_ends_single_steps_and_fit_can_follow_each_other(generation, method, share):
    # On JAX no two variables may share memory then.
    settings = (
        [{"beta": share}]
        if method == "ScheduleFree"
        else [{"train_interpolation": share}, {"eval_interpolation": share}]
    )
    for given in settings:
        optimizer = getattr(generation, method)(sgd(generation), **given)
        model = compiled(generation, optimizer)
        for _ in range(2):
            generation.apply(
                optimizer, [np.ones(v.shape) for v in model.trainable_variables], model.trainable_variables
            )
            fit(model)
        assert all(np.isfinite(w).all() for w in weights(model))


# Where the model stands.


@each_method
def test_fit_says_once_that_the_model_holds_weights_to_train_on(generation, method):
    model = compiled(generation, getattr(generation, method)(sgd(generation)))
    with pytest.warns(UserWarning, match=TO_TRAIN_ON) as said:
        fit(model)
    (line,) = [str(warning.message) for warning in said if TO_TRAIN_ON in str(warning.message)]
    assert "\n" not in line and all(
        name in line for name in ["assign_average_vars()", "SwapAverages", "R's callback_swap_averages()"]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasOptimizersWarning)
        fit(model)


def test_fit_says_nothing_where_the_model_holds_weights_or_the_average(generation, tmp_path):
    checkpoint = generation.AverageModelCheckpoint(True, str(tmp_path / "model.keras"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{TO_TRAIN_ON}")
        fit(compiled(generation, generation.ScheduleFree(sgd(generation), beta=0)))
        fit(compiled(generation, generation.ScheduleFree(sgd(generation), beta=1)))
        fit(compiled(generation, generation.SWA(sgd(generation))))
        fit(compiled(generation, generation.ScheduleFree(sgd(generation))), callbacks=[checkpoint])


@each_method
def test_evaluation_with_swap_averages_sees_the_average_and_leaves_training_as_it_is(generation, method):
    make = getattr(generation, method)
    model, twin = (compiled(generation, make(sgd(generation))) for _ in range(2))
    swap = generation.SwapAverages()
    history = model.fit(X, Y, batch_size=8, verbose=0, shuffle=False, validation_data=(X, Y), callbacks=[swap])
    fit(twin)
    assert_same(weights(model), weights(twin))
    shown = model.predict(X, verbose=0, callbacks=[generation.SwapAverages()])
    assert_same(weights(model), weights(twin))
    twin.optimizer.assign_average_vars(twin.trainable_variables)
    np.testing.assert_allclose(shown, twin.predict(X, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(history.history["val_loss"][-1], twin.evaluate(X, Y, verbose=0), rtol=1e-5)


@each_method
def test_training_goes_on_as_it_would_after_two_swaps(generation, method):
    make = getattr(generation, method)
    model, twin = (trained(generation, make(sgd(generation)), 1) for _ in range(2))
    between, average = weights(model), slots(model)
    model.optimizer.swap_weights()
    assert_same(weights(model), average)
    with pytest.raises(ValueError, match="can't train while the averages are swapped"):
        generation.apply(model.optimizer, between, model.trainable_variables)
    model.optimizer.swap_weights()
    assert_same(weights(model), between)
    fit(model), fit(twin)
    assert_same(weights(model), weights(twin))
    assert_same(slots(model), slots(twin))


@each_method
def test_after_the_average_is_assigned_the_next_step_has_its_gradient_there_and_goes_from_the_fast_weights(
    generation, method
):
    model = trained(generation, getattr(generation, method)(sgd(generation, 0.5)), 1)
    model.optimizer.assign_average_vars(model.trainable_variables)
    fast, average = slots(model, "fast"), slots(model)
    assert_same(weights(model), average)
    other = compiled(generation, sgd(generation, 1.0))
    other.set_weights(model.get_weights())
    other.train_on_batch(X, Y)
    gradients = [a - b for a, b in zip(average, weights(other))]
    model.train_on_batch(X, Y)
    for z, start, gradient in zip(slots(model, "fast"), fast, gradients):
        np.testing.assert_allclose(z, start - 0.5 * gradient, rtol=1e-5, atol=1e-6)
    share = 0.9 if method == "ScheduleFree" else 0.7
    for w, z, x in zip(weights(model), slots(model, "fast"), slots(model)):
        np.testing.assert_allclose(w, share * x + (1 - share) * z, rtol=1e-5, atol=1e-6)


@each_method
def test_a_checkpoint_holds_the_average(generation, method, tmp_path):
    checkpoint = generation.AverageModelCheckpoint(False, str(tmp_path / "model.keras"))
    model = fit(compiled(generation, getattr(generation, method)(sgd(generation))), callbacks=[checkpoint])
    loaded = generation.keras.models.load_model(tmp_path / "model.keras")
    assert_same(weights(loaded), slots(model))
    assert_same(slots(loaded, "fast"), slots(model, "fast"))
    assert not np.array_equal(weights(model)[0], slots(model)[0])


def test_batch_norm_is_recalibrated_for_the_average(generation):
    layers = generation.keras.layers
    model = generation.keras.Sequential(
        [generation.keras.Input((3,)), layers.Dense(2), layers.BatchNormalization(), layers.Dense(1)]
    )
    model.compile(generation.ScheduleFree(sgd(generation)), "mse")
    fit(model)
    model.optimizer.assign_average_vars(model.trainable_variables)
    generation.update_batch_norm(model, X, verbose=0)
    hidden = X @ slots(model)[0] + slots(model)[1]
    mean, variance = (np.array(v.numpy()) for v in model.layers[1].non_trainable_variables)
    np.testing.assert_allclose(mean, hidden.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, hidden.var(axis=0), rtol=1e-4)


# Inner optimizers.


def said_of_momentum(make):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = make()
    return made, [str(w.message) for w in said if "has its own momentum" in str(w.message)]


def test_an_inner_momentum_is_said_once_in_one_line(generation):
    optimizers = generation.keras.optimizers
    cases = [
        (lambda: sgd(generation, momentum=0.9), "`momentum` = 0 in the inner SGD, not 0.9."),
        (lambda: optimizers.Adam(beta_1=0.8), "`beta_1` = 0 in the inner Adam, not 0.8."),
        (lambda: "adam", "`beta_1` = 0 in the inner Adam, not 0.9."),
        (lambda: generation.SWA(sgd(generation, momentum=0.5)), "`momentum` = 0 in the inner SGD, not 0.5."),
    ]
    for inner, text in cases:
        optimizer, (line,) = said_of_momentum(lambda: generation.ScheduleFree(inner()))
        assert line.endswith(text) and "\n" not in line
        # Not again of an optimizer that is loaded.
        assert said_of_momentum(lambda: type(optimizer).from_config(optimizer.get_config()))[1] == []


def test_without_an_inner_momentum_nothing_is_said(generation):
    optimizers = generation.keras.optimizers
    for inner in (sgd(generation), optimizers.Adam(beta_1=0.0), "sgd", "rmsprop"):
        assert said_of_momentum(lambda: generation.ScheduleFree(inner))[1] == []
    # Primal averaging goes with a momentum.
    assert said_of_momentum(lambda: generation.PrimalAveraging("adam"))[1] == []


@each_method
@pytest.mark.parametrize("inner", ["AdamW", "LARS", "nested", "rmsprop"])
def test_any_inner_optimizer_makes_the_average_better(generation, method, inner):
    optimizer = {
        "AdamW": lambda: generation.keras.optimizers.AdamW(0.02, weight_decay=0.01, beta_1=0.0),
        "LARS": lambda: generation.LARS(0.2, eeta=0.05, momentum=0.0),
        "nested": lambda: generation.Lookahead(generation.SWA(sgd(generation))),
        "rmsprop": lambda: "rmsprop",
    }[inner]()
    settings = {"eval_interpolation": 0.9} if method == "PrimalAveraging" else {}
    model = compiled(generation, getattr(generation, method)(optimizer, **settings))
    start = model.evaluate(X, Y, verbose=0)
    fit(model, epochs=10)
    model.optimizer.assign_average_vars(model.trainable_variables)
    assert model.evaluate(X, Y, verbose=0) < 0.9 * start


@needs_keras_3
def test_schedule_free_around_several_optimizers_is_refused(generation):
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    several = keras.optimizers.MultiOptimizer(lambda variable: sgd(generation))
    with pytest.raises(ValueError, match="`optimizer` must have one learning rate, and MultiOptimizer has several"):
        generation.ScheduleFree(several)


@each_method
@pytest.mark.parametrize("outer", ["Lookahead", *METHODS])
def test_what_would_move_a_model_that_is_put_back_is_refused(generation, method, outer):
    inner = getattr(generation, method)(generation.SWA(sgd(generation)))
    for given in (inner, generation.SWA(inner)):
        with pytest.raises(ValueError, match=f"`optimizer` must not hold {method} inside {outer}") as error:
            getattr(generation, outer)(given)
        assert "\n" not in str(error.value)
    generation.SWA(inner)


# The inner optimizer's step.


class Failing:
    """Stops in the middle of the inner optimizer's step, if told to."""

    fails = False

    def update_step(self, *args, **kwargs):
        found = super().update_step(*args, **kwargs)
        if Failing.fails:
            raise KeyboardInterrupt
        return found


@each_method
def test_a_step_that_is_broken_off_leaves_model_and_fast_weights_apart(generation, method, monkeypatch):
    # While it lasts they may be one.
    kind = type("FailingSGD", (Failing, generation.keras.optimizers.SGD), {})
    optimizer = getattr(generation, method)(kind(0.1))
    variables = generation.variables([[1.0, 2.0], [3.0]])
    ones = [np.ones(v.shape) for v in variables]
    generation.apply(optimizer, ones, variables)
    between = [np.array(v.numpy()) for v in variables]
    monkeypatch.setattr(Failing, "fails", True)
    with pytest.raises(KeyboardInterrupt):
        generation.apply(optimizer, ones, variables)
    monkeypatch.undo()
    fast = [np.array(optimizer.get_slot(v, "fast").numpy()) for v in variables]
    if optimizer.averages.in_fast:
        assert_same([v.numpy() for v in variables], between)
    for v in variables:
        v.assign(np.full(v.shape, 7.0))
    assert_same([optimizer.get_slot(v, "fast").numpy() for v in variables], fast)
    generation.apply(optimizer, ones, variables)
    for v, z in zip(variables, fast):
        np.testing.assert_allclose(optimizer.get_slot(v, "fast").numpy(), z - 0.1, rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX copies nothing in a compiled step anyway.")
def test_the_fast_weights_are_copied_only_where_they_must_be(generation):
    def copies(constraint=None, **settings):
        optimizer = generation.ScheduleFree(sgd(generation), **settings)
        (variable,) = generation.variables([[1.0, 2.0]])
        if generation.name == "keras3":
            variable.constraint = constraint
        else:
            # TensorFlow takes one only when a variable is made.
            variable = type(variable)(variable.numpy(), constraint=constraint)
        generation.apply(optimizer, [np.ones(2)], [variable])
        return not optimizer.averages.in_fast

    assert not copies()
    assert not copies(beta=0.0)
    assert copies(weight_decay_at_y=0.1)
    assert copies(constraint=generation.keras.constraints.NonNeg())
