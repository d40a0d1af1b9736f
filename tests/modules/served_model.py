"""An exported model, loaded from disk and called through its signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.modules.small_world import Row, serialize


class ServedModel:
    """A SavedModel.

    Args:
      family: which family it is of.
      settings: what it was trained with.
      directory: what the Trainer wrote: `model` and `run`.
    """

    def __init__(self, family: str, settings: Mapping[str, Any], directory: Path):
        self.family, self.settings, self.directory = family, settings, directory
        self.model = tf.saved_model.load(str(directory / "model"))
        self.signatures = self.model.signatures

    def call(self, signature: str, rows: Sequence[Row], **more: Any) -> dict[str, np.ndarray]:
        """Calls a signature that takes examples."""
        examples = tf.constant([serialize(row) for row in rows], tf.string, shape=[len(rows)])
        return self.call_raw(signature, examples=examples, **more)

    def call_raw(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value, tf.string) for name, value in inputs.items()}
        return {name: value.numpy() for name, value in self.signatures[signature](**tensors).items()}

    def score_all(self, rows: Sequence[Row], item_ids: Sequence[bytes]) -> np.ndarray:
        """Scores of all these titles, `[len(rows), len(item_ids)]`."""
        return self.call("rank", rows, candidate_ids=[list(item_ids)] * len(rows))["scores"]
