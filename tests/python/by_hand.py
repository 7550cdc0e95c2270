"""Rules and inner optimizers in float64 NumPy: what optimizers and backends are held against."""

import numpy as np

from kerasoptimizers.rules import Rule, Step, host_numbers


class ByHand:
    """Weights averaged as a rule says.

    Attributes:
        models: list of arrays, what the model's variables hold.
        slots: list of dicts of arrays, for each weight its slots by name.
        scalars: dict of the rule's scalars.
    """

    def __init__(self, rule: Rule, initial):
        self.rule, self.updates, self.scalars = rule, 0, dict(rule.scalars)
        self.models = [np.array(value, "float64") for value in initial]
        self.slots = [
            {
                name: np.broadcast_to(w if slot.start == "weights" else 0.0, slot.shape(w.shape)).copy()
                for name, slot in rule.slots.items()
            }
            for w in self.models
        ]

    def step(self, rate=None) -> Step:
        return Step(self.updates, self.scalars, rate, host_numbers, "float64")

    def update(self, inner, rate=None):
        """One update. `inner(weights, rate)` returns the weights after the inner optimizer's step."""
        rule, weights = self.rule, self.models
        factor = rule.rate_factor(self.step())
        step = self.step(rate if factor is None else rate * factor)
        if "fast" in rule.slots:
            weights = [rule.before(w, slots, step) for w, slots in zip(weights, self.slots)]
        weights = inner(weights, step.rate)
        due, fraction, scalars = rule.due(step), rule.fraction(step), rule.next_scalars(step)
        for i, (w, slots) in enumerate(zip(weights, self.slots)):
            slots.update({"fast": w} if "fast" in slots else {})
            slots.update(rule.move(w, slots, fraction, host_numbers) if due else {})
            average, blend = slots[rule.slot], rule.blend if due and rule.writes_back(step) else 0.0
            blend = rule.blend if "fast" in slots else blend
            self.models[i] = w + blend * (average - w)
        self.scalars.update(scalars if due else {})
        self.updates += 1


class Inner:
    """SGD, Adam or AdamW in Keras's form, made from a recorded case's `inner`."""

    def __init__(self, inner):
        settings = {"learning_rate": 0.01, "momentum": 0.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
        self.kind, self.settings = inner["class"], {**settings, **inner["config"]}
        self.steps, self.first, self.second = 0, 0.0, 0.0

    def __call__(self, weights, gradients, rate=None):
        """The weights after one step; `rate` is the learning rate, that of the case when None."""
        settings = self.settings
        rate = settings["learning_rate"] if rate is None else rate
        sizes = np.cumsum([w.size for w in weights])[:-1]
        w, g = (np.concatenate([np.ravel(value) for value in values]) for values in (weights, gradients))
        self.steps += 1
        if self.kind == "SGD":
            self.first = settings["momentum"] * self.first + g
            w = w - rate * (g + settings["momentum"] * self.first if settings.get("nesterov") else self.first)
        else:
            one, two = settings["beta_1"], settings["beta_2"]
            self.first = one * self.first + (1 - one) * g
            self.second = two * self.second + (1 - two) * g**2
            w = w * (1 - rate * settings.get("weight_decay", 0.0))
            rate = rate * np.sqrt(1 - two**self.steps) / (1 - one**self.steps)
            w = w - rate * self.first / (np.sqrt(self.second) + settings["epsilon"])
        return [part.reshape(old.shape) for part, old in zip(np.split(w, sizes), weights)]
