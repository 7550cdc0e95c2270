"""The parts of the benchmarks. Each runs in a separate process for each backend: see run.py."""

import argparse
import gc
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from kit import (
    BACKENDS,
    BATCH,
    BLOCK,
    TASKS,
    Kit,
    TorchLoop,
    cnn,
    interleave,
    mlp,
    mlp_with_batch_norm,
    ratios,
    rows,
    timed,
)


def in_turns(runs, options, reference, **settings):
    """`interleave()` for about as long as the options say, on whatever machine."""
    once = sum(timed(run) for models in runs.values() for run in models)
    rounds = max(3, min(options.rounds, int(options.seconds / once)))
    return interleave(runs, rounds, reference, **settings)


def steps(kit, options, task, optimizers, name=None):
    """Rows with the step time of a model with each optimizer: name -> function that makes one."""
    runs = {}
    for _ in range(options.models):
        for method, optimizer in optimizers.items():
            trainer = kit.trainer(task, method, optimizer())
            trainer.fit()
            runs.setdefault(method, []).append(partial(trainer.run, BLOCK))
    results = in_turns(runs, options, "plain")
    del runs, trainer
    kit.clear()
    return rows(results, 1 / BLOCK, task=name or task, measure="step")


def step(kit, options):
    """Time of a training step with an averaging optimizer and with its inner optimizer alone."""
    found = []
    for task in options.tasks or TASKS:
        optimizers = {m: partial(kit.optimizer, m) for m in kit.methods(options.methods)}
        found += steps(kit, options, task, optimizers)
    return found


def lars(kit, options):
    """LARS beside SGD with momentum, and where Keras has it Lamb, whose norms are alike."""
    optimizers = {
        "plain": kit.sgd,
        "lars": lambda: kit.ours.LARS(0.01),
        "lars_weight_decay": lambda: kit.ours.LARS(0.01, weight_decay_rate=1e-4),
    }
    if hasattr(kit.plain, "Lamb"):
        optimizers["lamb"] = lambda: kit.plain.Lamb(0.001)
    tasks = options.tasks or ("mlp", "transformer")
    return [row for task in tasks for row in steps(kit, options, task, optimizers)]


def schedule_free(kit, options):
    """Schedule-Free around Adam beside AdamW; on PyTorch also that of its authors beside PyTorch's own optimizers.

    (Around SGD it is in `step`.)
    """
    found = steps(kit, options, "mlp", kit.adamw_and_schedule_free(), "mlp, AdamW")
    if kit.backend != "torch":
        return found
    try:
        import schedulefree
    except ImportError:
        print("The package schedulefree is not installed: left out.", file=sys.stderr)
        return found
    from torch import optim

    pairs = {
        "SGD": (partial(optim.SGD, lr=0.01, momentum=0.9), partial(schedulefree.SGDScheduleFree, lr=0.01)),
        "AdamW": (partial(optim.AdamW, lr=0.001), partial(schedulefree.AdamWScheduleFree, lr=0.001)),
    }
    for name, (plain, theirs) in pairs.items():
        makers = {"plain": plain, "schedulefree_package": theirs}
        runs = {
            method: [partial(TorchLoop(make).run, BLOCK) for _ in range(options.models)]
            for method, make in makers.items()
        }
        results = in_turns(runs, options, "plain")
        found += rows(results, 1 / BLOCK, task=f"mlp without Keras, {name}", measure="step")
    return found


def batch_norm(kit, options):
    """update_batch_norm() beside a bare loop of training-mode forward passes over the same batches.

    The loop is what one writes by hand: compiled where the backend compiles, and nothing watched.
    """
    found = []
    batches = 100
    for name, task in {"mlp": mlp_with_batch_norm, "cnn": cnn}.items():
        if options.tasks and name not in options.tasks:
            continue
        runs = {"plain": [], "update_batch_norm": []}
        for _ in range(options.models):
            for method, models in runs.items():
                model, x, _ = task(kit.keras)
                x = np.concatenate([x] * batches)
                if method == "plain":
                    models.append(partial(kit.forward_loop(model), x))
                else:
                    models.append(partial(kit.ours.update_batch_norm, model, x, verbose=0))
        results = in_turns(runs, options, "plain")
        found += rows(results, 1 / batches, task=name, measure="forward pass")
        del runs
        kit.clear()
    return found


def first_step(kit, options):
    """Time of the first step of fit(), with what is built, traced and compiled for it."""
    found = []
    for variables in options.variables:
        task = partial(mlp, width=8, layers=variables // 2 - 1)
        # What the first of all takes longer for has nothing to do with an optimizer.
        kit.trainer(task, "plain").fit()
        methods = [m for m in kit.methods(options.methods) if not m.startswith(("averaged", "bare"))]
        times = {method: [] for method in methods}
        for number in range(options.models):
            for method in methods if number % 2 else reversed(methods):
                trainer = kit.trainer(task, method)
                gc.collect()
                times[method].append(timed(trainer.fit))
                del trainer
                kit.clear()
        name = f"{variables} variables"
        found += rows(ratios(times, "plain"), task=name, measure="first step")
    return found


def growth(kit, options):
    """Step times of models of 0.1 to 100 million weights."""
    found = []
    methods = [m for m in ("plain", "swa", "lookahead", "ema") if m in kit.methods(options.methods)]
    for millions, width in ((0.1, 112), (1, 354), (10, 1118), (100, 3536)):
        task, name = partial(mlp, width=width), f"{millions} million"
        if millions <= 10:
            optimizers = {m: partial(kit.optimizer, m) for m in methods}
            found += steps(kit, options, task, optimizers, name)
        elif not options.quick:
            # One model at a time, for want of memory; the methods still take turns.
            times = {}
            for _ in range(options.models):
                for method in methods:
                    trainer = kit.trainer(task, method)
                    trainer.fit()
                    times.setdefault(method, []).append(timed(trainer.run, BLOCK))
                    del trainer
                    kit.clear()
            found += rows(ratios(times, "plain"), 1 / BLOCK, task=name, measure="step")
    return found


def memory(kit, options):
    """Memory that a method takes beside that of its inner optimizer, in copies of the weights.

    Each is trained in a separate process, so that none affects the next.
    """
    width = 1768 if options.quick else 3536
    methods = [m for m in kit.methods(options.methods) if m not in ("moving_average", "bare_ema")]
    # What is freed goes back at once: else the figure is of what the allocator keeps for later.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    used = {method: [] for method in methods}
    for _ in range(options.models):
        for method in methods:
            settings = json.dumps({**vars(options), "method": method, "width": width})
            command = [sys.executable, __file__, "memory_of", "--backend", kit.backend]
            command += ["--options", settings, "--out", "-"]
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            used[method].append(json.loads(run.stdout.splitlines()[-1]))
    found = []
    for measure in ("memory", "peak memory"):
        plain = statistics.median(run[measure] for run in used["plain"])
        for method in methods[1:]:
            for number, run in enumerate(used[method]):
                row = {"task": f"{8 * width**2 / 1e6:.0f} million", "measure": measure}
                row |= {"method": method, "model": number, "unit": "copies", "ratio": None}
                found.append({**row, "value": (run[measure] - plain) / run["weights"]})
    return found


def memory_of(kit, options):
    """One row with the bytes that a process has used in which a model was trained."""
    trainer = kit.trainer(partial(mlp, width=options.width), options.method)
    trainer.fit(13)
    if options.method.startswith("averaged_model"):
        trainer.run(13)
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    resident, peak = (1024 * int(re.search(rf"{field}:\s*(\d+)", status).group(1)) for field in ("VmRSS", "VmHWM"))
    weights = 4 * trainer.model.count_params()
    return [{"memory": resident, "peak memory": peak, "weights": weights}]


def callback(kit, options):
    """fit() with callback_swa(), which averages at each epoch's end, and without a callback."""
    epochs, batches = 6, 50
    runs = {"plain": [], "callback_swa": []}
    for _ in range(options.models):
        for method, models in runs.items():
            model, x, y = mlp(kit.keras)
            loss = kit.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(kit.sgd(), loss)
            x, y = np.concatenate([x] * batches), np.concatenate([y] * batches)

            def fit(model=model, method=method, x=x, y=y):
                ours = [kit.ours.SWACallback(start_epoch=2)] if method != "plain" else []
                model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=ours, verbose=0)

            models.append(fit)
    results = in_turns(runs, options, "plain")
    return rows(results, 1 / epochs, task="mlp", measure=f"epoch of {batches} batches")


def from_r(kit, options):
    """Loading the R package, its first optimizer, and fit() from R beside fit() from Python."""
    here = Path(__file__).parent
    environment = {**os.environ, "RETICULATE_PYTHON": sys.executable}
    times = {}
    for _ in range(options.models):
        for who, command in (
            ("plain", [sys.executable, here / "fit.py"]),
            ("from R", ["Rscript", "--vanilla", here / "fit.R"]),
        ):
            run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            for measure, seconds in json.loads(run.stdout.splitlines()[-1]).items():
                times.setdefault(measure, {}).setdefault(who, []).append(seconds)
    found = []
    for measure, taken in times.items():
        reference = "plain" if "plain" in taken else "from R"
        found += rows(ratios(taken, reference), task="mlp", measure=measure)
    return found


PARTS = {
    "step": step,
    "first_step": first_step,
    "growth": growth,
    "memory": memory,
    "memory_of": memory_of,
    "lars": lars,
    "schedule_free": schedule_free,
    "batch_norm": batch_norm,
    "callback": callback,
    "from_r": from_r,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    if given.backend in ("tensorflow", "jax", "torch"):
        os.environ["KERAS_BACKEND"] = given.backend
    # What they say on every start is not for the table.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="keras")
    kit = Kit(given.backend)
    found = PARTS[given.part](kit, argparse.Namespace(**given.options))
    if given.out == "-":
        print(*map(json.dumps, found), sep="\n")
        return
    with open(given.out, "w", encoding="utf-8") as file:
        for row in found:
            labels = {"part": given.part, "backend": given.backend}
            file.write(json.dumps({**labels, **row}) + "\n")


if __name__ == "__main__":
    main()
