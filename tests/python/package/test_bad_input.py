"""Wrong calls, one a row: each is one line that names the argument, and nothing is changed."""

import collections
import decimal
import types

import keras
import numpy as np
import pytest

from generations import GENERATIONS, METHODS, Generation
from kerasoptimizers import averaging_optimizer

pytestmark = [pytest.mark.sample, pytest.mark.every_case("keras2")]

BACKEND = keras.backend.backend()
NAN, INF = float("nan"), float("inf")
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)

# What no argument takes that wants a number.
NEVER_A_NUMBER = [
    True,
    np.bool_(True),
    "3",
    "",
    NAN,
    np.float32("nan"),
    INF,
    -INF,
    -1,
    1j,
    10**400,
    decimal.Decimal(3),
    np.array(3),
    np.array([3.0]),
    [],
    [3],
    {},
    b"3",
    int,
    len,
]
COUNTS = [*NEVER_A_NUMBER, None, 2.5, 3.0, np.float64(3), 2**31, 2**63]
FLAGS = [None, 0, 1, 1.0, "True", "", NAN, np.bool_(True), np.array(True), [], [True], {}, bool]
STRINGS = [None, "", 3, True, NAN, b"name", [], ["name"], ("a", "b"), {}, str]
OPTAX = collections.namedtuple("GradientTransformation", "init, update")
TORCH = type("SGD", (), {"step": None, "zero_grad": None, "param_groups": []})


def whole(minimum):
    below = [minimum - 1] if minimum > 0 else []
    return f"must be a whole number >= {minimum}", [*COUNTS, *below]


def number(allowed, *more):
    return f"must be {allowed}", [*NEVER_A_NUMBER, *more]


def optional(kind):
    message, values = kind
    return message, [value for value in values if value is not None]


FRACTION = number("a number from 0 to 1", None, 1.5, np.float32(1.1), -1e-9)
NOT_NEGATIVE = number("a number >= 0", None, -1e-30)
POSITIVE = number("a number > 0", None, 0, 0.0, -0.0)
FLAG = ("must be True or False", FLAGS)
STRING = ("must be a string", STRINGS)
PATTERNS = (
    "must be a regular expression or a list of them",
    [3, True, NAN, b"bias", [3], ["bias", None], {"bias": 1}, "(", ["*"], np.array(["bias"]), str],
)
LIMITS = {
    "clipnorm": optional(POSITIVE),
    "clipvalue": optional(POSITIVE),
    "global_clipnorm": optional(POSITIVE),
    "decay": optional(NOT_NEGATIVE),
    "lr": optional(NOT_NEGATIVE),
}
WRAPPER = {**LIMITS, "sequential_update": FLAG, "name": STRING}
A_RATE = "must be a number >= 0 or a Keras learning-rate schedule"
DATA = "must be an array, a list or dict of arrays, a data set, or a generator"
NOT_DATA = [3, True, NAN, "x", "", [], {}, (), [None], np.array(3.0), [X, 3], ["x"], int]

# What each argument of each class refuses: (message after the argument's name, values).
ARGUMENTS = {
    "SWA": {**WRAPPER, "start_averaging": whole(0), "average_period": whole(1)},
    "Lookahead": {
        **WRAPPER,
        "sync_period": whole(1),
        "slow_step_size": FRACTION,
        "slow_momentum": FRACTION,
        "inner_state": ("must be 'keep', 'reset' or 'average'", [*STRINGS, "Keep", "pullback"]),
    },
    "ExponentialMovingAverage": {
        **WRAPPER,
        "trainable_weights_only": FLAG,
        "average_decay": FRACTION,
        "start_step": whole(0),
        "dynamic_decay": FLAG,
        "update_period": whole(1),
        "half_life": optional(POSITIVE),
        "warmup_gamma": optional(POSITIVE),
        "warmup_power": POSITIVE,
        "min_decay": FRACTION,
        "overwrite_period": optional(whole(1)),
    },
    "MovingAverage": {
        **WRAPPER,
        "average_decay": FRACTION,
        "num_updates": optional(whole(0)),
        "start_step": whole(0),
        "dynamic_decay": FLAG,
    },
    "PowerAverage": {
        **WRAPPER,
        "sigma_rel": ("must", [*NEVER_A_NUMBER, None, 0, -0.1, 0.289, [], [0.1, 0.1], [0.1, "x"], [0.1, None]]),
        "shown_width": ("must be one of `sigma_rel`, 0.05, 0.1", [True, "0.1", 0.2, NAN, [], [0.1], 1j]),
    },
    "PrimalAveraging": {**WRAPPER, "train_interpolation": FRACTION, "eval_interpolation": FRACTION},
    "ScheduleFree": {
        **WRAPPER,
        "beta": FRACTION,
        "warmup_steps": whole(0),
        "weight_lr_power": NOT_NEGATIVE,
        "r": NOT_NEGATIVE,
        "weight_decay_at_y": NOT_NEGATIVE,
    },
    "LARS": {
        **LIMITS,
        "name": STRING,
        "learning_rate": (
            "must be a number >= 0, a Keras learning-rate schedule or a function",
            [*(value for value in NEVER_A_NUMBER if value is not len), None],
        ),
        "momentum": FRACTION,
        "weight_decay_rate": NOT_NEGATIVE,
        "eeta": POSITIVE,
        "nesterov": FLAG,
        "classic_momentum": FLAG,
        "exclude_from_weight_decay": PATTERNS,
        "exclude_from_layer_adaptation": PATTERNS,
        "use_ema": optional(FLAG),
        "ema_momentum": optional(FRACTION),
        "ema_overwrite_frequency": optional(whole(1)),
        "weight_decay": ("cannot be given", [0.1, True, "x"]),
    },
    "SWALearningRate": {
        "name": STRING,
        "initial_learning_rate": (A_RATE, [*NEVER_A_NUMBER, None]),
        "swa_learning_rate": NOT_NEGATIVE,
        "start_averaging": whole(0),
        "anneal_updates": optional(whole(0)),
        "anneal": ("must be 'cosine' or 'linear'", [*STRINGS, "Cosine", "linear ", np.array(["a", "b"])]),
        "cycle_updates": optional(whole(2)),
        "cycle_learning_rate": optional(NOT_NEGATIVE),
        "start_annealing": optional(whole(0)),
    },
    "SWACallback": {
        "start_epoch": ("must be 'auto' or a whole number >= 2", [*COUNTS, 1]),
        "lr_schedule": (
            "must be 'manual', 'constant' or 'cyclic'",
            [*STRINGS, "Cyclic", "linear", np.array(["a", "b"])],
        ),
        "swa_lr": ("must be 'auto' or a number >= 0", [*NEVER_A_NUMBER, None, "Auto"]),
        "swa_freq": whole(1),
        "batch_size": optional(whole(1)),
        "verbose": ("must be 0 or 1", [None, -1, 2, 0.5, NAN, "1", [], [1], np.array(1), int]),
        "data": (DATA, NOT_DATA),
    },
    "SWAG": {
        "start_epoch": optional(whole(2)),
        "rank": whole(0),
        "freq": whole(1),
        "lr_schedule": (
            "must be 'manual', 'constant' or 'cyclic'",
            [*STRINGS, "Cyclic", "linear", np.array(["a", "b"])],
        ),
        "swa_lr": ("must be 'auto' or a number >= 0", [*NEVER_A_NUMBER, None, "Auto"]),
        "verbose": ("must be 0 or 1", [None, -1, 2, 0.5, NAN, "1", [], [1], np.array(1), int]),
    },
    "AverageModelCheckpoint": {
        "update_weights": FLAG,
        "filepath": ("must be a string", [None, "", 3, True, NAN, [], ["a.keras"], {}, str]),
        "monitor": STRING,
        "verbose": ("must be 0 or 1", [None, -1, 2, 0.5, NAN, "1", [], [1], np.array(1), int]),
        "save_best_only": FLAG,
        "save_weights_only": FLAG,
        "mode": ("must be 'auto', 'min' or 'max'", [*STRINGS, "best", "Max", np.array(["min", "max"])]),
        "save_freq": (
            "must be 'epoch' or a whole number >= 1",
            [None, 0, -1, True, 2.5, NAN, "3", "batch", "Epoch", [], [3], np.array(3), int],
        ),
        "initial_value_threshold": (
            "must be a number",
            [True, "0.5", NAN, 1j, [], [0.5], {}, np.array([0.5])],
        ),
    },
}
VALID = {
    **{name: lambda kit: {"optimizer": sgd(kit)} for name in METHODS},
    "LARS": lambda kit: {},
    "SWALearningRate": lambda kit: {
        "initial_learning_rate": 0.1,
        "swa_learning_rate": 0.01,
        "start_averaging": 10,
    },
    "SWACallback": lambda kit: {"start_epoch": 2},
    "SWAG": lambda kit: {"start_epoch": 2},
    "AverageModelCheckpoint": lambda kit: {"update_weights": False, "filepath": "a.keras"},
}


def sgd(kit):
    return kit.keras.optimizers.SGD(0.05, momentum=0.9)


class World:
    """Everything that a wrong call could change."""

    def __init__(self, generation, folder):
        self.kit = kit = Generation(generation)
        self.folder = folder
        self.keras = kit.keras
        self.inner = sgd(kit)
        self.fresh = {name: getattr(kit, name)(sgd(kit)) for name in METHODS}
        self.fresh["LARS"] = kit.LARS(0.1)
        self.trained = {
            "SWA": self.train(kit.SWA(sgd(kit), 0, 2)),
            "Lookahead": self.train(kit.Lookahead(sgd(kit), 2)),
            "ExponentialMovingAverage": self.train(kit.ExponentialMovingAverage(sgd(kit))),
            "MovingAverage": self.train(kit.MovingAverage(sgd(kit))),
            "PowerAverage": self.train(kit.PowerAverage(sgd(kit))),
            "PrimalAveraging": self.train(kit.PrimalAveraging(sgd(kit))),
            "ScheduleFree": self.train(kit.ScheduleFree(sgd(kit))),
            "LARS": self.train(kit.LARS(0.1)),
            "early": self.train(kit.SWA(sgd(kit), 1000)),
            "plain": self.train(sgd(kit)),
            "swapped": self.train(kit.SWA(sgd(kit), 0, 2)),
        }
        self.trained["swapped"].optimizer.swap_weights()
        self.model = self.trained["SWA"]
        self.optimizer = self.model.optimizer
        self.uncompiled = self.build()
        self.unbuilt = kit.keras.Sequential([kit.keras.layers.Dense(1)])
        self.schedule = kit.SWALearningRate(0.1, 0.01, 10)
        self.variables = self.model.trainable_variables
        self.strange = self.trained["plain"].trainable_variables
        (folder / "kept.keras").write_bytes(b"an earlier file")

    def build(self):
        layers = self.keras.layers
        self.keras.utils.set_random_seed(0)
        return self.keras.Sequential(
            [self.keras.Input((3,)), layers.Dense(2), layers.BatchNormalization(), layers.Dense(1)]
        )

    def train(self, optimizer):
        model = self.build()
        model.compile(optimizer, "mse")
        model.fit(X, Y, batch_size=4, epochs=1, verbose=0, shuffle=False)
        return model

    def compiled(self, optimizer="sgd"):
        model = self.build()
        # In the graph of Keras 2 an error gets the lines of the code that it passes.
        model.compile(optimizer, "mse", run_eagerly=self.kit.name == "tf_keras")
        return model

    def state(self):
        models = [*self.trained.values(), self.uncompiled, self.unbuilt]
        optimizers = [model.optimizer for model in self.trained.values()]
        optimizers += [*self.fresh.values(), self.inner]
        variables = [v for model in models if model.built for v in model.weights]
        for optimizer in optimizers:
            its = optimizer.variables
            variables += its() if callable(its) else its
        files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        return (
            [bytes(np.array(v.numpy())) for v in variables],
            [repr(o.get_config()) for o in optimizers],
            [list(vars(o).get("_added_slots", {})) for o in optimizers],
            [repr(model.optimizer) for model in self.trained.values()],
            files,
        )


@pytest.fixture(scope="module", params=GENERATIONS)
def world(request, tmp_path_factory):
    return World(request.param, tmp_path_factory.mktemp("files"))


def assert_message(call, text):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) in (TypeError, ValueError), f"{type(caught.value)}: {message}"
    assert "\n" not in message
    assert text in message


@pytest.mark.parametrize("name, argument", [(name, argument) for name in ARGUMENTS for argument in ARGUMENTS[name]])
def test_what_an_argument_cannot_be_is_refused(world, name, argument):
    message, values = ARGUMENTS[name][argument]
    before = world.state()
    for value in values:
        arguments = {**VALID[name](world.kit), argument: value}
        if "optimizer" in arguments:
            arguments["optimizer"] = world.inner
        large = type(value) is int and value >= 2**31 and "whole number" in message
        expected = "must be a whole number <= 2147483647" if large else message
        make = getattr(world.kit, name)
        assert_message(lambda make=make, its=arguments: make(**its), f"`{argument}` {expected}")
    assert world.state() == before


NOT_OPTIMIZERS = {
    "None": lambda w: None,
    "a number": lambda w: 0.1,
    "True": lambda w: True,
    "an empty string": lambda w: "",
    "a misspelt name": lambda w: "sgdd",
    "a name with a space": lambda w: "sgd ",
    "one of ours by name": lambda w: "SWA",
    "a name that needs more": lambda w: "LossScaleOptimizer",
    "bytes": lambda w: b"sgd",
    "a class": lambda w: w.keras.optimizers.SGD,
    "a function": lambda w: lambda: sgd(w.kit),
    "a list": lambda w: [sgd(w.kit)],
    "a configuration": lambda w: {"class_name": "SGD", "config": {}},
    "a layer": lambda w: w.keras.layers.Dense(1),
    "a model": lambda w: w.model,
    "a schedule": lambda w: w.schedule,
    "a callback": lambda w: w.kit.SwapAverages(),
    "of PyTorch": lambda w: TORCH(),
    "of optax": lambda w: OPTAX(len, len),
    "NaN": lambda w: NAN,
    "an array": lambda w: np.zeros(3),
    "of the other Keras": lambda w: other_keras(w).optimizers.SGD(),
    "ours for the other Keras": lambda w: other(w).SWA(other_keras(w).optimizers.SGD()),
}


def other(world):
    return Generation("tf_keras" if world.kit.name == "keras3" else "keras3")


def other_keras(world):
    return other(world).keras


@pytest.mark.parametrize("what", NOT_OPTIMIZERS)
def test_an_inner_optimizer_has_to_be_one(world, what):
    before = world.state()
    given = NOT_OPTIMIZERS[what](world)
    for name in METHODS:
        assert_message(lambda name=name: getattr(world.kit, name)(given), "`optimizer` must be a")
    assert world.state() == before


# Calls of methods and functions: for what is called, the calls and what each message says.
CALLS = collections.defaultdict(list)


def wrong(text, **calls):
    for what, call in calls.items():
        CALLS[what].append((call, text))


def rows(what, text, call, values):
    """A row for each value; a function of the world where it needs one."""
    for value in values:
        get = value if isinstance(value, types.FunctionType) else lambda w, value=value: value
        CALLS[what].append((lambda w, get=get: call(w, get(w)), text))


def gradient(world, shape=(3, 2)):
    return world.keras.ops.ones(shape) if world.kit.name == "keras3" else np.ones(shape, "float32")


def tensor(world):
    return gradient(world) if world.kit.name == "keras3" else __import__("tensorflow").ones((3, 2))


NO_VARIABLES = [
    None,
    3,
    True,
    "kernel",
    [3],
    [None],
    ["kernel"],
    [[]],
    {},
    [],
    (),
    np.zeros(3),
    [np.zeros((3, 2))],
    len,
    lambda w: w.model,
    lambda w: w.variables[0],
    lambda w: [tensor(w)],
    lambda w: w.strange,
    lambda w: [*w.variables, None],
    lambda w: [w.variables],
]
rows(
    # A frozen layer's variables say on Keras 2 that they are trainable: there the strange one is left alone.
    "assign_average_vars of another model's variable, too",
    "`var_list` must",
    lambda w, v: w.optimizer.assign_average_vars(v),
    [lambda w: [*w.variables, *w.strange[:1]] if w.kit.name == "keras3" else w.strange[:1]],
)
for name in METHODS:
    rows(
        f"{name}.assign_average_vars",
        "`var_list` must",
        lambda w, v, name=name: w.trained[name].optimizer.assign_average_vars(v),
        NO_VARIABLES if name == "SWA" else [None, 3, [None], lambda w: w.strange],
    )
    wrong(
        "() needs an average",
        **{
            f"{name} unbuilt {action}": lambda w, name=name, action=action, given=given: getattr(w.fresh[name], action)(
                *given(w)
            )
            for action, given in (
                ("swap_weights", lambda w: ()),
                ("assign_average_vars", lambda w: (w.variables,)),
            )
        },
    )
for name in METHODS:
    # What Keras's own optimizers take, and would be ignored here.
    for setting, value in (("use_ema", True), ("weight_decay", 0.1)):
        rows(
            f"{name}.{setting}",
            f"`{setting}` must be set on the inner optimizer when that is made, as in {name}(",
            lambda w, v, name=name, setting=setting: setattr(w.fresh[name], setting, v),
            [value],
        )
wrong(
    "() needs an average, and there is none yet: no snapshot",
    swap_before_a_snapshot=lambda w: w.trained["early"].optimizer.swap_weights(),
    assign_before_a_snapshot=lambda w: w.trained["early"].optimizer.assign_average_vars(
        w.trained["early"].trainable_variables
    ),
)
wrong(
    "while the averages are swapped into the model",
    assign_while_swapped=lambda w: w.trained["swapped"].optimizer.assign_average_vars(
        w.trained["swapped"].trainable_variables
    ),
)
wrong(
    "update_average() needs an average",
    update_average_unbuilt=lambda w: w.fresh["ExponentialMovingAverage"].update_average(),
)
NO_MODELS = [
    None,
    3,
    True,
    "model",
    [],
    {},
    [3],
    [None],
    np.zeros(3),
    len,
    lambda w: w.unbuilt,
    lambda w: w.keras.Sequential,
    lambda w: [tensor(w)],
    lambda w: sgd(w.kit),
]
rows("shadow_copy", "`model` must be", lambda w, v: w.fresh["SWA"].shadow_copy(v), NO_MODELS)
rows(
    "shadow_copy of another model",
    "`model` must be",
    lambda w, v: w.optimizer.shadow_copy(v),
    [lambda w: w.trained["plain"], lambda w: w.strange, lambda w: w.strange[:1]],
)
rows(
    "averaging_optimizer",
    "`model` must be compiled with an averaging optimizer",
    lambda w, v: averaging_optimizer(v),
    [None, 3, "model", [], lambda w: w.unbuilt, lambda w: w.uncompiled, lambda w: w.trained["plain"]]
    + [lambda w: w.trained["LARS"], lambda w: w.keras.Sequential, SystemExit],
)
NO_VARIABLE = [None, 3, "kernel", [], np.zeros(3), len, lambda w: tensor(w), lambda w: w.strange[0]]
for name in ("SWA", "LARS"):
    rows(
        f"{name}.get_slot var",
        "`var` must be a variable this optimizer was built for",
        lambda w, v, name=name: w.trained[name].optimizer.get_slot(v, "average"),
        [*NO_VARIABLE, lambda w: w.variables],
    )
    rows(
        f"{name}.get_slot slot_name",
        "`slot_name` must be",
        lambda w, v, name=name: w.trained[name].optimizer.get_slot(w.trained[name].trainable_variables[0], v),
        [None, 3, "", "averages", [], ["average"], {}, True, NAN],
    )
    rows(
        f"{name}.add_slot var",
        "`var` must be a variable this optimizer was built for",
        lambda w, v, name=name: w.trained[name].optimizer.add_slot(v, "mine"),
        NO_VARIABLE,
    )
    rows(
        f"{name}.add_slot slot_name",
        "`slot_name` must be a string",
        lambda w, v, name=name: w.trained[name].optimizer.add_slot(w.trained[name].trainable_variables[0], v),
        STRINGS,
    )
    rows(
        f"{name}.add_slot initializer",
        "`initializer` must be",
        lambda w, v, name=name: w.trained[name].optimizer.add_slot(w.trained[name].trainable_variables[0], "mine", v),
        ["no such", 3, None, np.ones((2, 2)), [1.0], [["a", "b"]] * 3, {"a": 1}],
    )
    rows(
        f"{name}.add_slot shape",
        "`shape` must be",
        lambda w, v, name=name: w.trained[name].optimizer.add_slot(
            w.trained[name].trainable_variables[0], "mine", "zeros", v
        ),
        ["x", 3, -1, (-1,), (2.5,), (None,), [[2]], {}, True],
    )
    rows(
        f"{name}.add_weight name",
        "`name` must be a string",
        lambda w, v, name=name: w.trained[name].optimizer.add_weight(v, (2,)),
        STRINGS,
    )
    rows(
        f"{name}.add_weight shape",
        "`shape` must be",
        lambda w, v, name=name: w.trained[name].optimizer.add_weight("mine", v),
        ["x", 3, None, (-1,), (2.5,), (None,), {}],
    )
    rows(
        f"{name}.add_weight dtype",
        "`dtype` must be",
        lambda w, v, name=name: w.trained[name].optimizer.add_weight("mine", (2,), v),
        ["float31", 3.5, "", [], {}],
    )
    rows(
        f"{name}.add_weight initializer",
        "`initializer` must be",
        lambda w, v, name=name: w.trained[name].optimizer.add_weight("mine", (2,), None, v),
        ["no such", 3, {}],
    )
    rows(
        f"{name}.set_weights",
        "`weights` must be",
        lambda w, v, name=name: w.trained[name].optimizer.set_weights(v),
        [
            None,
            3,
            True,
            "weights",
            [],
            {},
            [1, 2],
            len,
            lambda w, name=name: w.trained[name].optimizer.get_weights()[1:],
            lambda w, name=name: [*w.trained[name].optimizer.get_weights(), np.zeros(2)],
            lambda w, name=name: changed_last(w, name, lambda a: np.zeros((9, 9))),
            lambda w, name=name: changed_last(w, name, lambda a: np.full(a.shape, "a")),
            lambda w, name=name: changed_last(w, name, lambda a: np.full(a.shape, None)),
            lambda w, name=name: changed_last(w, name, lambda a: a * 1j),
            lambda w, name=name: changed_last(w, name, lambda a: None),
            lambda w, name=name: w.model,
        ],
    )
    rows(
        f"{name}.apply_gradients",
        "`grads_and_vars` must",
        lambda w, v, name=name: w.trained[name].optimizer.apply_gradients(v),
        [
            None,
            3,
            True,
            "x",
            [1.0],
            [()],
            [(None,)],
            [(1.0, 2.0)],
            [(1, 2, 3)],
            len,
            lambda w: [(gradient(w), None)],
            lambda w: [(gradient(w), np.zeros((3, 2)))],
            lambda w: [(gradient(w), gradient(w))],
            lambda w: [(gradient(w), v) for v in w.strange],
            lambda w: [("a", v) for v in w.model.trainable_variables],
            lambda w, name=name: [(None, v) for v in w.trained[name].trainable_variables],
            lambda w, name=name: [(gradient(w, (7, 7)), v) for v in w.trained[name].trainable_variables],
        ],
    )
    rows(
        f"{name}.minimize loss",
        "`loss` must",
        lambda w, v, name=name: w.trained[name].optimizer.minimize(v, w.trained[name].trainable_variables),
        [None, 3, "loss", [], {}, True, lambda w: lambda: 3.0, lambda w: lambda: None] + [lambda w: lambda: "x"],
    )
    rows(
        f"{name}.minimize var_list",
        "`var_list` must",
        lambda w, v, name=name: w.trained[name].optimizer.minimize(lambda: squares(w, name), v),
        [None, 3, True, "kernel", [3], [None], {}, np.zeros(3)],
    )
    rows(
        f"{name}.learning_rate",
        "`learning_rate` must be",
        lambda w, v, name=name: setattr(w.trained[name].optimizer, "learning_rate", v),
        [None, "fast", "", True, -1, NAN, INF, [], [0.1], {}, 1j, np.array([0.1, 0.2])],
    )
    rows(
        f"{name}.load_own_variables",
        "`store` must",
        lambda w, v, name=name: w.trained[name].optimizer.load_own_variables(v),
        [
            None,
            3,
            "file",
            [],
            lambda w, name=name: {str(i): np.zeros((9, 9)) for i in range(len(own(w.trained[name].optimizer)))},
            lambda w, name=name: {f"x{i}": np.zeros(v.shape) for i, v in enumerate(own(w.trained[name].optimizer))},
        ],
    )


def test_there_are_enough_rows():
    constructors = sum(len(values) for its in ARGUMENTS.values() for _, values in its.values())
    calls = sum(len(group) for group in CALLS.values())
    assert constructors > 1000 and calls > 500


def own(optimizer):
    return optimizer.saved_variables() if hasattr(optimizer, "saved_variables") else optimizer.variables


def changed_last(world, name, change):
    weights = world.trained[name].optimizer.get_weights()
    return [*(w + 1 for w in weights[:-1]), change(weights[-1])]


def squares(world, name):
    variable = world.trained[name].trainable_variables[0]
    if world.kit.name == "keras3":
        return keras.ops.sum(keras.ops.square(variable))
    import tensorflow as tf

    return tf.reduce_sum(tf.square(variable))


NO_CONFIG = [None, 3, "SWA", [], True, len]
for name in [*METHODS, "LARS", "SWALearningRate"]:
    rows(
        f"{name}.from_config",
        "`config` must be",
        lambda w, v, name=name: getattr(w.kit, name).from_config(v),
        NO_CONFIG,
    )
    rows(
        f"{name}.from_config unknown argument",
        "no_such",
        lambda w, v, name=name: getattr(w.kit, name).from_config({**config(w, name), "no_such": 1}),
        [0],
    )
    rows(
        f"{name}.from_config name",
        "`name` must be a string",
        lambda w, v, name=name: getattr(w.kit, name).from_config({**config(w, name), "name": v}),
        [3, "", []],
    )
for name in METHODS:
    rows(
        f"{name}.from_config optimizer",
        "`optimizer`",
        lambda w, v, name=name: getattr(w.kit, name).from_config({**config(w, name), "optimizer": v}),
        [
            None,
            3,
            "sgdd",
            [],
            {},
            {"class_name": "no such", "config": {}},
            {"class_name": 3, "config": {}},
            {"class_name": "SGD", "config": {"no_such": 1}},
            {"module": "no.such", "class_name": "Mine", "config": {}, "registered_name": None},
            {"module": "os", "class_name": "system", "config": "true", "registered_name": None},
            {"class_name": "__lambda__", "config": {"value": "x"}},
        ],
    )
    wrong(
        "`optimizer`",
        **{f"{name}.from_config without optimizer": lambda w, name=name: getattr(w.kit, name).from_config({})},
    )
for name in [*METHODS, "LARS"]:
    rows(
        f"{name}.build",
        "must be a list of variables",
        lambda w, v, name=name: w.fresh[name].build(v),
        [None, 3, "kernel", [3], [None], {}, np.zeros(3), lambda w: w.variables[0], lambda w: w.model],
    )
rows(
    "LARS.from_config learning_rate",
    "`learning_rate`",
    lambda w, v: w.kit.LARS.from_config({**config(w, "LARS"), "learning_rate": v}),
    [None, "fast", -1, NAN, [], {}, {"class_name": "no such", "config": {}}],
)
rows(
    "SWALearningRate.from_config initial_learning_rate",
    "`initial_learning_rate`",
    lambda w, v: w.kit.SWALearningRate.from_config({**config(w, "SWALearningRate"), "initial_learning_rate": v}),
    [None, "fast", -1, NAN, [], {}, {"class_name": "no such", "config": {}}] + [{"class_name": "SGD", "config": {}}],
)
wrong(
    "`initial_learning_rate`",
    **{"SWALearningRate.from_config empty": lambda w: w.kit.SWALearningRate.from_config({})},
)


def config(world, name):
    if name == "SWALearningRate":
        return world.schedule.get_config()
    return world.fresh[name].get_config()


rows(
    "update_batch_norm model",
    "`model` must be",
    lambda w, v: w.kit.update_batch_norm(v, X),
    [None, 3, "model", [], lambda w: w.unbuilt, lambda w: w.keras.Sequential]
    + [lambda w: w.keras.layers.Dense(1), lambda w: w.optimizer, lambda w: other_model(w)],
)
rows(
    "update_batch_norm x",
    "`x` must",
    lambda w, v: w.kit.update_batch_norm(w.model, v, verbose=0),
    [*NOT_DATA, None, np.zeros((0, 3), "float32"), [X, X[:3]], {"a": X, "b": X[:3]}],
)
wrong(
    "`steps` must be given for a generator",
    generator_without_steps=lambda w: w.kit.update_batch_norm(w.model, iter([X]), verbose=0),
)
wrong(
    "`x` must hold at least one example",
    empty_generator=lambda w: w.kit.update_batch_norm(w.model, iter([]), steps=1, verbose=0),
)
wrong(
    "`x` must give inputs",
    generator_of_empty_tuples=lambda w: w.kit.update_batch_norm(w.model, iter([()]), steps=1, verbose=0),
    generator_of_long_tuples=lambda w: w.kit.update_batch_norm(w.model, iter([(X, X, X, X)]), steps=1, verbose=0),
)
for argument, kind in (
    ("batch_size", whole(1)),
    ("steps", optional(whole(1))),
    ("verbose", ("must be 'auto', 0, 1 or 2", [None, -1, 3, 0.5, 1.0, NAN, "", "1", [], np.array(1)])),
):
    for value in kind[1]:
        large = argument != "verbose" and type(value) is int and value >= 2**31
        wrong(
            f"`{argument}` must be a whole number <=" if large else f"`{argument}` {kind[0]}",
            **{
                f"update_batch_norm {argument}": lambda w, a=argument, v=value: w.kit.update_batch_norm(
                    w.model, X, **{a: v}
                )
            },
        )
rows(
    "SWALearningRate step",
    "`step` must",
    lambda w, v: w.schedule(v),
    [None, "3", {}, NAN, INF, True, len],
)
# Arguments that don't fit each other.
wrong(
    "Only one of `clipnorm` and `global_clipnorm`",
    **{
        f"{name} clips twice": lambda w, name=name: getattr(w.kit, name)(
            **VALID[name](w.kit), clipnorm=1, global_clipnorm=1
        )
        for name in [*METHODS, "LARS"]
    },
)
wrong(
    "has no argument `average_perod`",
    **{
        f"{name} unknown argument": lambda w, name=name: getattr(w.kit, name)(**VALID[name](w.kit), average_perod=1)
        for name in [*METHODS, "LARS"]
    },
)
wrong(
    "`lr` cannot be given",
    lr_beside_a_schedule=lambda w: w.kit.SWA(w.keras.optimizers.SGD(w.schedule), lr=0.1),
)
wrong(
    "`decay` cannot be given",
    decay_beside_a_schedule=lambda w: w.kit.SWA(w.keras.optimizers.SGD(w.schedule), decay=0.1),
)
wrong(
    "`warmup_steps` cannot be given",
    warm_up_beside_a_schedule=lambda w: w.kit.ScheduleFree(w.keras.optimizers.SGD(w.schedule), warmup_steps=5),
)
wrong(
    "`learning_rate`",
    rate_of_a_schedule_of_the_other_keras=lambda w: w.kit.LARS(other(w).SWALearningRate(0.1, 0.01, 10)),
    rate_set_where_there_is_a_schedule=lambda w: setattr(
        w.kit.SWA(w.keras.optimizers.SGD(w.schedule)), "learning_rate", 0.1
    ),
)
wrong(
    "`initial_learning_rate`",
    schedule_of_a_schedule_of_the_other_keras=lambda w: w.kit.SWALearningRate(
        other(w).SWALearningRate(0.1, 0.01, 10), 0.01, 10
    ),
)
wrong(
    "`anneal_updates` must be a whole number from 0 to start_averaging",
    too_long_annealing=lambda w: w.kit.SWALearningRate(0.1, 0.01, 10, 11),
)
wrong(
    "`cycle_learning_rate` needs `cycle_updates`",
    cycle_rate_without_cycles=lambda w: w.kit.SWALearningRate(0.1, 0.01, 10, cycle_learning_rate=0.1),
)
wrong(
    "`swa_lr2` can only be given together with `swa_lr`",
    swa_lr2_alone=lambda w: w.kit.SWACallback(2, swa_lr2=0.1),
)
wrong(
    "`data` must be data that can be drawn more than once",
    data_that_ends=lambda w: w.kit.SWACallback(2, data=iter([X])),
)


def other_model(world):
    keras_ = other_keras(world)
    return keras_.Sequential([keras_.Input((3,)), keras_.layers.Dense(1)])


# What shows itself in fit().


def fit(model, *callbacks, **settings):
    model.fit(X, Y, **{"epochs": 3, "verbose": 0, "callbacks": list(callbacks), **settings})


wrong(
    "`start_epoch` must be lower than `epochs` (3), not 3.",
    callback_starts_too_late=lambda w: fit(w.trained["plain"], w.kit.SWACallback(3)),
)
wrong(
    "`swa_lr` must be at most the optimizer's learning rate (0.05), not 0.5.",
    callback_with_a_high_rate=lambda w: fit(w.trained["plain"], w.kit.SWACallback(2, swa_lr=0.5)),
)
wrong(
    "`lr_schedule` must be 'manual', not 'constant'",
    callback_beside_a_schedule=lambda w: fit(
        w.compiled(w.keras.optimizers.SGD(w.schedule)), w.kit.SWACallback(2, "constant")
    ),
)
for name in ("SwapAverages", "AverageModelCheckpoint"):
    rows(
        name,
        "`model` must be compiled with an averaging optimizer",
        lambda w, v, name=name: fit(v, callback(w, name)),
        [lambda w: w.trained["plain"], lambda w: w.trained["LARS"]],
    )
    rows(
        f"{name}.set_model",
        "`model` must be compiled with an averaging optimizer",
        lambda w, v, name=name: callback(w, name).set_model(v),
        [None, 3, "model", lambda w: w.uncompiled, lambda w: w.unbuilt],
    )
rows(
    "fit with an optimizer of another model",
    "`optimizer` was built for other variables",
    lambda w, v: fit(w.compiled(v)),
    [
        lambda w: w.kit.SWA(w.trained["plain"].optimizer),
        lambda w: w.optimizer,
        lambda w: w.trained["LARS"].optimizer,
    ],
)


def callback(world, name):
    if name == "AverageModelCheckpoint":
        return world.kit.AverageModelCheckpoint(False, str(world.folder / "new.keras"))
    return getattr(world.kit, name)()


@pytest.mark.parametrize("where", ["under a file", "a folder"])
def test_a_checkpoint_that_cannot_be_written_leaves_model_and_files(world, where):
    kept = world.folder / "kept.keras"
    folder = world.folder / "folder.keras"
    folder.mkdir(exist_ok=True)
    path = kept / "new.keras" if where == "under a file" else folder
    model = world.compiled(world.kit.SWA(sgd(world.kit), 0, 1))
    weights = []
    keep = world.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.extend(model.get_weights()))
    with pytest.raises(Exception):  # noqa: B017 - Keras's own, or the operating system's
        fit(model, keep, world.kit.AverageModelCheckpoint(False, str(path)), epochs=1)
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert kept.read_bytes() == b"an earlier file"
    assert list(folder.iterdir()) == []
    folder.rmdir()


@pytest.mark.parametrize("what", CALLS)
def test_a_wrong_call_is_refused(world, what):
    before = world.state()
    for call, text in CALLS[what]:
        assert_message(lambda call=call: call(world), text)
    assert world.state() == before
