"""The private parts of Keras 3 that we need, each under our own name.

`tests/python/package/test_private_names.py` fails if Keras renames one. `OVERRIDDEN` lists the methods we override.
"""

import inspect

import keras
from keras.src.backend.common.stateless_scope import in_stateless_scope as in_stateless_scope

#: A class of Keras, and its method that one of our classes overrides.
OVERRIDDEN = [
    (keras.callbacks.ModelCheckpoint, "_save_model"),
    (keras.optimizers.Optimizer, "_clip_gradients"),
    (keras.optimizers.Optimizer, "_backend_update_step"),
    (keras.optimizers.Optimizer, "_use_weight_decay"),
]

# The state that Keras's functions take on JAX. While one runs, it is the only place that holds the values of
# the model's variables.
_JAX_STATES = {
    "train_function": ("trainable", "non_trainable", "optimizer", "metrics"),
    "test_function": ("trainable", "non_trainable", "metrics"),
    "predict_function": ("trainable", "non_trainable"),
}


def variable_key(optimizer, variable):
    """The key by which an optimizer knows a variable."""
    return optimizer._var_key(variable)


def built_for(optimizer):
    """The positions of the variables an optimizer was built for, by their keys."""
    return optimizer._trainable_variables_indices


def trained_variables(optimizer):
    """The variables an optimizer was built for."""
    return optimizer._trainable_variables


def own_variables(optimizer):
    """The variables of an optimizer, without those of an optimizer inside of it."""
    return optimizer._variables


def set_iterations(optimizer, value):
    """Set the count of an optimizer's calls."""
    optimizer._iterations.assign(value)


def sum_over_replicas(optimizer, pairs):
    """(gradient, variable) pairs, summed over TensorFlow's replicas."""
    return optimizer._all_reduce_sum_gradients(pairs)


def strategy(optimizer):
    """The TensorFlow strategy an optimizer was made under."""
    return optimizer._distribution_strategy


def training_on_jax():
    """The model whose training on JAX asks for the values of an optimizer's variables, in the functions that run now.

    Returns:
        A Keras model, or None.
    """
    frame = inspect.currentframe()
    # A LossScaleOptimizer may be between.
    for _ in range(9):
        if frame is None or frame.f_code.co_name == "_get_jax_state":
            return None if frame is None else frame.f_locals.get("self")
        frame = frame.f_back
    return None


def layout(variable):
    """How a variable is spread over devices; None for no way in particular."""
    return getattr(variable, "_layout", None)


def rate_source(optimizer):
    """The source of an optimizer's learning rate: a variable, a schedule or a function."""
    return optimizer._learning_rate


def compile_arguments(model):
    """The arguments of a model's `compile()`, as they were given; none for one that is not compiled."""
    return getattr(getattr(model, "_compile_config", None), "config", None) or {}


def layers_of(model):
    """All layers of a model, at any depth, itself included."""
    return model._flatten_layers()


def return_values(callback, name, args):
    """On JAX, give the model's variables the values that a call of one of Keras's functions has taken.

    Args:
        callback: a callback of the model's.
        name: str, the function, or None where it is another one.
        args: its arguments.
    """
    # Not `callback.model`: that gives the variables the values of the step before.
    model = callback._model
    if keras.backend.backend() != "jax" or not getattr(model, "_jax_state", None) and name not in _JAX_STATES:
        return
    if name in _JAX_STATES:
        names = (f"{kind}_variables" for kind in _JAX_STATES[name])
        model._jax_state = dict(zip(names, args[0]))
        model._jax_state_synced = False
    state = model._jax_state
    for values in state.values() if not model._jax_state_synced else ():
        if any(value.is_deleted() for value in values or ()):
            # The step has freed them: there is nothing to give back, and Keras must not try.
            state = model._jax_state = None
            break
    if state is not None:
        model.jax_state_sync()


def forget_values(model):
    """On JAX, keep Keras from giving the variables what a call took that was interrupted.

    Args:
        model: weak reference to a model.
    """
    if (model := model()) is not None and getattr(model, "_jax_state", None):
        model._jax_state = None
