"""Methods that others stand in for, and values held for a while: afterwards all is as it was."""

import gc
import weakref

import keras
import numpy as np
import pytest

from interrupts import interrupt, lines_of
from kerasoptimizers import backends
from kerasoptimizers.values import Held, Replaced, assign_all


class Base:
    def inherited(self, x):
        return type(self).__name__, x

    @classmethod
    def of_class(cls, x):
        return cls.__name__, x

    @staticmethod
    def static(x):
        return "static", x


class Target(Base):
    def method(self, x):
        return id(self), x


class CallableObject:
    """As a tf.function is: a method that is no function."""

    def __get__(self, instance, owner):
        return lambda x: (type(instance).__name__, x)


Target.special = CallableObject()


def doubled(function):
    return lambda x: function(2 * x)


NAMES = ["method", "inherited", "of_class", "static", "special"]


@pytest.mark.parametrize("name", NAMES)
def test_a_method_of_an_object_is_replaced_and_comes_back(name):
    target = Target()
    before = getattr(target, name)(4)
    with Replaced() as replaced, replaced:
        replaced.put(target, name, doubled)
        assert getattr(target, name)(2) == before
    assert name not in vars(target)
    assert getattr(target, name)(4) == before


@pytest.mark.parametrize("name", ["method", "inherited"])
def test_a_method_of_a_class_is_replaced_for_all_its_objects_and_comes_back(name):
    def around(function):
        return lambda self, x: function(self, 2 * x)

    own, target = dict(vars(Target)), Target()
    before = getattr(target, name)(4)
    with Replaced() as replaced, replaced:
        replaced.put(Target, name, around)
        assert getattr(target, name)(2) == before
    assert dict(vars(Target)) == own


def test_an_attribute_and_a_method_of_the_objects_own_come_back():
    target = Target()
    target.number, target.method = 3, lambda x: ("own", x)
    own = dict(vars(target))
    with Replaced() as replaced, replaced:
        replaced.put(target, "number", lambda number: number + 1)
        replaced.put(target, "method", doubled)
        assert target.number == 4 and target.method(1) == ("own", 2)
    assert vars(target) == own


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_stand_around_one_method_and_go_in_any_order(order):
    target, both = Target(), [Replaced(), Replaced()]
    both[0].put(target, "method", lambda function: lambda x: function(x + 1))
    both[1].put(target, "method", doubled)
    assert target.method(3)[1] == 7
    both[order[0]].undo()
    assert target.method(3)[1] == (6 if order[0] == 0 else 4)
    both[order[1]].undo()
    assert not vars(target)


def test_a_method_that_somebody_else_has_set_meanwhile_stays():
    target, replaced = Target(), Replaced()
    replaced.put(target, "method", doubled)
    target.method = theirs = lambda x: "theirs"
    replaced.undo()
    assert target.method is theirs


def test_what_was_put_goes_with_its_owner_and_nothing_waits_for_the_garbage_collector():
    target, replaced, another = Target(), Replaced(), Replaced()
    gone = weakref.ref(target), weakref.ref(replaced)
    gc.disable()
    try:
        replaced.put(target, "inherited", doubled)
        del replaced
        # Taken away when the method is next replaced.
        another.put(target, "inherited", lambda function: lambda x: function(x + 1))
        assert target.inherited(3) == ("Target", 4)
        another.undo()
        del target, another
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_methods_of_keras_layers_are_replaced_past_its_tracking():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    layer, x = model.layers[0], np.ones((1, 3), "float32")
    expected = 2 * np.array(keras.ops.convert_to_numpy(layer(x)))
    own = dict(vars(layer))
    with Replaced() as replaced, replaced:
        replaced.put(layer, "call", doubled)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(x)), expected, rtol=1e-6)
    assert vars(layer).keys() == own.keys() and "call" not in vars(layer)


def test_an_interrupt_at_any_line_leaves_no_replaced_method():
    def work():
        with Replaced() as replaced, replaced:
            for target, name in ((first, "method"), (first, "number"), (Target, "inherited")):
                replaced.put(target, name, lambda before: before)

    first = Target()
    first.number = 3
    own = dict(vars(first)), dict(vars(Target))
    lines = lines_of(work, ["values"])
    assert len(lines) > 20
    for at in lines:
        place = interrupt(work, at, ["values"])
        assert (dict(vars(first)), dict(vars(Target))) == own, place


@pytest.fixture
def variables():
    return [keras.Variable(np.full(2, i, "float32"), trainable=True) for i in range(3)]


def numbers(variables):
    return [float(keras.ops.convert_to_numpy(variable)[0]) for variable in variables]


def test_values_held_are_given_back_but_those_to_keep(variables):
    backend = backends.named(keras.backend.backend())
    for keep, expected in ((False, [0.0, 1.0, 2.0]), (True, [7.0, 7.0, 7.0])):
        with Held(variables, backend) as held, held:
            for variable in variables:
                variable.assign(np.full(2, 7.0))
            if keep:
                held.keep()
        assert numbers(variables) == expected


def test_an_interrupt_at_any_line_of_an_assignment_assigns_all_or_nothing(variables):
    backend = backends.named(keras.backend.backend())
    values = [backend.cast(np.full(2, 7.0, "float32"), "float32")] * 3
    found = set()

    def work():
        assign_all(zip(variables, values), backend)

    for at in lines_of(work, ["values"]):
        for i, variable in enumerate(variables):
            variable.assign(np.full(2, i))
        interrupt(work, at, ["values"])
        found.add(tuple(numbers(variables)))
    assert found == {(0.0, 1.0, 2.0), (7.0, 7.0, 7.0)}


def test_a_value_held_is_free_as_soon_as_it_is_not_needed():
    backend = backends.named(keras.backend.backend())
    held = Held([keras.Variable(np.ones(2, "float32"))], backend)
    gone = weakref.ref(held)
    gc.disable()
    try:
        del held
        assert gone() is None
    finally:
        gc.enable()
