"""Point-in-time histories: what was known about a user strictly before an interaction.

Interactions at the same instant are no history of each other: their order is unknown, and ordering them by anything
else would leak.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections.abc import Iterable, Sequence

from modules import features
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_payload, encode_value
from pipeline.components.source_tables import Event

_FLOAT_BYTES = 4


def order_events(events: Iterable[Event]) -> tuple[list[Event], int]:
    """Sorts a user's events by time, then item, and drops repeated ones.

    Returns:
      The events, of which the first of equal time and item is kept, and how many were dropped, those in files with
      numbers below 0 left out.
    """
    ordered: list[Event] = []
    dropped = 0
    for event in sorted(events):
        if ordered and ordered[-1][:2] == event[:2]:
            dropped += event[2] >= 0  # Those of earlier spans are counted there.
        else:
            ordered.append(event)
    return ordered, dropped


class HistoryEncoder:
    """Encodes a user's history at any instant.

    Args:
      events: the user's interactions, in order of time.
      history_length: most events in a history.
      feedback: name of the feedback column, if there is one.
    """

    def __init__(self, events: Sequence[Event], history_length: int, feedback: str | None) -> None:
        self._history_length, self._feedback = history_length, feedback
        self._times = [event[0] for event in events]
        item_ids = [encode_value(event[1], ColumnType.STRING) for event in events]
        self._item_ids = _Joined(item_ids)
        self._timestamps = _Joined([encode_value(timestamp, ColumnType.INT) for timestamp in self._times])
        self._feedbacks = struct.pack(f"<{len(events)}f", *(event[4] or 0.0 for event in events)) if feedback else b""
        first: dict[bytes, int] = {}
        for number, item_id in enumerate(item_ids):
            first.setdefault(item_id, number)
        self._seen, self._first = _Joined(list(first)), list(first.values())

    def before(self, timestamp: int) -> bytes:
        """Returns the history strictly before an instant as encoded features (`example_encoding.join_features`).

        It holds the `history_length` most recent events, oldest first, as `history_item_ids` (bytes),
        `history_timestamps` (int64, seconds) and, with a feedback, `history_<feedback>` (float). `seen_item_ids` holds
        the distinct items of all strictly earlier events, by first occurrence. Empty without any event.
        """
        end = bisect.bisect_left(self._times, timestamp)
        if not end:
            return b""
        start = max(0, end - self._history_length)
        seen = self._seen.part(0, bisect.bisect_left(self._first, end))
        parts = [
            encode_payload(features.HISTORY_ITEM_IDS, ColumnType.STRING, self._item_ids.part(start, end)),
            encode_payload(features.HISTORY_TIMESTAMPS, ColumnType.INT, self._timestamps.part(start, end)),
            encode_payload(features.SEEN_ITEM_IDS, ColumnType.STRING, seen),
        ]
        if self._feedback:
            name = features.history_feature_name(self._feedback)
            feedbacks = self._feedbacks[_FLOAT_BYTES * start : _FLOAT_BYTES * end]
            parts.append(encode_payload(name, ColumnType.FLOAT, feedbacks))
        return b"".join(parts)


class _Joined:
    """Encoded values, joined once, so that the values of any range are one slice."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self._bytes = b"".join(values)
        self._ends = list(itertools.accumulate(map(len, values), initial=0))

    def part(self, start: int, end: int) -> bytes:
        """Returns the values from one number to another, the latter left out."""
        return self._bytes[self._ends[start] : self._ends[end]]
