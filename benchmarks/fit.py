"""Times of what fit.R measures, from Python: one line of JSON."""

import json
import statistics

import keras
import numpy as np
from kit import Kit, mlp, timed

kit = Kit("tensorflow")
random = np.random.default_rng(1)
x, y = random.normal(size=(3200, 512)), random.integers(10, size=3200)


def time_fit(optimizer):
    model, _, _ = mlp(keras)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def fit():
        model.fit(x, y, batch_size=32, epochs=3, verbose=0)

    fit()
    return statistics.median(timed(fit) for _ in range(3))


plain, ours = time_fit(kit.sgd()), time_fit(kit.optimizer("swa"))
print(json.dumps({"fit": ours, "fit, plain SGD": plain}))
