"""From a user's rows to examples: put in order, given their histories, and shared out to shards."""

from __future__ import annotations

import collections
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np

from modules import features
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_feature, join_features
from pipeline.components.example_shards import OrderedExample, shard_count
from pipeline.components.external_shuffle import Spilled, SpillFile, read_pairs
from pipeline.components.point_in_time import HistoryEncoder, order_events
from pipeline.components.source_tables import REPORTS, Event, context_columns, propensity_at
from pipeline.components.stable_hash import stable_hash
from pipeline.components.temporal_split import IMPRESSION_SPLIT_NAMES, SPLIT_NAMES, Cuts
from pipeline.data_config import DataConfig

_MOST_HELD_BYTES = 256 << 20
"""Examples that a worker holds before it writes them."""

UserEvents = tuple[bytes, bytes, list[Event], list[Event]]
"""A user's id, encoded columns (empty without a profile), interactions in order of time, and impressions likewise."""


class OrderedUsers(NamedTuple):
    """The users of a bucket.

    Attributes:
      users: where the list of their `UserEvents` was written.
      timestamps: int64, shape [interactions], those of earlier spans left out.
      impression_timestamps: int64, shape [impressions].
      not_taken: how many of the impressions were not taken.
    """

    users: Spilled
    timestamps: np.ndarray
    impression_timestamps: np.ndarray
    not_taken: int


class OrderEvents(beam.DoFn):
    """From what was spilled of a bucket's `events`, and `users` if there are profiles, to `OrderedUsers`.

    Partial reports come under the tag `REPORTS`.

    Args:
      data: the tables.
      folder: where files go that the workers share.
    """

    def __init__(self, data: DataConfig, folder: str) -> None:
        self._propensity_at, self._has_profiles = propensity_at(data), data.users is not None
        self._folder = folder

    def process(self, group: tuple[int, Mapping[str, Iterable[Spilled]]]) -> Iterator[Any]:
        """Orders the events of one bucket."""
        _, tables = group
        by_user: dict[bytes, list[Event]] = collections.defaultdict(list)
        for user_id, rows in read_pairs(tables["events"]):
            by_user[user_id].extend(rows)
        profiles = dict(read_pairs(tables.get("users", ())))
        users: list[UserEvents] = []
        duplicates = unknown = 0
        for user_id, rows in by_user.items():
            own = [row for row in rows if not _is_earlier(row)]
            if not own:
                continue
            events, repeated = order_events(row for row in rows if row[4] is not None)
            impressions = sorted(row for row in own if self._is_impression(row))
            users.append((user_id, profiles.get(user_id, b""), events, impressions))
            duplicates += repeated
            unknown += self._has_profiles and user_id not in profiles
        if not users:
            return
        with SpillFile(self._folder) as file:
            spilled = file.append(users)
        shown = [row for *_, impressions in users for row in impressions]
        yield OrderedUsers(
            spilled,
            np.array([event[0] for _, _, events, _ in users for event in events if not _is_earlier(event)], np.int64),
            np.array([row[0] for row in shown], np.int64),
            sum(row[4] is None for row in shown),
        )
        yield beam.pvalue.TaggedOutput(REPORTS, {"interactions_duplicates": duplicates, "unknown_users": unknown})

    def _is_impression(self, row: Event) -> bool:
        return self._propensity_at is not None and bool(row[5][self._propensity_at])


class AssembleExamples(beam.DoFn):
    """From `OrderedUsers` to `example_shards.ExampleBatch`es, tagged by split.

    Args:
      data: the tables.
      folder: where files go that the workers share.
    """

    def __init__(self, data: DataConfig, folder: str) -> None:
        self._data, self._folder = data, folder

    def process(
        self,
        bucket: OrderedUsers,
        catalogue: Mapping[bytes, bytes],
        context_types: Mapping[str, ColumnType],
        cuts: Cuts,
        shown: Mapping[int, int],
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        """Assembles the examples of a bucket's users.

        Args:
          bucket: the users.
          catalogue: encoded columns by item id; not asked for events that have been joined already.
          context_types: types of the undeclared context columns.
          cuts: where the splits begin.
          shown: impressions by number of the split.
        """
        assemble = _UserAssembler(self._data, catalogue, context_types, cuts, shown)
        held = 0
        for user in bucket.users.read():
            held += assemble(user)
            if held > _MOST_HELD_BYTES:
                yield from self._write(assemble)
                held = 0
        yield from self._write(assemble)

    def _write(self, assemble: _UserAssembler) -> list[beam.pvalue.TaggedOutput]:
        with SpillFile(self._folder) as file:
            outputs = [
                beam.pvalue.TaggedOutput(split, ((shard, assemble.shards[split]), file.append(examples)))
                for (split, shard), examples in assemble.examples.items()
            ]
        assemble.examples.clear()
        return outputs


class _UserAssembler:
    """Gathers examples by split and shard.

    Attributes:
      shards: number of shards by split.
      examples: what was gathered.
    """

    def __init__(
        self,
        data: DataConfig,
        catalogue: Mapping[bytes, bytes],
        context_types: Mapping[str, ColumnType],
        cuts: Cuts,
        shown: Mapping[int, int],
    ) -> None:
        self._data, self._catalogue, self._context_types, self._cuts = data, catalogue, context_types, cuts
        self._context = context_columns(data)
        self._item_parts: dict[bytes, bytes] = {}
        self._marker = encode_feature(features.IMPRESSION, ColumnType.INT, [1])
        self.shards = {name: shard_count(count) for name, count in zip(SPLIT_NAMES, cuts.num_examples, strict=True)}
        self.shards |= {name: shard_count(shown.get(at, 0)) for at, name in enumerate(IMPRESSION_SPLIT_NAMES)}
        self.examples: dict[tuple[str, int], list[OrderedExample]] = collections.defaultdict(list)

    def __call__(self, user: UserEvents) -> int:
        """Adds a user's examples; returns their bytes."""
        user_id, user_columns, events, impressions = user
        user_part = encode_feature(features.USER_ID, ColumnType.STRING, [user_id]) + user_columns
        histories = HistoryEncoder(events, self._data.history_length, self._data.feedback)
        own = [event for event in events if not _is_earlier(event)]
        size = 0
        for names, marks, rows in ((SPLIT_NAMES, b"", own), (IMPRESSION_SPLIT_NAMES, self._marker, impressions)):
            for timestamp, simultaneous in itertools.groupby(rows, key=operator.itemgetter(0)):
                split = names[SPLIT_NAMES.index(self._cuts.split_of(timestamp))]
                shards = self.shards[split]
                time_part = encode_feature(features.TIMESTAMP, ColumnType.INT, [timestamp])
                shared = marks + user_part + time_part + histories.before(timestamp)
                for event in simultaneous:
                    order = stable_hash(user_id, event[1], b"%d" % timestamp)
                    example = join_features((shared, *self._own_parts(event)))
                    self.examples[split, int.from_bytes(order, "big") % shards].append((order, example))
                    size += len(example)
        return size

    def _own_parts(self, event: Event) -> Iterator[bytes]:
        _, item_id, _, _, feedback, values, *joined = event
        item_part = self._item_parts.get(item_id)
        if item_part is None:
            item_part = encode_feature(features.ITEM_ID, ColumnType.STRING, [item_id])
            item_part += joined[0] if joined else self._catalogue[item_id]
            self._item_parts[item_id] = item_part
        yield item_part
        if values:
            yield self._context.encode(values, self._context_types)
        if self._data.feedback and feedback is not None:
            yield encode_feature(self._data.feedback, ColumnType.FLOAT, [feedback])


def count_impressions(bucket: OrderedUsers, cuts: Cuts) -> dict[int, int]:
    """Returns the impressions of a bucket's users by number of the split, and under -1 those that were not taken."""
    splits = np.searchsorted([cuts.eval_start, cuts.test_start], bucket.impression_timestamps, side="right")
    counts = np.bincount(splits, minlength=len(SPLIT_NAMES))
    return {**{at: int(count) for at, count in enumerate(counts) if count}, -1: bucket.not_taken}


def _is_earlier(event: Event) -> bool:
    return event[2] < 0
