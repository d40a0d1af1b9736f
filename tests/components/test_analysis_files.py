"""Files of partial analyses."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipeline.components.analysis_files import ReadEntry, WriteEntry


@pytest.mark.parametrize("values", [[b"one"], [b"b", b"a", b"", b"b"], [bytes(range(256)) * 100]])
def test_what_was_written_is_read(values, tmp_path):
    path = tmp_path / "span" / "7"
    with TestPipeline() as pipeline:
        _ = pipeline | beam.Create(values) | WriteEntry(str(path))
    assert [file.name for file in path.parent.iterdir()] == ["7-00000-of-00001.gz"]
    with TestPipeline() as pipeline:
        assert_that(pipeline | ReadEntry(f"{path}-*-of-*"), equal_to(values))


def test_the_order_of_the_values_does_not_matter(tmp_path):
    contents = []
    for name, values in (("a", [b"1", b"2", b"3"]), ("b", [b"3", b"1", b"2"])):
        with TestPipeline() as pipeline:
            _ = pipeline | beam.Create(values) | WriteEntry(str(tmp_path / name))
        contents.append((tmp_path / f"{name}-00000-of-00001.gz").read_bytes())
    assert contents[0] == contents[1]
