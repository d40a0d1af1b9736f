"""Slices that are derived from raw features and from what training saw, computed inside the model's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.derived_names import HOUR, TITLE_POPULARITY, USER_ACTIVITY, WEEKS_SINCE_TRAINING, band_name
from modules.features import Column, ColumnTable, Role

ACTIVITY_BOUNDARIES = (20, 100)
ACTIVITY_LABELS = ("new", "1-19", "20-99", "100+")
# Head: the most popular titles that together make half of the training events; middle: the next 30 %.
POPULARITY_SHARES = (0.5, 0.8)
POPULARITY_LABELS = ("new", "tail", "middle", "head")
HOUR_LABELS = ("00-05", "06-11", "12-17", "18-23")
MOST_WEEKS = 12
WEEK_LABELS = (*map(str, range(MOST_WEEKS)), f"{MOST_WEEKS}+")
MISSING = "missing"

_SECONDS_PER_WEEK = 7 * 86_400


def band_labels(boundaries: Sequence[float]) -> tuple[str, ...]:
    """Returns the labels of the bands that ascending boundaries cut: `<18`, `18-24`, …, `56+`.

    Bands hold their lower boundary. Between whole numbers the label names the last whole number inside.
    """
    lower = [f"{boundary:g}" for boundary in boundaries]
    whole = all(float(boundary).is_integer() for boundary in boundaries)
    upper = [f"{boundary - 1:g}" if whole else f"<{boundary:g}" for boundary in boundaries[1:]]
    return (f"<{lower[0]}", *(f"{low}-{high}" for low, high in zip(lower, upper, strict=False)), f"{lower[-1]}+")


class SliceKeys(tf.Module):
    """Computes the derived slice keys of labelled examples.

    * `<column>_band` for each numeric column with bands;
    * `user_activity`: training events of the user: new (none), 1-19, 20-99, 100+;
    * `title_popularity`: of the true title: new (no training event), tail, middle, head;
    * `hour`: quarter of the day (UTC);
    * `weeks_since_training`: whole weeks since the latest interaction that the model was fitted on, 0 to 11 or 12+:
      does it age?

    Args:
      columns: roles of the raw columns.
      bands: ascending boundaries by column.
      user_counts: training events by raw user id.
      item_counts: training events by raw item id.
      training_end: time of the latest interaction that the model was fitted on, seconds since the epoch.

    Raises:
      ValueError: if a band is over no numeric column of the user, the title or the context.
    """

    def __init__(
        self,
        columns: ColumnTable,
        bands: Mapping[str, Sequence[float]],
        user_counts: Mapping[bytes, int],
        item_counts: Mapping[bytes, int],
        training_end: int,
    ):
        super().__init__()
        described = columns.with_role(Role.USER, Role.ITEM, Role.CONTEXT)
        numeric = [column.name for column in described if column.type != schema_pb2.BYTES]
        if unknown := sorted(set(bands) - set(numeric)):
            raise ValueError(f"evaluation.bands must name some of the numeric columns {numeric}; received {unknown}")
        self._columns = columns
        self._bands = dict(bands)
        self._training_end = training_end
        self._user_counts = _count_table(user_counts)
        self._item_counts = _count_table(item_counts)
        self._popularity_boundaries = popularity_boundaries(np.asarray(list(item_counts.values())))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The raw columns that the keys are computed from."""
        keys = self._columns.with_role(Role.USER_ID, Role.ITEM_ID, Role.TIMESTAMP)
        return (*keys, *(column for column in self._columns.columns if column.name in self._bands))

    def compute(self, raw: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """Returns string `[batch, 1]` by slice name."""
        (user_id,), (item_id,), (timestamp,) = (
            self._columns.names(role) for role in (Role.USER_ID, Role.ITEM_ID, Role.TIMESTAMP)
        )
        users = self._user_counts.lookup(_first(raw[user_id], ""))
        items = self._item_counts.lookup(_first(raw[item_id], ""))
        times = _first(raw[timestamp], 0)
        hours = (times // 3_600) % 24
        weeks = (times - self._training_end) // _SECONDS_PER_WEEK
        keys = {
            USER_ACTIVITY: _label(users, (1, *ACTIVITY_BOUNDARIES), ACTIVITY_LABELS),
            TITLE_POPULARITY: _label(items, (1, *self._popularity_boundaries), POPULARITY_LABELS),
            HOUR: _label(hours, (6, 12, 18), HOUR_LABELS),
            WEEKS_SINCE_TRAINING: _label(weeks, range(1, MOST_WEEKS + 1), WEEK_LABELS),
        }
        for column, boundaries in self._bands.items():
            values = tf.cast(raw[column].values, tf.float32)
            dense = _first(tf.SparseTensor(raw[column].indices, values, raw[column].dense_shape), float("nan"))
            labels = _label(dense, boundaries, band_labels(boundaries))
            keys[band_name(column)] = tf.where(tf.math.is_nan(dense), MISSING, labels)
        return {name: values[:, tf.newaxis] for name, values in keys.items()}


def popularity_boundaries(counts: np.ndarray) -> tuple[int, int]:
    """Returns the least training events of a middle title and of a head title."""
    falling = np.sort(counts)[::-1]
    if not len(falling) or falling[0] == 0:
        return 1, 1
    reached = np.cumsum(falling) / falling.sum()
    head, middle = (int(falling[np.searchsorted(reached, share)]) for share in POPULARITY_SHARES)
    return max(middle, 1), max(head, 1)


def _first(raw: tf.SparseTensor, default: object) -> tf.Tensor:
    ragged = tf.RaggedTensor.from_sparse(raw)[:, :1]
    return ragged.to_tensor(tf.constant(default, raw.dtype), shape=[None, 1])[:, 0]


def _label(values: tf.Tensor, boundaries: Sequence[float], labels: Sequence[str]) -> tf.Tensor:
    cuts = tf.constant([float(boundary) for boundary in boundaries])
    band = tf.searchsorted(cuts, tf.cast(values, tf.float32), side="right")
    return tf.gather(tf.constant(list(labels)), band)


def _count_table(counts: Mapping[bytes, int]) -> tf.lookup.StaticHashTable:
    initializer = tf.lookup.KeyValueTensorInitializer(
        tf.constant(list(counts), tf.string, shape=[len(counts)]),
        tf.constant(list(counts.values()), tf.int64, shape=[len(counts)]),
    )
    return tf.lookup.StaticHashTable(initializer, default_value=0)
