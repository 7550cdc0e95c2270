"""When a callback acts: at the ends of epochs, or every few batches."""

from typing import Any

from .. import arguments


def every(value: Any) -> Any:
    """A checked argument `every`."""
    if isinstance(value, str) and value == "epoch":
        return value
    if isinstance(value, str):
        arguments.refuse("every", "'epoch' or a whole number >= 1", value)
    return arguments.whole("every", value, 1)


class Moments:
    """Counts batches, across epochs and where a call of the train function takes several.

    Args:
        every: "epoch", or an int, the number of batches.

    Attributes:
        done: int, the number of batches so far.
    """

    def __init__(self, every: Any):
        self.every = every
        self.done = 0
        self._last = -1

    def begin_epoch(self) -> None:
        self._last = -1

    def batch_is_due(self, batch: int) -> bool:
        """Whether one of the moments came with the batches up to this one; its number is that in the epoch."""
        if self.every == "epoch":
            return False
        before, self.done = self.done, self.done + batch - self._last
        self._last = batch
        return self.done // self.every > before // self.every
