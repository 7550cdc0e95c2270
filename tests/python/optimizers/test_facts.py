"""Facts about optimizers, as R prints them."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kerasoptimizers
from generations import GENERATIONS, METHODS, Generation
from kerasoptimizers.facts import course
from kerasoptimizers.facts import facts as facts_of
from kerasoptimizers.rules import EqualAverage, ExponentialAverage, Rule, Step, StepBack, host_numbers

pytestmark = pytest.mark.oldest_keras

counts = st.integers(1, 12)


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


@given(
    st.one_of(
        st.just(Rule()),
        st.builds(EqualAverage, st.integers(0, 30), counts),
        st.builds(StepBack, counts, st.just(0.5)),
        st.builds(ExponentialAverage, st.just(0.9), period=counts),
    ),
    st.integers(0, 60),
)
def test_next_due_is_the_first_update_that_is_due(rule, update):
    found = rule.next_due(update)
    assert found == next(n for n in range(update, update + 100) if rule.due(Step(n, {}, None, host_numbers)))


def trained(generation, optimizer, updates):
    model = generation.keras.Sequential([generation.keras.layers.Input((3,)), generation.keras.layers.Dense(2)])
    model.compile(optimizer, loss="mse")
    for _ in range(updates):
        model.train_on_batch(np.ones((4, 3), "float32"), np.ones((4, 2), "float32"))
    return model


def test_an_optimizer_that_is_not_built_has_made_no_updates(generation):
    inner = generation.keras.optimizers.Adam(0.25, beta_1=0.5)
    facts = facts_of(generation.SWA(inner, start_averaging=5, name="mine", clipnorm=2.0))
    assert facts["method"] == "SWA"
    assert facts["name"] == "mine"
    settings = facts["settings"]
    assert list(settings)[:3] == ["start_averaging", "average_period", "clipnorm"]
    assert [settings[name] for name in list(settings)[:3]] == [5, 10, 2.0]
    assert facts["inner"] == {"method": "Adam", "settings": {"beta_1": 0.5}}
    assert (facts["learning_rate"], facts["schedule"]) == (0.25, None)
    assert not (facts["built"] or facts["has_average"] or facts["swapped"])
    assert (facts["updates"], facts["snapshots"], facts["next_due"]) == (0, 0, 5)
    assert set(facts["bytes"].values()) == {0.0}


def test_updates_and_snapshots_are_counted_and_memory_summed(generation):
    inner = generation.keras.optimizers.SGD(0.125, momentum=0.5)
    optimizer = generation.SWA(inner, start_averaging=2, average_period=3)
    trained(generation, optimizer, 6)
    facts = facts_of(optimizer)
    assert (facts["updates"], facts["snapshots"], facts["next_due"]) == (6, 2, 8)
    assert facts["built"] and facts["has_average"]
    sizes = facts["bytes"]
    assert sizes["weights"] == sizes["averages"] == 8 * 4
    # A momentum for each weight, the count and the rate.
    assert 8 * 4 < sizes["inner"] <= 8 * 4 + 3 * 8
    optimizer.swap_weights()
    assert facts_of(optimizer)["swapped"]


def test_with_accumulated_gradients_updates_are_counted():
    inner = keras.optimizers.SGD(gradient_accumulation_steps=2)
    optimizer = kerasoptimizers.SWA(inner)
    trained(Generation("keras3"), optimizer, 5)
    assert facts_of(optimizer)["updates"] == 2


def test_settings_of_zero_are_shown(generation):
    facts = facts_of(generation.SWA(generation.keras.optimizers.Adam(beta_1=0.0)))
    assert facts["inner"]["settings"] == {"beta_1": 0.0}


def all_optimizers(generation):
    found = vars(generation.keras.optimizers)
    # A MultiOptimizer takes optimizers of layers.
    others = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap")
    kinds = [kind for name, kind in found.items() if isinstance(kind, type) and name not in others]
    if generation.name == "tf_keras":
        legacy = generation.keras.optimizers.legacy
        kinds += [getattr(legacy, name) for name in ("SGD", "Adam", "Adamax", "RMSprop", "Adadelta", "Ftrl")]
    ours = [getattr(generation, name) for name in METHODS]
    return [kind() for kind in kinds] + [kind("sgd") for kind in ours] + [generation.LARS()]


def test_defaults_of_an_inner_optimizer_are_not_listed(generation):
    for inner in all_optimizers(generation):
        assert facts_of(generation.SWA(inner))["inner"]["settings"] == {}, inner


def test_methods_without_snapshots_say_when_they_move_next(generation):
    lookahead = generation.Lookahead("sgd", sync_period=4)
    trained(generation, lookahead, 5)
    facts = facts_of(lookahead)
    assert (facts["snapshots"], facts["next_due"], facts["has_average"]) == (None, 7, True)
    average = generation.ExponentialMovingAverage("sgd", average_decay=0.5)
    trained(generation, average, 2)
    assert facts_of(average)["next_due"] == 2


def test_schedule_free_says_its_settings_and_that_it_moves_after_every_update(generation):
    optimizer = generation.ScheduleFree(generation.keras.optimizers.SGD(0.5), warmup_steps=4)
    trained(generation, optimizer, 2)
    facts = facts_of(optimizer)
    own = {"beta": 0.9, "warmup_steps": 4, "weight_lr_power": 2.0, "r": 0.0, "weight_decay_at_y": 0.0}
    assert facts["settings"] == own
    assert list(facts["settings"])[:5] == list(own)
    assert (facts["updates"], facts["next_due"], facts["snapshots"]) == (2, 2, None)
    assert facts["bytes"]["averages"] == 2 * facts["bytes"]["weights"]


def test_the_course_of_schedule_free_has_its_warm_up(generation):
    optimizer = generation.ScheduleFree(generation.keras.optimizers.SGD(0.5), warmup_steps=4)
    found = course(optimizer, 6)
    np.testing.assert_allclose(found["learning_rate"], [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert found["due"].all()


def test_the_rate_of_a_schedule_is_that_of_the_next_update(generation):
    schedule = generation.SWALearningRate(0.5, 0.25, start_averaging=4, anneal_updates=0)
    optimizer = generation.SWA(generation.keras.optimizers.SGD(schedule))
    facts = facts_of(optimizer)
    assert (facts["learning_rate"], facts["schedule"]) == (0.5, "SWALearningRate")
    trained(generation, optimizer, 4)
    assert facts_of(optimizer)["learning_rate"] == 0.25


def test_lars_has_no_average(generation):
    optimizer = generation.LARS(0.5, exclude_from_weight_decay=["bias"])
    trained(generation, optimizer, 3)
    facts = facts_of(optimizer)
    assert (facts["method"], facts["learning_rate"], facts["updates"]) == ("LARS", 0.5, 3)
    assert facts["settings"]["exclude_from_weight_decay"] == ["bias"]
    assert not any("ema" in name.split("_") for name in facts["settings"])
    assert facts["inner"] is facts["next_due"] is facts["bytes"] is None
    assert course(optimizer, 3)["due"].tolist() == [False] * 3


def test_an_optimizer_in_an_optimizer_is_the_inner_one(generation):
    inner = generation.SWA(generation.keras.optimizers.SGD(0.5), start_averaging=7)
    facts = facts_of(generation.Lookahead(inner))
    assert facts["inner"]["method"] == "SWA"
    assert facts["inner"]["settings"]["start_averaging"] == 7
    assert "average_period" not in facts["inner"]["settings"]
    assert facts["learning_rate"] == 0.5


def test_the_course_has_the_rates_after_decay_and_the_moments(generation):
    optimizer = generation.SWA(generation.keras.optimizers.SGD(0.5), start_averaging=3, average_period=2, decay=1.0)
    found = course(optimizer, 8)
    np.testing.assert_allclose(found["learning_rate"], 0.5 / np.arange(1, 9), rtol=1e-6)
    assert np.flatnonzero(found["due"]).tolist() == [3, 5, 7]
    always = course(generation.ExponentialMovingAverage("sgd"), 4)
    assert always["due"].tolist() == [True] * 4


def test_the_course_of_a_schedule_for_scalars_is_asked_one_by_one(generation):
    class Halves(generation.keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 1.0 if step < 3 else 0.5

        def get_config(self):
            return {}

    optimizer = generation.SWA(generation.keras.optimizers.SGD(Halves()))
    assert course(optimizer, 5)["learning_rate"].tolist() == [1.0, 1.0, 1.0, 0.5, 0.5]


def test_legacy_optimizers_of_keras_2_have_facts_before_they_count():
    generation = Generation("tf_keras")
    legacy = generation.keras.optimizers.legacy
    inner = legacy.SGD(0.25, momentum=0.5)
    optimizer = generation.SWA(inner, start_averaging=1)
    facts = facts_of(optimizer)
    assert (facts["updates"], facts["learning_rate"]) == (0, 0.25)
    assert facts["inner"] == {"method": "SGD", "settings": {"momentum": 0.5}}
    assert inner._iterations is None  # asking has made nothing
    trained(generation, optimizer, 2)
    facts = facts_of(optimizer)
    assert (facts["updates"], facts["snapshots"], facts["next_due"]) == (2, 1, 11)
    with_schedule = legacy.SGD(generation.SWALearningRate(0.5, 0.25, 4))
    assert facts_of(generation.SWA(with_schedule))["schedule"] == "SWALearningRate"


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="This Keras has no MultiOptimizer.")
def test_several_rates_are_none():
    generation = Generation("keras3")
    sgd = keras.optimizers.SGD
    several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(sgd(0.5), {".*bias": sgd(0.25)}))
    optimizer = generation.SWA(several)
    assert facts_of(optimizer)["learning_rate"] is None
    assert np.isnan(course(optimizer, 3)["learning_rate"]).all()
    trained(generation, optimizer, 3)
    assert facts_of(optimizer)["updates"] == 3


def test_an_optimizer_shows_its_settings(generation):
    optimizer = generation.SWA("sgd", average_period=7)
    assert repr(optimizer).startswith("<SWA for Keras ")
    assert repr(optimizer).endswith(": SGD, start_averaging=0, average_period=7>")


def test_that_weights_are_checked_goes_without_saying(generation):
    assert "check_finite" not in facts_of(generation.SWA("sgd"))["settings"]
    assert facts_of(generation.SWA("sgd", check_finite=False))["settings"]["check_finite"] is False
