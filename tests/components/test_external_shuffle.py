"""The shuffle through files, against grouping in memory."""

from __future__ import annotations

import collections
from pathlib import Path

import apache_beam as beam
import hypothesis.strategies as st
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given

from pipeline.components import external_shuffle
from pipeline.components.external_shuffle import SpillByKey, SpillFile, bucket_count, read_pairs

PAIRS = st.lists(st.tuples(st.binary(max_size=3), st.lists(st.integers(0, 9), max_size=4)))


@given(values=st.lists(st.binary() | st.lists(st.tuples(st.integers(), st.none() | st.floats(allow_nan=False)))))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, values: list) -> None:
    folder = tmp_path_factory.mktemp("values")
    with SpillFile(str(folder)) as file:
        spilled = [file.append(value) for value in values]
    assert [one.read() for one in reversed(spilled)] == values[::-1]


@given(pairs=PAIRS, buckets=st.integers(1, 5), held=st.integers(1, 12))
def test_all_pairs_of_a_key_are_in_one_bucket(
    tmp_path_factory: pytest.TempPathFactory, pairs: list, buckets: int, held: int
) -> None:
    folder = tmp_path_factory.mktemp("buckets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_shuffle, "_HELD", held)
        spill = SpillByKey(str(folder), buckets)
        spill.start_bundle()
        spilled = [one for pair in pairs for one in spill.process(pair)]
        spilled += [one.value for one in spill.finish_bundle()]
    by_bucket: dict[int, list] = collections.defaultdict(list)
    for bucket, one in spilled:
        by_bucket[bucket].extend(read_pairs([one]))
    assert set(by_bucket) <= set(range(buckets))
    assert sorted(pair for found in by_bucket.values() for pair in found) == sorted(pairs)
    keys = [{key for key, _ in found} for found in by_bucket.values()]
    assert sum(map(len, keys)) == len(set().union(*keys))


def test_it_groups_in_a_pipeline(tmp_path: Path) -> None:
    pairs = [(b"%d" % (number % 7), number) for number in range(100)]
    expected = [(b"%d" % key, list(range(key, 100, 7))) for key in range(7)]

    def gather(bucket: tuple) -> list:
        values = collections.defaultdict(list)
        for key, value in read_pairs(bucket[1]):
            values[key].append(value)
        return [(key, sorted(found)) for key, found in values.items()]

    with beam.Pipeline(options=PipelineOptions(["--direct_running_mode=in_memory"])) as pipeline:
        grouped = (
            pipeline
            | beam.Create(pairs)
            | beam.ParDo(SpillByKey(str(tmp_path), 3))
            | beam.GroupByKey()
            | beam.FlatMap(gather)
        )
        assert_that(grouped, equal_to(expected))


def test_buckets_grow_with_the_source_within_bounds() -> None:
    assert [bucket_count(size) for size in (0, 100 << 20, 1 << 50)] == [16, 100, 4096]
