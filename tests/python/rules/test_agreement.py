"""The same 200 updates in every Keras: weights and averages agree with those on TensorFlow."""

import importlib.util

import numpy as np
import pytest

from generations import METHODS
from processes import run_python

pytestmark = [pytest.mark.once, pytest.mark.long]

UPDATES = 200
SLOTS = {"SWA": "average", "Lookahead": "slow", "LARS": "momentum"}
CASES = [(method, inner) for method in METHODS for inner in ("SGD", "Adam")] + [("LARS", None)]
IDS = [f"{method}-{inner}" if inner else method for method, inner in CASES]
# What to import, and the backend, for each way to run the same problem.
WAYS = {
    "tensorflow": ("keras", "tensorflow"),
    "jax": ("keras", "jax"),
    "torch": ("keras", "torch"),
    "Keras 2": ("tf_keras", "tensorflow"),
}
NEEDS = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch", "Keras 2": "tf_keras"}

# Runs in a separate process: module, file to write. All its random numbers come from NumPy.
SCRIPT = f"""
import importlib, sys
import numpy as np

module, path = sys.argv[1:]
keras = importlib.import_module(module)
ours = importlib.import_module("kerasoptimizers" + (".tf_keras" if module == "tf_keras" else ""))
random = np.random.default_rng(0)
x = random.normal(size=(1600, 4)).astype("float32")
y = np.tanh(x @ random.normal(size=(4, 2)).astype("float32")) + 0.1 * random.normal(size=(1600, 2))
start = [random.normal(size=shape).astype("float32") / 2 for shape in ((4, 8), (8,), (8, 2), (2,))]
inner = {{
    "SGD": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.005),
}}
arguments = {{
    "SWA": dict(start_averaging=50, average_period=7),
    "Lookahead": dict(sync_period=6),
    "ExponentialMovingAverage": dict(average_decay=0.95),
    "MovingAverage": dict(average_decay=0.9, start_step=20),
    "ScheduleFree": dict(warmup_steps=20, weight_decay_at_y=0.01),
    "PowerAverage": dict(sigma_rel=(0.1, 0.2)),
    "PrimalAveraging": dict(eval_interpolation=0.95),
}}
found = {{}}
for name, (method, optimizer) in zip({IDS!r}, {CASES!r}):
    if optimizer is None:
        # Steps so long that they overshoot would let the last bit of rounding grow.
        optimizer = ours.LARS(1.0, weight_decay_rate=1e-3, eeta=0.005)
    else:
        optimizer = getattr(ours, method)(inner[optimizer](), **arguments[method])
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)
    ])
    model.set_weights(start)
    model.compile(optimizer, "mse")
    model.fit(x, y.astype("float32"), batch_size=16, epochs={UPDATES} // 100, shuffle=False, verbose=0)
    slot = {SLOTS!r}.get(method, "average")
    found[name + "/updates"] = int(optimizer.iterations)
    for i, v in enumerate(model.trainable_variables):
        found[f"{{name}}/weight {{i}}"] = v.numpy()
        found[f"{{name}}/{{slot}} {{i}}"] = optimizer.get_slot(v, slot).numpy()
    moved = [np.max(np.abs(a - b)) for a, b in zip(model.get_weights(), start)]
    assert min(moved) > 0.01, (name, moved)
np.savez(path, **found)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A function that gives the numbers of a way, run when first asked for."""
    known = {}
    folder = tmp_path_factory.mktemp("agreement")

    def run(way):
        if importlib.util.find_spec(NEEDS[way]) is None:
            pytest.skip(f"{NEEDS[way]} is not installed: agreement with {way} was not tested")
        if way not in known:
            module, backend = WAYS[way]
            file = folder / f"{way}.npz"
            done = run_python("-c", SCRIPT, module, file, KERAS_BACKEND=backend)
            known[way] = dict(np.load(file)) if done.returncode == 0 else done.stderr[-2000:]
        if isinstance(known[way], str):
            pytest.fail(f"the run on {way} ended with an error: {known[way]}")
        return known[way]

    return run


@pytest.mark.parametrize("way", [way for way in WAYS if way != "tensorflow"])
@pytest.mark.parametrize("name", IDS)
def test_weights_and_averages_agree_with_those_on_tensorflow(way, name, results):
    expected, found = results("tensorflow"), results(way)
    assert expected.keys() == found.keys()
    compared = [key for key in expected if key.startswith(f"{name}/")]
    assert len(compared) == 9
    for key in compared:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-5, atol=1e-5, err_msg=key)
    assert found[f"{name}/updates"] == UPDATES
