"""Trains under tf.distribute on every averaging method, and says what each process saw.

As a program it is one worker of several, each in its own process:

    python multi_worker.py INDEX FOLDER ADDRESS,ADDRESS,... CASES

writes what `run_all()` returns to FOLDER/INDEX.npz; CASES are those of `run_all()`, as JSON.
"""

import functools
import json
import os
import sys

import numpy as np

from cases import BATCH, METHODS, X, Y, new_optimizer

# (generation, method, settings): each method plain and clipped, each way of clipping.
CASES = [
    (generation, method, settings)
    for generation in (2, 3)
    for method, settings in [
        *((method, "plain") for method in METHODS),
        ("SWA", "clipnorm-decay"),
        ("Lookahead", "global_clipnorm"),
        ("ExponentialMovingAverage", "clipnorm-decay"),
        ("MovingAverage", "global_clipnorm"),
        ("ScheduleFree", "clipnorm-decay"),
        ("LARS", "clipnorm-decay"),
        ("callbacks", "plain"),
    ]
]


def generation(number):
    """Keras and our module, of one generation."""
    if number == 3:
        import keras

        import kerasoptimizers as ours
    else:
        import tf_keras as keras

        import kerasoptimizers.tf_keras as ours
    return keras, ours


def new_model(number, optimizer, strategy, norm=False):
    keras, _ = generation(number)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        layers = [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        if norm:
            layers.insert(2, keras.layers.BatchNormalization())
        model = keras.Sequential(layers)
        model.compile(optimizer(), "mse")
    return model


def fit(number, model, strategy, epochs=3, **arguments):
    """Train on all the data, in batches over all replicas."""
    if number == 3 and os.environ.get("TF_CONFIG"):
        # Keras 3's own fit() fails on several workers, with any optimizer.
        return loop(model, strategy, epochs)
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, shuffle=False, **arguments)


def loop(model, strategy, epochs):
    import tensorflow as tf

    def replica_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / BATCH
        variables = model.trainable_variables
        grads = tape.gradient(loss, [model.optimizer.backend.native(v) for v in variables])
        model.optimizer.apply_gradients(zip(grads, variables))

    @tf.function
    def step(x, y):
        strategy.run(replica_step, args=(x, y))

    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = strategy.experimental_distribute_dataset(data.with_options(options))
    for _ in range(epochs):
        for x, y in data:
            step(x, y)


def copies(optimizer, variable):
    """The values of a variable on the replicas of this process."""
    native = optimizer.backend.native(variable)
    return [copy.numpy() for copy in getattr(native, "values", [native])]


def state(model):
    """Values of all weights and averages on each replica of this process."""
    optimizer = model.optimizer
    averages = getattr(getattr(optimizer, "averages", None), "average", [])
    variables = list(model.trainable_variables) + list(averages)
    return {f"{i}": copies(optimizer, v) for i, v in enumerate(variables)}


def run_case(number, method, settings, strategy, folder):
    """Train, swap, save, load and assign; returns {step: {variable: values by replica}}."""

    def optimizer():
        return new_optimizer(*generation(number), method, settings)

    model = new_model(number, optimizer, strategy)
    fit(number, model, strategy)
    seen = {"trained": state(model)}
    if method != "LARS":
        model.optimizer.swap_weights()
        seen["swapped"] = state(model)
        model.optimizer.swap_weights()
        seen["swapped_back"] = state(model)
    # Keras 2 can't load a .weights.h5 file with metrics under a strategy, with any optimizer.
    path = os.path.join(folder, f"{number}-{method}{'.weights.h5' if number == 3 else ''}")
    model.save_weights(path)
    again = new_model(number, optimizer, strategy)
    fit(number, again, strategy, epochs=1)
    again.load_weights(path)
    seen["loaded"] = state(again)
    fit(number, again, strategy, epochs=1)
    seen["went_on"] = state(again)
    fit(number, model, strategy, epochs=1)
    seen["went_on_unsaved"] = state(model)
    if method != "LARS":
        model.optimizer.assign_average_vars(model.trainable_variables)
        seen["assigned"] = state(model)
    return seen


def run_callbacks(number, strategy, folder):
    """Callbacks, and the statistics of batch norm; returns the same as `run_case()`."""
    keras, ours = generation(number)

    def optimizer():
        return new_optimizer(*generation(number), "SWA")

    def named(values):
        return {f"{i}": [np.asarray(value)] for i, value in enumerate(values)}

    model, seen = new_model(number, optimizer, strategy, norm=True), {}
    if number == 3:
        fit(number, model, strategy)
    else:
        validated = new_model(number, optimizer, strategy)
        # One file for all: Keras 2 lets the first worker alone write it.
        path = os.path.join(os.path.dirname(folder), "averages")
        callbacks = [
            ours.SwapAverages(),
            ours.AverageModelCheckpoint(False, path, save_weights_only=True),
        ]
        fit(number, validated, strategy, validation_data=(X, Y), callbacks=callbacks)
        seen["validated"] = named(validated.history.history["val_loss"])
        by_epoch = new_model(number, lambda: "sgd", strategy)
        fit(number, by_epoch, strategy, callbacks=[ours.SWACallback(2, "cyclic", swa_freq=2)])
        seen["by_epoch"] = named(by_epoch.get_weights())
        # The first worker has written it: they trained together since.
        validated.load_weights(path)
        seen["checkpoint"] = named(validated.get_weights())
        fit(number, model, strategy, callbacks=[ours.SWACallback(2)])
        seen["norm_by_epoch"] = named(model.get_weights())
    model.optimizer.swap_weights()
    ours.update_batch_norm(model, X, batch_size=BATCH, verbose=0)
    seen["norm"] = named(model.get_weights())
    return seen


def run_all(cases, strategy, folder):
    """The cases, as {"number/method/settings/step/variable/replica": array}, or with callbacks."""
    seen = {}
    for number, method, settings in cases:
        if method == "callbacks":
            steps = run_callbacks(number, strategy, folder)
        else:
            steps = run_case(number, method, settings, strategy, folder)
        for step, variables in steps.items():
            for variable, replicas in variables.items():
                for replica, value in enumerate(replicas):
                    key = f"{number}/{method}/{settings}/{step}/{variable}/{replica}"
                    seen[key] = value
    return seen


if __name__ == "__main__":
    index, folder, addresses = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
    cases = json.loads(sys.argv[4])
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf
    from tensorflow.python.eager import context

    # A worker that a busy machine lets wait for 10 s has not failed.
    tensorflow = context.context()
    tensorflow.configure_coordination_service = functools.partial(
        tensorflow.configure_coordination_service, heartbeat_timeout_in_ms=300_000
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    own = os.path.join(folder, str(index))
    os.mkdir(own)
    np.savez(f"{own}.npz", **run_all(cases, strategy, own))
