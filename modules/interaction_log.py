"""The interactions of transformed splits as plain arrays, user by user: what is counted, or read as sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from modules.derived_names import USER_KEY
from modules.features import ITEM_ID, TIMESTAMP
from modules.training_data import TrainingData

USERS_PER_BLOCK = 64
"""Size of the blocks that counts are made of where nothing asks for another."""


@dataclasses.dataclass(frozen=True)
class InteractionLog:
    """Interactions in order of user, then time, then item; a few bytes for each of them.

    Attributes:
      user_keys: fingerprints of the raw user ids, int64 `[events]`.
      item_ids: vocabulary ids, int64 `[events]`.
      timestamps: seconds, int64 `[events]`.
      weights: what each interaction counts for, float32 `[events]`; None if all count alike.
    """

    user_keys: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.item_ids)

    def user_bounds(self) -> np.ndarray:
        """Returns where each user's interactions begin, and the end: int64 `[users + 1]`."""
        starts = np.flatnonzero(np.diff(self.user_keys, prepend=-1))
        return np.append(starts, len(self))

    def instant_bounds(self) -> np.ndarray:
        """Returns where each instant of a user begins, and the end: int64 `[instants + 1]`."""
        begins = np.diff(self.user_keys, prepend=-1) != 0
        begins[1:] |= np.diff(self.timestamps) != 0
        return np.append(np.flatnonzero(begins), len(self))

    def of_known_items(self, vocabulary_size: int) -> InteractionLog:
        """Returns the interactions with titles that have a vocabulary id of their own.

        Args:
          vocabulary_size: number of item ids; the first stands for no title and the last for all unknown ones.
        """
        return self._take((self.item_ids > 0) & (self.item_ids < vocabulary_size - 1))

    def blocks(self, users_per_block: int) -> Iterator[InteractionLog]:
        """Yields the log in blocks of whole users, so that what is computed of a block stays small."""
        bounds = self.user_bounds()
        for first in range(0, len(bounds) - 1, users_per_block):
            yield self._take(slice(bounds[first], bounds[min(first + users_per_block, len(bounds) - 1)]))

    def _take(self, rows: np.ndarray | slice) -> InteractionLog:
        weights = None if self.weights is None else self.weights[rows]
        return InteractionLog(self.user_keys[rows], self.item_ids[rows], self.timestamps[rows], weights)


def read_interaction_log(data: TrainingData, splits: Sequence[str]) -> InteractionLog:
    """Reads the interactions of these splits.

    Args:
      data: the transformed splits.
      splits: their names.
    """
    parts = [data.read(split, (USER_KEY, ITEM_ID, TIMESTAMP)) for split in splits]
    users, items, times = (np.concatenate([part[name] for part in parts]) for name in (USER_KEY, ITEM_ID, TIMESTAMP))
    order = np.lexsort((items, times, users))
    weights = [data.read_weights(split) for split in splits]
    known = [values for values in weights if values is not None]
    return InteractionLog(users[order], items[order], times[order], np.concatenate(known)[order] if known else None)
