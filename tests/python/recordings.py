"""The original implementations' recorded numbers, compared with ours step by step."""

import json
import pathlib

import numpy as np
import pytest

#: Those of methods' later arguments.
LATER = ("EMADecays", "LookaheadInnerState", "LookaheadOuter")
#: All that averaging optimizers are held against, step by step.
RECORDED = ("SWA", "Lookahead", "ExponentialMovingAverage", "MovingAverage", "ScheduleFree", "PrimalAveraging", *LATER)
PARITY = pathlib.Path(__file__).parents[1] / "parity"


def recording(file):
    """All that a file holds."""
    return json.loads((PARITY / f"{file}.json").read_text())


def cases(*files, where=lambda case: True):
    """The recorded cases of averaging optimizers, as parameters of a test."""
    return [
        pytest.param(ema_case(case) if "library" in case else case, id=f"{file}-{i}")
        for file in files
        for i, case in enumerate(recording(file)["cases"])
        if where(case) and is_meant(case)
    ]


def is_meant(case):
    """Whether we want the same: no quirk, and no slow step after the first fast one, as SNOO's authors count."""
    early = "first_sync" in case and case["first_sync"] != case["config"]["sync_period"]
    return "quirk" not in case and not early


def method_of(case, module):
    """The class of a module that a case was recorded for: the authors of Schedule-Free have several."""
    name = case["optimizer"]
    return getattr(module, "ScheduleFree" if name.endswith("ScheduleFree") else name)


def ema_case(case):
    """A case of another library's moving average, with our arguments.

    "copied" holds the calls after which their average is a copy of the weights once more, and ours is not: it started
    as one. "mixed" holds those after which the model gets only a part of the average; we have no argument for that.
    "begins" is the first call after which theirs is an average.
    """
    theirs, library = case["config"], case["library"].split()[0]
    start, ours, copied, mixed, begins = theirs.get("update_after_step", 0), {"dynamic_decay": False}, [], [], 1
    warm_up = {
        "warmup_gamma": theirs.get("warmup_gamma", theirs.get("inv_gamma", 1.0)),
        "warmup_power": theirs.get("warmup_power", theirs.get("power", 2 / 3)),
        "min_decay": theirs.get("min_decay", theirs.get("min_value", 0.0)),
    }
    if library == "timm" and not theirs.get("use_warmup"):
        ours |= {"average_decay": theirs["decay"], "start_step": 0 if "step" in theirs else start + 2}
    elif library == "timm" or theirs.get("use_ema_warmup"):
        ours |= {"average_decay": theirs["decay"], "start_step": start + 1, **warm_up}
    elif library == "diffusers":
        ours = {"average_decay": theirs.get("decay", 0.9999), "start_step": start + 1}
        copied = [start + 1]
    elif library == "torch":
        ours |= {"average_decay": theirs["decay"], "start_step": 2}
    elif library == "keras":
        ours |= {"average_decay": theirs["ema_momentum"], "start_step": 2}
        ours["overwrite_period"] = theirs.get("ema_overwrite_frequency")
    elif library == "composer":
        first, period = (int(theirs.get(name, "1ba")[:-2]) for name in ("ema_start", "update_interval"))
        ours |= {"start_step": first + 1, "update_period": period}
        half_life = theirs["half_life"]
        ours |= {"half_life": int(half_life[:-2])} if half_life else {"average_decay": theirs["smoothing"]}
        copied, begins = [first], first
    else:
        # The first call makes their average; ours exists before.
        start, period = theirs.get("update_after_step", 100), theirs.get("update_every", 10)
        decay = theirs.get("beta", 0.9999) ** (1 / period)
        ours |= {"average_decay": decay, "start_step": start, "update_period": period, **warm_up}
        every = theirs.get("update_model_with_ema_every")
        if "update_model_with_ema_beta" in theirs:
            mixed = range(every, case["steps"], every)
        else:
            ours["overwrite_period"] = every
        case = {
            **case,
            "initial": case["after_step"][0]["variables"],
            "gradients": case["gradients"][1:],
            "after_step": case["after_step"][1:],
            "decays": case["decays"][1:],
            "share": theirs.get("update_model_with_ema_beta"),
        }
    new = {"optimizer": "ExponentialMovingAverage", "config": ours}
    return {**case, **new, "copied": copied, "mixed": mixed, "begins": begins}


def assert_equal(actual, recorded, what, tolerance=1e-6, least=0.0):
    # Relative to the largest element, or to `least` if that is more: both sides are rounded to float32 at every step,
    # and a weight may pass through zero.
    recorded = np.array(recorded)
    error = np.max(np.abs(actual - recorded)) / max(np.max(np.abs(recorded)), least)
    assert error < tolerance, f"{what}: off by {error:.2g} of the largest element"


#: Names of slots in the recordings that are not ours.
SLOTS = {"slow_momentum": "velocity"}


def assert_every_step_equals(case, optimizer, variables, apply):
    """Run `apply(gradients)` for each recorded step, and compare variables and slots after it."""
    for step, gradients in enumerate(case["gradients"], 1):
        if "learning_rates" in case:
            optimizer.learning_rate = case["learning_rates"][step - 1]
        apply([np.array(gradient, "float32") for gradient in gradients])
        for variable in variables:
            if step in case.get("copied", ()):
                optimizer.get_slot(variable, "average").assign(variable)
            if step in case.get("mixed", ()):
                average = optimizer.get_slot(variable, "average").numpy()
                variable.assign(case["share"] * variable.numpy() + (1 - case["share"]) * average)
        assert_step_equals(case, step - 1, optimizer, variables)


def assert_step_equals(case, step, optimizer, variables):
    """Compare variables and slots with those recorded after a step; the first is 0."""
    # Before SWA's first snapshot its slot has no meaning.
    first = max(case["config"].get("start_averaging", 0), case.get("begins", 1) - 1)
    names = case.get("slots", [case.get("slot")]) if step >= first else []
    if not case["config"].get("slow_momentum", True):
        names = ["slow"]
    from_zero, recorded = ZeroStart(case), case["after_step"][step]
    for i, variable in enumerate(variables):
        where, tolerance = f"step {step}, variable {i}", case.get("tolerance", 1e-6)
        start = np.max(np.abs(case["initial"][i]))
        assert_equal(variable.numpy(), recorded["variables"][i], where, tolerance, start)
        for name in names:
            # Small differences of weights have the rounding of these.
            least = max(1.0, start) if "momentum" in name else start
            if name == "momentum":
                # PyTorch's is multiplied by the learning rate when it is used.
                found = momentum_of(optimizer, variable).numpy() / -case["inner"]["config"]["learning_rate"]
            else:
                found = optimizer.get_slot(variable, SLOTS.get(name, name)).numpy()
            found = found - from_zero.bias(step, i)
            assert_equal(found, recorded[name][i], f"{where}, {name}", tolerance, least)


def momentum_of(optimizer, variable):
    """The inner optimizer's momentum, by the name that its Keras has for it."""
    try:
        return optimizer.get_slot(variable, "momentum")
    except ValueError:
        return optimizer.get_slot(variable, "m")


class ZeroStart:
    """The Model Garden's averages start at zero, ours as a copy of the weights.

    Ours minus theirs is the starting weights times the product of the decays.
    """

    def __init__(self, case):
        self.initial = [np.array(value) for value in case["initial"]]
        self.products = np.zeros(case["steps"])
        if case["optimizer"] == "ExponentialMovingAverage" and "library" not in case:
            config = {"average_decay": 0.99, "start_step": 0, "dynamic_decay": True, **case["config"]}
            since = np.arange(1, case["steps"] + 1) - config["start_step"]
            decays = np.full(case["steps"], config["average_decay"])
            if config["dynamic_decay"]:
                decays = np.minimum(decays, (1 + since) / (10 + since))
            self.products = np.cumprod(np.where(since < 0, 0.0, decays))

    def bias(self, step, i):
        return self.products[step] * self.initial[i]
