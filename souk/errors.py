"""The one exception that a user is meant to read."""

from __future__ import annotations


class SoukError(Exception):
    """A failure that the user can act on, told in one line: the cause, then the next step.

    Args:
        cause: What is wrong, naming the thing.
        next_step: What to do about it.
    """

    def __init__(self, cause: str, next_step: str) -> None:
        self.cause = cause
        self.next_step = next_step
        # Both go to args, so that the error survives a trip between processes.
        super().__init__(cause, next_step)

    def __str__(self) -> str:
        """Return the error as one line."""
        return f"{' '.join(self.cause.split())}. {self.next_step}"
