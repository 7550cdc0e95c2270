"""Record the files of this folder afresh from the original implementations on TensorFlow.

In an environment of its own, with Python 3.9 to 3.11:

    pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0 keras-swa==0.1.7
    pip install --no-deps tf-models-official==2.15.0
    python record.py             # rewrites the files
    python record.py --check     # only says how far the recorded numbers are from those

The cases (settings, initial values, gradients) stay as they are in the files.
"""

import importlib.metadata
import importlib.util
import json
import pathlib
import sys
import types

import numpy as np
import swa.tfkeras
import tensorflow as tf
import tensorflow_addons as tfa

FOLDER = pathlib.Path(__file__).parent


def model_garden(module):
    """A module of the Model Garden, without its package: that imports what we don't need."""
    path = f"official/modeling/optimization/{module}.py"
    path = importlib.metadata.distribution("tf-models-official").locate_file(path)
    spec = importlib.util.spec_from_file_location(module, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


ORIGINALS = {
    "SWA": tfa.optimizers.SWA,
    "Lookahead": tfa.optimizers.Lookahead,
    "MovingAverage": tfa.optimizers.MovingAverage,
    "ExponentialMovingAverage": model_garden("ema_optimizer").ExponentialMovingAverage,
    "LARS": model_garden("lars").LARS,
}


def run(case):
    """Variables and slot after every step of a case."""
    arguments = []
    if "inner" in case:
        inner = getattr(tf.keras.optimizers.legacy, case["inner"]["class"])
        arguments = [inner(**case["inner"]["config"])]
    optimizer = ORIGINALS[case["optimizer"]](*arguments, **case["config"])
    variables = [
        tf.Variable(np.array(value, "float32"), name=name) for name, value in zip(case["names"], case["initial"])
    ]
    if case["optimizer"] == "ExponentialMovingAverage":
        # It asks a model for its variables.
        optimizer.shadow_copy(types.SimpleNamespace(trainable_variables=variables))
    for gradients in case["gradients"]:
        gradients = [tf.constant(np.array(gradient, "float32")) for gradient in gradients]
        optimizer.apply_gradients(zip(gradients, variables))
        yield {
            "variables": [variable.numpy().tolist() for variable in variables],
            case["slot"]: [optimizer.get_slot(v, case["slot"]).numpy().tolist() for v in variables],
        }


def run_callback(case):
    """Weights after every epoch and at the end, and the learning rates, of a case of SWACallback."""
    x, y = np.array(case["x"], "float32"), np.array(case["y"], "float32")
    model = tf.keras.Sequential([tf.keras.layers.Dense(3, "tanh", input_shape=x.shape[1:]), tf.keras.layers.Dense(1)])
    model.set_weights([np.array(value, "float32") for value in case["initial"]])
    model.compile(tf.keras.optimizers.SGD(case["learning_rate"]), "mse")
    weights = []
    note = tf.keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append([w.tolist() for w in model.get_weights()])
    )
    callback = swa.tfkeras.SWA(**case["config"])
    history = model.fit(
        x,
        y,
        batch_size=case["batch_size"],
        epochs=case["epochs"],
        shuffle=False,
        verbose=0,
        callbacks=[note, callback],
    ).history
    return {
        "weights_at_epoch_end": weights,
        "final": [w.tolist() for w in model.get_weights()],
        "lr_record": [float(rate) for rate in history.get("lr", [])],
    }


def record(case):
    """The recorded part of a case, afresh."""
    return {"after_step": list(run(case))} if "optimizer" in case else run_callback(case)


def distance(old, new):
    """The largest difference between two recordings of the same form."""
    if isinstance(new, dict):
        return max(distance(old[key], new[key]) for key in new)
    if isinstance(new, list):
        assert len(old) == len(new)
        return max((distance(a, b) for a, b in zip(old, new)), default=0.0)
    return abs(old - new)


def main():
    for path in sorted(FOLDER.glob("*.json")):
        recording = json.loads(path.read_text())
        if "tensorflow" not in recording:
            continue
        largest = 0.0
        for case in recording["cases"]:
            fresh = record(case)
            largest = max(largest, distance(case, fresh))
            case.update(fresh)
        print(f"{path.name}: {len(recording['cases'])} cases, largest difference {largest:.3g}")
        if "--check" not in sys.argv[1:]:
            package = recording["recorded_from"].split()[0]
            recording["recorded_from"] = f"{package} {importlib.metadata.version(package)}"
            recording["tensorflow"] = tf.__version__
            path.write_text(json.dumps(recording))


if __name__ == "__main__":
    main()
