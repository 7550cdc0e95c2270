"""The memory that average_models() takes for many files.

    KERAS_BACKEND=tensorflow python benchmarks/soup_memory.py [--keras tf_keras] [--files 10] [--layers 12]

Writes files of about 200 MB each (2,000 MB in all) and averages them in a fresh process. Prints the peak of its memory,
less what it held before and less the new model itself, in copies of the model. Linux only.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time


def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


def write(keras, folder, files, layers):
    import numpy as np

    width = int((50e6 / layers) ** 0.5)
    dense = [keras.layers.Dense(width) for _ in range(layers)]
    model = keras.Sequential([keras.Input((width,)), *dense])
    random = np.random.default_rng(0)
    for i in range(files):
        model.set_weights([random.random(w.shape, dtype="float32") for w in model.get_weights()])
        model.save(f"{folder}/{i}.keras")


def average(keras, ours, folder, files):
    tiny = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    tiny.save(f"{folder}/tiny.keras")
    ours.average_models([f"{folder}/tiny.keras"] * 2)
    before, start = memory("VmRSS"), time.perf_counter()
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    model = ours.average_models([f"{folder}/{i}.keras" for i in range(files)])
    copy = model.count_params() * 4 / 2**20
    more, seconds = (memory("VmHWM") - before - copy) / copy, time.perf_counter() - start
    print(f"{files} files of {copy:.0f} MiB: {more:.2f} copies besides the new model, {seconds:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keras", default="keras", choices=["keras", "tf_keras"])
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--step", choices=["write", "average"])
    parser.add_argument("--folder")
    args = parser.parse_args()
    if args.step is None:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("write", "average"):
                subprocess.run([sys.executable, *sys.argv, "--step", step, "--folder", folder], check=True)
        return
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "inst", "python"))
    keras = importlib.import_module(args.keras)
    if args.step == "write":
        write(keras, args.folder, args.files, args.layers)
    else:
        ours = importlib.import_module("kerasoptimizers" + (".tf_keras" if args.keras == "tf_keras" else ""))
        average(keras, ours, args.folder, args.files)


if __name__ == "__main__":
    main()
