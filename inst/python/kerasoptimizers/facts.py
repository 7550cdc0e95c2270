"""Facts about optimizers, in plain numbers and strings: what R prints and draws of them."""

import inspect
import math
import numbers
import re
from typing import Any

import numpy as np

from .optimizer import AveragingOptimizer, innermost
from .rules import Step, host_numbers

# In every optimizer's configuration, but not chosen by a user.
_NOT_SETTINGS = (
    "name",
    "optimizer",
    "inner_optimizer",
    "learning_rate",
    "is_legacy_optimizer",
    "jit_compile",
)


def facts(optimizer):
    """Describe an optimizer: its settings, and how far it has come.

    Nothing is created or changed, so it may be asked before training too.

    Args:
        optimizer: one of this package's optimizers, of either Keras generation.

    Returns:
        Dict with `method` (name of the class), `name`, `settings` (dict of its arguments that are
        not None), `learning_rate` (float: that of the next update, before `decay` and warm-up; None
        where there are several), `schedule` (name of the class that gives it, or None) and `updates` (int, made
        so far). For an averaging optimizer also `inner` (its inner optimizer's `method` and
        `settings`, of which only those that are not the default), `built` (bool), `has_average`
        (bool), `swapped` (bool: the model holds the averages now), `snapshots` (int; None where the
        method takes none), `refused` (int, how often the average did not move because a weight was
        not finite), `next_due` (int, number of the update, counted from 0, after which the average
        moves next; None while that depends on a `fit()` to come) and `bytes` (dict of floats: `weights`, of those
        that are averaged, `averages` and `inner`, the inner optimizer's variables). These are None for LARS.
    """
    config = optimizer.get_config()
    counter = _counter(optimizer)
    rate, schedule = _learning_rate(optimizer)
    found = {
        "method": type(optimizer).__name__,
        "name": optimizer.name,
        "settings": _settings(config),
        "inner": None,
        "learning_rate": rate,
        "schedule": schedule,
        "updates": 0 if counter is None else int(optimizer.backend.numpy(optimizer.iterations)),
        **dict.fromkeys(("built", "has_average", "swapped", "snapshots", "refused")),
        **dict.fromkeys(("next_due", "bytes")),
    }
    if isinstance(optimizer, AveragingOptimizer):
        inner, averages = optimizer.optimizer, optimizer.averages
        found.update(
            # The method's own come first; that weights are checked goes without saying.
            settings=_settings(
                {**optimizer.given, **config, "check_finite": None if config["check_finite"] else False}
            ),
            inner={
                "method": type(inner).__name__,
                "settings": _settings(inner.get_config(), _defaults(type(inner))),
            },
            built=optimizer.has_shadow_copy,
            has_average=optimizer.has_average,
            swapped=averages.shown,
            snapshots=getattr(optimizer, "snapshots", None),
            refused=optimizer.refused,
            next_due=averages.rule.next_due(found["updates"]) if getattr(optimizer, "start_is_known", True) else None,
            bytes={
                "weights": _bytes(averages.variables),
                "averages": _bytes(optimizer.all_slots()),
                "inner": _bytes(_variables(inner) if optimizer.has_shadow_copy else []),
            },
        )
    return found


def course(optimizer, updates):
    """Learning rates of the first updates, and whether the average moves after them.

    Args:
        optimizer: one of this package's optimizers.
        updates: int >= 1, how many.

    Returns:
        Dict of two arrays of shape (updates,): `learning_rate` (float64, after `decay` and
        warm-up; NaN where there are several) and `due` (bool; nowhere for LARS, which has no average).
    """
    counts = np.arange(updates)
    schedule = _schedule(optimizer)
    if schedule is None:
        rate, _ = _learning_rate(optimizer)
        values = np.full(updates, np.nan if rate is None else rate)
    else:
        values = rates(schedule, updates)
    due: Any = False
    if isinstance(optimizer, AveragingOptimizer):
        values, rule = values / (1.0 + (optimizer.decay or 0.0) * counts), optimizer.averages.rule
        # In the first updates, what counts them has their numbers.
        scalars = {name: counts for name, start in rule.scalars.items() if isinstance(start, int)}
        factor = rule.rate_factor(Step(counts, scalars, None, host_numbers))
        values = values if factor is None else values * factor
        due = rule.due(Step(counts, scalars, values, host_numbers))
    return {"learning_rate": values, "due": np.broadcast_to(due, updates).copy()}


def rates(schedule, updates):
    """The first rates of a Keras learning-rate schedule.

    Args:
        schedule: Keras learning-rate schedule of either generation.
        updates: int >= 1, how many.

    Returns:
        float64 array of shape (updates,).
    """
    counts = np.arange(updates)
    try:
        values = np.array(schedule(counts), dtype="float64")
        if values.shape == counts.shape:
            return values
    except Exception:
        pass  # whatever a schedule for scalars makes of an array
    # One by one, where it takes scalars only; a line between those of a thousand will do.
    some = np.unique(np.linspace(0, len(counts) - 1, min(len(counts), 1000)).astype(int))
    return np.interp(counts, counts[some], [_number(schedule(int(n))) for n in counts[some]])


def _counter(optimizer):
    """The variable that counts; None in an optimizer of the old kind that has yet to make one."""
    return getattr(innermost(optimizer), "_iterations", None)


def _schedule(optimizer):
    """The learning-rate schedule of the innermost optimizer, or None."""
    inner = innermost(optimizer)
    rate = getattr(inner, "_learning_rate", None)
    if rate is None:
        rate = getattr(inner, "learning_rate", None)  # the old kind shows its schedule
    return rate if callable(rate) and hasattr(rate, "get_config") else None


def _learning_rate(optimizer):
    """(rate now, name of the schedule that it is from), each None where there is none."""
    schedule = _schedule(optimizer)
    if schedule is not None:
        counter = _counter(optimizer)
        return _number(schedule(0 if counter is None else counter)), type(schedule).__name__
    try:
        return _number(innermost(optimizer).learning_rate), None
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None, None  # a MultiOptimizer has several


def _number(value):
    return float(value.numpy() if hasattr(value, "assign") else value)


def _settings(config, defaults=None):
    """A configuration's plain values that are not None and, where defaults are given, not the default."""
    if defaults is not None:
        config = {name: value for name, value in config.items() if not _same(value, defaults.get(name, False))}
    if not config.get("use_ema"):
        config = {name: value for name, value in config.items() if "ema" not in name.split("_")}
    return {
        name: value
        for name, value in config.items()
        if name not in _NOT_SETTINGS and value is not None and not isinstance(value, dict)
    }


def _same(value, default):
    """Whether a value is the default, but for its rounding to float32."""
    if isinstance(default, float) and isinstance(value, numbers.Real):
        return math.isclose(value, default, rel_tol=1e-6)
    if isinstance(default, tuple):
        return list(value) == list(default)
    return value == default or (value == [] and default is None)


def _defaults(kind):
    """The defaults of an optimizer class's arguments."""
    # It may take these without naming them.
    defaults: dict[str, Any] = {"check_finite": True, "decay": 0.0}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base is not object:
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                if parameter.default is not parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def _variables(optimizer):
    variables = optimizer.variables
    return variables() if callable(variables) else variables


def _bytes(variables):
    def width(variable):
        name = getattr(variable.dtype, "name", variable.dtype)
        bits = re.search(r"\d+", str(name))
        return int(bits.group()) // 8 if bits else 1

    return float(sum(math.prod(variable.shape) * width(variable) for variable in variables))


def posterior_facts(swag, scale):
    """Describe a posterior, weight by weight.

    Args:
        swag: a `SWAG`.
        scale: float, that of the draws.

    Returns:
        Dict with `snapshots`, `rank`, `columns` (how many deviations there are), `bytes`, and lists with an element for
        each weight: `names`, `shapes` (as text) and `sizes`, `norms` (float, of the mean: the root of its mean
        square), `low_rank` (float, the part of the draws' variance that is from the deviations, or None without
        variance), and `deviations` (5 floats: of the standard deviations of the draws, the 5, 25, 50, 75 and 95 per
        cent quantiles).
    """
    state = swag.posterior.state
    found: dict[str, Any] = {
        "snapshots": state.snapshots,
        "rank": swag.rank,
        "columns": len(state.columns),
        "bytes": float(sum(a.nbytes for arrays in (state.mean, state.squares, *state.columns) for a in arrays)),
        "names": list(state.names),
        "shapes": [" x ".join(map(str, mean.shape)) or "1" for mean in state.mean],
        "sizes": [int(mean.size) for mean in state.mean],
        "norms": [float(np.sqrt(np.mean(mean**2))) for mean in state.mean],
        "low_rank": [],
        "deviations": [],
    }
    for variance, columns in zip(swag.variance, swag.deviations):
        low_rank = (columns.astype("float64") ** 2).sum(0) / max(len(columns) - 1, 1)
        both = variance + low_rank
        found["low_rank"].append(float(low_rank.sum() / both.sum()) if both.sum() > 0 else None)
        levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
        found["deviations"].append(np.quantile(np.sqrt(scale * both), levels).tolist())
    return found
