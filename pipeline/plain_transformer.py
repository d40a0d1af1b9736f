"""A transformer as one would write it after a Keras tutorial: what `marquee bench` measures training against.

Ready-made layers, `compile()` and `fit()`. A row is a piece of one user's sequence, padded to a fixed length, in one
stream: position t holds the event before and what is known when event t is asked for, and predicts event t with a
softmax over the whole catalogue, titles seen before masked. Item vectors are tied.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.model_inputs import Form, ModelInput, ModelInputs
from modules.models import item_side
from modules.models.transformer import TransformerConfig
from modules.sequences import UserSequences

PREVIOUS_ITEMS = "previous_items"
PREVIOUS_FEEDBACK = "previous_feedback"
STARTS = "starts"
FIRST_SEEN = "first_seen"

_EXCLUDED_LOGIT = -1e9
_NEVER = np.iinfo(np.int32).max
_ALWAYS = np.iinfo(np.int32).min


@dataclasses.dataclass(frozen=True)
class PaddedRows:
    """Sequences as arrays of a fixed length.

    Attributes:
      features: `previous_items` and `previous_feedback`, int64 `[rows, length]`, 0 = none; `starts`, the position of
        the first event of each event's instant, int32 `[rows, length]`; `first_seen`, the position at which a row's
        user first took each title, int32 `[rows, vocabulary]`; and the query features, each `[rows, length, ...]`.
        Positions count from the row's first event and are negative before it.
      targets: vocabulary ids, int64 `[rows, length]`.
      weights: 1 for every interaction to learn from, 0 for padding and unknown titles, float32 `[rows, length]`.
    """

    features: Mapping[str, np.ndarray]
    targets: np.ndarray
    weights: np.ndarray

    @property
    def num_positions(self) -> int:
        """Number of interactions to learn from."""
        return int(self.weights.sum())

    def batches(self, targets_per_batch: int, seed: int) -> tf.data.Dataset:
        """Returns shuffled batches of `(features, targets, weights)` of about so many targets."""
        rows = len(self.targets)
        size = max(1, round(targets_per_batch * rows / max(1, self.num_positions)))
        dataset = tf.data.Dataset.from_tensor_slices((dict(self.features), self.targets, self.weights))
        return dataset.shuffle(rows, seed=seed).batch(size).prefetch(tf.data.AUTOTUNE)


def pad_sequences(sequences: UserSequences, length: int, vocabulary_size: int) -> PaddedRows:
    """Cuts every user's sequence into rows of `length` events; the last one of each user is padded."""
    count = len(sequences.item_ids)
    lengths = np.diff(sequences.user_bounds)
    user = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(count) - sequences.user_bounds[user]
    rows_of_user = -(-lengths // length)
    first_row = np.cumsum(rows_of_user) - rows_of_user
    row, column = first_row[user] + position // length, position % length
    user_of_row = np.repeat(np.arange(len(lengths)), rows_of_user)
    row_begin = np.zeros(len(user_of_row), np.int64)
    row_begin[row[column == 0]] = np.flatnonzero(column == 0)

    def place(values: np.ndarray) -> np.ndarray:
        placed = np.zeros((len(user_of_row), length, *values.shape[1:]), values.dtype)
        placed[row, column] = values
        return placed

    def previous(values: np.ndarray) -> np.ndarray:
        return np.where(position == 0, 0, np.roll(values, 1))

    starts = sequences.first_event[sequences.query_of_event]
    titles, first, title_of_event = np.unique(
        user * vocabulary_size + sequences.item_ids, return_index=True, return_inverse=True
    )
    # Who takes a title again could not be taught so if it were masked.
    taken_again = np.zeros(len(titles), bool)
    taken_again[title_of_event[first[title_of_event] < starts]] = True
    first_of_user = np.full((len(lengths), vocabulary_size), np.int64(_NEVER))
    first_of_user[np.divmod(titles[~taken_again], vocabulary_size)] = first[~taken_again]
    first_seen = np.minimum(first_of_user[user_of_row] - row_begin[:, np.newaxis], _NEVER)
    first_seen[first_of_user[user_of_row] == _NEVER] = _NEVER
    first_seen[:, [0, -1]] = _ALWAYS  # padding and the id of all unknown titles
    known = (sequences.item_ids > 0) & (sequences.item_ids < vocabulary_size - 1)
    features = {
        PREVIOUS_ITEMS: place(previous(sequences.item_ids)),
        PREVIOUS_FEEDBACK: place(previous(sequences.feedback)),
        STARTS: place((starts - row_begin[row]).astype(np.int32)),
        FIRST_SEEN: first_seen.astype(np.int32),
    }
    features |= {name: place(values[sequences.query_of_event]) for name, values in sequences.query_features.items()}
    return PaddedRows(features, place(sequences.item_ids), place(known.astype(np.float32)))


class FeatureSum(tf.keras.layers.Layer):
    """Sums the vectors of features, each id with a table of its own.

    Args:
      inputs: the features.
      dimension: length of the vectors.
    """

    def __init__(self, inputs: Sequence[ModelInput], dimension: int):
        super().__init__()
        self._inputs = inputs
        self._tables = {
            part.name: tf.keras.layers.Embedding(part.size, dimension)
            for part in inputs
            if part.form is not Form.NUMBER
        }
        self._dense = tf.keras.layers.Dense(dimension)

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[..., dimension]`; 0 without features."""
        parts, numbers = [], []
        for part in self._inputs:
            values = features[part.name]
            if part.form is Form.NUMBER:
                numbers.append(values)
            elif part.form is Form.ID:
                parts.append(self._tables[part.name](values))
            else:
                present = tf.cast(values > 0, tf.float32)[..., tf.newaxis]
                total = tf.reduce_sum(self._tables[part.name](values) * present, axis=-2)
                parts.append(total / tf.sqrt(tf.maximum(tf.reduce_sum(present, axis=-2), 1.0)))
        if numbers:
            parts.append(self._dense(tf.stack(numbers, axis=-1)))
        return tf.add_n(parts) if parts else tf.zeros([])


class Block(tf.keras.layers.Layer):
    """A pre-norm transformer block of ready-made layers."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self._norm = tf.keras.layers.LayerNormalization()
        self._attention = tf.keras.layers.MultiHeadAttention(config.heads, config.dimension // config.heads)
        self._hidden_norm = tf.keras.layers.LayerNormalization()
        self._hidden = tf.keras.layers.Dense(config.hidden_units, activation="gelu")
        self._output = tf.keras.layers.Dense(config.dimension)
        self._dropout = tf.keras.layers.Dropout(config.dropout)

    def call(self, vectors: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns float32 `[rows, length, d]`; the mask, bool `[1, length, length]`, says who sees whom."""
        normed = self._norm(vectors)
        vectors += self._dropout(self._attention(normed, normed, attention_mask=mask))
        return vectors + self._dropout(self._output(self._hidden(self._hidden_norm(vectors))))


class PlainTransformer(tf.keras.Model):
    """The network; its output are logits, float32 `[rows, length, vocabulary]`.

    Args:
      config: sizes, dropout, chunk length and the optimizer's settings.
      inputs: the features.
      catalogue: the titles.
    """

    def __init__(self, config: TransformerConfig, inputs: ModelInputs, catalogue: Catalogue):
        super().__init__()
        self._size, self._length = inputs.item_vocabulary_size, config.chunk_length
        self._item_features = item_side.features_by_vocabulary_id(catalogue, inputs)
        self._item_ids = tf.keras.layers.Embedding(self._size, config.dimension)
        self._item_biases = tf.keras.layers.Embedding(self._size, 1)
        self._item_side = FeatureSum(inputs.item, config.dimension)
        self._query_side = FeatureSum(inputs.query, config.dimension)
        self._feedback = tf.keras.layers.Embedding(inputs.history_feedback_size, config.dimension)
        self._positions = tf.keras.layers.Embedding(self._length, config.dimension)
        self._norm = tf.keras.layers.LayerNormalization()
        self._dropout = tf.keras.layers.Dropout(config.dropout)
        self._blocks = [Block(config) for _ in range(config.layers)]
        self._final_norm = tf.keras.layers.LayerNormalization()
        self.compile(
            tf.keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, clipnorm=1.0),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """See `PaddedRows.features`."""
        ids = tf.range(self._size)
        items = self._item_ids(ids) + self._item_side(self._item_features)
        vectors = tf.gather(items, features[PREVIOUS_ITEMS]) + self._feedback(features[PREVIOUS_FEEDBACK])
        vectors += self._query_side(features) + self._positions(tf.range(self._length))
        vectors = self._dropout(self._norm(vectors))
        mask = tf.linalg.band_part(tf.ones([1, self._length, self._length], tf.bool), -1, 0)
        for block in self._blocks:
            vectors = block(vectors, mask)
        logits = tf.matmul(self._final_norm(vectors), items, transpose_b=True) + self._item_biases(ids)[:, 0]
        seen = features[FIRST_SEEN][:, tf.newaxis] < features[STARTS][:, :, tf.newaxis]
        return tf.where(seen, _EXCLUDED_LOGIT, logits)
