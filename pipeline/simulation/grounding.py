"""What a world takes from real data: how skewed popularity is, how unevenly active users are, how common genres are.

Nothing else is taken: tastes, quality and everything that decides on clicks are the world's own, since no log tells
them.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from modules.features import ITEM_ID, USER_ID
from pipeline.components.column_values import parse_key, split_cell
from pipeline.components.source_files import find_files, read_records
from pipeline.components.spans import source_directory
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.data_config import DataConfig, TableConfig
from pipeline.datasets.synthetic_entities import GENRES

_MOST_GENRES = 12
_LEAST_SHARE = 1e-9


@dataclasses.dataclass(frozen=True)
class Grounding:
    """What worlds have in common with data.

    Attributes:
      source: where it comes from, for the reader.
      popularity_skew: standard deviation of the logarithm of titles' interactions.
      activity_skew: standard deviation of the logarithm of users' interactions.
      genres: names.
      genre_shares: how likely a title has each of them, relative to the others; they sum to 1.
    """

    source: str = "built in"
    popularity_skew: float = 1.6
    activity_skew: float = 0.7
    genres: tuple[str, ...] = GENRES[:8]
    genre_shares: tuple[float, ...] = (1 / 8,) * 8


def ground_in(config: PipelineConfig) -> Grounding:
    """Measures a data set.

    Genres are those of the first column of titles with several values, the most frequent first, at most twelve;
    without such a column they are the built-in ones.

    Args:
      config: says where the tables are and which columns to take.

    Raises:
      ConfigError: if the tables have too few users or titles to measure anything.
      DataQualityError: if a table cannot be read.
    """
    data = config.data
    counts = {USER_ID: collections.Counter[str](), ITEM_ID: collections.Counter[str]()}
    for row in _rows(data, "interactions", data.interactions):
        for key, counter in counts.items():
            counter[row[key]] += 1
    for key, counter in counts.items():
        if len(counter) < 2:
            raise ConfigError(f"like: {config.data.directory} has {len(counter)} values of {key}; expected 2 or more")
    genres = _genre_counts(data)
    ground = Grounding(
        source=config.name,
        popularity_skew=_log_deviation(counts[ITEM_ID].values()),
        activity_skew=_log_deviation(counts[USER_ID].values()),
    )
    if len(genres) < 2:
        return ground
    total = sum(genres.values())
    return dataclasses.replace(
        ground,
        genres=tuple(genres),
        genre_shares=tuple(max(count / total, _LEAST_SHARE) for count in genres.values()),
    )


def _log_deviation(counts: Iterable[int]) -> float:
    return float(np.std([math.log(count) for count in counts]))


def _genre_counts(data: DataConfig) -> Mapping[str, int]:
    column = next((name for name, spec in data.items.columns.items() if spec.separator is not None), None)
    if column is None:
        return {}
    separator = data.items.columns[column].separator
    counter: collections.Counter[str] = collections.Counter()
    for row in _rows(data, "items", data.items):
        counter.update(str(value) for value in split_cell(row[column], separator))
    return dict(counter.most_common(_MOST_GENRES))


def _rows(data: DataConfig, name: str, table: TableConfig) -> Iterator[Mapping[str, str]]:
    """Yields cells by column of the rows that can be read; keys as text."""
    keys: Sequence[str] = [key for key in (USER_ID, ITEM_ID) if key in table.columns]
    for file in find_files(source_directory(data), name, table):
        for record in read_records(file.path, name, table):
            if record.reason is not None:
                continue
            row = dict(zip(table.columns, record.cells, strict=True))
            try:
                yield {**row, **{key: parse_key(row[key]).decode() for key in keys}}
            except ValueError:
                continue
