"""One deadline for all that a method does: every request of a batch, every attempt of a request."""

from __future__ import annotations

import time


class Deadline:
    """A moment by which there must be an answer.

    Attributes:
      seconds: time from its making to the moment.
    """

    def __init__(self, seconds: float):
        """Starts the clock.

        Args:
          seconds: time left.

        Raises:
          ValueError: if that is not above zero, or without end.
        """
        if not 0 < seconds < float("inf"):
            raise ValueError(f"timeout_seconds: received {seconds!r}; expected a finite number above 0")
        self.seconds = seconds
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since its making."""
        return time.monotonic() - self._started

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(self.seconds - self.elapsed, 0.0)
