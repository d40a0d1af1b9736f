"""`preprocessing_fn`: raw, sparse, heterogeneous features to dense numbers, driven by the schema's tags.

Raw features arrive as `tf.SparseTensor`s of shape `[batch, any]`; any of them may be empty. What leaves is dense, but
for `seen_item_ids`. Ids of vocabularies are shifted by one: 0 says "no value here", the last id is the shared
out-of-vocabulary bucket.

| tags | transformed features |
| --- | --- |
| `user_id`, `item_id` | id, int64 `[batch]` |
| `user_id` | `user_key`: a fingerprint that tells users apart whom no vocabulary knows, int64 `[batch]` |
| `categorical` | id, int64 `[batch]` |
| `multi_hot` | ids, int64 `[batch, max values]`, 0-padded |
| `text` | token ids, int64 `[batch, text_tokens]`, 0-padded |
| `continuous` | z-score, float32 `[batch]`; `…_missing`, float32 `[batch]`; `…_bucket`, int64 `[batch]` (0 = missing) |
| `timestamp` | itself, `hour`, `weekday`, int64 `[batch]`; their sines and cosines; `day` in `[0, 1]` |
| `history` | ids, log gaps and feedback buckets, `[batch, length]`; `log_gap` since the last event, continuous; |
| | `history_log_steps`: log(1 + seconds since the event before), 0 within an instant, -1 for the first event |
| `seen` | ids, int64, sparse; `log_seen_count`, continuous |
| `propensity` | that of the title where it was shown, float32 `[batch]`; 1 where it was not shown, but found |
| `position` | itself, int64 `[batch]`; 1 where there is none |
| `label` | itself, float32 `[batch]`; `…_bucket` with the boundaries of the history's, int64 `[batch]` |
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from modules import features
from modules.derived_names import (
    CYCLES,
    DAY,
    HISTORY_LOG_GAPS,
    HISTORY_LOG_STEPS,
    HOUR,
    LOG_GAP,
    LOG_SEEN_COUNT,
    USER_KEY,
    WEEKDAY,
    bucket_name,
    missing_name,
)
from modules.features import Column, ColumnTable, Kind, Role

DEFAULT_HISTORY_LENGTH = 50
DEFAULT_MULTI_HOT_VALUES = 16

_SECONDS_PER_DAY = 86_400
_FINGERPRINTS = 2**63 - 1
# 1 January 1970 was a Thursday; weekday 0 is Monday.
_EPOCH_WEEKDAY = 3


def history_length(schema: Any) -> int:
    """Returns the length that histories are padded or cut to: the schema's maximum value count."""
    return _max_values(schema, features.HISTORY_ITEM_IDS, DEFAULT_HISTORY_LENGTH)


def preprocessing_fn(inputs: dict[str, tf.SparseTensor], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Transforms a batch of raw features; TFX Transform's entry point.

    Args:
      inputs: raw features by name, each a `tf.SparseTensor` of shape `[batch, any]`.
      custom_config: `schema_text` (the curated schema) and the fields of `FeatureConfig`: `quantile_buckets`,
        `text_tokens`, `max_vocabulary_size`.

    Returns:
      Transformed features by name; see the module's table.
    """
    schema = features.parse_schema(custom_config["schema_text"])
    columns = ColumnTable.from_schema(schema)
    transformer = _ColumnTransformer(inputs, schema, custom_config)
    outputs: dict[str, Any] = {}
    for column in columns.columns:
        if column.name in inputs:
            outputs.update(transformer.transform(column))
    outputs.update(transformer.history(columns))
    return outputs


class _ColumnTransformer:
    def __init__(self, inputs: dict[str, tf.SparseTensor], schema: Any, settings: dict[str, Any]):
        self._inputs = inputs
        self._schema = schema
        self._quantile_buckets: int = settings["quantile_buckets"]
        self._text_tokens: int = settings["text_tokens"]
        self._max_vocabulary_size: int = settings["max_vocabulary_size"]
        self._vocabularies: dict[str, Any] = {}

    def transform(self, column: Column) -> dict[str, Any]:
        raw = self._inputs[column.name]
        if column.role in (Role.USER_ID, Role.ITEM_ID):
            first = _first_value(raw, "")
            keys = {USER_KEY: tf.strings.to_hash_bucket_fast(first, _FINGERPRINTS)}
            return {column.name: self._ids(first, column.name), **(keys if column.role is Role.USER_ID else {})}
        if column.role is Role.LABEL:
            return {column.name: tf.cast(_first_value(raw, 0), tf.float32)}
        if column.role is Role.TIMESTAMP:
            return self._calendar(column.name, _first_value(raw, 0))
        if column.role is Role.POSITION:
            return {column.name: _first_value(raw, 1)}
        if column.role is Role.PROPENSITY:
            return {column.name: self._propensity(tf.cast(raw, tf.float32), column)}
        if column.kind is Kind.CATEGORICAL:
            return {column.name: self._ids(_first_value(_as_strings(raw), ""), column.name)}
        if column.kind is Kind.MULTI_HOT:
            length = _max_values(self._schema, column.name, DEFAULT_MULTI_HOT_VALUES)
            values = _ragged(_as_strings(raw)).to_tensor("", shape=[None, length])
            return {column.name: self._ids(values, column.name)}
        if column.kind is Kind.TEXT:
            return {column.name: self._ids(self._tokens(raw), column.name)}
        if column.kind is Kind.CONTINUOUS:
            return self._continuous(column.name, tf.cast(raw, tf.float32))
        return {}

    def _propensity(self, raw: tf.SparseTensor, column: Column) -> tf.Tensor:
        """Returns the propensity of what was shown, float32 `[batch]`, from one number or those of all positions."""
        if not column.multivalent:
            return _first_value(raw, 1.0)
        names = ColumnTable.from_schema(self._schema).names(Role.POSITION)
        values = _ragged(raw)
        place = _first_value(self._inputs[names[0]], 1) if names else tf.ones_like(values.row_lengths())
        # A single number is the propensity of what was shown, wherever that was.
        place = tf.where(values.row_lengths() == 1, tf.ones_like(place), place)
        dense = values.to_tensor(1.0)
        dense = tf.pad(dense, [[0, 0], [0, 1]], constant_values=1.0)
        return tf.gather(dense, tf.minimum(place - 1, tf.shape(dense, tf.int64)[1] - 1), batch_dims=1)

    def history(self, columns: ColumnTable) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        length = history_length(self._schema)
        (timestamp_column,) = columns.with_role(Role.TIMESTAMP)
        (item_column,) = columns.with_role(Role.ITEM_ID)
        items = columns.history_of(Role.ITEM_ID)
        if items is not None and items.name in self._inputs:
            outputs[items.name] = self._ids(_last_values(self._inputs[items.name], length, ""), item_column.name)
        times = columns.history_of(Role.TIMESTAMP)
        if times is not None and times.name in self._inputs:
            now = _first_value(self._inputs[timestamp_column.name], 0)
            past = _last_values(self._inputs[times.name], length, 0)
            gaps = _log1p(tf.maximum(now[:, tf.newaxis] - past, 0))
            outputs[HISTORY_LOG_GAPS] = tf.where(past > 0, gaps, 0.0)
            steps = _log1p(tf.maximum(past[:, 1:] - past[:, :-1], 0))
            steps = tf.where(past[:, 1:] > 0, steps, 0.0)
            outputs[HISTORY_LOG_STEPS] = tf.concat([tf.where(past[:, :1] > 0, -1.0, 0.0), steps], axis=1)
            latest = tf.reduce_max(past, axis=1)
            gap = _log1p(tf.maximum(now - latest, 0))
            outputs.update(self._continuous(LOG_GAP, _sparse_where(latest > 0, gap)))
        feedback = columns.history_of(Role.LABEL)
        if feedback is not None and feedback.name in self._inputs:
            raw = tf.cast(self._inputs[feedback.name], tf.float32)
            boundaries = tft.quantiles(raw.values, self._quantile_buckets, epsilon=0.01)
            outputs[bucket_name(feedback.name)] = _buckets(_last_values(raw, length, math.nan), boundaries)
            for label in columns.names(Role.LABEL):
                if label in self._inputs and features.history_feature_name(label) == feedback.name:
                    value = _first_value(tf.cast(self._inputs[label], tf.float32), math.nan)
                    outputs[bucket_name(label)] = _buckets(value, boundaries)
        for seen in columns.with_role(Role.SEEN):
            if seen.name in self._inputs:
                raw = self._inputs[seen.name]
                ids = self._ids(raw.values, item_column.name)
                outputs[seen.name] = tf.SparseTensor(raw.indices, ids, raw.dense_shape)
                lengths = _ragged(raw).row_lengths()
                if items is not None and items.name in self._inputs:
                    # Requests may send a history and nothing else: its titles are seen ones, too.
                    lengths = tf.maximum(lengths, _ragged(self._inputs[items.name]).row_lengths())
                count = _log1p(lengths)
                outputs.update(self._continuous(LOG_SEEN_COUNT, _sparse_where(tf.ones_like(count, tf.bool), count)))
        return outputs

    def _ids(self, values: tf.Tensor, vocabulary: str) -> tf.Tensor:
        """Looks strings up: 0 for "", 1.. for known values by falling frequency, the last id for all others."""
        if vocabulary not in self._vocabularies:
            analysed = self._inputs[vocabulary]
            if analysed.dtype != tf.string:
                analysed = _as_strings(analysed)
            elif vocabulary in self._text_columns():
                analysed = self._split(analysed).to_sparse()
            self._vocabularies[vocabulary] = tft.vocabulary(
                analysed, top_k=self._max_vocabulary_size, vocab_filename=vocabulary
            )
        ids = tft.apply_vocabulary(values, self._vocabularies[vocabulary], num_oov_buckets=1) + 1
        return tf.where(tf.equal(values, ""), tf.zeros_like(ids), ids)

    def _text_columns(self) -> set[str]:
        return {column.name for column in ColumnTable.from_schema(self._schema).columns if column.kind is Kind.TEXT}

    def _split(self, raw: tf.SparseTensor) -> tf.RaggedTensor:
        words = tf.strings.regex_replace(
            tf.strings.lower(_first_value(raw, ""), encoding="utf-8"), r"[^\pL\pM\pN]+", " "
        )
        return tf.strings.split(tf.strings.strip(words))

    def _tokens(self, raw: tf.SparseTensor) -> tf.Tensor:
        return self._split(raw).to_tensor("", shape=[None, self._text_tokens])

    def _continuous(self, name: str, raw: tf.SparseTensor) -> dict[str, Any]:
        """Turns float32 values into a z-score, a missing flag and a quantile bucket, each `[batch]`."""
        # One infinity would spoil the mean of the whole split, and a score that reaches a model must be a number.
        raw = tf.sparse.retain(raw, tf.math.is_finite(raw.values))
        # In float64: the order in which partial means are combined varies, and must not reach a float32.
        score = _first_value(tf.cast(tft.scale_to_z_score(tf.cast(raw, tf.float64)), tf.float32), math.nan)
        missing = tf.math.is_nan(score)
        boundaries = tft.quantiles(raw.values, self._quantile_buckets, epsilon=0.01)
        bucket = tft.apply_buckets(_first_value(raw, 0.0), boundaries) + 1
        return {
            name: tf.where(missing, 0.0, score),
            missing_name(name): tf.cast(missing, tf.float32),
            bucket_name(name): tf.where(missing, tf.zeros_like(bucket), bucket),
        }

    def _calendar(self, name: str, seconds: tf.Tensor) -> dict[str, Any]:
        days = seconds // _SECONDS_PER_DAY
        parts = {HOUR: (seconds // 3_600) % 24, WEEKDAY: (days + _EPOCH_WEEKDAY) % 7}
        outputs: dict[str, Any] = {name: seconds, **parts}
        for part, period in CYCLES.items():
            # From a table: TensorFlow's own sine of a number depends on its place in the batch, in the last digit.
            angles = np.arange(period) * (2 * math.pi / period)
            for function, values in (("sin", np.sin(angles)), ("cos", np.cos(angles))):
                outputs[f"{part}_{function}"] = tf.gather(tf.constant(values, tf.float32), parts[part])
        # Calendar time within the training period; later times are clamped to its end: nothing is extrapolated.
        outputs[DAY] = tf.clip_by_value(tft.scale_to_0_1(tf.cast(days, tf.float32)), 0.0, 1.0)
        return outputs


def _ragged(raw: tf.SparseTensor) -> tf.RaggedTensor:
    # Unchecked: parsed examples have no holes, and the check would make up half of the graph.
    return tf.RaggedTensor.from_value_rowids(raw.values, raw.indices[:, 0], nrows=raw.dense_shape[0], validate=False)


def _first_value(raw: tf.SparseTensor, default: Any) -> tf.Tensor:
    """Returns the first value of each row, or the default: `[batch]`."""
    return _ragged(raw).to_tensor(tf.constant(default, raw.dtype), shape=[None, 1])[:, 0]


def _last_values(raw: tf.SparseTensor, length: int, default: Any) -> tf.Tensor:
    """Returns the last values of each row, left-aligned and padded: `[batch, length]`."""
    first_kept = _ragged(raw).row_lengths() - length
    kept = raw.indices[:, 1] >= tf.gather(first_kept, raw.indices[:, 0])
    return _ragged(tf.sparse.retain(raw, kept)).to_tensor(tf.constant(default, raw.dtype), shape=[None, length])


def _log1p(values: tf.Tensor) -> tf.Tensor:
    """Returns the logarithm of 1 plus whole numbers, float32 and the same wherever in a batch a number stands."""
    return tf.cast(tf.math.log1p(tf.cast(values, tf.float64)), tf.float32)


def _sparse_where(present: tf.Tensor, values: tf.Tensor) -> tf.SparseTensor:
    """Returns the values of `[batch]` that are present, as sparse `[batch, 1]`."""
    rows = tf.where(present)
    indices = tf.concat([rows, tf.zeros_like(rows)], axis=1)
    shape = tf.stack([tf.shape(values, out_type=tf.int64)[0], tf.constant(1, tf.int64)])
    return tf.SparseTensor(indices, tf.boolean_mask(values, present), shape)


def _buckets(values: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
    """Returns the quantile buckets of numbers, from 1; 0 where there is none: int64, of the same shape."""
    buckets = tft.apply_buckets(values, boundaries) + 1
    return tf.where(tf.math.is_nan(values), tf.zeros_like(buckets), buckets)


def _as_strings(raw: tf.SparseTensor) -> tf.SparseTensor:
    if raw.dtype == tf.string:
        return raw
    return tf.SparseTensor(raw.indices, tf.strings.as_string(raw.values), raw.dense_shape)


def _max_values(schema: Any, name: str, default: int) -> int:
    for feature in schema.feature:
        if feature.name == name and feature.HasField("value_count") and feature.value_count.max > 0:
            return int(feature.value_count.max)
    return default
