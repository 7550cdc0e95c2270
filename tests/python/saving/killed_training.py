"""The training that test_crash.py kills: run as a script, it saves weights and averages until then."""

import pathlib
import sys

import numpy as np

from generations import Generation

EPOCHS, BATCHES = 20, 8


def data():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(64, 4)).astype("float32")
    return x, np.sin(x.sum(axis=1, keepdims=True))


def compiled_model(generation):
    keras = generation.keras
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(64, activation="tanh"), keras.layers.Dense(1)])
    optimizer = generation.ExponentialMovingAverage(keras.optimizers.SGD(0.05), average_decay=0.9)
    model.compile(optimizer, "mse")
    return model


def fit(model, callbacks):
    x, y = data()
    model.fit(
        x,
        y,
        batch_size=len(x) // BATCHES,
        epochs=EPOCHS,
        verbose=0,
        shuffle=False,
        validation_data=(x, y),
        callbacks=callbacks,
    )


def checkpoints(generation, folder):
    """Callbacks that save weights and averages, in both formats, every 3 batches and every epoch."""
    callbacks = [generation.SwapAverages()]
    for ending in (".keras", ".weights.h5"):
        for name, save_freq in (("last", 3), ("epoch-{epoch}", "epoch")):
            settings = {"save_freq": save_freq, "save_weights_only": ending == ".weights.h5"}
            weights, averages = (
                str(pathlib.Path(folder, f"{kind}-{name}{ending}")) for kind in ("weights", "averages")
            )
            callbacks += [
                generation.keras.callbacks.ModelCheckpoint(weights, **settings),
                generation.AverageModelCheckpoint(False, averages, **settings),
            ]
    return callbacks


if __name__ == "__main__":
    generation = Generation(sys.argv[1])
    fit(compiled_model(generation), checkpoints(generation, sys.argv[2]))
