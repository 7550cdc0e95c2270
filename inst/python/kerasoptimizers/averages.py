"""The averages of one optimizer: its slots, and all that is done with them but the arithmetic."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from . import arguments
from .backends import NARROW
from .notices import KerasOptimizersWarning
from .rules import Rule
from .values import StandIns, assign_all, surely


class Owner(Protocol):
    """The methods of an optimizer that its averages call."""

    name: str
    built: bool

    def key(self, variable: Any) -> Any:
        """The key of a variable. AttributeError for anything else."""

    def new_slot(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str, initializer: Any) -> Any:
        """A variable that belongs to a weight, on its devices."""

    def new_scalar(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        """A variable of zeros; the type is "int" or "float32"."""

    def count(self) -> Any:
        """The number of updates made so far."""


class Averages:
    """Slots for weights, moved as a rule says, shown in the model and taken back, saved and loaded.

    Args:
        rule: a `Rule`.
        backend: one of `backends`.
        owner: the optimizer that they belong to.
        check_finite: bool, whether an update that leaves a weight which is not finite moves no average.
        warns: bool, whether to warn of it.

    Attributes:
        variables: list of the weights that are averaged.
        slots: dict of lists of variables, in the order of `variables`.
        scalars: dict of variables.
        dtype: str, the type that the rule's scalars are computed in: "float32", or "float64" if an average is.
        plain: bool, whether slots have their weights' types, and no weight has a constraint.
        in_fast: bool, whether the inner optimizer has taken its step in the slots "fast" themselves, not in the model.
        to_start: list of (slot, weight): slots that must yet get a copy of their weight.
        refused: variable of three whole numbers: updates whose weights were not finite, and of the first of
            these the position of the weight and the number of the update.
        shown: bool, whether the model holds the averages now, and the slots the weights.
    """

    def __init__(self, rule: Rule, backend: Any, owner: Owner, check_finite: bool, warns: bool = True):
        self.rule, self.backend, self.check_finite = rule, backend, check_finite
        self._owner = owner
        self.variables: list[Any] = []
        self.slots: dict[str, list] = {name: [] for name in rule.slots}
        self.plain, self.in_fast = True, False
        self.dtype = "float32"
        self.scalars: dict[str, Any] = {}
        self.refused: Any = None
        self._positions: dict[Any, int] = {}
        self.to_start: list[tuple[Any, Any]] = []
        #: What a file holds of averages, until all the variables that they are of are known.
        self.waiting: dict[str, Any] | None = None
        self._warned_of: int | None = 0 if warns else None
        self._warned_of_blend = False
        # Showing the averages: for each weight whether it is done, what rounding took off an average that a
        # narrow weight can't hold, and the two values that are being exchanged right now.
        self._shows: list[bool] = []
        self._rounding: dict[int, Any] = {}
        self._note: tuple[int, Any, Any] | None = None
        self._by_hand = False
        self._holders: list[Any] = []
        self._kept: dict[int, Any] = {}
        self._others: list[tuple[Any, Any]] = []
        self._then: Callable[[], None] | None = None

    # Slots.

    def create(self, variables: Iterable[Any]) -> None:
        """Make the rule's scalars, and the slots of these variables."""
        for name, start in self.rule.scalars.items():
            kind = "int" if isinstance(start, int) else "float32"
            self.scalars[name] = self._owner.new_scalar(name, (), kind)
        self.refused = self._owner.new_scalar("refused", (3,), "int")
        self.add(variables)

    def add(self, variables: Iterable[Any]) -> None:
        """Make the slots of further variables, as copies of them where the rule says so."""
        new = [v for v in variables if not getattr(v, "overwrite_with_gradient", False)]
        copies = self.backend.have_values(new)
        for variable in new:
            dtype = self.backend.dtype(variable)
            self.plain = self.plain and dtype not in NARROW and getattr(variable, "constraint", None) is None
            dtype = "float32" if dtype in NARROW else dtype
            self.dtype = "float64" if dtype == "float64" else self.dtype
            for name, slot in self.rule.slots.items():
                starts = slot.start == "weights"
                initializer = self._copy_of(variable, slot.rows) if starts and copies else "zeros"
                shape = slot.shape(tuple(variable.shape))
                self.slots[name].append(self._owner.new_slot(variable, name, shape, dtype, initializer))
                if starts and not copies:
                    self.to_start.append((self.slots[name][-1], variable))
            self._positions[self._owner.key(variable)] = len(self.variables)
            self.variables.append(variable)
            self._shows.append(False)

    def _copy_of(self, variable, rows):
        def copy(shape, dtype=None):
            value = self.backend.cast(self.backend.read(variable), dtype)
            return self.backend.xp.stack([value] * rows) if rows else value

        return copy

    def count(self) -> Any:
        """The number of updates made so far."""
        return self._owner.count()

    @property
    def built(self) -> bool:
        return self.refused is not None

    @property
    def average(self) -> list[Any]:
        """The slot that holds the averages."""
        return self.slots[self.rule.slot]

    def position(self, variable: Any) -> int | None:
        try:
            return self._positions.get(self._owner.key(variable))
        except AttributeError:
            return None  # no variable at all

    # The update.

    @contextlib.contextmanager
    def stepping(self, rate: Any) -> Iterator[None]:
        """While it lasts, the inner optimizer takes its step: from the fast weights, if the rule has any."""
        if self.to_start and self.backend.start_late(self):
            self.to_start = []
        steps_from_fast = "fast" in self.slots and bool(self.variables)
        # A rule may change the weights before, a narrow weight can't hold them, and a constraint would round them in a
        # call that is no update.
        shares = steps_from_fast and self.plain and self.rule.starts_from_fast
        stand_ins = self.backend.stand_ins(self) if shares else []
        self.in_fast = bool(stand_ins)
        if steps_from_fast and not self.in_fast:
            self.backend.before(self, self._owner.count(), rate)
        with StandIns(stand_ins) as standing, standing:
            standing.put()
            yield

    def move(self, update: Any, counted: Any, rate: Any) -> None:
        """Move the averages after an update, as the rule says; arguments as in the backends' `move()`."""
        if not self.variables:
            return
        if self.backend.move(self, update, counted, rate):
            self.warn_of_refusals()

    # How far it is.

    def number(self, name: str) -> int | float:
        """A scalar's value."""
        return self.backend.numpy(self.scalars[name]).item() if name in self.scalars else self.rule.scalars[name]

    @property
    def has_average(self) -> bool:
        """Whether there is an average: for SWA, from the first snapshot on."""
        self.warn_of_refusals()
        if self.waiting is not None:
            return False
        return bool(self.variables) and not (self.rule.starts_empty and self.number("snapshots") == 0)

    @property
    def refusals(self) -> int:
        """After how many updates the averages did not move because a weight was not finite."""
        return int(self.backend.numpy(self.refused)[0]) if self.built else 0

    def warn_of_refusals(self) -> None:
        """Warn once of weights that were not finite. A compiled step can't, so every use of the averages calls this."""
        if self._warned_of is None or self.refusals <= self._warned_of:
            return
        _, position, update = (int(number) for number in self.backend.numpy(self.refused))
        self._warned_of = None
        name = arguments.variable_name(self.variables[position])
        warnings.warn(
            f"{self._owner.name} skipped update {update}: {name} was not finite. Its averages are those of the "
            "other updates. (`check_finite` turns this check off.)",
            KerasOptimizersWarning,
            stacklevel=3,
        )

    def forget_refusals(self) -> None:
        """Don't warn of refusals that a file has brought."""
        self._warned_of = self.refusals

    def warn_of_blend(self) -> None:
        """Say once that the model holds weights to train on, if it does."""
        if 0 < self.rule.blend < 1 and not self._warned_of_blend and any(map(self._differs, range(len(self._shows)))):
            self._warned_of_blend = True
            warnings.warn(
                f"{self._owner.name}: the model now holds the weights to train on, not their average. Call "
                "assign_average_vars() when training is done; the callback SwapAverages (R's callback_swap_averages()) "
                "evaluates and predicts with the average meanwhile.",
                KerasOptimizersWarning,
                stacklevel=4,
            )

    def _differs(self, i):
        """Whether a weight is not its average."""
        xp = self.backend.xp
        differs = self.backend.read(self.variables[i]) != self._narrowed(i)
        return float(self.backend.numpy(xp.sum(xp.cast(differs, "float32")))) > 0

    def require(self, action: str) -> None:
        """Raise where there is no average yet."""
        if self.has_average:
            return
        if self.waiting is not None:
            raise ValueError(
                f"{action}() needs the averages of the file that was loaded, which wait for the model's non-trainable "
                "weights: call optimizer.shadow_copy(model) first (in R shadow_copy(model$optimizer, model))."
            )
        needs = f"{action}() needs an average, and there is none yet"
        if not self.variables:
            # Without trainable weights TensorFlow's fit() does not ask for any update.
            built = self._owner.built
            reason = "the model has no trainable weights" if built else "train the model first, with trainable weights"
            raise ValueError(f"{needs}: {reason}.")
        if self.refusals:
            raise ValueError(
                f"{needs}: after each of {self.refusals} updates at which one was due, weights were not finite."
            )
        updates = int(self.backend.numpy(self._owner.count()))
        raise ValueError(
            f"{needs}: no snapshot was taken in {updates} updates; the first one comes after update "
            f"{self.rule.first} (they are counted from 0)."
        )

    # Averages in the model.

    def assign(self, variables: Iterable[Any], leave_others: bool) -> None:
        """Set variables to their averages: all, or where that fails, none.

        Args:
            leave_others: bool, whether trainable variables without an average are left alone.
        """
        self.require("assign_average_vars")
        if self.shown:
            raise ValueError(
                "assign_average_vars() can't be called while the averages are swapped into the model: to have the "
                "weights back, call swap_weights(); or keep the model as it is."
            )
        pairs = []
        for variable in variables:
            position = self.position(variable)
            if position is not None:
                pairs.append((variable, self._narrowed(position)))
            elif self._must_have_average(variable) and not leave_others:
                name = arguments.variable_name(variable)
                raise ValueError(f"`var_list` must hold variables this optimizer was built for: {name} has no average.")
        if not pairs:
            raise ValueError("`var_list` must hold at least one variable that has an average.")
        assign_all(pairs, self.backend)

    @staticmethod
    def _must_have_average(variable):
        return getattr(variable, "trainable", False) and not getattr(variable, "overwrite_with_gradient", False)

    def _narrowed(self, i):
        """An average in its weight's type."""
        return self.backend.cast(self.backend.read(self.average[i]), self.backend.dtype(self.variables[i]))

    @property
    def shown(self) -> bool:
        return any(self._shows) or self._note is not None

    def to_show(self, variables: Iterable[Any]) -> list[Any]:
        """The average of each variable, for others to show; the weights' values while there is none."""
        if not self.has_average:
            for variable, average in zip(self.variables, self.average):
                self.backend.write(average, self.backend.cast(self.backend.read(variable), self.backend.dtype(average)))
        return [self.average[i] for i in map(self.position, variables) if i is not None]

    def swap(self) -> None:
        """Exchange weights and averages; a second time restores both bit for bit."""
        self.require("swap_weights")
        self._show(not self.shown, by_hand=not self.shown)

    def hold(self, holder: Any, others: Iterable[Any], then: Callable[[], None]) -> None:
        """Show the averages until every object that holds them has let go; nothing, while there is no average.

        Args:
            others: further variables of the model, whose values are kept, too, where a backend can lose them.
            then: what to call there once the weights are back.
        """
        if holder not in self._holders and self.has_average:
            if self.backend.loses_values:
                self._others, self._then = [(variable, self.backend.read(variable)) for variable in others], then
            self._show(True, self._by_hand, [*self._holders, holder])

    def let_go(self, holder: Any) -> None:
        """Show the weights again, unless someone else wants the averages."""
        if holder in self._holders:
            others = [other for other in self._holders if other is not holder]
            self._show(bool(others) or self._by_hand, self._by_hand, others)

    def _show(self, averages, by_hand, holders=()):
        try:
            self._by_hand, self._holders = by_hand, list(holders)
            for i, shows in enumerate(self._shows):
                if shows != averages:
                    self._exchange(i, averages)
            if not averages:
                self._return_others()
        except BaseException:
            # Whatever stopped it, the model holds its own weights then.
            surely(self._show_weights)
            raise

    def _show_weights(self):
        """Give the model its weights, whatever was done before; it may be called again."""
        if self._note is not None:
            self._place(*self._note, averages=False)
        for i, shows in enumerate(self._shows):
            if shows:
                self._exchange(i, False)
        self._return_others()
        self._note, self._by_hand, self._holders = None, False, []

    def _return_others(self):
        for variable, value in self._others:
            if not self.backend.has_value(variable):
                self.backend.write(variable, value)
        if self._then is not None:
            self._then()
        self._others, self._then = [], None

    def _exchange(self, i, averages):
        backend, variable, slot = self.backend, self.variables[i], self.average[i]
        if self._shows[i]:
            own = backend.cast(backend.read(slot), backend.dtype(variable))
            average = self._kept.get(i)
            if average is None:
                average = backend.cast(backend.read(variable), backend.dtype(slot))
                average = average + self._rounding[i] if i in self._rounding else average
        else:
            own, average = backend.read(variable), backend.read(slot)
        # First a note of both, in one assignment: what it says can be written again, until all is done.
        self._note = i, own, average
        self._place(i, own, average, averages)
        self._note = None

    def _place(self, i, own, average, averages):
        """Put one weight and its average where they belong."""
        backend, variable, slot = self.backend, self.variables[i], self.average[i]
        wide, narrow = backend.dtype(slot), backend.dtype(variable)
        if averages:
            shown = backend.cast(average, narrow)
            backend.write(variable, shown)
            backend.write(slot, backend.cast(own, wide))
            if wide != narrow:
                self._rounding[i] = average - backend.cast(shown, wide)
            if self._holders and backend.loses_values:
                self._kept[i] = average
        else:
            backend.write(variable, own)
            backend.write(slot, average)
            self._rounding.pop(i, None)
            self._kept.pop(i, None)
        self._shows[i] = averages

    # Saving.

    def save(self, store: Any, variables: list[Any]) -> None:
        """Put variables into a file, and whether the averages are shown.

        Args:
            store: dict or HDF5 group.
            variables: list, the averages' own and whatever else the optimizer saves.
        """
        if self.waiting is not None:
            for key, value in self.waiting.items():
                store[key] = value
            return
        for i, variable in enumerate(variables):
            store[str(i)] = self.backend.numpy(variable)
        if self.shown:
            # With what rounding took off, so that the loaded model can be swapped back bit for bit.
            store["swapped"] = np.array(sorted(self._rounding), "int64")
            for i, rounding in self._rounding.items():
                store[f"rounding{i}"] = np.array(self.backend.numpy(rounding))

    def load(self, store: Any, variables: list[Any]) -> None:
        """Set variables to the values that `save()` put into a file; if the file does not fit, set none."""
        if not hasattr(store, "keys"):
            arguments.refuse("store", "a dict of arrays or an HDF5 group", store)
        known = [key for key in store.keys() if not key.startswith(("swapped", "rounding"))]
        if len(known) != len(variables):
            warnings.warn(
                f"The averages of '{self._owner.name}' were not loaded: it has {len(variables)} variables, the "
                f"file {len(known)}. Create them first, with optimizer.shadow_copy(model) (in R "
                "shadow_copy(model$optimizer, model)), then load again.",
                KerasOptimizersWarning,
                stacklevel=2,
            )
            return
        arguments.check_store(store, variables)
        for i, variable in enumerate(variables):
            variable.assign(store[str(i)])
        shown = "swapped" in store.keys()
        narrow = [int(i) for i in store["swapped"]] if shown else []
        self._rounding = {i: self.backend.cast(np.array(store[f"rounding{i}"]), "float32") for i in narrow}
        self._shows = [shown] * len(self._shows)
        self._by_hand, self._holders, self.to_start = shown, [], []
        self.forget_refusals()
