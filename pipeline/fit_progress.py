"""How far a run of many fits has come, and about how long the rest will take."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console

from pipeline.local import COMPONENT_MESSAGE

_CACHED_SECONDS = 2.0
"""No fit and evaluation end so soon; what is found in the cache does."""


class Fit(Protocol):
    """One fit of many."""

    @property
    def family(self) -> str:
        """Name of its family; those of one take about as long."""

    @property
    def refit(self) -> bool:
        """Whether it is fitted twice, and so takes twice as long."""

    @property
    def expected_seconds(self) -> float | None:
        """About how long it takes; None if nobody said."""

    @property
    def trainer_id(self) -> str:
        """Node that it begins with."""

    @property
    def evaluator_id(self) -> str:
        """Node that it ends with."""


class FitProgress(logging.Handler):
    """Tells of each fit as it ends.

    Args:
      variants: what is fitted, in order.
      console: where lines go.
      clock: seconds that only grow.
    """

    def __init__(self, variants: Sequence[Fit], console: Console, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._variants = {variant.evaluator_id: variant for variant in variants}
        self._trainers = {variant.trainer_id for variant in variants}
        self._console = console
        self._clock = clock
        self._started = 0.0
        self._done: list[str] = []
        self._seconds: dict[str, list[float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Reads the runner's messages on components that start and end."""
        match = COMPONENT_MESSAGE.match(record.getMessage())
        if match is None:
            return
        name = match["name"]
        if match["what"] == "running" and name in self._trainers:
            self._started = self._clock()
        elif match["what"] == "finished" and name in self._variants:
            self._end(name, self._clock() - self._started)

    def _end(self, name: str, seconds: float) -> None:
        self._done.append(name)
        if seconds > _CACHED_SECONDS:
            variant = self._variants[name]
            if not variant.refit:  # It takes twice as long.
                self._seconds.setdefault(variant.family, []).append(seconds)
        left = self.seconds_left()
        told = "" if left is None else f", {describe_duration(left)} to go"
        line = f"variant {len(self._done)} of {len(self._variants)}{told}"
        self._console.print(f"  [bold]{line}[/bold]", highlight=False)

    def seconds_left(self) -> float | None:
        """Estimates the time of the variants to come.

        By those of their family that ran; or else by what the study expects; or else by all that ran.

        Returns:
          Seconds; None when nothing is left, or nothing is known that one could go by.
        """
        left = [variant for name, variant in self._variants.items() if name not in self._done]
        known = [seconds for of_family in self._seconds.values() for seconds in of_family]
        estimates = [self._estimate(variant, known) for variant in left]
        return sum(seconds for seconds in estimates if seconds is not None) if None not in estimates and left else None

    def _estimate(self, variant: Fit, known: Sequence[float]) -> float | None:
        if not variant.refit and (measured := self._seconds.get(variant.family)):
            return _mean(measured)
        return variant.expected_seconds or (_mean(known) if known else None)


def describe_duration(seconds: float) -> str:
    """Returns a duration as people say it, e.g. `about 5 min`."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
