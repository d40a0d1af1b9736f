"""The recommendations of an exported model, for components that ask it as a client would."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.utils import path_utils

from modules.models.export import EXAMPLES, ITEM_IDS

Recommend = Callable[[Sequence[bytes]], np.ndarray]
"""Takes serialized examples `[batch]` to the ids of their recommendations, bytes `[batch, K]`."""


def load_recommend(model: types.Artifact) -> Recommend:
    """Loads the signature `serving_default` of a model's SavedModel."""
    loaded = tf.saved_model.load(path_utils.serving_model_path(model.uri))
    signature = loaded.signatures["serving_default"]

    # The loaded object must outlive its signature: it is kept as a default.
    def recommend(serialized: Sequence[bytes], loaded: object = loaded) -> np.ndarray:
        return signature(**{EXAMPLES: tf.constant(serialized)})[ITEM_IDS].numpy()

    return recommend
