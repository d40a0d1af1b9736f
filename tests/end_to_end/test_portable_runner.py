"""The whole pipeline with its Beam work on a job service with workers in other processes: it comes to the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.run_outputs import outputs_by_node
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.job_service import serve_jobs
from tests.end_to_end.small_pipeline import COMPONENTS, Run, make_config, run

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def portable(first_runs: FirstRuns, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The configuration of the first run, in a workspace of its own."""
    folder = tmp_path_factory.mktemp("portable")
    with serve_jobs(folder) as beam:
        made = run(make_config(first_runs.folder, f"workspace={folder / 'workspace'}", f"beam={beam}"))
    assert "Starting worker with command" in (folder / "worker.worker_pool_main.log").read_text(errors="replace")
    return made


def _folder(made: Run, node: str, type_name: str) -> Path:
    outputs = outputs_by_node(made.config.metadata_path, made.report.run_id)[node]
    (artifact,) = (one for one in outputs if one.type == type_name)
    return Path(artifact.uri)


def _examples(folder: Path, split: str) -> list[list[tuple[str, bytes]]]:
    """Returns the examples of a split in order, each as its features by name."""
    files = sorted(str(file) for file in (folder / f"Split-{split}").iterdir())
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
    parsed = (tf.train.Example.FromString(record).features.feature for record in records)
    return [sorted((name, value.SerializeToString()) for name, value in features.items()) for features in parsed]


def test_every_component_ran_there(portable: Run):
    assert portable.nodes("COMPLETE") == set(COMPONENTS)


def test_worker_processes_of_the_direct_runner_write_the_same_examples(first_runs: FirstRuns, tmp_path: Path):
    config = make_config(first_runs.folder, f"workspace={tmp_path}", "beam.parallelism=2")
    shared_out = run(config, until="InteractionExampleGen")
    ours, theirs = (_folder(one, "InteractionExampleGen", "Examples") for one in (first_runs.first, shared_out))
    shards = sorted(file.relative_to(ours) for file in ours.glob("Split-*/*"))
    assert shards
    assert shards == sorted(file.relative_to(theirs) for file in theirs.glob("Split-*/*"))
    assert all((ours / shard).read_bytes() == (theirs / shard).read_bytes() for shard in shards)


@pytest.mark.parametrize("split", ["train", "eval", "test"])
def test_examples_are_the_same_in_the_same_order(first_runs: FirstRuns, portable: Run, split: str):
    ours, theirs = (
        _examples(_folder(one, "InteractionExampleGen", "Examples"), split) for one in (first_runs.first, portable)
    )
    assert ours == theirs
    assert ours


def test_statistics_are_the_same(first_runs: FirstRuns, portable: Run):
    ours, theirs = (
        statistics_pb2.DatasetFeatureStatisticsList.FromString(
            (
                _folder(one, "InteractionStatistics", "ExampleStatistics") / "Split-train" / "FeatureStats.pb"
            ).read_bytes()
        ).datasets[0]
        for one in (first_runs.first, portable)
    )
    assert ours.num_examples == theirs.num_examples > 0
    assert [feature.path.step for feature in ours.features] == [feature.path.step for feature in theirs.features]
    for mine, other in zip(ours.features, theirs.features, strict=True):
        assert mine.WhichOneof("stats") == other.WhichOneof("stats")
        assert mine.string_stats.unique == other.string_stats.unique
        assert mine.string_stats.common_stats.num_non_missing == other.string_stats.common_stats.num_non_missing
        assert mine.num_stats.common_stats.num_non_missing == other.num_stats.common_stats.num_non_missing
        assert (mine.num_stats.min, mine.num_stats.max) == (other.num_stats.min, other.num_stats.max)
        # A sum of floats depends on the order of its terms, which workers are free to choose.
        assert mine.num_stats.mean == pytest.approx(other.num_stats.mean, rel=1e-9)


def test_transform_comes_to_the_same(first_runs: FirstRuns, portable: Run):
    assets = [
        {file.name: file.read_bytes() for file in (graph / "transform_fn" / "assets").iterdir()}
        for graph in (_folder(one, "Transform", "TransformGraph") for one in (first_runs.first, portable))
    ]
    assert assets[0] == assets[1]
    ours, theirs = (
        sorted(_examples(_folder(one, "Transform", "Examples"), "train")) for one in (first_runs.first, portable)
    )
    assert ours == theirs


def test_metrics_are_the_same(first_runs: FirstRuns, portable: Run):
    ours, theirs = first_runs.first.report.metrics, portable.report.metrics
    assert ours.keys() == theirs.keys()
    for name, metrics in ours.items():
        assert theirs[name] == pytest.approx(metrics, rel=1e-6, abs=1e-9, nan_ok=True)
