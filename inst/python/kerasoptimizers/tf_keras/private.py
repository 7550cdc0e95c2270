"""The private parts of Keras 2 that we need, each under our own name.

`tests/python/package/test_private_names.py` fails if Keras renames one. `OVERRIDDEN` lists the methods we override.
"""

import tf_keras

#: A class of Keras, and its method that one of our classes overrides.
OVERRIDDEN = [
    (tf_keras.callbacks.ModelCheckpoint, "_save_model"),
    (tf_keras.optimizers.Optimizer, "_clip_gradients"),
    (tf_keras.optimizers.Optimizer, "_use_weight_decay"),
    (tf_keras.optimizers.Optimizer, "_create_iteration_variable"),
    (tf_keras.optimizers.Optimizer, "_build_learning_rate"),
    (tf_keras.optimizers.Optimizer, "_trackable_children"),
]


def variable_key(optimizer, variable):
    """The key by which an optimizer knows a variable."""
    return optimizer._var_key(variable)


def built_for(optimizer):
    """The positions of the variables a built optimizer is for, by their keys; None for one that is not built."""
    return optimizer._index_dict if getattr(optimizer, "_built", False) else None


def own_variables(optimizer):
    """The variables of an optimizer, without those of an optimizer inside of it."""
    return optimizer._variables


def strategy(optimizer):
    """The TensorFlow strategy an optimizer was made under."""
    return optimizer._distribution_strategy


def shared_name(variable):
    """A variable's name, without a number."""
    return variable._shared_name


def build_legacy(optimizer, variables):
    """Create the slots of an optimizer of the old kind."""
    optimizer._create_all_weights(variables)


def rate_source(optimizer):
    """The source of an optimizer's learning rate: a variable or a schedule."""
    # One of the old kind shows its schedule; the others show the rate of the step before.
    old = isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer)
    return optimizer.learning_rate if old else optimizer._learning_rate


def rate_of_step(optimizer):
    """The learning rate that an optimizer's next step will have."""
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        return optimizer._decayed_lr("float32")
    rate = rate_source(optimizer)
    return rate(optimizer.iterations) if callable(rate) else rate


def compile_arguments(model):
    """The arguments of a model's `compile()`, as they were given; none for one that is not compiled."""
    return getattr(getattr(model, "_compile_config", None), "config", None) or {}


def layers_of(model):
    """All layers of a model, at any depth, itself included."""
    return model._flatten_layers()


def steps_per_execution(model):
    """The number of batches that a call of the train function takes."""
    steps = model._steps_per_execution
    return 1 if steps is None else int(steps.numpy())


def return_values(callback, name, args):
    """Nothing is taken: TensorFlow's variables keep their values while a function runs."""


def forget_values(model):
    """Here variables keep their values during a call."""


#: The class in which the `call()` of all batch-norm layers is: version 1 and the synchronized one too.
BATCH_NORM = tf_keras.layers.BatchNormalization.__base__


def random_states(model):
    """The states of a model's random generators, which Keras 2 does not count among its variables."""
    generators = [getattr(getattr(layer, "_random_generator", None), "_generator", None) for layer in layers_of(model)]
    return [generator.state for generator in generators if generator is not None]
