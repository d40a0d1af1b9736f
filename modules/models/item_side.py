"""What is known of titles besides their ids: features by vocabulary id, and how often they were taken."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.features import ITEM_ID, TIMESTAMP
from modules.model_inputs import Form, ModelInputs
from modules.training_data import TRAIN, TrainingData

SECONDS_PER_DAY = 86_400

_BATCH_SIZE = 8192


def windowed_counts(data: TrainingData, vocabulary_size: int, windows_days: tuple[float, ...]) -> np.ndarray:
    """Counts training interactions per title, of all time and of the last days: `[vocabulary_size, 1 + windows]`."""
    ids, times = [], []
    for batch in data.batches(TRAIN, _BATCH_SIZE, columns=(ITEM_ID, TIMESTAMP)):
        ids.append(batch[ITEM_ID].numpy())
        times.append(batch[TIMESTAMP].numpy())
    all_ids, all_times = np.concatenate(ids), np.concatenate(times)
    age_days = (all_times.max() - all_times) / SECONDS_PER_DAY
    windows = (np.inf, *windows_days)
    return np.stack([np.bincount(all_ids[age_days <= days], minlength=vocabulary_size) for days in windows], axis=1)


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
