"""JAX: values in, values out; averages that are not due are not computed."""

import jax
import jax.numpy as jnp
import numpy as np

from . import both, chosen, fast_after, grouped, model_between, move, refusal
from .plain import Plain


class Jax(Plain):
    __doc__ = Plain.__doc__

    # Keras hands them to a compiled step, which frees them and returns new ones.
    loses_values = True

    def write(self, variable, value):
        # Two variables that share a buffer can't both be donated to a compiled step.
        variable.assign(jnp.copy(value) if isinstance(value, jax.Array) else value)

    def has_value(self, variable):
        value = variable._value
        return value is not None and not value.is_deleted()

    def move(self, averages, update, counted, rate):
        rule, xp, step = averages.rule, self.xp, self.step(averages, update, rate)
        weights = [variable.value for variable in averages.variables]
        slots = {name: [slot.value for slot in own] for name, own in averages.slots.items()}
        scalars = {name: scalar.value for name, scalar in averages.scalars.items()}
        go = due = both(rule.due(step), counted)
        if averages.check_finite:
            first = (
                _first_not_finite(weights)
                if due is True
                else jax.lax.cond(due, lambda: _first_not_finite(weights), lambda: jnp.asarray(np.int32(len(weights))))
            )
            finite = first == len(weights)
            refused = refusal(averages, step, first, xp)
            averages.refused.assign(jnp.where(finite, averages.refused.value, refused))
            go = both(due, finite)

        def moved(go):
            """The new slots and models, and the new scalars."""
            fraction, models = rule.fraction(step), []
            new: dict[str, list] = {name: [] for name in slots}
            for i, variable in enumerate(averages.variables):
                own = {name: slot[i] for name, slot in slots.items()}
                w, dtype = weights[i].astype(own[rule.slot].dtype), weights[i].dtype
                if "fast" in own:
                    w = own["fast"] = fast_after(rule, w, str(dtype), own, step, counted, xp)
                constraint = getattr(variable, "constraint", None)
                for name, value in move(rule, w, own, fraction, constraint, xp).items():
                    own[name] = chosen(go, value, slots[name][i], jnp)
                for name, value in own.items():
                    new[name].append(value)
                if rule.blend:
                    models.append(model_between(rule, own).astype(dtype))
            later = {name: jnp.asarray(value, scalars[name].dtype) for name, value in rule.next_scalars(step).items()}
            return new, models, {n: chosen(go, later.get(n, old), old, jnp) for n, old in scalars.items()}

        if rule.blend or rule.due(step) is True:
            # One pass together with the inner optimizer's: the results of a condition are copied first.
            new, models, later = moved(go)
        else:
            # A value assigned in a branch of a condition leaks out of it: branches return values.
            new, models, later = jax.lax.cond(go, lambda: moved(True), lambda: (slots, [], scalars))
        for name, values in new.items():
            for variable, value, w in zip(averages.slots[name], values, weights):
                if value is w:
                    self.write(variable, value)
                else:
                    variable.assign(value)
        for name, value in later.items():
            averages.scalars[name].assign(value)
        if models:
            back = True if "fast" in slots else both(go, rule.writes_back(step))
            for variable, model, own in zip(averages.variables, models, weights):
                self.write(variable, chosen(back, model, own, jnp))
        return not isinstance(averages.refused.value, jax.core.Tracer)


def _first_not_finite(weights):
    """The position of the first weight that is not finite; their number if all are."""
    # Small weights may be many: a kernel for each takes long to compile, and so does one for hundreds.
    kinds = [(w.shape, w.dtype) for w in weights]
    groups, alone = grouped([w.size for w in weights], kinds, most=32)
    nowhere = np.int32(len(weights))
    found = [jnp.where(jnp.isfinite(_total(weights[i])), nowhere, i) for i in alone]
    for group in groups:
        first = jax.lax.full_like(weights[group[0]], nowhere, nowhere.dtype)
        for i in group[::-1]:
            here = jax.lax.full_like(first, i)
            first = jax.lax.select(jnp.isfinite(weights[i]), first, here)
        found.append(jnp.min(first, initial=nowhere))
    return jnp.min(jnp.stack(found))


def _total(w):
    """A sum that is finite if every element is, however large they are."""
    w = w.astype(jnp.promote_types(w.dtype, "float32"))
    # On CPUs a product is faster than a sum.
    return jnp.sum(jnp.tensordot(jnp.full(w.shape[0], 2.0**-40, w.dtype), w, 1))
