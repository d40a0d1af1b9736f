"""How much a slice holds: `example_count`, its interactions, and `user_count`, the users that they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types

from modules.features import USER_ID
from modules.metrics.model_outputs import is_impression, metric_key, read_features
from modules.metrics.user_sums import as_bytes

EXAMPLE_COUNT = "example_count"
USER_COUNT = "user_count"


class EventCounts(metric_types.Metric):
    """Interactions and users of a slice. Impressions do not count. Eight bytes a user and slice are kept."""

    def __init__(self, name: str = "event_counts") -> None:
        """Initialises the metric."""
        super().__init__(_event_counts, name=name)


metric_types.register_metric(EventCounts)


def _event_counts(name: str = "event_counts") -> metric_types.MetricComputations:
    return [
        metric_types.MetricComputation(
            keys=[metric_key(EXAMPLE_COUNT, ""), metric_key(USER_COUNT, "")],
            preprocessors=[_UserPreprocessor(name=name)],
            combiner=_CountCombiner(),
        )
    ]


class _UserPreprocessor(metric_types.Preprocessor):
    """Turns one interaction into a hash of its user."""

    def process(self, extracts: dict[str, Any]) -> Iterator[bytes]:
        if not is_impression(extracts):
            users = read_features(extracts, USER_ID)
            if users.size != 1:
                raise ValueError(f"feature {USER_ID!r} must hold one value in every example; received {users.tolist()}")
            yield hashlib.blake2b(as_bytes(users[0]), digest_size=8).digest()


_Counts = tuple[int, set[bytes]]


class _CountCombiner(beam.CombineFn):
    """Counts interactions, and users once."""

    def create_accumulator(self) -> _Counts:
        return 0, set()

    def add_input(self, accumulator: _Counts, element: bytes) -> _Counts:
        count, users = accumulator
        users.add(element)
        return count + 1, users

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        total, merged = self.create_accumulator()
        for count, users in accumulators:
            total += count
            merged |= users
        return total, merged

    def extract_output(self, accumulator: _Counts) -> dict[metric_types.MetricKey, float]:
        count, users = accumulator
        return {metric_key(EXAMPLE_COUNT, ""): float(count), metric_key(USER_COUNT, ""): float(len(users))}
