"""The features of served examples: their values by user, and TFDV's statistics of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.report.feature_statistics import feature_name, number_buckets


class SkewError(ValueError):
    """Requests that cannot be compared with training. The message says why."""


@dataclasses.dataclass(frozen=True)
class ServedValues:
    """The values of one feature.

    Attributes:
      users: user of each value, `[n]`.
      values: the values, `[n]`: numbers, or objects of `bytes`.
      missing: whether each example has no value, `[examples]`.
    """

    users: NDArray[np.int64]
    values: NDArray
    missing: NDArray[np.bool_]


class ServedExamples:
    """Decoded examples."""

    def __init__(self, examples: Sequence[bytes], user_column: str):
        """Decodes them.

        Args:
          examples: serialized tf.Examples; at least one.
          user_column: the feature that holds the user's id. An example without one is of a user of its own.

        Raises:
          SkewError: if they cannot be decoded together.
        """
        from tfx_bsl.coders import example_coder

        try:
            self.batch: pa.RecordBatch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(list(examples))
        except Exception as error:  # The decoder's errors have no type of their own.
            raise SkewError(f"the logged examples cannot be decoded together: {error}") from error
        self.count = len(examples)
        self.users = self._user_numbers(user_column)
        """User of each example, from 0, `[examples]`."""

    @property
    def user_count(self) -> int:
        """Users that the examples are of."""
        return len(np.unique(self.users))

    def values(self, name: str) -> ServedValues:
        """Returns a feature's values; none if no example has it."""
        position = self.batch.schema.get_field_index(name)
        column = self.batch.column(position) if position >= 0 else None
        if column is None or pa.types.is_null(column.type):
            return ServedValues(np.zeros(0, np.int64), np.zeros(0), np.ones(self.count, bool))
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
        values = pc.list_flatten(column).to_numpy(zero_copy_only=False)
        missing = np.ones(self.count, bool)
        missing[parents] = False
        return ServedValues(self.users[parents], values, missing)

    def statistics(self) -> statistics_pb2.DatasetFeatureStatistics:
        """Returns TFDV's statistics."""
        from tensorflow_data_validation import StatsOptions
        from tensorflow_data_validation.statistics import stats_impl

        return stats_impl.generate_statistics_in_memory(self.batch, StatsOptions()).datasets[0]

    def _user_numbers(self, user_column: str) -> NDArray[np.int64]:
        numbers = np.arange(self.count)
        position = self.batch.schema.get_field_index(user_column)
        if position < 0 or pa.types.is_null(self.batch.column(position).type):
            return numbers
        first_of: dict[object, int] = {}
        for number, value in enumerate(self.batch.column(position).to_pylist()):
            if value:
                numbers[number] = first_of.setdefault(value[0], number)
        return numbers


def bucket_edges(training: statistics_pb2.FeatureNameStatistics) -> NDArray[np.float64]:
    """Returns the edges of the buckets that training's numbers are counted in, ascending."""
    return np.unique([edge for low, high, _ in number_buckets(training) for edge in (low, high)])


def bucket_numbers(values: NDArray, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the bucket of each number, as TFDV has it: an edge belongs to the bucket below, the first to the first.

    0 is below all edges, `max(len(edges), 2)` above all; the only edge of training that knows one number is bucket 1.
    """
    buckets = np.searchsorted(edges, values, side="left")
    buckets[values > edges[-1]] = max(len(edges), 2)
    buckets[values == edges[0]] = 1
    return buckets


def count_in_training_buckets(
    served: statistics_pb2.DatasetFeatureStatistics,
    training: statistics_pb2.DatasetFeatureStatistics,
    examples: ServedExamples,
) -> None:
    """Counts served numbers anew, in training's buckets.

    Each side's buckets divide its own range evenly. Of different buckets a divergence remains even where the data are
    the same, and the largest value of a small sample is seldom that of a large one.

    Args:
      served: statistics of the requests; their histograms are replaced.
      training: statistics of the training split.
      examples: the requests.
    """
    known = {feature_name(feature): feature for feature in training.features}
    for feature in served.features:
        other = known.get(feature_name(feature))
        if other is None or feature.WhichOneof("stats") != "num_stats" or other.WhichOneof("stats") != "num_stats":
            continue
        values = examples.values(feature_name(feature)).values.astype(float)
        values = values[np.isfinite(values)]
        edges = bucket_edges(other)
        if not len(values) or not len(edges):
            continue
        inner = edges if len(edges) > 1 else edges.repeat(2)
        counts = np.bincount(bucket_numbers(values, edges), minlength=len(inner) + 1)
        lows = np.concatenate([[min(values.min(), edges[0])], inner])
        highs = np.concatenate([inner, [max(values.max(), edges[-1])]])
        for histogram in feature.num_stats.histograms:
            if histogram.type == statistics_pb2.Histogram.STANDARD:
                del histogram.buckets[:]
                for low, high, count in zip(lows, highs, counts, strict=True):
                    if count or low < high:
                        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
