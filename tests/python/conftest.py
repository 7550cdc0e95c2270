import gc
import os

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


@pytest.fixture(autouse=True, scope="module")
def forget_models():
    """Keep the process small: it slows down with all models, graphs and compiled steps of the files before."""
    yield
    import keras

    keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    gc.collect()


def pytest_collection_modifyitems(items):
    """Mark the tests of Keras 2; skip everything for the reason in KERASOPTIMIZERS_TEST_SKIP, so that it is counted."""
    reason = os.environ.get("KERASOPTIMIZERS_TEST_SKIP")
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if item.path.stem.endswith("tf_keras") or any(isinstance(p, str) and p == "tf_keras" for p in parameters):
            item.add_marker("keras2")
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("once") and os.environ["KERAS_BACKEND"] != "tensorflow":
            item.add_marker(pytest.mark.skip(reason="runs on TensorFlow, once"))
