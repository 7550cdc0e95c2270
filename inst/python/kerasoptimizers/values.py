"""Gives a model other values or methods for a while, and then its own back, whatever happens."""

import functools
import inspect
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from .arguments import is_table


def surely(function: Callable[[], None]) -> None:
    """Run a function to its end, even if an interrupt breaks it off. It must be safe to run it twice."""
    try:
        function()
    except BaseException:
        function()
        raise


class Undoing:
    """A `with` that ends with `undo()`, whatever happens.

        with Undoing(undo) as undoing, undoing:
            ...

    Twice, because an interrupt may come just before the inner `with` ends, or in its undo(). Then the outer one acts.

    Args:
        undo: function that may be called again.
    """

    def __init__(self, undo: Callable[[], None]):
        self._function = undo

    def undo(self) -> None:
        """Undo what was done. It may be called again: that finishes what an interrupt broke off."""
        self._function()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.undo()


class Held(Undoing):
    """The values of variables, so that they can be given back.

        with Held(variables, backend) as held, held:
            ...  # set the variables to anything

    Args:
        variables: list of variables.
        backend: how they are read and written, as in `backends`.
    """

    def __init__(self, variables: Iterable[Any], backend: Any):
        self._backend = backend
        self._values: list | None = [(variable, backend.read(variable)) for variable in variables]

    def undo(self) -> None:
        """Give the variables their values back."""
        for variable, value in self._values or ():
            self._backend.write(variable, value)
        self._values = None

    def keep(self) -> None:
        """Leave the variables as they are now."""
        self._values = None


class StandIns(Undoing):
    """Attributes that are something else until `undo()` or the end of a `with`, as for `Held`.

    Args:
        stand_ins: list of (object, name of its attribute, what it is from `put()` on).
    """

    def __init__(self, stand_ins: Iterable[tuple[Any, str, Any]]):
        self._stand_ins = list(stand_ins)
        self._own = [(target, name, getattr(target, name)) for target, name, _ in self._stand_ins]

    def put(self) -> None:
        for target, name, value in self._stand_ins:
            setattr(target, name, value)

    def undo(self) -> None:
        """Give the objects their own back."""
        for target, name, value in self._own:
            setattr(target, name, value)


def variables_of(model: Any) -> list[Any]:
    """All variables of a model: also the seeds and counts that are no weights, but no lookup tables."""
    return [v for v in [*model.trainable_variables, *model.non_trainable_variables] if not is_table(v)]


def others_of(model: Any, variables: list[Any]) -> list[Any]:
    """A model's non-trainable variables that are not among these."""
    known = {id(variable) for variable in variables}
    return [v for v in model.non_trainable_variables if id(v) not in known and not is_table(v)]


def assign_all(pairs: Iterable[tuple[Any, Any]], backend: Any) -> None:
    """Set variables to values: all of them, or, where that fails, none.

    Args:
        pairs: list of (variable, value).
        backend: as in `Held`.
    """
    pairs = list(pairs)
    with Held([variable for variable, _ in pairs], backend) as held, held:
        for variable, value in pairs:
            backend.write(variable, value)
        held.keep()


class Replaced(Undoing):
    """Methods of objects or classes, replaced until `undo()` or the end of a `with`, as for `Held`.

    One method may be replaced several times, in any order. It may also be any other attribute. When nothing holds a
    `Replaced` any more, its replacements go with it, so that nothing piles up.
    """

    # For each object, by name of the method: its own one, and the stack of those around it.
    _stacks: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._mine: list[tuple[Any, str]] = []

    def put(self, target: Any, name: str, around: Callable[[Any], Any]) -> None:
        """Put `around(method)` in the place of a method, be it the object's own or its class's."""
        stacks = self._stacks.setdefault(target, {})
        stack = stacks.get(name)
        if stack is None or not stack.stands():
            # Somebody else has set the method since: wrap that one.
            stack = stacks[name] = _Stack(target, name)
        self._mine.append((target, name))
        stack.layers.append((weakref.ref(self), around))
        stack.stand()

    def undo(self) -> None:
        """Take away what this object has put."""
        while self._mine:
            target, name = self._mine[-1]
            stacks = self._stacks.get(target, {})
            if stack := stacks.get(name):
                stack.layers = [layer for layer in stack.layers if layer[0]() is not self]
                stack.stand()
                if not stack.layers:
                    stacks.pop(name, None)
            self._mine.pop()


class _Stack:
    """The replacements of one method of one object."""

    _missing = object()

    def __init__(self, target, name):
        self.target, self.name = weakref.ref(target), name
        # These set an attribute past Keras, which keeps track of those that are set.
        self.builtin: Any = type if isinstance(target, type) else object
        self.own = vars(target).get(name, self._missing)
        self.layers: list = []
        # The method that is there, and the one to be set next: an interrupt may come between the note and the deed.
        self.noted = (self.own, self.own)

    def stands(self):
        """Whether the method is still what was set here."""
        method = vars(self.target()).get(self.name, self._missing)
        return method is self.noted[0] or method is self.noted[1]

    def stand(self):
        """Set the object's method to the whole stack; to its own where the stack is empty."""
        self.layers = [layer for layer in self.layers if layer[0]() is not None]
        if not self.stands():
            return  # set by somebody else, to whom it belongs now
        target, method = self.target(), self.own
        if self.layers:
            if method is self._missing:
                method = self._inherited()
            for _, around in self.layers:
                method = around(method)
        self.noted = (vars(target).get(self.name, self._missing), method)
        if method is not self._missing:
            self.builtin.__setattr__(target, self.name, method)
        elif self.name in vars(target):
            self.builtin.__delattr__(target, self.name)

    def _inherited(self):
        """The method that an object has from its class, bound to it; for a class, the one from its bases."""
        target, name = self.target(), self.name
        if isinstance(target, type):
            return getattr(super(target, target), name)
        inherited = inspect.getattr_static(type(target), name)
        if not inspect.isfunction(inherited):
            # A class method, a static method, a tf.function, ...
            return inherited.__get__(target, type(target)) if hasattr(inherited, "__get__") else inherited
        # Bound weakly: an object that holds itself would stay until the next garbage collection.
        find = self.target
        return functools.wraps(inherited)(lambda *args, **kwargs: inherited(find(), *args, **kwargs))
