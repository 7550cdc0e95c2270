"""Checks of the arguments of public functions.

Each returns the value it was given in the type the code expects, or raises in
one line that names the argument, what came and what is allowed. The R package
raises the same texts for the same mistakes.
"""

import math
import numbers


def _describe(value):
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def refuse(name, allowed, value):
    """Raise that argument `name` must be `allowed`: TypeError or ValueError by the value's type."""
    number = isinstance(value, numbers.Number) and not isinstance(value, bool)
    error = ValueError if number or isinstance(value, str) else TypeError
    raise error(f"`{name}` must be {allowed}, not {_describe(value)}.")


def whole(name, value, minimum):
    """An integer that is at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        refuse(name, f"a whole number >= {minimum}", value)
    return int(value)


def real(name, value, allowed, accepts):
    """A finite number for which `accepts` holds, as a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        refuse(name, allowed, value)
    number = float(value)
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


def string(name, value):
    if not isinstance(value, str) or not value:
        refuse(name, "a string", value)
    return value


def optional(check, name, value):
    """`check`, where None stands for 'not given'."""
    return None if value is None else check(name, value)
