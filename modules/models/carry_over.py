"""Which row of an earlier model's weights each row of a new one continues: by raw token, not by id.

Transform numbers tokens by their frequency, so the same title has another id in each span of data. Here is the
arithmetic alone, in NumPy; `modules.models.base_model` applies it to models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

FRESH = -1
"""Stands for "no row: keep the fresh initial value"."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Neighbouring rows of a weight that belong to one feature.

    Attributes:
      name: the feature.
      size: number of rows.
      vocabulary: whose ids the rows are: row 0 stands for "no value", the last one for every unknown token. None where
        a row's position is its meaning, as with buckets and hours.
      unknown_is_learned: whether training hides tokens on purpose, so that the last row has learned what to make of
        unknown ones. New tokens then begin with it: the base model knew them as that.
    """

    name: str
    size: int
    vocabulary: str | None = None
    unknown_is_learned: bool = False


@dataclasses.dataclass(frozen=True)
class RowCounts:
    """What became of the rows that belong to vocabularies.

    Attributes:
      carried: tokens that the base model knew.
      from_unknown: new tokens that begin as the base model's unknown one.
      fresh: new tokens that begin with fresh values.
      lost: tokens that only the base model knows.
    """

    carried: int = 0
    from_unknown: int = 0
    fresh: int = 0
    lost: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        """Returns the sums."""
        sums = (a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True))
        return RowCounts(*sums)


def base_rows(
    new: Sequence[Rows],
    base: Sequence[Rows],
    new_vocabularies: Mapping[str, Sequence[bytes]],
    base_vocabularies: Mapping[str, Sequence[bytes]],
) -> tuple[np.ndarray, RowCounts]:
    """Returns the base model's row for each row of a new weight.

    Features are matched by name. Without a vocabulary rows are matched by position, if there are equally many.

    Args:
      new: the rows of the new weight, in order.
      base: those of the base model's.
      new_vocabularies: tokens by vocabulary, in order of their ids, the first of which is 1.
      base_vocabularies: those of the base model.

    Returns:
      int64 `[rows]`, `FRESH` where there is none; and the counts.
    """
    starts = np.cumsum([0, *(rows.size for rows in base)])
    by_name = {rows.name: (rows, int(start)) for rows, start in zip(base, starts, strict=False)}
    parts, counts = [], RowCounts()
    for rows in new:
        part = np.full(rows.size, FRESH, np.int64)
        earlier, start = by_name.get(rows.name, (None, 0))
        if earlier is not None and earlier.vocabulary == rows.vocabulary:
            if rows.vocabulary is not None:
                part, of_part = _rows_by_token(
                    new_vocabularies[rows.vocabulary],
                    base_vocabularies[rows.vocabulary],
                    rows.unknown_is_learned and earlier.unknown_is_learned,
                )
                counts += of_part
            elif earlier.size == rows.size:
                part = np.arange(rows.size)
            part = np.where(part == FRESH, FRESH, part + start)
        elif rows.vocabulary is not None:
            counts += RowCounts(fresh=rows.size - 2)
        parts.append(part)
    return np.concatenate(parts), counts


def _rows_by_token(
    new: Sequence[bytes], base: Sequence[bytes], unknown_is_learned: bool
) -> tuple[np.ndarray, RowCounts]:
    unknown = len(base) + 1
    ids = {token: number for number, token in enumerate(base, start=1)}
    tokens = np.array([ids.get(token, FRESH) for token in new], np.int64)
    carried = int((tokens != FRESH).sum())
    added = len(new) - carried
    if unknown_is_learned:
        tokens[tokens == FRESH] = unknown
    counts = RowCounts(
        carried=carried,
        from_unknown=added if unknown_is_learned else 0,
        fresh=0 if unknown_is_learned else added,
        lost=len(base) - carried,
    )
    return np.concatenate([[0], tokens, [unknown]]), counts


def continue_rows(fresh: np.ndarray, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns a weight that continues the base model's.

    Args:
      fresh: initial values, `[rows, ...]`.
      base: the base model's weight, `[base rows, ...]`, of the same shape otherwise.
      rows: see `base_rows`.
    """
    result = fresh.copy()
    known = rows != FRESH
    result[known] = base[rows[known]]
    return result
