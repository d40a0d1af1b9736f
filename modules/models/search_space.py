"""What a hyper-parameter search may try: ranges and choices, declared by each family's config."""

from __future__ import annotations

import dataclasses


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
      values: the values, all of one kind.
    """

    values: tuple[bool, ...] | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


Dimension = FloatRange | IntRange | Choice
