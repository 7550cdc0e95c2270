"""Trains on every averaging method with PyTorch's DistributedDataParallel, one of several workers.

    python torch_worker.py INDEX FOLDER NUMBER

writes to FOLDER/INDEX.npz the weights and averages of each case, after each step. The workers find
each other through FOLDER/rendezvous.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import kerasoptimizers  # noqa: E402
from cases import BATCH, METHODS, SETTINGS, X, Y, new_optimizer  # noqa: E402


def new_model(method, settings):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]).to("cpu")
    return model, new_optimizer(keras, kerasoptimizers, method, settings)


def train(model, optimizer, index, number, epochs):
    """Each worker takes its share of each batch; gradients are the mean over the workers."""
    replica = torch.nn.parallel.DistributedDataParallel(model) if number > 1 else model
    share = BATCH // number
    for _ in range(epochs):
        for start in range(index * share, len(X), BATCH):
            x, y = torch.tensor(X[start : start + share]), torch.tensor(Y[start : start + share])
            model.zero_grad()
            torch.mean((replica(x) - y) ** 2).backward()
            variables = model.trainable_variables
            optimizer.apply([v.value.grad for v in variables], variables)


def run_case(method, settings, index, number):
    model, optimizer = new_model(method, settings)
    seen = {}

    def note(step):
        for i, variable in enumerate(model.trainable_variables):
            seen[f"{step}/weights/{i}"] = variable.numpy().copy()
        for i, variable in enumerate(getattr(getattr(optimizer, "averages", None), "average", [])):
            seen[f"{step}/averages/{i}"] = variable.numpy().copy()

    train(model, optimizer, index, number, 3)
    note("trained")
    if method != "LARS":
        optimizer.swap_weights()
        note("swapped")
        optimizer.swap_weights()
        note("swapped back")
    train(model, optimizer, index, number, 1)
    note("trained on")
    if method != "LARS":
        optimizer.assign_average_vars(model.trainable_variables)
        note("assigned")
    return {f"{method}/{settings}/{key}": value for key, value in seen.items()}


if __name__ == "__main__":
    index, folder, number = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    if number > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=number
        )
    seen = {}
    for method in METHODS:
        for settings in SETTINGS:
            seen.update(run_case(method, settings, index, number))
    np.savez(os.path.join(folder, f"{index}.npz"), **seen)
    if number > 1:
        torch.distributed.destroy_process_group()
