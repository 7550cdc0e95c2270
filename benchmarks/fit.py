"""Times of what fit.R measures, from Python: one line of JSON."""

import json
import statistics

import keras
import numpy as np
from kit import Kit, mlp, timed

kit = Kit("tensorflow")
model, _, _ = mlp(keras)
random = np.random.default_rng(1)
x, y = random.normal(size=(3200, 512)), random.integers(10, size=3200)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(kit.optimizer("swa"), loss)


def fit():
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)


fit()
print(json.dumps({"fit": statistics.median(timed(fit) for _ in range(3))}))
