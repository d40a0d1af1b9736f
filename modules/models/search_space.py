"""What a hyper-parameter search may try: ranges and choices, declared by each family's config."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class FloatRange:
    """Numbers between two bounds, both included.

    Attributes:
      low: smallest value.
      high: largest value.
      logarithmic: whether values are drawn uniformly on a logarithmic scale.
    """

    low: float
    high: float
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class IntRange:
    """Whole numbers between two bounds, both included.

    Attributes:
      low: smallest value.
      high: largest value.
      logarithmic: whether values are drawn uniformly on a logarithmic scale.
    """

    low: int
    high: int
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few values.

    Attributes:
      values: the values, each as it would stand in a configuration; None stands for a field that is not set. Neighbours
        should be alike, since what is learned of one is expected of the next.
    """

    values: tuple[Any, ...]


Dimension = FloatRange | IntRange | Choice
