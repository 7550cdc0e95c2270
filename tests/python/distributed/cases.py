"""What all tests on several devices and workers train: data, and methods with settings that show in few steps."""

import numpy as np

METHODS = {
    "SWA": {"start_averaging": 2, "average_period": 3},
    "Lookahead": {"sync_period": 4},
    "ExponentialMovingAverage": {"average_decay": 0.9},
    "MovingAverage": {"average_decay": 0.9, "start_step": 2},
    "PowerAverage": {"sigma_rel": (0.1, 0.2)},
    "PrimalAveraging": {"eval_interpolation": 0.9},
    "ScheduleFree": {"warmup_steps": 4, "weight_decay_at_y": 0.1},
    "LARS": {},
}
SETTINGS = {
    "plain": {},
    "clipnorm-decay": {"clipnorm": 0.1, "decay": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
}
BATCH = 16
X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = 2 * X[:, :1] - X[:, 1:2] ** 2


def new_optimizer(keras, ours, method, settings="plain", **more):
    """An optimizer of `ours`, the package's module for this Keras."""
    arguments = {**METHODS[method], **SETTINGS[settings], **more}
    if method == "LARS":
        return ours.LARS(0.5, **arguments)
    return getattr(ours, method)(keras.optimizers.SGD(0.05, momentum=0.9), **arguments)
