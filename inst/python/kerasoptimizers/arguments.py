"""Checks of the arguments of public functions.

Each returns the value it was given in the type the code expects, or raises in
one line that names the argument, what came and what is allowed. The R package
raises the same texts for the same mistakes.
"""

import math
import numbers
import os
import re

import numpy as np

#: The largest 32-bit integer: JAX, PyTorch and R count with these.
_LARGEST = 2**31 - 1


def in_short(value):
    """A short text for a value, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # of an object's own __repr__(), or an integer of thousands of digits
        text = ""
    if 0 < len(text) <= 60 and "\n" not in text:
        return text
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def refuse(name, allowed, value):
    """Raise that argument `name` must be `allowed`: TypeError or ValueError by the value's type."""
    number = isinstance(value, numbers.Number) and not isinstance(value, bool)
    error = ValueError if number or isinstance(value, str) else TypeError
    raise error(f"`{name}` must be {allowed}, not {in_short(value)}.")


def whole(name, value, minimum, word=None):
    """An integer that is at least `minimum`; messages say that `word` is allowed, too."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        refuse(name, f"{repr(word) + ' or ' if word else ''}a whole number >= {minimum}", value)
    if value > _LARGEST:
        refuse(name, f"a whole number <= {_LARGEST}", value)
    return int(value)


def updates_or_epochs(name, value):
    """A number of updates, or a text such as "3 epochs"."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,9} epochs?", value):
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        refuse(name, "a whole number >= 0 or a text such as '3 epochs'", value)
    return whole(name, value, 0)


def real(name, value, allowed, accepts):
    """A finite number for which `accepts` holds, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(name, allowed, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not accepts(number):
        refuse(name, allowed, value)
    return number


def fraction(name, value):
    return real(name, value, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def positive(name, value):
    return real(name, value, "a number > 0", lambda x: x > 0)


def not_negative(name, value):
    return real(name, value, "a number >= 0", lambda x: x >= 0)


def flag(name, value):
    if not isinstance(value, bool):
        refuse(name, "True or False", value)
    return value


def choice(name, value, choices):
    """One of several strings."""
    if not isinstance(value, str) or value not in choices:
        words = [repr(word) for word in choices]
        refuse(name, ", ".join(words[:-1]) + f" or {words[-1]}", value)
    return value


def config(value, *needed):
    """A copy of a configuration, as a dict that holds the needed keys."""
    if not isinstance(value, dict):
        refuse("config", "a dict as get_config() returns it", value)
    for key in needed:
        if key not in value:
            raise ValueError(f"`config` must hold `{key}`, as get_config() returns it.")
    return dict(value)


def part(name, value, deserialize, *args):
    """The object that a part of a configuration describes; an error is one line."""
    if not isinstance(value, dict) or "class_name" not in value:
        refuse(name, "a dict as get_config() returns it", value)
    # Where Keras 2 reads HDF5 it looks for the class name alone.
    registered = value.get("registered_name") or value["class_name"]
    try:
        return deserialize({**value, "class_name": registered}, *args)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"`{name}` cannot be made from its configuration: {reason}") from error


def variables(name, value, allowed="a list of variables"):
    """A list of variables, which may be empty."""
    try:
        # A single variable is not a list, and a loop over it never ends on JAX.
        listed = [None] if isinstance(value, dict) or is_variable(value) else list(value)
    except TypeError:
        listed = [None]
    if not all(is_variable(element) for element in listed):
        refuse(name, allowed, value)
    return listed


def is_variable(value):
    """Whether it is a variable of either Keras generation: tensors can't be assigned to."""
    return hasattr(value, "assign") and hasattr(value, "trainable")


def shape(name, value):
    """A shape, as a tuple of ints."""
    try:
        sizes = tuple(value)
    except (TypeError, ValueError):  # a TensorFlow shape of unknown rank
        sizes = (None,)
    whole_numbers = (isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in sizes)
    if isinstance(value, dict) or not all(whole_numbers) or not all(n >= 0 for n in sizes):
        refuse(name, "a tuple of whole numbers >= 0", value)
    return tuple(int(n) for n in sizes)


def array(name, value):
    """Real numbers as an array; a tensor is left as it is."""
    try:
        value = value if hasattr(value, "shape") else np.asarray(value)
    except ValueError:  # lists of different lengths
        refuse(name, "arrays of numbers", value)
    # V: the types that NumPy doesn't know itself, such as bfloat16.
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufV":
        refuse(name, "arrays of numbers", value)
    return value


def rate(value):
    """A learning rate to set; a schedule, function or tensor is left as it is."""
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value.item()
    unknown = (numbers.Number, str, bytes, list, tuple, dict, np.ndarray, type(None))
    if isinstance(value, unknown):
        return not_negative("learning_rate", value)
    return value


def string(name, value):
    if not isinstance(value, str) or not value:
        refuse(name, "a string", value)
    return value


def path(name, value):
    """A path, as a string."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        refuse(name, "a path", value)
    return value


def optional(check, name, value):
    """`check`, but None means 'not given'."""
    return None if value is None else check(name, value)


def variable_name(variable):
    """How a message calls a variable."""
    name = getattr(variable, "path", None) or getattr(variable, "name", None)
    return name if isinstance(name, str) else in_short(variable)


def check_store(store, variables):
    """Raise where a file's arrays don't fit the variables, as many of them as there are."""
    keys, held = [str(i) for i in range(len(variables))], list(store.keys())
    missing = [key for key in keys if key not in held]
    if missing:
        raise ValueError(f"`store` must hold an array named '{missing[0]}', and it has none.")
    shapes = [tuple(variable.shape) for variable in variables]
    given = [tuple(np.shape(store[key])) for key in keys]
    if given != shapes:
        raise ValueError(f"`store` must hold arrays of the shapes {shapes}, not of the shapes {given}.")


def weights(name, value, allowed="a list of variables"):
    """A model's weights; lookup tables, which can't be averaged, are left out."""
    if isinstance(value, (list, tuple)):
        value = [element for element in value if not is_table(element)]
    return variables(name, value, allowed)


def is_table(value):
    """Whether it is a lookup table, which Keras 2 counts among a model's weights."""
    return hasattr(value, "get_tensors") and not is_variable(value)


def switch(name, value):
    """0 or 1, which may be False and True."""
    if not isinstance(value, int) or value not in (0, 1):
        refuse(name, "0 or 1", value)
    return int(value)
