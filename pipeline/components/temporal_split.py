"""The global temporal split: cuts at exact shares of the events, in order of time.

The cuts are found in two passes that each keep little: events per day tell the day of a cut, events per second of that
day tell the second. All events of one second fall on the same side.
"""

from __future__ import annotations

import collections
import fractions
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from pipeline.data_config import SplitConfig

TRAIN, EVAL, TEST = "train", "eval", "test"
SPLIT_NAMES = (TRAIN, EVAL, TEST)
IMPRESSION_SPLIT_NAMES = tuple(f"impressions_{name}" for name in SPLIT_NAMES)
"""What was shown, taken or not, cut at the same times; only of logs with propensities."""

_SECONDS_PER_DAY = 86_400


class Cuts(NamedTuple):
    """Where the splits begin, and what they hold."""

    eval_start: int
    """Events before this second are `train`."""
    test_start: int
    """Events before this second and not `train` are `eval`, the others `test`."""
    num_examples: tuple[int, int, int]
    """Events in each of `SPLIT_NAMES`."""

    def split_of(self, timestamp: int) -> str:
        """Returns the split of an event at this second."""
        if timestamp < self.eval_start:
            return TRAIN
        return EVAL if timestamp < self.test_start else TEST


class FindCuts(beam.PTransform):
    """Turns lists or arrays of timestamps, in any grouping, into one `Cuts`.

    Without any event, all cuts and counts are 0.
    """

    def __init__(self, splits: SplitConfig) -> None:
        super().__init__()
        self._splits = splits

    def expand(self, timestamps: beam.PCollection) -> beam.PCollection:
        """Counts by day, then by second within the days of the cuts."""
        days = timestamps | "CountDays" >> beam.Map(count_days) | "SumDays" >> beam.CombineGlobally(sum_counts)
        by_day = beam.pvalue.AsSingleton(days)
        return (
            timestamps
            | "CountSeconds" >> beam.Map(count_seconds, by_day, self._splits)
            | "SumSeconds" >> beam.CombineGlobally(sum_counts)
            | "Locate" >> beam.Map(locate_cuts, by_day, self._splits)
        )


def count_days(timestamps: npt.ArrayLike) -> dict[int, int]:
    """Returns the number of events per day since 1970-01-01 UTC."""
    return _count(np.asarray(timestamps, np.int64) // _SECONDS_PER_DAY)


def count_seconds(timestamps: npt.ArrayLike, by_day: Mapping[int, int], splits: SplitConfig) -> dict[int, int]:
    """Returns the number of events per second, within the days that hold a cut."""
    days = [day for day, _ in _locate(by_day, cut_indices(sum(by_day.values()), splits))]
    times = np.asarray(timestamps, np.int64)
    return _count(times[np.isin(times // _SECONDS_PER_DAY, days)])


def locate_cuts(by_second: Mapping[int, int], by_day: Mapping[int, int], splits: SplitConfig) -> Cuts:
    """Returns the cuts, given all counts by day and those by second of the cuts' days."""
    total = sum(by_day.values())
    cuts, earlier = [], []
    for day, index in _locate(by_day, cut_indices(total, splits)):
        seconds = {second: n for second, n in by_second.items() if second // _SECONDS_PER_DAY == day}
        ((second, rest),) = _locate(seconds, [index])
        cuts.append(second)
        earlier.append(sum(n for other, n in by_day.items() if other < day) + index - rest)
    if not cuts:
        return Cuts(0, 0, (0, 0, 0))
    return Cuts(cuts[0], cuts[1], (earlier[0], earlier[1] - earlier[0], total - earlier[1]))


def cut_indices(total: int, splits: SplitConfig) -> tuple[int, int]:
    """Returns the positions, among all events in order of time, of the first `eval` and the first `test` event.

    Shares are taken as the decimal fractions that they are written as: 0.8 + 0.1 is nine tenths.
    """
    train = fractions.Fraction(str(splits.train))
    validation = fractions.Fraction(str(splits.validation))
    return math.floor(train * total), math.floor((train + validation) * total)


def sum_counts(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Adds up counts by key."""
    total: collections.Counter[int] = collections.Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _count(values: np.ndarray) -> dict[int, int]:
    keys, counts = np.unique(values, return_counts=True)
    return dict(zip(keys.tolist(), counts.tolist(), strict=True))


def _locate(counts: Mapping[int, int], indices: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the key that holds each index when all keys are laid out in order, and the rest of the index within."""
    located = []
    for index in indices:
        for key in sorted(counts):
            if index < counts[key]:
                located.append((key, index))
                break
            index -= counts[key]
    return located
