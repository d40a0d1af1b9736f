"""How much a slice holds.

`example_count` are its interactions, `user_count` the users that they are of, `impression_user_count` those that
something was shown to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types

from modules.metrics.event_records import user_digest
from modules.metrics.model_outputs import is_impression, metric_key

EXAMPLE_COUNT = "example_count"
USER_COUNT = "user_count"
IMPRESSION_USER_COUNT = "impression_user_count"
_NAMES = (EXAMPLE_COUNT, USER_COUNT, IMPRESSION_USER_COUNT)


class EventCounts(metric_types.Metric):
    """Interactions and users of a slice. Up to 16 bytes a user and slice are kept."""

    def __init__(self, name: str = "event_counts") -> None:
        """Initialises the metric."""
        super().__init__(_event_counts, name=name)


metric_types.register_metric(EventCounts)


def _event_counts(name: str = "event_counts") -> metric_types.MetricComputations:
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, "") for metric in _NAMES],
            preprocessors=[_UserPreprocessor(name=name)],
            combiner=_CountCombiner(),
        )
    ]


class _UserPreprocessor(metric_types.Preprocessor):
    """Turns one example into whether it is an impression, and a hash of its user."""

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[bool, bytes]]:
        yield is_impression(extracts), user_digest(extracts)


_Counts = tuple[int, set[bytes], set[bytes]]
"""Interactions, their users, and the users of impressions."""


class _CountCombiner(beam.CombineFn):
    """Counts interactions, and users once."""

    def create_accumulator(self) -> _Counts:
        return 0, set(), set()

    def add_input(self, accumulator: _Counts, element: tuple[bool, bytes]) -> _Counts:
        count, users, shown_to = accumulator
        impression, user = element
        (shown_to if impression else users).add(user)
        return count + (not impression), users, shown_to

    def merge_accumulators(self, accumulators: Iterable[_Counts]) -> _Counts:
        total, all_users, all_shown_to = self.create_accumulator()
        for count, users, shown_to in accumulators:
            total += count
            all_users |= users
            all_shown_to |= shown_to
        return total, all_users, all_shown_to

    def extract_output(self, accumulator: _Counts) -> dict[metric_types.MetricKey, float]:
        count, users, shown_to = accumulator
        values = (count, len(users), len(shown_to))
        return {metric_key(name, ""): float(value) for name, value in zip(_NAMES, values, strict=True)}
