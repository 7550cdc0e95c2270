"""PyTorch: all weights in a few calls, and no wait for the device."""

import weakref

import torch

from ..rules import Rule, Step, host_numbers
from . import both, chosen, fast_after, model_between, move, refusal
from .plain import Plain


def is_host(tensor) -> bool:
    """Whether a tensor can be looked at without waiting for its device."""
    return tensor.device.type == "cpu"


class Torch(Plain):
    __doc__ = Plain.__doc__

    def __init__(self):
        self._counts = {}

    def count(self, variable):
        if torch.is_tensor(variable):
            return int(variable)
        # The device is asked only if something else has set the variable since.
        tensor, known = variable.value, self._counts.get(id(variable))
        if known is None or known[0] is not tensor or known[1] != tensor._version:
            self.noted(variable, int(tensor))
        return self._counts[id(variable)][2]

    def noted(self, variable, number):
        if not torch.is_tensor(variable):
            if id(variable) not in self._counts:
                weakref.finalize(variable, self._counts.pop, id(variable), None).atexit = False
            tensor = variable.value
            self._counts[id(variable)] = tensor, tensor._version, number

    def step(self, averages, update, rate):
        rule = averages.rule
        if not is_host(averages.refused.value) and (rule.scalars or rate is not None):
            return super().step(averages, update, rate)
        scalars = {
            name: self.count(scalar) if isinstance(rule.scalars[name], int) else float(scalar.value)
            for name, scalar in averages.scalars.items()
        }
        return Step(int(update), scalars, rate if rate is None else float(rate), host_numbers, averages.dtype)

    def stand_ins(self, averages):
        pairs = zip(averages.variables, averages.slots["fast"])
        return [(variable, "_value", fast.value) for variable, fast in pairs]

    def before(self, averages, update, rate):
        with torch.no_grad():
            super().before(averages, update, rate)

    def move(self, averages, update, counted, rate):
        rule, step = averages.rule, self.step(averages, update, rate)
        due = bool(both(rule.due(step), counted))
        if not due and "fast" not in averages.slots:
            return False
        variables = [variable.value for variable in averages.variables]
        slots = {name: [slot.value for slot in own] for name, own in averages.slots.items()}
        with torch.no_grad():
            go = due and self._finite(averages, step, slots["fast"] if averages.in_fast else variables)
            self._move(averages, step, variables, slots, counted, go)
        # A device that decides by itself is not asked.
        return due and go is False

    def _finite(self, averages, step, weights):
        """Whether all weights are finite: a bool, or a tensor of one where the device must not be asked."""
        host = is_host(averages.refused.value)
        if not averages.check_finite or host and _sums_are_finite(weights):
            return True
        # Their sums may be infinite even if they are not; so this looks at the elements.
        finite = torch.stack([torch.isfinite(w).all() for w in weights]) if host else _norms_are_finite(weights)
        go = bool(finite.all()) if host else finite.all()
        if go is not True:
            later = refusal(averages, step, torch.argmin(finite.int()), self.xp)
            averages.refused.assign(chosen(go, averages.refused.value, later, torch) if go is not False else later)
        return go

    def _move(self, averages, step, variables, slots, counted, go):
        rule = averages.rule
        fraction = rule.fraction(step)
        if step.xp is host_numbers:
            fraction = tuple(map(float, fraction)) if isinstance(fraction, tuple) else float(fraction)
        plain = averages.plain and type(rule).move is Rule.move
        parts = fraction if isinstance(fraction, tuple) else (fraction,)
        if plain and isinstance(go, bool) and all(isinstance(part, float) for part in parts):
            self._move_together(averages, step, variables, slots, parts, counted, go)
        else:
            self._move_each(averages, step, variables, slots, fraction, counted, go)
        if go is not False:
            for name, value in rule.next_scalars(step).items():
                scalar = averages.scalars[name]
                scalar.assign(value if go is True else torch.where(go, value, scalar.value))
                if step.xp is host_numbers and isinstance(rule.scalars[name], int):
                    self.noted(scalar, int(value))

    @staticmethod
    def _move_together(owner, step, variables, slots, fractions, counted, go):
        """The one sentence, in a call or two for all weights and each average."""
        rule, in_fast = owner.rule, owner.in_fast
        averages, blend = slots[rule.slot], float(rule.blend)
        if in_fast and is_host(averages[0]):
            # One weight after the other, while it is in the cache.
            for model, fast, average in zip(variables, slots["fast"], averages):
                if go:
                    _move_towards([average], [fast], fractions[0])
                torch.lerp(fast, average, blend, out=model)
            return
        weights = slots["fast"] if in_fast else variables
        if "fast" in slots and not in_fast and counted is not False:
            torch._foreach_copy_(slots["fast"], variables)
        for moves, fraction in zip(slots.values(), fractions if go else ()):
            _move_towards(moves, weights, fraction)
        if "fast" in slots:
            if in_fast or counted is False:
                torch._foreach_copy_(variables, slots["fast"])
            torch._foreach_lerp_(variables, averages, blend)
        elif go and rule.blend and rule.writes_back(step):
            torch._foreach_copy_(variables, averages)

    def _move_each(self, averages, step, variables, slots, fraction, counted, go):
        """Any rule, weights of any type, and a decision that only the device knows."""
        rule, in_fast = averages.rule, averages.in_fast
        back = both(go, rule.writes_back(step))
        for i, (variable, owner) in enumerate(zip(variables, averages.variables)):
            own = {name: slot[i] for name, slot in slots.items()}
            weights, new = variable.to(own[rule.slot].dtype), {}
            if in_fast:
                weights = own["fast"]
            elif "fast" in own:
                dtype = self.dtype(owner)
                new["fast"] = weights = fast_after(rule, weights, dtype, own, step, counted, self.xp)
            if go is not False:
                for name, value in move(rule, weights, own, fraction, owner.constraint, self.xp).items():
                    new[name] = chosen(go, value, own[name], torch)
            model = None
            if rule.blend or in_fast:
                model = model_between(rule, {**own, **new}).to(variable.dtype)
                model = model if "fast" in own else chosen(back, model, variable, torch)
            for name, value in new.items():
                own[name].copy_(value)
            if model is not None:
                variable.copy_(model)


def _move_towards(averages, weights, fraction):
    # Beyond one half, lerp() computes another, less exact formula.
    if fraction <= 0.5:
        torch._foreach_lerp_(averages, weights, fraction)
    elif fraction == 1.0:
        torch._foreach_copy_(averages, weights)
    else:
        torch._foreach_add_(averages, torch._foreach_sub(weights, averages), alpha=fraction)


def _sums_are_finite(weights):
    # The cheapest to compute; a sum is finite only if every element is.
    wide = any(w.dtype in (torch.float64, torch.complex128) for w in weights)
    dtype = torch.float64 if wide else torch.float32
    sums = [torch.sum(torch.view_as_real(w) if w.is_complex() else w, dtype=dtype) for w in weights]
    return bool(torch.isfinite(torch.stack(sums)).all())


def _norms_are_finite(weights):
    """Whether each weight's largest element is finite: a tensor of bools, found without a copy of the weights."""
    parts = [torch.view_as_real(w) if w.is_complex() else w for w in weights]
    # An empty weight has no largest element.
    parts = [w if w.numel() else w.new_zeros(1) for w in parts]
    return torch.isfinite(torch.stack([n.double() for n in torch._foreach_norm(parts, float("inf"))]))
