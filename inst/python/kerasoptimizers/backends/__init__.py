"""One file per backend: reading and writing variables, and running a rule over all weights at once.

`plain.py` is the interface, written with `keras.ops` alone: any new backend of Keras gets that. The others do the
same, faster, and a test compares them with it. This file has what they share.
"""

import importlib
from typing import Any

from ..rules import lerp

_FAST = {"tensorflow": "TensorFlow", "jax": "Jax", "torch": "Torch"}

#: Types in which an average would not move: it is float32 then.
NARROW = ("float16", "bfloat16")


def named(name: str) -> Any:
    """The backend that Keras 3 calls by this name."""
    if name not in _FAST:
        return importlib.import_module(".plain", __name__).Plain()
    return getattr(importlib.import_module(f".{name}", __name__), _FAST[name])()


def both(a, b):
    """Whether a and b; None and True mean 'in any case'."""
    if a is None or a is True:
        return True if b is None else b
    return a if b is None or b is True else a & b


def chosen(go, new, old, xp):
    """`new` where `go`, otherwise `old`."""
    return (new if go else old) if isinstance(go, bool) else xp.where(go, new, old)


def move(rule, weights, slots, fraction, constraint, xp) -> dict[str, Any]:
    """The slots that move. Where the model gets the average, it must be one that the model may have."""
    moved = rule.move(weights, slots, fraction, xp)
    if rule.blend == 1 and "fast" not in slots and constraint is not None:
        moved[rule.slot] = constraint(moved[rule.slot])
    return moved


def model_between(rule, slots):
    """The point between the fast weights and their average that the model holds."""
    average = slots[rule.slot]
    if "fast" in slots and rule.blend == 0:
        return slots["fast"]
    return lerp(slots["fast"], average, float(rule.blend), None) if "fast" in slots else average


def fast_after(rule, weights, dtype, slots, step, counted, xp):
    """The fast weights after the inner optimizer's step.

    Args:
        weights: what the inner optimizer has left in the model, in the type of the slots.
        dtype: str, the model's own type.
    """
    fast = slots["fast"]
    if dtype in NARROW:
        # They keep what such a variable can't hold.
        def held(value):
            return xp.cast(xp.cast(value, dtype), fast.dtype)

        before = rule.before(held(model_between(rule, slots)), slots, step)
        weights = before + (weights - held(before))
    return weights if counted is None else xp.where(counted, weights, fast)


def refusal(averages, step, position, xp):
    """The new value of `averages.refused`: how many, and of the first one its weight and its update."""
    before = averages.refused
    count, *first = (before[i] for i in range(3))
    now = (xp.cast(value, before.dtype) for value in (position, step.update))
    return xp.stack([count + 1, *(xp.where(count > 0, old, new) for old, new in zip(first, now))])


def is_large(size: int) -> bool:
    """Whether a weight is large enough for a separate operation."""
    return size >= 2**14


def grouped(sizes, kinds, most: int = 2**16) -> tuple[list[list[int]], list[int]]:
    """Positions of the small weights, in groups of up to `most` alike ones; and the positions of the large ones.

    Small weights may be many, and a compiler takes its time for every operation: a group takes one.
    """
    groups: dict = {}
    for i, (size, kind) in enumerate(zip(sizes, kinds)):
        if not is_large(size):
            # Joining takes memory: not too many in one.
            full = min(most, 2**16 // max(size, 1))
            alike = groups.setdefault(kind, [[]])
            if len(alike[-1]) == full:
                alike.append([])
            alike[-1].append(i)
    return [group for alike in groups.values() for group in alike], [i for i, n in enumerate(sizes) if is_large(n)]
