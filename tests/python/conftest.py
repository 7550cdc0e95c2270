import gc
import os
import sys

import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if os.environ["KERAS_BACKEND"] == "tensorflow":
    import tensorflow as tf

    # Four of them, for the tests of distribution; it can't be changed once one is in use.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
    )


def pytest_configure(config):
    """Refuse to test another Keras than KERASOPTIMIZERS_TEST_KERAS, a version, says."""
    import keras

    wanted = os.environ.get("KERASOPTIMIZERS_TEST_KERAS", keras.__version__)
    if keras.__version__ != wanted:
        pytest.exit(f"Keras {wanted} was to be tested, but {keras.__file__} is {keras.__version__}.", 3)


def pytest_report_header():
    import keras

    return f"Keras {keras.__version__} on {keras.backend.backend()}"


def pytest_collection_finish():
    # What is imported stays: tests that collect garbage need not look through it each time.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session, exitstatus):
    session.config.exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """End at once: an interrupt at a random moment may leave a lock that Python would wait for at its end."""
    if hasattr(config, "exit_status"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.exit_status)


@pytest.fixture(autouse=True, scope="module")
def forget_models():
    """Keep the process small: it slows down with all models, graphs and compiled steps of the files before."""
    yield
    import keras

    keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    elif keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import ops

        # Each step that is traced leaves a gradient there, which keeps its whole graph.
        registry = ops.gradient_registry._registry
        for name in [name for name in registry if name.startswith("CustomGradient-")]:
            del registry[name]
    gc.collect()
    # What is left is not looked through again.
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Set the markers `keras2` and, of a `sample`, `long`.

    Skip everything for the reason in KERASOPTIMIZERS_TEST_SKIP, so that it is counted.
    """
    reason = os.environ.get("KERASOPTIMIZERS_TEST_SKIP")
    samples = set()
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        keras2 = item.path.stem.endswith("tf_keras") or any(isinstance(p, str) and p == "tf_keras" for p in parameters)
        if keras2:
            item.add_marker("keras2")
        whole = item.get_closest_marker("every_case")
        whole = whole is not None and (not whole.args or keras2)
        if item.get_closest_marker("sample") and not whole and os.environ["KERAS_BACKEND"] != "torch":
            test = (item.path, item.originalname, keras2)
            if test in samples:
                item.add_marker("long")
            elif not item.get_closest_marker("long"):
                samples.add(test)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("once") and os.environ["KERAS_BACKEND"] != "tensorflow":
            item.add_marker(pytest.mark.skip(reason="runs on TensorFlow, once"))
