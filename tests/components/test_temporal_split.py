"""The temporal split, against sorting all events."""

import datetime

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.temporal_split import (
    SPLIT_NAMES,
    Cuts,
    FindCuts,
    count_days,
    count_seconds,
    cut_indices,
    locate_cuts,
    sum_counts,
)
from pipeline.data_config import SplitConfig

GROUPS = st.lists(st.lists(st.integers(-3, 9) | st.integers(0, 400_000)), min_size=1)
SPLITS = st.tuples(st.integers(1, 97), st.integers(1, 97)).filter(lambda pair: sum(pair) < 100)


def sort_and_cut(timestamps, train_percent, validation_percent):
    ordered = sorted(timestamps)
    starts = [
        ordered[train_percent * len(ordered) // 100],
        ordered[(train_percent + validation_percent) * len(ordered) // 100],
    ]
    train = sum(time < starts[0] for time in ordered)
    test = sum(time >= starts[1] for time in ordered)
    return Cuts(starts[0], starts[1], (train, len(ordered) - train - test, test))


@given(GROUPS.filter(any), SPLITS)
def test_cuts_equal_those_of_the_sorted_events(groups, percents):
    splits = SplitConfig(train=percents[0] / 100, validation=percents[1] / 100)
    by_day = sum_counts(map(count_days, groups))
    by_second = sum_counts(count_seconds(group, by_day, splits) for group in groups)
    cuts = locate_cuts(by_second, by_day, splits)
    timestamps = [time for group in groups for time in group]
    assert cuts == sort_and_cut(timestamps, *percents)
    assert tuple([cuts.split_of(time) for time in timestamps].count(name) for name in SPLIT_NAMES) == cuts.num_examples


@pytest.mark.parametrize("total", [10, 1000, 100_000, 10**12])
def test_shares_are_exact_decimal_fractions(total):
    assert cut_indices(total, SplitConfig(train=0.8, validation=0.1)) == (total * 8 // 10, total * 9 // 10)


def test_only_the_days_of_the_cuts_are_counted_by_second():
    day = int(datetime.timedelta(days=1).total_seconds())
    timestamps = [number * day + second for number in range(10) for second in range(3)]
    by_second = count_seconds(timestamps, count_days(timestamps), SplitConfig())
    assert sorted(by_second) == [8 * day, 8 * day + 1, 8 * day + 2, 9 * day, 9 * day + 1, 9 * day + 2]


def test_cuts_in_beam():
    groups = [[100_000 * (number % 7) + number for number in range(start, 200, 3)] for start in range(3)]
    timestamps = [time for group in groups for time in group]
    with beam.Pipeline() as pipeline:
        cuts = pipeline | "Events" >> beam.Create(groups) | "Find" >> FindCuts(SplitConfig())
        none = pipeline | "NoEvents" >> beam.Create([]) | "FindNone" >> FindCuts(SplitConfig())
        assert_that(cuts, equal_to([sort_and_cut(timestamps, 80, 10)]), label="Cuts")
        assert_that(none, equal_to([Cuts(0, 0, (0, 0, 0))]), label="None")
