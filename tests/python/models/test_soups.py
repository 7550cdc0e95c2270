"""Averages of finished models and of files."""

import functools
import os
import pathlib
import tracemalloc
import warnings

import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers.soups import arithmetic

pytestmark = pytest.mark.sample

INPUTS = np.random.default_rng(0).normal(1.0, 2.0, size=(32, 4)).astype("float32")
TARGETS = INPUTS[:, :2] - INPUTS[:, 2:]
BATCH_NORM = "batch-norm statistics"


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Generation(request.param)


def model_of(kit, seed, width=3, activation="relu", names=("one", "two"), norm=True, compiled=True):
    """A small model with random weights and statistics."""
    kit.keras.utils.set_random_seed(seed)
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((4,)), layers.Dense(width, activation, name=names[0])])
    if norm:
        model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(2, name=names[1]))
    if compiled:
        model.compile(kit.SWA("adam"), "mse")
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


@functools.cache
def models_of(name):
    """Three models, and a folder with their files."""
    import tempfile

    kit, folder = Generation(name), tempfile.mkdtemp()
    models = [model_of(kit, seed) for seed in range(3)]
    # As if it had been trained: its files hold the optimizer's state.
    models[0].optimizer.build(models[0].trainable_variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, model in enumerate(models):
            model.save(f"{folder}/{i}.keras")
            model.save(f"{folder}/{i}.h5")
            model.save_weights(f"{folder}/{i}.weights.h5")
            if name == "tf_keras":
                model.save_weights(f"{folder}/checkpoint-{i}")
                model.save(f"{folder}/saved-{i}", save_format="tf")
    return models, folder


@pytest.fixture
def models(kit):
    return models_of(kit.name)[0]


@pytest.fixture
def folder(kit):
    return models_of(kit.name)[1]


def mean_of(models, weights=None):
    values = zip(*(model.get_weights() for model in models))
    return [np.average([np.asarray(v, "float64") for v in w], 0, weights).astype(w[0].dtype) for w in values]


def assert_holds(model, expected):
    found = model.get_weights()
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def paths(folder, *names):
    return [os.path.join(folder, name) for name in names]


def error_of(call):
    """The one line that a call is refused with."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_mean_of_models_is_a_new_model_rounded_once(kit, models):
    before = [model.get_weights() for model in models]
    with pytest.warns(UserWarning, match=BATCH_NORM):
        mean = kit.average_models(models)
    assert_holds(mean, mean_of(models))
    assert all(mean is not model for model in models)
    for model, weights in zip(models, before):
        assert_holds(model, weights)
    # It is compiled as the first is, and can be evaluated, trained and saved.
    assert type(mean.optimizer).__name__ == "SWA"
    assert np.isfinite(mean.evaluate(INPUTS, TARGETS, verbose=0))
    mean.fit(INPUTS, TARGETS, verbose=0)
    assert_holds(models[0], before[0])


FILES = {
    "keras": ["0.keras", "1.keras", "2.keras"],
    "weights": ["0.weights.h5", "1.weights.h5", "2.weights.h5"],
    "legacy": ["0.h5", "1.h5", "2.h5"],
    "mixed": ["0.weights.h5", "1.keras", "2.h5"],
    "legacy first": ["0.h5", "1.weights.h5", "2.keras"],
    "checkpoints": ["checkpoint-0", "checkpoint-1", "checkpoint-2"],
    "saved models": ["saved-0", "saved-1", "saved-2"],
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}", "ignore:The new model is not compiled")
def test_files_of_all_formats_average_as_their_models_do(kit, models, folder, kind):
    if kind in ("checkpoints", "saved models") and kit.name != "tf_keras":
        pytest.skip("only Keras 2 writes these")
    files = paths(folder, *FILES[kind])
    into = model_of(kit, 7) if kind in ("weights", "checkpoints") else None
    if into is not None:
        into.optimizer.build(into.trainable_variables)
        assert "`into` must be given" in error_of(lambda: kit.average_models(files))
    mean = kit.average_models(files, into=into)
    assert_holds(mean, mean_of(models))
    assert into is None or mean is into
    # A model among the files.
    assert_holds(kit.average_models([pathlib.Path(files[0]), models[1], files[2]], into=into), mean_of(models))


@pytest.mark.once
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_weights_are_divided_by_their_sum_and_zero_leaves_a_model_out(kit, models):
    assert_holds(kit.average_models(models, [1, 2, 5.5]), mean_of(models, [1, 2, 5.5]))
    assert_holds(kit.average_models(models, np.array([0, 1, 1])), mean_of(models[1:]))


def test_one_model_averages_to_itself_bit_for_bit(kit, models, folder):
    for one in (models[1], *paths(folder, "1.keras", "1.h5", "1.weights.h5")):
        into = model_of(kit, 8) if str(one).endswith("weights.h5") else None
        with warnings.catch_warnings():
            warnings.filterwarnings("error", f".*{BATCH_NORM}")
            assert_holds(kit.average_models([one], into=into), models[1].get_weights())
            assert_holds(kit.average_models([one, one], [1, 0], into=into), models[1].get_weights())


def test_seeds_and_counters_are_the_first_models(kit, tmp_path):
    def counting():
        class Counts(kit.keras.layers.Layer):
            def build(self, input_shape):
                self.calls = self.add_weight(name="calls", shape=(), dtype="int32", trainable=False)

            def call(self, x):
                return x

        model = kit.keras.Sequential([kit.keras.Input((4,)), Counts(), kit.keras.layers.Dense(2)])
        return model

    models = [counting() for _ in range(2)]
    for count, model in zip((3, 9), models):
        model.layers[0].calls.assign(count)
    # Nobody has registered the layer's class.
    mean = kit.average_models(models[::-1])
    assert int(np.array(mean.layers[0].calls)) == 9
    for i, model in enumerate(models):
        model.save_weights(tmp_path / f"{i}.weights.h5")
    for these in (models[::-1], [tmp_path / "1.weights.h5", tmp_path / "0.weights.h5"]):
        assert int(np.array(kit.average_models(these, into=counting()).layers[0].calls)) == 9
    if kit.name == "keras3":
        dropout = [kit.keras.Sequential([kit.keras.Input((2,)), kit.keras.layers.Dropout(0.5, seed=s)]) for s in (1, 2)]
        dropout[1].add(kit.keras.layers.Dense(1)), dropout[0].add(kit.keras.layers.Dense(1))
        seeds = [np.array(v) for v in dropout[1].non_trainable_variables]
        found = kit.average_models(dropout[::-1]).non_trainable_variables
        assert [s.tolist() for s in seeds] == [np.array(v).tolist() for v in found]


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "float64"])
def test_every_type_of_weight_is_averaged_in_float64(kit, policy, tmp_path):
    layers, models = kit.keras.layers, []
    for seed in range(3):
        models.append(kit.keras.Sequential([kit.keras.Input((3,)), layers.Dense(2, dtype=policy)]))
        rng = np.random.default_rng(seed)
        models[-1].set_weights([rng.uniform(0.5, 1, w.shape).astype(w.dtype) for w in models[-1].get_weights()])
        models[-1].save(tmp_path / f"{seed}.keras")
    if policy == "float64" and np.asarray(models[0].get_weights()[0]).dtype != "float64":
        pytest.skip("JAX has no float64 unless it is asked for it")
    expected = [
        arithmetic.narrowed(np.mean([np.asarray(v, "float64") for v in w], 0), w[0].dtype)
        for w in zip(*(model.get_weights() for model in models))
    ]
    assert_holds(kit.average_models(models), expected)
    assert_holds(kit.average_models([tmp_path / f"{seed}.keras" for seed in range(3)]), expected)


def test_batch_norm_is_recomputed_where_data_is_given(kit, models, folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{BATCH_NORM}")
        mean = kit.average_models(paths(folder, "0.keras", "1.keras"), data=INPUTS, batch_size=5)
        expected = model_of(kit, 9)
        expected.set_weights(mean_of(models[:2]))
        kit.update_batch_norm(expected, INPUTS, 5, verbose=0)
        assert_holds(mean, expected.get_weights())
        assert any((a != b).any() for a, b in zip(mean.get_weights(), mean_of(models[:2])))
        # Models without batch norm need none.
        kit.average_models([model_of(kit, seed, norm=False) for seed in range(2)])


def test_a_loss_that_nobody_has_registered_is_taken_over(kit):
    def own_loss(y, out):
        return (y - out) ** 2

    models = [model_of(kit, seed, norm=False) for seed in range(2)]
    models[0].compile("adam", own_loss)
    assert kit.average_models(models).loss is own_loss


def test_words_of_a_lookup_table_are_the_first_models(kit):
    models = [kit.model_of_texts(kit.keras.layers.Dense(2))[0] for _ in range(2)]
    mean = kit.average_models(models)
    assert mean.layers[0].get_vocabulary() == models[0].layers[0].get_vocabulary()
    for found, *values in zip(*(model.layers[-1].get_weights() for model in (mean, *models))):
        np.testing.assert_array_equal(found, np.mean(np.asarray(values, "float64"), 0).astype("float32"))


def test_a_nested_model_with_two_inputs_and_a_shared_layer_is_averaged(kit, tmp_path):
    layers = kit.keras.layers

    def nested():
        shared = layers.Dense(2)
        inside = kit.keras.Sequential([kit.keras.Input((2,)), layers.Dense(3), layers.Dense(2)])
        one, two = kit.keras.Input((4,)), kit.keras.Input((4,))
        return kit.keras.Model([one, two], layers.Add()([inside(shared(one)), shared(two)]))

    models = [nested() for _ in range(3)]
    for i, model in enumerate(models):
        model.save(tmp_path / f"{i}.keras")
    assert_holds(kit.average_models(models), mean_of(models))
    assert_holds(kit.average_models([tmp_path / f"{i}.keras" for i in range(3)]), mean_of(models))


def test_a_model_that_cannot_be_copied_needs_into(kit):
    class Own(kit.keras.Model):
        def __init__(self, width):
            super().__init__()
            self.dense = kit.keras.layers.Dense(width)

        @classmethod
        def from_config(cls, config):
            raise NotImplementedError

        def call(self, x):
            return self.dense(x)

    models = [Own(2) for _ in range(3)]
    for model in models:
        model(INPUTS)
    assert "`into` must be given: no model can be made like `models` number 1" in error_of(
        lambda: kit.average_models(models[:2])
    )
    expected = mean_of(models[:2])
    assert kit.average_models(models[:2], into=models[2]) is models[2]
    assert_holds(models[2], expected)
    # Also one of the list itself.
    assert_holds(kit.average_models(models[:2], into=models[0]), expected)


def different(kit, name):
    layers, keras = kit.keras.layers, kit.keras
    kinds = {
        "shape": lambda: model_of(kit, 1, width=5),
        "names": lambda: model_of(kit, 1, names=("two", "one"), norm=False),
        "activation": lambda: model_of(kit, 1, activation="tanh"),
        "layers": lambda: model_of(kit, 1, norm=False),
        "more layers": lambda: keras.Sequential([kit.keras.Input((4,)), *model_of(kit, 1).layers, layers.Dense(2)]),
    }
    return kinds[name]()


@pytest.mark.once
@pytest.mark.parametrize("what", ["shape", "names", "activation", "layers", "more layers"])
def test_models_that_are_not_alike_are_refused_before_anything_is_changed(kit, models, tmp_path, what):
    other = different(kit, what)
    first = model_of(kit, 2, norm=False) if what == "names" else models[0]
    into = model_of(kit, 3, norm=what != "names")
    before = into.get_weights()
    assert "must be built like" in error_of(lambda: kit.average_models([first, other], into=into))
    for i, model in enumerate((first, other)):
        model.save(tmp_path / f"{i}.keras")
    text = error_of(lambda: kit.average_models([tmp_path / "0.keras", tmp_path / "1.keras"], into=into))
    assert f"`models` number 2 ('{tmp_path / '1.keras'}') must be built like `models` number 1" in text
    assert "`into` must be built like" in error_of(lambda: kit.average_models([other, other], into=into))
    assert_holds(into, before)


@pytest.mark.once
def test_dropout_and_numbers_in_names_make_no_difference(kit):
    def built(rate):
        layers = kit.keras.layers
        return kit.keras.Sequential([kit.keras.Input((4,)), layers.Dense(2), *rate, layers.Dense(2)])

    models = [built([]), built([kit.keras.layers.Dropout(0.1)]), built([kit.keras.layers.GaussianNoise(1.0)])]
    assert_holds(kit.average_models(models), mean_of(models))


@pytest.mark.once
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_bad_arguments_are_refused_in_one_line(kit, models, folder, tmp_path):
    average, other = kit.average_models, kit.keras.Sequential([kit.keras.layers.Dense(2)])
    (tmp_path / "torn.keras").write_bytes(pathlib.Path(folder, "0.keras").read_bytes()[:3000])
    (tmp_path / "torn.weights.h5").write_bytes(pathlib.Path(folder, "0.weights.h5").read_bytes()[:3000])
    (tmp_path / "foreign.h5").write_text("no weights")
    keras = paths(folder, "0.keras")[0]
    assert "`models` must be a list of models or paths" in error_of(lambda: average(models[0]))
    assert "`models` must be a list of models or paths" in error_of(lambda: average(keras))
    assert "`models` must hold at least one" in error_of(lambda: average([]))
    assert "`models` number 2 must be a" in error_of(lambda: average([models[0], 3]))
    assert "`models` number 2 must be built" in error_of(lambda: average([models[0], other]))
    assert "`into` must be built" in error_of(lambda: average(models, into=other))
    assert "`into` must be a built" in error_of(lambda: average(models, into=3))
    for name in ("torn.keras", "torn.weights.h5", "foreign.h5"):
        text = error_of(lambda: average([keras, tmp_path / name]))
        assert f"'{tmp_path / name}') can't be read" in text
    assert "does not exist" in error_of(lambda: average([keras, "missing.keras"]))
    assert "is a folder" in error_of(lambda: average([keras, tmp_path]))
    for weights in ([1, 2], [1, -1, 1], [1, np.nan, 1], [0, 0, 0], 1.0, "123", [1, True, 1]):
        assert "`weights` must" in error_of(lambda: average(models, weights))
    assert "`batch_size` must" in error_of(lambda: average(models, batch_size=0))
    assert "`data` must" in error_of(lambda: average(models, data="x"))
    for fraction in (-0.1, 1.5, "half"):
        assert "`fraction` must" in error_of(lambda: kit.interpolate_models(*models[:2], fraction))
    assert "`method` must" in error_of(lambda: kit.interpolate_models(*models[:2], 0.5, "cubic"))
    assert "`b` must be a" in error_of(lambda: kit.interpolate_models(models[0], None, 0.5))
    assert "`models` must hold at least 2" in error_of(lambda: kit.model_stock(models[:1], models[1]))
    assert "`base` must be built like" in error_of(lambda: kit.model_stock(models, different(kit, "shape")))
    assert "`filter_wise` must" in error_of(lambda: kit.model_stock(models, models[0], 1))
    assert "`score` must" in error_of(lambda: kit.greedy_soup(models, 3))
    assert "`score` must return" in error_of(lambda: kit.greedy_soup(models, lambda model: [1.0, 2.0]))
    assert "NaN for all" in error_of(lambda: kit.greedy_soup(models, lambda model: np.nan))
    assert "`mode` must" in error_of(lambda: kit.greedy_soup(models, lambda model: 1, mode="lower"))


@pytest.mark.once
def test_the_other_keras_is_refused(kit):
    if kit.name == "tf_keras":
        other, models = Generation("keras3"), models_of("tf_keras")
    else:
        pytest.importorskip("tf_keras")
        if kit.keras.backend.backend() != "tensorflow":
            pytest.skip("Keras 2 runs with TensorFlow")
        other, models = Generation("tf_keras"), models_of("keras3")
    mine, folder = models
    generation = 2 if kit.name == "tf_keras" else 3
    assert "is a model of the other Keras" in error_of(lambda: other.average_models([model_of(other, 1), mine[0]]))
    for name in ("0.keras", "0.h5"):
        text = error_of(lambda: other.average_models([model_of(other, 1), os.path.join(folder, name)]))
        assert f"was written by Keras {generation}" in text


@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_weights_that_are_not_finite_are_refused_and_into_keeps_its_own(kit, models, folder, tmp_path):
    bad, into = model_of(kit, 1), model_of(kit, 5)
    values, before = bad.get_weights(), into.get_weights()
    values[-1][0] = np.nan
    bad.set_weights(values)
    bad.save(tmp_path / "bad.keras")
    for kinds in ([models[0], bad], [*paths(folder, "0.keras"), tmp_path / "bad.keras"]):
        assert "number 2" in (text := error_of(lambda: kit.average_models(kinds, into=into)))
        assert "not finite" in text
        assert_holds(into, before)


@pytest.mark.once
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_interpolation_goes_from_one_model_to_the_other(kit, models, folder):
    a, b = models[:2]
    for method in ("linear", "slerp"):
        assert_holds(kit.interpolate_models(a, b, 0, method), a.get_weights())
        assert_holds(kit.interpolate_models(*paths(folder, "0.keras", "1.keras"), 1.0, method), b.get_weights())
    for found, one, two in zip(kit.interpolate_models(a, b, 0.25).get_weights(), a.get_weights(), b.get_weights()):
        np.testing.assert_allclose(found, 0.75 * one + 0.25 * two, rtol=1e-6)
    slerp = kit.interpolate_models(a, paths(folder, "1.keras")[0], 0.25, "slerp").get_weights()
    for found, one, two in zip(slerp, a.get_weights(), b.get_weights()):
        cosine = np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two)
        angle = np.arccos(cosine)
        expected = (np.sin(0.75 * angle) * one + np.sin(0.25 * angle) * two) / np.sin(angle)
        expected = 0.75 * one + 0.25 * two if cosine > 0.9995 else expected
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("filter_wise", [False, True])
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_model_stock_takes_an_angle_for_each_array_or_filter(kit, models, folder, filter_wise, monkeypatch):
    monkeypatch.setattr(arithmetic, "BLOCK", 5)
    base = model_of(kit, 11)
    found = kit.model_stock([models[0], *paths(folder, "1.keras")], base, filter_wise)
    for w, one, two, zero in zip(*(model.get_weights() for model in (found, *models[:2], base))):
        d, e = (np.asarray(v, "float64") - zero for v in (one, two))
        axis = 0 if filter_wise and one.ndim == 2 else None
        cosine = np.sum(d * e, axis) / np.sqrt(np.sum(d * d, axis) * np.sum(e * e, axis))
        t = 2 * cosine / (1 + cosine)
        np.testing.assert_allclose(w, zero + t * (d + e) / 2, rtol=1e-5, atol=1e-6)


def held_out(model):
    """Higher is better: near to a target, in the middle of the models."""
    target = mean_of(models_of("tf_keras" if "tf_keras" in type(model).__module__ else "keras3")[0][:2])
    return 1 / (1 + sum(float(np.sum((a - b) ** 2)) for a, b in zip(model.get_weights(), target)))


@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_a_greedy_soup_takes_what_makes_it_better_and_never_scores_below_the_best(kit, models, folder):
    seen = []
    for these in (models, paths(folder, "0.keras", "1.keras", "2.keras")):
        soup = kit.greedy_soup(these, held_out, progress=lambda done, of: seen.append((done, of)))
        assert sorted(soup.soup["chosen"]) == [0, 1]
        assert soup.soup["score"] == held_out(soup) == 1.0 > max(soup.soup["scores"])
        assert_holds(soup, mean_of(models[:2]))
        assert seen[-5:] == [(i, 5) for i in range(1, 6)]
    # The best alone, bit for bit, from its own file; lower is better.
    worse = kit.greedy_soup(these, lambda model: -sum(np.sum(w) for w in model.get_weights()), mode="min")
    sums = [float(sum(np.sum(w) for w in model.get_weights())) for model in models]
    assert worse.soup["chosen"] == [int(np.argmax(sums))]
    assert_holds(worse, models[int(np.argmax(sums))].get_weights())


def test_a_greedy_soup_is_scored_after_batch_norm_and_can_be_evaluated(kit, folder):
    scores = []

    def score(model):
        scores.append(float(model.evaluate(INPUTS, TARGETS, verbose=0)))
        return scores[-1]

    soup = kit.greedy_soup(paths(folder, "0.keras", "1.keras", "2.keras"), score, "min", data=INPUTS)
    assert soup.soup["score"] <= min(soup.soup["scores"])
    np.testing.assert_allclose(soup.evaluate(INPUTS, TARGETS, verbose=0), soup.soup["score"], rtol=1e-5)
    assert len(scores) == 5


@pytest.mark.once
def test_into_keeps_its_own_where_a_score_fails(kit, folder):
    into = model_of(kit, 6)
    before, calls = into.get_weights(), []

    def fails(model):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return float(len(calls))

    with pytest.raises(KeyboardInterrupt):
        kit.greedy_soup(paths(folder, "0.weights.h5", "1.weights.h5", "2.weights.h5"), fails, into=into)
    assert_holds(into, before)


def test_at_most_two_sets_of_weights_are_in_memory(kit, tmp_path, monkeypatch):
    """Besides Keras's own variables, which are not NumPy's."""
    monkeypatch.setattr(arithmetic, "BLOCK", 2**12)
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((300,)), *(layers.Dense(300) for _ in range(5))])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    files = [tmp_path / f"{i}.keras" for i in range(6)]
    for file in files:
        model.save(file)
    copy = 4 * model.count_params()
    kit.average_models(files[:2])
    tracemalloc.start()
    kit.average_models(files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * copy


# Checkpoints.


@pytest.fixture
def directory(kit, tmp_path):
    """Checkpoints in the order of their epochs, written one second apart."""
    _, folder = models_of(kit.name)
    values = {1: ("0.9", 0), 2: ("0.500", 1), 10: ("0.7", 2)}
    for second, (epoch, (loss, i)) in enumerate(values.items()):
        path = tmp_path / f"model-{epoch:02d}-val_loss={loss}.keras"
        path.write_bytes(pathlib.Path(folder, f"{i}.keras").read_bytes())
        os.utime(path, (second, second))
    (tmp_path / ".part-x.keras").write_text("torn")
    (tmp_path / "history.csv").write_text("epoch")
    return tmp_path


@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_checkpoints_are_the_newest_or_the_best(kit, models, directory):
    newest = kit.average_checkpoints(directory, 2)
    assert_holds(newest, mean_of([models[2], models[1]]))
    assert newest.soup == {"files": ["model-10-val_loss=0.7.keras", "model-02-val_loss=0.500.keras"], "scores": None}
    best = kit.average_checkpoints(str(directory), 1, "val_loss")
    assert best.soup == {"files": ["model-02-val_loss=0.500.keras"], "scores": [0.5]}
    worst = kit.average_checkpoints(directory, 1, "val_loss", mode="max")
    assert worst.soup["scores"] == [0.9]
    pattern = "saves/model-{epoch:02d}-val_loss={val_loss:.3f}.keras"
    assert kit.average_checkpoints(directory, 1, "epoch", mode="max", pattern=pattern).soup["scores"] == [10]
    scored = kit.average_checkpoints(directory, 2, lambda model: -float(np.sum(model.get_weights()[0])), mode="min")
    sums = sorted((float(np.sum(model.get_weights()[0])) for model in models), reverse=True)
    np.testing.assert_allclose(scored.soup["scores"], [-sums[0], -sums[1]], rtol=1e-6)


@pytest.mark.once
@pytest.mark.filterwarnings(f"ignore:.*{BATCH_NORM}")
def test_fewer_checkpoints_than_asked_for_are_averaged_with_a_warning(kit, models, directory):
    with pytest.warns(UserWarning, match="`n` is 5, and .* has 3 checkpoints"):
        assert_holds(kit.average_checkpoints(directory), mean_of([models[2], models[1], models[0]]))


@pytest.mark.once
def test_folders_that_do_not_fit_are_refused_in_one_line(kit, directory, tmp_path):
    average = kit.average_checkpoints
    assert "`directory` must be a folder" in error_of(lambda: average(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    assert "holds none" in error_of(lambda: average(tmp_path / "empty"))
    assert "holds none of the pattern" in error_of(lambda: average(directory, pattern="weights-{epoch}.h5"))
    assert "`metric` must be in the names" in error_of(lambda: average(directory, 2, "val_accuracy"))
    assert "`pattern` must hold the metric" in error_of(lambda: average(directory, 2, "val_loss", pattern="m-{epoch}"))
    assert "`mode` must be 'min' or 'max'" in error_of(lambda: average(directory, 2, "val_spam"))
    assert "`n` must" in error_of(lambda: average(directory, 0))
    assert "`metric` must" in error_of(lambda: average(directory, 2, 3))
    assert "`metric` must return a number" in error_of(lambda: average(directory, 2, lambda model: "good"))
    newest = directory / "model-10-val_loss=0.7.keras"
    newest.write_bytes(newest.read_bytes()[:2000])
    assert f"'{newest}') can't be read" in error_of(lambda: average(directory, 2))
