"""`get_slot()`: the variables that belong to a model's variable."""

from typing import Any, ClassVar

from . import arguments


class SlottedOptimizer:
    """Base of all our optimizers. A subclass says where its slots are."""

    __module__ = "kerasoptimizers"

    #: The name of its Keras in messages.
    generation: ClassVar[str]

    def __repr__(self) -> str:
        # Keras's compile() prints it when it is given an optimizer of the other Keras.
        return f"<{type(self).__name__} for {self.generation}>"

    def own_slots(self) -> dict[str, Any]:
        """Its slots by name: lists of variables, or dicts of them, by position."""
        raise NotImplementedError

    def position(self, variable: Any) -> int | None:
        """The position of a variable in them; None for one it was not built for."""
        raise NotImplementedError

    def inner_slot(self, variable: Any, slot_name: str) -> Any:
        """A slot of the inner optimizer, if there is one."""

    def get_slot_names(self) -> list[str]:
        """Names of the slots of this optimizer itself; those of an inner optimizer are its own."""
        return list(self.own_slots())

    def get_slot(self, var: Any, slot_name: str) -> Any:
        """The variable named `slot_name` that belongs to the model variable `var`.

        Args:
            var: a variable the optimizer was built for.
            slot_name: the optimizer's own slot ("average"; "slow" for Lookahead, "momentum" for LARS), one
                that `add_slot()` made, or the name of a variable of the inner optimizer, such as "momentum".

        Returns:
            A variable of `var`'s shape; averages are float32 or wider.

        Raises:
            ValueError: if `var` is not one of the optimizer's variables, or there is no such slot.
        """
        position = self.require_position(var)
        slot = self.find_slot(position, var, slot_name) if isinstance(slot_name, str) else None
        if slot is None:
            names = " or ".join(f"'{name}'" for name in self.own_slots())
            if hasattr(self, "optimizer"):
                names += " or a slot of the inner optimizer"
            raise ValueError(f"`slot_name` must be {names}, not {slot_name!r}.")
        return slot

    def find_slot(self, position: int | None, var: Any, slot_name: str) -> Any:
        slots = self.own_slots().get(slot_name)
        if slots is None or position is None:
            return self.inner_slot(var, slot_name)
        return slots.get(position) if isinstance(slots, dict) else slots[position]

    def require_position(self, var: Any) -> int:
        position = self.position(var)
        if position is None:
            name = arguments.variable_name(var)
            raise ValueError(f"`var` must be a variable this optimizer was built for, not {name}.")
        return position
