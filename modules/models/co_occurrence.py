"""How often titles occur with the same user, counted in blocks of whole users: the Gram matrix of the interactions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from modules.interaction_log import InteractionLog


def target_matrix(blocks: Iterable[InteractionLog], vocabulary_size: int) -> np.ndarray:
    """Returns X^T Y, where Y holds the weights of the interactions in the places of X's ones.

    A title that somebody took more than once has the largest weight of these interactions. See `gram_matrix`.

    Returns:
      float32 `[vocabulary_size, vocabulary_size]`: summed weights with which those who took a title (row) took another
      (column); on the diagonal, of all who took it.
    """
    targets = np.zeros((vocabulary_size, vocabulary_size), np.float32)
    for block in blocks:
        known, users, items, columns = _places(block, vocabulary_size)
        weights = np.zeros((users.max(initial=-1) + 1, len(items)), np.float32)
        np.maximum.at(weights, (users, columns), np.float32(1.0) if known.weights is None else known.weights)
        targets[np.ix_(items, items)] += (weights > 0).astype(np.float32).T @ weights
    return targets


def gram_matrix(blocks: Iterable[InteractionLog], vocabulary_size: int) -> np.ndarray:
    """Returns X^T X of the binary user-title matrix X, which is never made.

    A block adds the product of its own rows and of those columns that occur in it, so memory is that of the result
    and of one block.

    Args:
      blocks: the interactions, all of a user in the same block.
      vocabulary_size: number of item ids; padding and the out-of-vocabulary id are left out.

    Returns:
      float32 `[vocabulary_size, vocabulary_size]`: users who took both titles; on the diagonal, users of a title.
    """
    gram = np.zeros((vocabulary_size, vocabulary_size), np.float32)
    for block in blocks:
        _, users, items, columns = _places(block, vocabulary_size)
        rows = np.zeros((users.max(initial=-1) + 1, len(items)), np.float32)
        rows[users, columns] = 1.0
        gram[np.ix_(items, items)] += rows.T @ rows
    return gram


def _places(block: InteractionLog, vocabulary_size: int) -> tuple[InteractionLog, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the interactions with known titles, the row of each, the titles that occur, and the column of each."""
    known = block.of_known_items(vocabulary_size)
    users = np.unique(known.user_keys, return_inverse=True)[1]
    items, columns = np.unique(known.item_ids, return_inverse=True)
    return known, users, items, columns
