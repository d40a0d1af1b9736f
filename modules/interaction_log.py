"""The interactions of transformed splits as plain arrays, user by user: what is counted, or read as sequences."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from modules.derived_names import USER_KEY
from modules.features import ITEM_ID, TIMESTAMP
from modules.training_data import TrainingData

_BATCH_SIZE = 8192


@dataclasses.dataclass(frozen=True)
class InteractionLog:
    """Interactions in order of user, then time, then item; a few bytes for each of them.

    Attributes:
      user_keys: fingerprints of the raw user ids, int64 `[events]`.
      item_ids: vocabulary ids, int64 `[events]`.
      timestamps: seconds, int64 `[events]`.
    """

    user_keys: np.ndarray
    item_ids: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.item_ids)

    def user_bounds(self) -> np.ndarray:
        """Returns where each user's interactions begin, and the end: int64 `[users + 1]`."""
        starts = np.flatnonzero(np.diff(self.user_keys, prepend=-1))
        return np.append(starts, len(self))

    def blocks(self, users_per_block: int) -> Iterator[InteractionLog]:
        """Yields the log in blocks of whole users, so that what is computed of a block stays small."""
        bounds = self.user_bounds()
        for first in range(0, len(bounds) - 1, users_per_block):
            rows = slice(bounds[first], bounds[min(first + users_per_block, len(bounds) - 1)])
            yield InteractionLog(self.user_keys[rows], self.item_ids[rows], self.timestamps[rows])


def read_interaction_log(data: TrainingData, splits: Sequence[str]) -> InteractionLog:
    """Reads the interactions of these splits."""
    columns: dict[str, list[np.ndarray]] = {USER_KEY: [], ITEM_ID: [], TIMESTAMP: []}
    for split in splits:
        for batch in data.batches(split, _BATCH_SIZE, columns=tuple(columns)):
            for name, values in columns.items():
                values.append(batch[name].numpy())
    users, items, times = (np.concatenate(values) for values in columns.values())
    order = np.lexsort((items, times, users))
    return InteractionLog(users[order], items[order], times[order])
