"""The real optimizers, over random shapes, types, periods and starts, against NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generations import GENERATIONS, Generation, assert_same

BACKEND = keras.backend.backend()
RATE = 0.25
SHAPES = [(), (1,), (3,), (0,), (2, 0), (1, 1), (2, 3), (2, 1, 3)]
# JAX has no float64 unless it is told to before it starts.
DTYPES = ["float32", "float16", "bfloat16", *([] if BACKEND == "jax" else ["float64"])]
TOLERANCES = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1.6e-2}

counts = st.integers(1, 5)
starts = st.integers(0, 7)
fractions = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99))
limits = st.floats(0.01, 3)
few_and_many = pytest.mark.parametrize("examples", [6, pytest.param(250, marks=pytest.mark.long)])


@st.composite
def problems(draw):
    """Starting values of some variables, their types, and gradients for each update."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES)), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    updates = draw(st.integers(1, 9))
    values = [random.uniform(-2, 2, size=shape) for shape, _ in kinds]
    path = [[random.uniform(-1, 1, size=shape) for shape, _ in kinds] for _ in range(updates)]
    return values, [dtype for _, dtype in kinds], path


def holds(examples, *strategies):
    """Run the decorated function on this many examples, the same ones each time."""

    def run(check):
        quick = settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        quick(given(problems(), *strategies)(check))()

    return run


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Kit(request.param)


class Kit(Generation):
    """A generation, with what a bare training step needs."""

    def variables(self, problem):
        values, dtypes, _ = problem
        if self.name == "keras3":
            return [keras.Variable(v, dtype=d) for v, d in zip(values, dtypes)]
        import tensorflow as tf

        return [tf.Variable(v, dtype=d) for v, d in zip(values, dtypes)]

    def apply(self, optimizer, grads, variables):
        if self.name == "keras3":
            tensors = [keras.ops.convert_to_tensor(g, dtype=v.dtype) for g, v in zip(grads, variables)]
        else:
            import tensorflow as tf

            tensors = [tf.constant(g, dtype=v.dtype) for g, v in zip(grads, variables)]
        optimizer.apply_gradients(zip(tensors, variables))

    def sgd(self):
        return self.keras.optimizers.SGD(RATE)


def numbers(variables):
    """Their values as float64, which holds those of every type exactly."""
    # NumPy's cast, because not every backend gives bfloat16 to NumPy.
    wide = "float32" if BACKEND == "jax" else "float64"
    return [_numpy(v, wide).astype("float64") for v in variables]


def _numpy(variable, wide):
    if isinstance(variable, keras.Variable):
        return np.array(keras.ops.convert_to_numpy(keras.ops.cast(variable.value, wide)))
    return np.array(variable.numpy())


def averages(optimizer, variables):
    slot = optimizer.get_slot_names()[0]
    slots = [optimizer.get_slot(v, slot) for v in variables]
    for average, variable in zip(slots, variables):
        assert tuple(average.shape) == tuple(variable.shape)
        wide = "float64" if "float64" in str(variable.dtype) else "float32"
        assert wide in str(average.dtype)
    return numbers(slots)


def assert_close(actual, expected, dtypes, factor=4):
    for a, b, dtype in zip(actual, expected, dtypes, strict=True):
        tolerance = factor * TOLERANCES[dtype]
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def train(kit, optimizer, problem):
    """Variables after all updates, and their values after each, beside those of SGD alone."""
    variables, twins, path = kit.variables(problem), kit.variables(problem), []
    plain = kit.sgd()
    for grads in problem[2]:
        kit.apply(optimizer, grads, variables)
        kit.apply(plain, grads, twins)
        path.append(numbers(variables))
        # Averaging leaves training as it is, bit for bit.
        assert_same(path[-1], numbers(twins))
    return variables, path


def of_averages(dtypes):
    return ["float64" if dtype == "float64" else "float32" for dtype in dtypes]


def at_most_float32(dtypes):
    return ["float32" if dtype == "float64" else dtype for dtype in dtypes]


@few_and_many
def test_swa_is_the_mean_of_its_snapshots(kit, examples):
    @holds(examples, starts, counts)
    def check(problem, start, period):
        optimizer = kit.SWA(kit.sgd(), start, period)
        variables, path = train(kit, optimizer, problem)
        snapshots = path[start::period]
        assert optimizer.snapshots == len(snapshots)
        assert optimizer.has_average == bool(snapshots)
        if snapshots:
            means = [np.mean(parts, axis=0) for parts in zip(*snapshots)]
            assert_close(averages(optimizer, variables), means, of_averages(problem[1]))


# Its averages are compared as float32, whatever their type: TensorFlow Addons and the Model Garden round decays to it.
def exponential(problem, path, decay_of, period=1):
    average = [v.astype("float64") for v in problem]
    for update in range(period - 1, len(path), period):
        decay = decay_of(update) ** period
        average = [decay * a + (1 - decay) * w for a, w in zip(average, path[update])]
    return average


@few_and_many
def test_an_exponential_average_follows_its_decay(kit, examples):
    @holds(examples, fractions, starts, st.booleans(), counts)
    def check(problem, decay, start, dynamic, period):
        optimizer = kit.ExponentialMovingAverage(kit.sgd(), True, decay, start, dynamic, update_period=period)
        begin = numbers(kit.variables(problem))
        variables, path = train(kit, optimizer, problem)

        def decay_of(update):
            since = update + 1 - start
            if since < 0:
                return 0.0
            return min(decay, (1 + since) / (10 + since)) if dynamic else decay

        expected = exponential(begin, path, decay_of, period)
        assert_close(averages(optimizer, variables), expected, ["float32"] * len(expected))


@few_and_many
def test_the_moving_average_of_tensorflow_addons_counts_from_zero(kit, examples):
    @holds(examples, fractions, st.none() | st.integers(0, 30), starts, st.booleans())
    def check(problem, decay, num_updates, start, dynamic):
        optimizer = kit.MovingAverage(kit.sgd(), decay, num_updates, start, dynamic)
        begin = numbers(kit.variables(problem))
        variables, path = train(kit, optimizer, problem)
        limit = 1.0 if num_updates is None else (1 + num_updates) / (10 + num_updates)

        def decay_of(update):
            since = update - start
            if since < 0:
                return 0.0
            return min(decay, limit, (1 + since) / (10 + since) if dynamic else 1.0)

        expected = exponential(begin, path, decay_of)
        assert_close(averages(optimizer, variables), expected, ["float32"] * len(expected))


@few_and_many
def test_lookahead_steps_back_after_every_period(kit, examples):
    @holds(examples, counts, fractions)
    def check(problem, period, step_size):
        optimizer, plain = kit.Lookahead(kit.sgd(), period, step_size), kit.sgd()
        variables, twins = kit.variables(problem), kit.variables(problem)
        slow = numbers(variables)
        for update, grads in enumerate(problem[2]):
            kit.apply(optimizer, grads, variables)
            kit.apply(plain, grads, twins)
            fast = numbers(twins)
            if (update + 1) % period == 0:
                slow = [s + step_size * (f - s) for s, f in zip(slow, fast)]
                assert_close(numbers(variables), slow, problem[1])
                assert_close(averages(optimizer, variables), slow, of_averages(problem[1]), 20)
                slow = averages(optimizer, variables)
                for twin, variable in zip(twins, variables):
                    twin.assign(variable)
            else:
                assert_same(numbers(variables), fast)


@few_and_many
def test_lars_scales_each_layer(kit, examples):
    @holds(examples, fractions, st.floats(0, 0.1), st.booleans(), st.booleans())
    def check(problem, momentum, weight_decay, nesterov, classic):
        optimizer = kit.LARS(RATE, momentum, weight_decay, 0.1, nesterov, classic)
        variables = kit.variables(problem)
        sums = [np.zeros_like(v) for v in numbers(variables)]
        for grads in problem[2]:
            # From where the optimizer is: rounding to 8 bits in each update would add up.
            weights, expected = numbers(variables), []
            kit.apply(optimizer, grads, variables)
            for i, (w, g, dtype) in enumerate(zip(weights, grads, problem[1])):
                g = rounded(g, dtype) + weight_decay * w

                def step(direction, w=w):
                    sizes = np.linalg.norm(w), np.linalg.norm(direction)
                    ratio = 0.1 * sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
                    return RATE * ratio * direction

                push = step(g) if classic else g
                sums[i] = momentum * sums[i] + push
                ahead = momentum * sums[i] + push if nesterov else sums[i]
                expected.append(w - (ahead if classic else step(ahead)))
            assert_close(numbers(variables), expected, problem[1])
        assert_close(averages(optimizer, variables), sums, of_averages(problem[1]), 20)


def rounded(values, dtype):
    """The numbers of a type that come nearest."""
    return (
        np.array(keras.ops.cast(keras.ops.cast(values, dtype), "float32"), "float64")
        if (dtype in ("float16", "bfloat16"))
        else np.asarray(values, dtype).astype("float64")
    )


@few_and_many
def test_gradients_are_clipped_before_the_inner_step(kit, examples):
    @holds(examples, st.sampled_from(["clipnorm", "clipvalue", "global_clipnorm"]), limits)
    def check(problem, setting, limit):
        values, dtypes, path = problem
        optimizer = kit.SWA(kit.sgd(), 0, 1, **{setting: limit})
        variables = kit.variables(problem)
        before = numbers(variables)
        kit.apply(optimizer, path[0], variables)
        grads = [np.asarray(g) for g in path[0]]
        every = np.sqrt(sum(np.sum(g**2) for g in grads))
        expected = []
        for w, g in zip(before, grads):
            norm = every if setting == "global_clipnorm" else np.sqrt(np.sum(g**2))
            g = np.clip(g, -limit, limit) if setting == "clipvalue" else g * limit / max(norm, limit)
            expected.append(w - RATE * g)
        # Norms and rates are float32, even if weights are wider.
        assert_close(numbers(variables), expected, at_most_float32(dtypes))


@few_and_many
def test_the_rate_decays_with_the_updates(kit, examples):
    @holds(examples, st.floats(0, 2))
    def check(problem, decay):
        optimizer = kit.SWA(kit.sgd(), 0, 1, decay=decay)
        variables = kit.variables(problem)
        for update, grads in enumerate(problem[2]):
            before = numbers(variables)
            kit.apply(optimizer, grads, variables)
            rate = RATE / (1 + decay * update)
            expected = [w - rate * np.asarray(g) for w, g in zip(before, grads)]
            assert_close(numbers(variables), expected, at_most_float32(problem[1]))


@few_and_many
def test_two_swaps_are_none(kit, examples):
    @holds(examples, counts)
    def check(problem, period):
        optimizer = kit.SWA(kit.sgd(), 0, period)
        variables, path = train(kit, optimizer, problem)
        average = averages(optimizer, variables)
        optimizer.swap_weights()
        assert_close(numbers(variables), average, problem[1])
        optimizer.swap_weights()
        assert_same(numbers(variables), path[-1])
        assert_same(averages(optimizer, variables), average)
        optimizer.assign_average_vars(variables)
        assert_close(numbers(variables), average, problem[1])
