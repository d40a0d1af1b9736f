"""Point-in-time histories: what was known about a user strictly before an interaction.

Interactions at the same instant are no history of each other: their order is unknown, and ordering them by anything
else would leak.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

from modules import features
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_payload, encode_value
from pipeline.components.source_tables import Event


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
        self._times = [timestamp for timestamp, *_ in events]
        self._item_ids = [encode_value(item_id, ColumnType.STRING) for _, item_id, *_ in events]
        self._timestamps = [encode_value(timestamp, ColumnType.INT) for timestamp in self._times]
        self._feedbacks = [encode_value(event[4] or 0.0, ColumnType.FLOAT) for event in events]
        first: dict[bytes, int] = {}
        for number, item_id in enumerate(self._item_ids):
            first.setdefault(item_id, number)
        self._seen, self._first = list(first), list(first.values())

    def before(self, timestamp: int) -> bytes:
        """Returns the history strictly before an instant as encoded features (`example_encoding.join_features`).

        It holds the `history_length` most recent events, oldest first, as `history_item_ids` (bytes),
        `history_timestamps` (int64, seconds) and, with a feedback, `history_<feedback>` (float). `seen_item_ids` holds
        the distinct items of all strictly earlier events, by first occurrence. Empty without any event.
        """
        end = bisect.bisect_left(self._times, timestamp)
        if not end:
            return b""
        recent = slice(max(0, end - self._history_length), end)
        seen = self._seen[: bisect.bisect_left(self._first, end)]
        parts = [
            encode_payload(features.HISTORY_ITEM_IDS, ColumnType.STRING, b"".join(self._item_ids[recent])),
            encode_payload(features.HISTORY_TIMESTAMPS, ColumnType.INT, b"".join(self._timestamps[recent])),
            encode_payload(features.SEEN_ITEM_IDS, ColumnType.STRING, b"".join(seen)),
        ]
        if self._feedback:
            name = features.history_feature_name(self._feedback)
            parts.append(encode_payload(name, ColumnType.FLOAT, b"".join(self._feedbacks[recent])))
        return b"".join(parts)
