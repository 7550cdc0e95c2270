"""How wide an average is, in the words of each method: `sigma_rel`, a decay or a half-life.

The width is the standard deviation of the updates that an average holds, each counted by its weight in the average.
An exponential average keeps its width, in updates; that of a power average is a fixed part of all updates so far.
"""

import math
from typing import Any

import numpy as np

from . import arguments

#: The width of the equal average of all updates, 1 / sqrt(12): no power average is wider.
WIDEST = 1.0 / math.sqrt(12.0)

_ALLOWED = "a number > 0 and at most 0.2887 (1 / sqrt(12))"


def gamma_of(sigma_rel: float) -> float:
    """The power of t that gives an average this width: arXiv 2312.02696, equation 126."""
    # 0.2887 is 1 / sqrt(12), rounded up; at the end itself the equal average has to be exact.
    if sigma_rel >= WIDEST * (1.0 - 1e-9):
        return 0.0
    s = sigma_rel**-2
    return float(max(np.roots([1.0, 7.0, 16.0 - s, 12.0 - s]).real))


def sigma_of(gamma: float) -> float:
    """The width of the average in which update t counts as t^gamma."""
    return math.sqrt((gamma + 1.0) / ((gamma + 2.0) ** 2 * (gamma + 3.0)))


def width(name: str, value: Any) -> float:
    """A checked width of a power average."""
    return arguments.real(name, value, _ALLOWED, lambda x: 0 < x <= 0.2887)


def widths(name: str, value: Any) -> list[float]:
    """Checked widths: of one, or of a list of different ones."""
    if not isinstance(value, (list, tuple, np.ndarray)) or getattr(value, "ndim", 1) == 0:
        return [width(name, value)]
    found = [width(name, one) for one in value]
    if not found or len({gamma_of(one) for one in found}) < len(found):
        raise ValueError(f"`{name}` must hold at least one width, and each only once, not {arguments.in_short(value)}.")
    return found


def average_width(
    sigma_rel: float | None = None,
    average_decay: float | None = None,
    half_life: float | None = None,
    updates: int | None = None,
) -> dict[str, float | int | None]:
    """Translate the width of an average: `sigma_rel`, `average_decay` and `half_life` of equally wide averages.

    The width is the standard deviation of the updates in the average, counted by their weights. `PowerAverage`
    widens with training: it has the width `sigma_rel * updates`. An `ExponentialMovingAverage` has the same width
    always: sqrt(average_decay) / (1 - average_decay), which is about `half_life` / 0.69.

    Args:
        sigma_rel: float > 0, at most 0.2887; the width as a part of all updates.
        average_decay: float > 0 and < 1, per update.
        half_life: float > 0, in updates.
        updates: int >= 1, how many were made; needed between `sigma_rel` and the other two.

    Returns:
        Dict with `sigma_rel`, `gamma` (in the power average update t counts as t ** gamma), `average_decay`,
        `half_life`, `width` (in updates) and `updates`. None means that `updates` is needed, or is the `sigma_rel`
        of an average that is wider than that of all updates.

    Raises:
        TypeError, ValueError: for an argument that is not as described, or if not exactly one of the first three
            is given.

    References:
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv 2312.02696.
    """
    given = {"sigma_rel": sigma_rel, "average_decay": average_decay, "half_life": half_life}
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError("Give exactly one of `sigma_rel`, `average_decay` and `half_life`.")
    updates = arguments.optional(lambda name, value: arguments.whole(name, value, 1), "updates", updates)
    found: float | None = None
    if sigma_rel is not None:
        sigma_rel = width("sigma_rel", sigma_rel)
        found = sigma_rel * updates if updates else None
        if found is not None:
            # 1 - decay, from sqrt(decay) / (1 - decay) = width.
            fraction = 2.0 / (1.0 + math.sqrt(1.0 + 4.0 * found**2))
            average_decay = 1.0 - fraction
            half_life = -math.log(2.0) / math.log1p(-fraction)
    else:
        if half_life is not None:
            half_life = arguments.positive("half_life", half_life)
            rate = math.log(2.0) / half_life
            average_decay = math.exp(-rate)
        else:
            average_decay = arguments.real(
                "average_decay", average_decay, "a number > 0 and < 1", lambda decay: 0 < decay < 1
            )
            rate = -math.log(average_decay)
            half_life = math.log(2.0) / rate
        found = math.exp(-rate / 2.0) / -math.expm1(-rate)
        relative = found / updates if updates else None
        sigma_rel = relative if relative is not None and relative <= WIDEST else None
    return {
        "sigma_rel": sigma_rel,
        "gamma": None if sigma_rel is None else gamma_of(sigma_rel),
        "average_decay": average_decay,
        "half_life": half_life,
        "width": found,
        "updates": updates,
    }
