"""What is known of titles besides their ids: features by vocabulary id, and how often they were taken."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.features import ITEM_ID, TIMESTAMP
from modules.model_inputs import Form, ModelInputs
from modules.models.row_lookup import gather_rows
from modules.training_data import TRAIN, TrainingData

SECONDS_PER_DAY = 86_400


def windowed_counts(data: TrainingData, vocabulary_size: int, windows_days: tuple[float, ...]) -> np.ndarray:
    """Counts training interactions per title, of all time and of the last days: `[vocabulary_size, 1 + windows]`."""
    columns = data.read(TRAIN, (ITEM_ID, TIMESTAMP))
    ids, times = columns[ITEM_ID], columns[TIMESTAMP]
    age_days = (times.max() - times) / SECONDS_PER_DAY
    windows = (np.inf, *windows_days)
    return np.stack([np.bincount(ids[age_days <= days], minlength=vocabulary_size) for days in windows], axis=1)


def log_sampling_probability(counts: np.ndarray) -> np.ndarray:
    """Returns the log of the share of each title in the interactions, for counts `[vocabulary_size]`."""
    # Titles without an event are never sampled; half an event keeps their logarithm finite.
    return np.log(np.maximum(counts, 0.5) / counts.sum())


def standardised_log(counts: np.ndarray) -> np.ndarray:
    """Returns log(1 + count) with mean 0 and standard deviation 1 over titles, column by column."""
    logs = np.log1p(counts)
    return (logs - logs.mean(axis=0)) / np.maximum(logs.std(axis=0), 1e-6)


def features_by_vocabulary_id(catalogue: Catalogue, inputs: ModelInputs) -> dict[str, tf.Tensor]:
    """Rearranges the catalogue's features by vocabulary id.

    Ids without a row of their own get zeros, that is "missing": so do, in histories, titles newer than the training.
    """
    rows = catalogue.row_of_vocabulary_id(inputs.item_vocabulary_size)
    result = {}
    for feature in inputs.item:
        values = catalogue.features[feature.name]
        if feature.form is Form.ID_BAG:
            # Columns that are padding for every title would only be looked up in vain.
            values = values[:, : max(1, int((values > 0).sum(axis=1).max(initial=0)))]
        table = np.zeros((inputs.item_vocabulary_size, *values.shape[1:]), values.dtype)
        table[rows >= 0] = values[rows[rows >= 0]]
        result[feature.name] = tf.constant(table)
    return result


def hide_some_ids(ids: tf.Tensor, share: float, vocabulary_size: int) -> tf.Tensor:
    """Replaces a random share of vocabulary ids by that of unknown titles: int64, of the same shape."""
    hidden = tf.random.uniform(tf.shape(ids)) < share
    return tf.where(hidden, tf.cast(vocabulary_size - 1, ids.dtype), ids)


def inverse_lengths(vectors: tf.Tensor) -> tf.Tensor:
    """Returns 1 / |v| of each vector, float32 `[num_items]`, for float32 `[num_items, dimension]`."""
    return tf.math.rsqrt(tf.maximum(tf.reduce_sum(tf.square(vectors), axis=1), 1e-12))


def cosines(rows: tf.Tensor, vectors: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Returns the cosines of the vectors in given rows with all vectors: float32 `[batch, num_items]`.

    Args:
      rows: int64 `[batch]`.
      vectors: float32 `[num_items, dimension]`.
      inverse: their `inverse_lengths`, which do not depend on the request.
    """
    unit = gather_rows(vectors, rows) * gather_rows(inverse, rows)[:, tf.newaxis]
    return tf.matmul(unit, vectors, transpose_b=True) * inverse
