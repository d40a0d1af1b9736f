"""What is known of a version's run, out of real ML Metadata that is written here as TFX writes it."""

from __future__ import annotations

from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2

from modules.artifact_files import VERDICT_FILE
from pipeline.gate_line import GateLine
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.evidence import find_evidence
from pipeline.verdict import Estimate, Verdict

LINE = GateLine(
    rule="at least 0.3", slice="overall", metric="ndcg@10", value=0.4, lower=0.35, upper=0.45, bound="lower", needed=0.3
)


class Workspace:
    """Runs that evaluated and pushed a model."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.metadata_path = str(folder / "metadata.sqlite")
        connection = metadata_store_pb2.ConnectionConfig()
        connection.sqlite.filename_uri = self.metadata_path
        connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self._store = ml_metadata.MetadataStore(connection)
        self._context("pipeline", "films")

    def add_run(self, run_id: str, version: str | None, value: float, model: str = "recommender") -> None:
        """Adds a run with one metric; `version` is what it pushed, if anything."""
        run = self._context("pipeline_run", run_id)
        evaluation = self._artifact("ModelEvaluation", self._folder / f"evaluation-{value}")
        Path(evaluation.uri).mkdir(exist_ok=True)
        verdict = Verdict(slices={"overall": {"ndcg@10": Estimate(value=value)}}, gate=[LINE])
        (Path(evaluation.uri) / VERDICT_FILE).write_text(verdict.model_dump_json(), encoding="utf-8")
        blessing = self._artifact("ModelBlessing", self._folder)
        blessing.custom_properties["blessed"].int_value = int(version is not None)
        pushed = self._artifact("PushedModel", self._folder)
        pushed.custom_properties["pushed"].int_value = int(version is not None)
        if version is not None:
            pushed.custom_properties["pushed_version"].string_value = version
            pushed.custom_properties["pushed_destination"].string_value = f"/anywhere/{model}/{version}"
        for component, artifact in (("Evaluator", evaluation), ("Gate", blessing), ("AtomicPusher", pushed)):
            type_id = self._store.put_execution_type(metadata_store_pb2.ExecutionType(name=component))
            execution = metadata_store_pb2.Execution(
                type_id=type_id, last_known_state=metadata_store_pb2.Execution.COMPLETE
            )
            event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT)
            node = self._context("node", f"films.{component}")
            self._store.put_execution(execution, [(artifact, event)], [run, node])

    def _artifact(self, kind: str, folder: Path) -> metadata_store_pb2.Artifact:
        type_id = self._store.put_artifact_type(metadata_store_pb2.ArtifactType(name=kind))
        return metadata_store_pb2.Artifact(type_id=type_id, uri=str(folder))

    def _context(self, kind: str, name: str) -> metadata_store_pb2.Context:
        found = self._store.get_context_by_type_and_name(kind, name)
        if found is not None:
            return found
        type_id = self._store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        self._store.put_contexts([metadata_store_pb2.Context(type_id=type_id, name=name)])
        return self._store.get_context_by_type_and_name(kind, name)


def test_a_version_is_known_by_the_metrics_and_the_gate_of_the_run_that_pushed_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.add_run("2026-01-01T00:00:00.000001", "11", 0.4)
    workspace.add_run("2026-01-02T00:00:00.000001", None, 0.2)
    workspace.add_run("2026-01-03T00:00:00.000001", "11", 0.9)  # Found the push in the cache.
    workspace.add_run("2026-01-04T00:00:00.000001", "12", 0.5)
    workspace.add_run("2026-01-05T00:00:00.000001", "13", 0.5, model="another")
    evidence = find_evidence(workspace.metadata_path, "recommender")
    assert {version: found.run_id[:10] for version, found in evidence.items()} == {11: "2026-01-01", 12: "2026-01-04"}
    assert evidence[11].metrics == {"ndcg@10": pytest.approx(0.4)}
    assert evidence[11].blessed is True
    assert evidence[11].gate == [LINE]


def test_nothing_is_known_where_nothing_ran(tmp_path: Path) -> None:
    assert find_evidence(str(tmp_path / "metadata.sqlite"), "recommender") == {}


def test_runs_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    Workspace(tmp_path).add_run("2026-01-01T00:00:00.000001", "11", 0.4)
    (tmp_path / "evaluation-0.4" / VERDICT_FILE).write_text("[")
    with pytest.raises(ReleaseError, match=r"the runs in .*metadata\.sqlite cannot be read: "):
        find_evidence(str(path), "recommender")
