"""Joins interactions with a catalogue that is too large for every worker to hold: by shuffle, on the item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam

from pipeline.components.external_shuffle import SpillByKey, Spilled, read_pairs
from pipeline.components.source_tables import REJECTED, TYPES, Event, context_columns
from pipeline.data_config import DataConfig


class JoinByShuffle(beam.PTransform):
    """From rows of `ReadInteractions` by item, and the items, to `(user_id, [Event])` with the item's columns.

    Rows of unknown items come under the tag `REJECTED`, types of the context columns under `TYPES`.

    Args:
      data: the tables.
      folder: where files go that the workers share.
      buckets: number of parts of which a worker holds one at a time.
    """

    def __init__(self, data: DataConfig, folder: str, buckets: int) -> None:
        super().__init__()
        self._data, self._folder, self._buckets = data, folder, buckets

    def expand(self, tables: Mapping[str, beam.PCollection]) -> Any:
        """Takes the collections `rows` and `items`."""
        spilled = {
            name: table | f"Spill[{name}]" >> beam.ParDo(SpillByKey(self._folder, self._buckets))
            for name, table in tables.items()
        }
        return (
            spilled
            | "GroupByItem" >> beam.CoGroupByKey()
            | "Join" >> beam.ParDo(_JoinBucket(self._data)).with_outputs(REJECTED, TYPES, main="events")
        )


class _JoinBucket(beam.DoFn):
    def __init__(self, data: DataConfig) -> None:
        self._data = data

    def process(self, group: tuple[int, Mapping[str, Iterable[Spilled]]]) -> Iterator[Any]:
        _, tables = group
        items = dict(read_pairs(tables["items"]))
        inference = context_columns(self._data).new_inference()
        for item_id, (user_id, event, rejected) in read_pairs(tables["rows"]):
            columns = items.get(item_id)
            if event[2] >= 0:  # Earlier spans' rows give history only.
                if columns is None:
                    yield beam.pvalue.TaggedOutput(REJECTED, ("interactions", rejected))
                    continue
                inference.observe(event[5])
            joined: Event = (*event, columns or b"")
            yield user_id, [joined]
        yield beam.pvalue.TaggedOutput(TYPES, inference.types)
