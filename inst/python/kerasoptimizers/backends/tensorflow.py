"""TensorFlow, for both Kerases: one condition for all weights, small ones joined, large ones compiled."""

import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from ..rules import Step
from . import NARROW, both, chosen, fast_after, grouped, model_between, move, refusal


class TensorFlow:
    """As `Plain`, which has the documentation."""

    name = "tensorflow"
    xp: Any = SimpleNamespace(
        cast=tf.cast,
        clip=tf.clip_by_value,
        cos=tf.cos,
        expm1=tf.math.expm1,
        log1p=tf.math.log1p,
        maximum=tf.maximum,
        minimum=tf.minimum,
        sqrt=tf.sqrt,
        square=tf.square,
        stack=tf.stack,
        sum=tf.reduce_sum,
        where=tf.where,
    )
    loses_values = False

    def native(self, variable):
        # In Keras 3 it is a property, in TensorFlow a method.
        value = getattr(variable, "value", None)
        return variable if value is None or callable(value) else value

    def read(self, variable):
        return tf.identity(self.native(variable))

    def write(self, variable, value):
        self.native(variable).assign(value, read_value=False)

    def cast(self, value, dtype):
        return tf.cast(self.native(value), dtype)

    def numpy(self, variable):
        return np.array(variable.numpy())

    def dtype(self, variable):
        # Under Keras 2's mixed precision a variable shows the type it is cast to.
        return tf.as_dtype(getattr(variable, "true_dtype", variable.dtype)).name

    count = read

    def noted(self, variable, number):
        return  # AutoGraph can't transform a docstring alone

    def has_value(self, variable):
        return True

    def have_values(self, variables):
        with tf.init_scope():
            return all(bool(self.native(variable).is_initialized()) for variable in variables)

    def start_late(self, averages):
        pairs = [(self.native(target), self.native(variable)) for target, variable in averages.to_start]

        def copy():
            for target, variable in pairs:
                target.assign(tf.broadcast_to(tf.cast(variable, target.dtype), target.shape), read_value=False)

        if self.have_values(variable for _, variable in pairs):
            # The second trace of the step: the first one was for its variables only.
            with tf.init_scope():
                copy()
            return True
        # Before the first update the weights are still those of the start.
        tf.cond(averages.count() == 0, copy, lambda: None)
        return False

    def step(self, averages, update, rate):
        scalars = {name: self.read(scalar) for name, scalar in averages.scalars.items()}
        return Step(update, scalars, rate, self.xp, averages.dtype)

    def stand_ins(self, averages):
        # A mirrored variable has one handle per replica.
        if tf.distribute.has_strategy():
            return []
        pairs = zip(map(self.native, averages.variables), map(self.native, averages.slots["fast"]))
        found = [(variable, "_handle", vars(fast).get("_handle")) for variable, fast in pairs]
        # Keras 2's mixed precision wraps variables: the handle is elsewhere then.
        return found if all(name in vars(variable) and handle is not None for variable, name, handle in found) else []

    def before(self, averages, update, rate):
        def in_cross_replica_context(strategy, update, rate):
            step = self.step(averages, _first(strategy, update), _first(strategy, rate))

            def change(weights, slots, dtype, constraint):
                weights = tf.cast(weights, slots["fast"].dtype)
                return {}, averages.rule.before(weights, slots, step)

            _Weights(self, averages).set(change)

        _merge(in_cross_replica_context, update, rate)

    def move(self, averages, update, counted, rate):
        def in_cross_replica_context(strategy, update, counted, rate):
            step = self.step(averages, _first(strategy, update), _first(strategy, rate))
            _after_update(_Weights(self, averages), averages, step, _first(strategy, counted))

        _merge(in_cross_replica_context, update, counted, rate)
        return tf.executing_eagerly()


def _merge(function, *numbers):
    # A condition around updates of mirrored variables must be outside the replicas.
    tf.__internal__.distribute.interim.maybe_merge_call(function, tf.distribute.get_strategy(), *numbers)


def _first(strategy, number):
    # Every replica has counted the same updates.
    return None if number is None else strategy.experimental_local_results(number)[0]


def _after_update(weights, averages, step, counted):
    rule, xp, copied = averages.rule, TensorFlow.xp, not averages.in_fast
    due, fast = both(rule.due(step), counted), "fast" in averages.slots

    def run(go):
        fraction, back = rule.fraction(step), rule.writes_back(step)

        def change(w, slots, dtype, constraint):
            own = tf.cast(w, slots[rule.slot].dtype)
            moved = {}
            if fast and copied:
                own = moved["fast"] = fast_after(rule, own, dtype, slots, step, counted, xp)
            for name, value in move(rule, own, slots, fraction, constraint, xp).items():
                moved[name] = chosen(go, value, slots[name], xp)
            if not rule.blend and copied:
                return moved, None
            model = model_between(rule, {**slots, **moved})
            return moved, model if fast else chosen(back, model, tf.cast(w, model.dtype), xp)

        scalars = rule.next_scalars(step)
        weights.set(change)
        for name, value in scalars.items():
            scalar = averages.scalars[name]
            value = tf.cast(value, scalar.dtype)
            scalar.assign(chosen(go, value, tf.convert_to_tensor(scalar), xp))

    def run_if(go):
        if fast or go is True:
            run(go)
        else:
            tf.cond(go, lambda: run(True), lambda: None)

    if not averages.check_finite:
        run_if(due)
        return
    if due is True:
        finite = weights.are_finite()
    else:
        finite = tf.cond(due, weights.are_finite, lambda: tf.ones(len(averages.variables), tf.bool))
    all_finite = tf.reduce_all(finite)

    def refuse():
        position = tf.argmin(tf.cast(finite, tf.int32))
        averages.refused.assign(refusal(averages, step, position, xp))

    run_if(both(due, all_finite))
    tf.cond(all_finite, lambda: None, refuse)


class _Weights:
    """All weights and their slots: small ones joined, large ones compiled."""

    def __init__(self, backend, averages):
        native = backend.native
        self.in_fast = averages.in_fast
        self.slots = {name: [native(slot) for slot in own] for name, own in averages.slots.items()}
        self.variables = [native(variable) for variable in averages.variables]
        # Where weights are joined: a slot's rows stay in front.
        self.axes = {name: 1 if slot.rows else 0 for name, slot in averages.rule.slots.items()}
        self.dtypes = [backend.dtype(variable) for variable in averages.variables]
        self.constraints = [getattr(variable, "constraint", None) for variable in averages.variables]
        places = [slot.device for slot in next(iter(self.slots.values()))]
        self.compiles = tf.test.is_built_with_xla() and all("CPU" in place for place in places)
        self.groups: list[list[int]] = []
        self.alone = list(range(len(self.variables)))
        # A mirrored variable has one copy per replica; TensorFlow must look up the right one.
        if averages.rule.elementwise and not tf.distribute.has_strategy():
            # Weights with a constraint are not joined: it may look at a whole weight.
            sizes = [
                variable.shape.num_elements() if constraint is None else math.inf
                for variable, constraint in zip(self.variables, self.constraints)
            ]
            kinds = [
                (*(tuple(own[i].shape) for own in self.slots.values()), self.dtypes[i], place)
                for i, place in enumerate(places)
            ]
            self.groups, self.alone = grouped(sizes, kinds)

    def set(self, change):
        """Set slots and models to the results of `change(weights, slots, dtype, constraint)`.

        Its weights are those that the inner optimizer has stepped to. It returns the values of slots by name, and the
        model's value or None.
        """

        def set_one(i, variable, *own):
            slots = dict(zip(self.slots, own))
            values = {name: tf.convert_to_tensor(slot) for name, slot in slots.items()}
            weights = values["fast"] if self.in_fast else variable
            moved, model = change(weights, values, self.dtypes[i], self.constraints[i])
            for name, value in moved.items():
                slots[name].assign(value)
            if model is not None:
                variable.assign(tf.cast(model, variable.dtype))

        def set_each(positions):
            for i in positions:
                set_one(i, self.variables[i], *(own[i] for own in self.slots.values()))

        for group in self.groups:
            self._set_group(group, change)
        if tf.distribute.has_strategy():
            extended = tf.distribute.get_strategy().extended
            for i in self.alone:
                own = tuple(own[i] for own in self.slots.values())
                one = functools.partial(set_one, i)
                extended.update(self.variables[i], one, args=own, group=False)
        elif tf.executing_eagerly() or not self.compiles:
            set_each(self.alone)
        else:
            # A constraint may be one that can't be compiled.
            set_each([i for i in self.alone if self.constraints[i] is not None])
            free = [i for i in self.alone if self.constraints[i] is None]
            # On CPUs memory is the limit: compiled, these take one pass over it instead of four.
            if free:
                tf.function(lambda: set_each(free), jit_compile=True, autograph=False)()

    def _set_group(self, group, change):
        slots = {name: _joined(group, own, self.axes[name]) for name, own in self.slots.items()}
        weights = slots["fast"] if self.in_fast else _joined(group, self.variables)
        moved, model = change(weights, slots, self.dtypes[group[0]], None)
        for name, value in moved.items():
            _assign_joined(group, self.slots[name], value, self.axes[name])
        if model is not None:
            _assign_joined(group, self.variables, tf.cast(model, weights.dtype))

    def are_finite(self):
        """Whether each weight is finite, in their order: a tensor of bools."""
        weights = self.slots["fast"] if self.in_fast else self.variables
        joined = [_joined(group, weights) for group in self.groups]
        order = np.argsort([i for group in self.groups for i in group] + self.alone)

        def by(test):
            found = [test(_wide(w), list(range(1, len(w.shape)))) for w in joined]
            found += [[test(_wide(weights[i]), None)] for i in self.alone]
            return tf.gather(tf.concat(found, 0), order)

        # The sum tells, and is the cheapest to compute; but of large finite numbers it need not be finite.
        quick = by(lambda w, axes: tf.math.is_finite(tf.reduce_sum(w, axes)))
        return tf.cond(
            tf.reduce_all(quick),
            lambda: quick,
            lambda: by(lambda w, axes: tf.reduce_all(tf.math.is_finite(w), axes)),
        )


def _wide(w):
    if w.dtype.is_complex:
        return tf.math.real(w) + tf.math.imag(w)
    return tf.cast(w, tf.float32) if w.dtype.name in NARROW else w


def _joined(group, own, axis=0):
    return tf.stack([own[i] for i in group], axis)


def _assign_joined(group, own, values, axis=0):
    for i, value in zip(group, tf.unstack(values, axis=axis)):
        own[i].assign(value, read_value=False)
