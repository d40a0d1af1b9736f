"""Continuous training: a window of spans rolls on, and each run takes over from the one before what it can."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from rich.console import Console
from tensorflow_metadata.proto.v0 import schema_pb2
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.datasets.folder import write_tables
from pipeline.local import PipelineFailedError, run_locally
from pipeline.metadata import open_metadata
from pipeline.run_outputs import outputs_by_node
from pipeline.runs import RunStore
from tests.end_to_end.small_pipeline import (
    COMPONENTS,
    SCHEMA_TEXT,
    SMALL_WORLD,
    Run,
    execution_states,
    make_config,
    run,
)

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

SPANS = 3
NODES = {*COMPONENTS, "SpanDrift", "EarlierModel"}
Properties = Mapping[str, int | str]


def _write_spans(root: Path, spans: range) -> None:
    """Writes spans of the small world, each a third of its events in order of time."""
    tables = SMALL_WORLD.generate()
    interactions = tables["interactions"]
    times = interactions["timestamp"]
    order = sorted(range(len(times)), key=lambda row: (times[row], row))
    for span in spans:
        part = order[(span - 1) * len(order) // SPANS : span * len(order) // SPANS]
        log = {name: [values[row] for row in part] for name, values in interactions.items()}
        write_tables(root / f"span-{span}", {**tables, "interactions": log})


def _config(folder: Path, *overrides: str) -> PipelineConfig:
    return make_config(
        folder,
        f"data.directory={folder}/spans/span-{{SPAN}}",
        "data.window={spans: 2}",
        "model.warm_start={}",
        # So few test events tell nothing with confidence.
        "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.0, certain: false}]}",
        *overrides,
    )


def _properties(config: PipelineConfig, node: str, type_name: str) -> Properties:
    """Returns the custom properties of what a node of the latest run left behind."""
    run_id = RunStore(config.metadata_path).run_ids()[-1]
    (artifact,) = (one for one in outputs_by_node(config.metadata_path, run_id)[node] if one.type == type_name)
    return {key: value.string_value or value.int_value for key, value in artifact.custom_properties.items()}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Two runs of one workspace, the second after a span has come, and a third with nothing new.

    Attributes:
      folder: of the workspace.
      first, second, third: the runs.
      examples, analyses, drift: properties of their artifacts, of the first two runs.
      distances: of the features from span 1 to 2, the largest first.
    """

    folder: Path
    first: Run
    second: Run
    third: Run
    examples: tuple[Properties, Properties]
    analyses: tuple[Properties, Properties]
    drift: tuple[Properties, Properties]
    distances: list[dict[str, Any]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("windows")
    made: list[Run] = []
    told = []
    for new_spans in (range(1, 3), range(3, 4), range(0)):
        _write_spans(folder / "spans", new_spans)
        config = _config(folder)
        made.append(run(config))
        told.append(
            (
                _properties(config, "InteractionExampleGen", "Examples"),
                _properties(config, "Transform", "TransformCache"),
                _properties(config, "SpanDrift", "ExampleAnomalies"),
            )
        )
    distances = Path(_uri(made[0].config, "SpanDrift", "ExampleAnomalies", made[0].report.run_id), "drift.json")
    (first_examples, first_analyses, first_drift), (examples, analyses, drift), _ = told
    return Runs(
        folder,
        first=made[0],
        second=made[1],
        third=made[2],
        examples=(first_examples, examples),
        analyses=(first_analyses, analyses),
        drift=(first_drift, drift),
        distances=json.loads(distances.read_text()),
    )


def test_the_window_rolls_on_and_what_was_kept_is_used(runs: Runs):
    assert runs.first.nodes("COMPLETE") == NODES
    assert runs.second.nodes("COMPLETE") == NODES - {"CuratedSchema"}
    assert [one["window"] for one in runs.examples] == ["1 to 2", "2 to 3"]
    assert [(one["spans_ingested"], one["spans_kept"]) for one in runs.examples] == [(2, 0), (1, 1)]
    # Of span 2 the training part is known; its later part was validation and test data.
    assert [(one["parts_analysed"], one["parts_kept"]) for one in runs.analyses] == [(3, 0), (2, 1)]
    assert [one["previous_span"] for one in runs.drift] == [1, 2]
    # The first run had to compare span 1 and 2.
    assert {"device", "rating"} <= {one["feature"] for one in runs.distances}
    assert all(0 <= one["distance"] <= 1 for one in runs.distances)
    assert runs.distances[0]["distance"] > 0


def test_the_first_fit_is_cold_and_the_second_begins_with_its_model(runs: Runs):
    assert runs.first.report.training["start"]["kind"] == "cold"
    start = runs.second.report.training["start"]
    assert start["kind"] == "warm"
    (first,) = (
        artifact.uri
        for artifact in open_metadata(runs.first.config.metadata_path).get_artifacts_by_type("Model")
        if artifact.uri in start["base_model"]
    )
    assert (
        first
        == min(
            (artifact for artifact in open_metadata(runs.first.config.metadata_path).get_artifacts_by_type("Model")),
            key=lambda artifact: artifact.id,
        ).uri
    )
    assert runs.first.report.blessed


def test_a_run_without_new_data_finds_all_in_the_cache(runs: Runs):
    resolvers = {"LatestBlessedModel", "EarlierModel"}
    assert runs.third.nodes("CACHED") == NODES - resolvers
    assert runs.third.new_versions == []


def test_nothing_new_is_said_at_once(runs: Runs):
    options = [
        "run", "--config", "synthetic", "--set", f"workspace={runs.folder / 'workspace'}",
        "--set", f"data.directory={runs.folder}/spans/span-{{SPAN}}", "--set", "data.window={spans: 2}", "--if-new",
    ]  # fmt: skip
    before = RunStore(runs.first.config.metadata_path).run_ids()
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Nothing new: span 2 to 3 in ")
    assert RunStore(runs.first.config.metadata_path).run_ids() == before
    fixed = CliRunner().invoke(
        app, ["run", "--config", "synthetic", "--set", f"data.directory={runs.folder}", "--if-new"]
    )
    assert fixed.exit_code == 1
    assert "only spans can be new" in fixed.output


def test_what_is_kept_gives_the_same_features_as_a_fresh_workspace(runs: Runs):
    fresh = _config(runs.folder, f"workspace={runs.folder / 'fresh'}")
    run_locally(fresh, Console(quiet=True), until="Transform")
    assets = []
    for config, number in ((runs.second.config, 1), (fresh, 0)):
        run_id = RunStore(config.metadata_path).run_ids()[number]
        folder = Path(_uri(config, "Transform", "TransformGraph", run_id), "transform_fn", "assets")
        assets.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert assets[0] == assets[1]
    assert assets[0]


def _uri(config: PipelineConfig, node: str, type_name: str, run_id: str) -> str:
    (artifact,) = (one for one in outputs_by_node(config.metadata_path, run_id)[node] if one.type == type_name)
    return str(artifact.uri)


def test_drift_beyond_the_schemas_threshold_stops_the_run(runs: Runs):
    schema = text_format.Parse(SCHEMA_TEXT, schema_pb2.Schema())
    (device,) = (feature for feature in schema.feature if feature.name == "device")
    device.drift_comparator.infinity_norm.threshold = 1e-6
    (runs.folder / "strict.pbtxt").write_text(text_format.MessageToString(schema), encoding="utf-8")
    strict = _config(runs.folder, f"schema_file={runs.folder / 'strict.pbtxt'}")
    with pytest.raises(
        PipelineFailedError, match=r"drift \(newest_span\): column 'device' has changed: .* is 0\.\d+; expect"
    ):
        run(strict)
    assert "Transform" not in execution_states(strict)
