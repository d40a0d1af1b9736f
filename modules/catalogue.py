"""The catalogue as the models see it: one row per item, raw ids beside transformed features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from modules.features import ColumnTable, Role

_PARSE_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """All items that can be recommended, in ascending order of their raw id.

    Attributes:
      item_ids: raw ids, bytes objects `[num_items]`.
      vocabulary_ids: transformed ids, int64 `[num_items]`; titles that training never saw share the last id.
      features: transformed item features by name, each `[num_items, ...]`.
    """

    item_ids: np.ndarray
    vocabulary_ids: np.ndarray
    features: Mapping[str, np.ndarray]

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def row_of_vocabulary_id(self, vocabulary_size: int) -> np.ndarray:
        """Returns the row of each vocabulary id, int64 `[vocabulary_size]`; -1 where no single row has it."""
        rows = np.full(vocabulary_size, -1, np.int64)
        known = self.vocabulary_ids < vocabulary_size - 1
        rows[self.vocabulary_ids[known]] = np.flatnonzero(known)
        rows[0] = -1
        return rows


def read_catalogue(file_pattern: str, columns: ColumnTable, transform: tft.TFTransformOutput) -> Catalogue:
    """Reads the catalogue's examples and transforms their item columns.

    Args:
      file_pattern: glob of gzipped TFRecord files of raw tf.Examples, one per item.
      columns: roles and kinds of the raw columns.
      transform: the transform graph; it is applied to the item columns alone.

    Raises:
      ValueError: if no file matches, or the files hold no item.
    """
    files = sorted(tf.io.gfile.glob(file_pattern))
    if not files:
        raise ValueError(f"no catalogue file matches {file_pattern!r}")
    names = [column.name for column in columns.catalogue_columns]
    raw_spec = transform.raw_feature_spec()
    layer = transform.transform_features_layer()
    (item_column,) = columns.with_role(Role.ITEM_ID)

    batches: list[dict[str, np.ndarray]] = []
    raw_ids: list[np.ndarray] = []
    dataset = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(_PARSE_BATCH)
    for serialized in dataset:
        raw = tf.io.parse_example(serialized, {name: raw_spec[name] for name in names if name in raw_spec})
        raw_ids.append(tf.sparse.to_dense(raw[item_column.name], "")[:, 0].numpy())
        batches.append({name: value.numpy() for name, value in layer(raw).items()})
    if not batches:
        raise ValueError(f"the catalogue files {file_pattern!r} hold no item")
    item_ids = np.concatenate(raw_ids)
    order = np.argsort(item_ids.astype(bytes), kind="stable")
    merged = {name: np.concatenate([batch[name] for batch in batches])[order] for name in batches[0]}
    return Catalogue(item_ids[order], merged.pop(item_column.name), merged)
