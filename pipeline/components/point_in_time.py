"""Point-in-time histories: what was known about a user strictly before an interaction.

Interactions at the same instant are no history of each other: their order is unknown, and ordering them by anything
else would leak.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence

from modules import features
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_payload, encode_value
from pipeline.components.source_tables import Event


def order_events(events: Iterable[Event]) -> tuple[list[Event], int]:
    """Sorts a user's events by time, then item, and drops repeated ones.

    Returns:
      The events, of which the first of equal time and item is kept, and how many were dropped.
    """
    ordered: list[Event] = []
    dropped = 0
    for event in sorted(events):
        if ordered and ordered[-1][:2] == event[:2]:
            dropped += 1
        else:
            ordered.append(event)
    return ordered, dropped


def encode_histories(
    events: Sequence[Event], history_length: int, feedback: str | None
) -> Iterator[tuple[bytes, list[Event]]]:
    """Encodes a user's history at each instant.

    The history holds the `history_length` most recent events strictly before the instant, oldest first, as
    `history_item_ids` (bytes), `history_timestamps` (int64, seconds) and, with a feedback, `history_<feedback>`
    (float). `seen_item_ids` holds the distinct items of all strictly earlier events, by first occurrence.

    Args:
      events: the user's events, in order of time.
      history_length: most events in a history.
      feedback: name of the feedback column, if there is one.

    Yields:
      Encoded features (see `example_encoding.join_features`), empty at the first instant, and the events at that
      instant.
    """
    item_ids = [encode_value(item_id, ColumnType.STRING) for _, item_id, *_ in events]
    timestamps = [encode_value(timestamp, ColumnType.INT) for timestamp, *_ in events]
    feedbacks = [encode_value(value, ColumnType.FLOAT) for *_, value, _ in events]
    seen: dict[bytes, None] = {}
    end = 0
    for _, group in itertools.groupby(events, key=operator.itemgetter(0)):
        history = b""
        if end:
            recent = slice(max(0, end - history_length), end)
            parts = [
                encode_payload(features.HISTORY_ITEM_IDS, ColumnType.STRING, b"".join(item_ids[recent])),
                encode_payload(features.HISTORY_TIMESTAMPS, ColumnType.INT, b"".join(timestamps[recent])),
                encode_payload(features.SEEN_ITEM_IDS, ColumnType.STRING, b"".join(seen)),
            ]
            if feedback:
                name = features.history_feature_name(feedback)
                parts.append(encode_payload(name, ColumnType.FLOAT, b"".join(feedbacks[recent])))
            history = b"".join(parts)
        simultaneous = list(group)
        yield history, simultaneous
        seen.update(dict.fromkeys(item_ids[end : end + len(simultaneous)]))
        end += len(simultaneous)
