"""What is told of a run, out of real ML Metadata that is written here as TFX writes it."""

from __future__ import annotations

import datetime
import fcntl
import io
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console

from pipeline.config import PipelineConfig, load_config
from pipeline.next_steps import next_steps
from pipeline.run_records import record_failure, retire_undone_pushes
from pipeline.run_summary import print_summary
from pipeline.runs import LOCK_FILE, NoRunError, RunReport, RunStore

_State = metadata_store_pb2.Execution.State
FIRST, SECOND = "2026-01-01T00:00:00.000001", "2026-01-02T00:00:00.000001"


class Metadata:
    """A workspace and its ML Metadata.

    Args:
      workspace: folder of both.
    """

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self.path = str(workspace / "metadata.sqlite")
        connection = metadata_store_pb2.ConnectionConfig()
        connection.sqlite.filename_uri = self.path
        connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = ml_metadata.MetadataStore(connection)
        self._context("pipeline", "films")

    def add_run(self, run_id: str, **states: int) -> None:
        """Adds a run by the states of its components."""
        run = self._context("pipeline_run", run_id)
        for component, state in states.items():
            node = self._context("node", f"films.{component}")
            type_id = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name=component))
            execution = metadata_store_pb2.Execution(type_id=type_id, last_known_state=state)
            self.store.put_execution(execution, [], [run, node])

    def add_push(self, run_id: str, version: str, state: int) -> Path:
        """Adds a run that pushed a version, or found that push in the cache; returns the version's folder."""
        destination = self.workspace / "serving" / "recommender" / version
        type_id = self.store.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel"))
        artifact = metadata_store_pb2.Artifact(type_id=type_id, state=metadata_store_pb2.Artifact.LIVE)
        artifact.custom_properties["pushed"].int_value = 1
        artifact.custom_properties["pushed_version"].string_value = version
        artifact.custom_properties["pushed_destination"].string_value = str(destination)
        self.add_run(run_id, AtomicPusher=state)
        context = self.store.get_context_by_type_and_name("pipeline_run", run_id)
        (execution,) = self.store.get_executions_by_context(context.id)
        event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT)
        self.store.put_execution(execution, [(artifact, event)], [context])
        return destination

    def report(self, run_id: str | None = None) -> RunReport:
        return RunStore(self.path).report(run_id)

    def _context(self, type_name: str, name: str) -> metadata_store_pb2.Context:
        type_id = self.store.put_context_type(metadata_store_pb2.ContextType(name=type_name))
        if self.store.get_context_by_type_and_name(type_name, name) is None:
            self.store.put_contexts([metadata_store_pb2.Context(type_id=type_id, name=name)])
        return self.store.get_context_by_type_and_name(type_name, name)


@pytest.fixture
def metadata(tmp_path: Path) -> Metadata:
    return Metadata(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> PipelineConfig:
    (tmp_path / "interactions.tsv").write_text(
        "user_id\titem_id\trating\tdevice\ttimestamp\nu 7\ti1\t4\ttv\t1500000000\n", encoding="utf-8"
    )
    return load_config("synthetic", [f"data.directory={tmp_path}"])


def add_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()


def summarise(report: RunReport) -> str:
    output = io.StringIO()
    print_summary(report, Console(file=output, width=100))
    return output.getvalue()


def test_a_failed_run_tells_why_and_what_the_gate_found(metadata: Metadata) -> None:
    metadata.add_run(FIRST, InteractionValidator=_State.COMPLETE, AnomalyGate=_State.FAILED)
    reason = "the data does not match the schema:\n  interactions (train): column '[b]age' has " + "many values, " * 9
    record_failure(metadata.path, FIRST, reason)
    report = metadata.report()
    assert (report.state, report.failure, report.anomalies) == ("failed", reason, reason)
    assert {name: component.state for name, component in report.components.items()} == {
        "InteractionValidator": "run",
        "AnomalyGate": "failed",
    }
    printed = summarise(report)
    assert printed.count(f"The run failed: {reason}\n") == 1
    assert "AnomalyGate" in printed.split("The run failed")[0]


def test_a_run_that_fails_before_any_component_ends_has_failed(metadata: Metadata) -> None:
    metadata.add_run(FIRST, AtomicPusher=_State.COMPLETE)
    metadata.add_run(SECOND)
    record_failure(metadata.path, SECOND, "interactions.pattern: no file matches")
    report = metadata.report()
    assert (report.state, report.failure) == ("failed", "interactions.pattern: no file matches")
    assert report.anomalies is None
    assert metadata.report(FIRST).state == "complete"
    assert metadata.report(FIRST).failure is None


def test_a_run_is_running_as_long_as_its_process_holds_the_workspace(metadata: Metadata) -> None:
    metadata.add_run(FIRST, Transform=_State.COMPLETE, RecommenderTrainer=_State.RUNNING)
    assert metadata.report().state == "interrupted"
    with open(metadata.workspace / LOCK_FILE, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(datetime.datetime.fromisoformat(FIRST).isoformat())
        lock.flush()
        report = metadata.report()
        assert (report.state, report.components["RecommenderTrainer"].state) == ("running", "running")
        assert "running" in summarise(report)
        metadata.add_run(SECOND, Transform=_State.CACHED)  # Between two components nothing is marked as running.
        assert metadata.report().state == "running"
        assert metadata.report(FIRST).state == "interrupted"
    report = metadata.report()
    assert report.state == "interrupted"


def test_a_run_that_was_interrupted_before_the_lock_was_taken_is_not_the_one_that_runs(metadata: Metadata) -> None:
    metadata.add_run(FIRST, Transform=_State.RUNNING)
    with open(metadata.workspace / LOCK_FILE, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(SECOND)
        lock.flush()
        assert metadata.report().state == "interrupted"


def test_reading_changes_nothing_and_says_what_cannot_be_read(metadata: Metadata) -> None:
    metadata.add_run(FIRST, AtomicPusher=_State.COMPLETE)
    before = Path(metadata.path).read_bytes()
    assert metadata.report().state == "complete"
    assert Path(metadata.path).read_bytes() == before
    empty = metadata.workspace / "empty.sqlite"
    empty.touch()
    with pytest.raises(NoRunError, match=r"no run yet: .*empty\.sqlite holds no metadata"):
        RunStore(str(empty)).report()


def test_a_push_is_told_together_with_what_is_served(metadata: Metadata) -> None:
    folder = metadata.add_push(FIRST, "5", _State.COMPLETE)
    add_model(folder)
    assert summarise(metadata.report()).endswith(f"\nPushed as version 5 to {folder}\n")
    metadata.add_push(SECOND, "5", _State.CACHED)
    assert summarise(metadata.report()).endswith(f"\nPushed as version 5 to {folder} by an earlier run\n")

    add_model(folder.with_name("11"))
    folder.with_name("99").mkdir()  # No model yet.
    add_model(folder.with_name(".pushing-100"))
    assert metadata.report().served_version == "11"
    assert "by an earlier run; version 11 is served instead." in summarise(metadata.report())

    for name in ("5", "11"):
        (folder.with_name(name) / "saved_model.pb").unlink()
    assert metadata.report().served_version is None
    assert "by an earlier run; that folder is gone, and nothing is served." in summarise(metadata.report())


def test_only_pushes_that_are_undone_leave_the_cache(metadata: Metadata) -> None:
    assert retire_undone_pushes(str(metadata.workspace / "none.sqlite")) == []
    first, second = (metadata.add_push(run, version, _State.COMPLETE) for run, version in ((FIRST, "5"), (SECOND, "6")))
    add_model(first)
    add_model(second)
    live = metadata_store_pb2.Artifact.LIVE
    assert [push.version for push in retire_undone_pushes(metadata.path)] == ["5"]
    assert [artifact.state == live for artifact in metadata.store.get_artifacts()] == [False, True]
    assert retire_undone_pushes(metadata.path) == []
    (second / "saved_model.pb").unlink()
    assert [push.version for push in retire_undone_pushes(metadata.path)] == ["6"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `.venv`, whatever the tests run in."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def make_report(**fields: object) -> RunReport:
    return RunReport.model_validate(
        {"pipeline": "films", "run_id": FIRST, "state": "complete", "components": {}, "total_seconds": 1.0, **fields}
    )


def test_next_steps_are_of_the_configuration_and_of_a_user_that_exists(settings: PipelineConfig) -> None:
    served = make_report(pushed={"version": "5", "destination": "x/5"}, served_version="5", blessed=True)
    assert next_steps(served, settings, "mine.yaml", "model.settings={a: 1}") == [
        "marquee serve --config mine.yaml --set 'model.settings={a: 1}' &",
        "marquee recommend --user 'u 7' --config mine.yaml --set 'model.settings={a: 1}'",
        "marquee status --json --config mine.yaml --set 'model.settings={a: 1}'",
    ]
    assert next_steps(served, settings, "movielens-100k")[0] == "marquee serve &"

    Path(settings.data.directory, "interactions.tsv").unlink()
    assert [step.split()[1] for step in next_steps(served, settings, "synthetic")] == ["serve", "status"]


def test_next_steps_help_when_nothing_was_pushed(settings: PipelineConfig) -> None:
    refused = next_steps(make_report(blessed=False), settings, "synthetic")
    assert "evaluation.gate of synthetic" in refused[0]
    assert refused[1:] == ["marquee status --json --config synthetic"]
    failed = next_steps(make_report(state="failed"), settings, "synthetic")
    assert failed[0].startswith("marquee run --config synthetic  #")
    gone = next_steps(make_report(blessed=True, pushed={"version": "5", "destination": "x/5"}), settings, "synthetic")
    assert gone[0].startswith("marquee run --config synthetic  #")


def test_the_program_is_called_by_its_path_only_where_it_lies(
    settings: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "marquee"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr("sys.argv", [str(program)])
    assert next_steps(make_report(), settings, "movielens-100k") == ["marquee status --json"]
    monkeypatch.chdir(tmp_path)
    assert next_steps(make_report(), settings, "movielens-100k") == [".venv/bin/marquee status --json"]


def test_tasks_are_told_in_one_table_that_fits_a_narrow_terminal() -> None:
    names = ("ndcg@10", "continue_watching_ndcg@10", "because_you_watched_ndcg@10", "rank_user_auc")
    values = {name: 0.1234 + position / 10 for position, name in enumerate(names)}
    intervals = {"overall": {name: (value - 0.01, value + 0.01) for name, value in values.items()}}
    baseline = {name: value - 0.05 for name, value in values.items()}
    changes = {"overall": {name: {"value": 0.05, "interval": (0.04, 0.06)} for name in names}}
    report = make_report(
        metrics={"overall": values}, intervals=intervals, baseline_metrics={"overall": baseline}, changes=changes
    )
    output = io.StringIO()
    print_summary(report, Console(file=output, width=80))
    lines = [line.split() for line in output.getvalue().splitlines()]
    for task, metric, name in (
        ("next_title", "ndcg@10", "ndcg@10"),
        ("continue_watching", "ndcg@10", "continue_watching_ndcg@10"),
        ("because_you_watched", "ndcg@10", "because_you_watched_ndcg@10"),
        ("rank", "user_auc", "rank_user_auc"),
    ):
        value = values[name]
        cells = [f"{value:.4f}", f"{value - 0.01:.4f}", "–", f"{value + 0.01:.4f}", f"{value - 0.05:.4f}", "+0.0500"]
        assert [task, metric, *cells] in lines
    assert "continue_watching" not in summarise(make_report(metrics={"overall": {"ndcg@10": 0.1}}))


def test_the_gate_is_a_table_that_counts_what_could_not_be_judged() -> None:
    line = {"rule": "ndcg@10: at least 0.1", "slice": "overall", "metric": "ndcg@10", "value": 0.1234, "lower": 0.09,
            "upper": 0.15, "bound": "lower", "needed": 0.1, "passed": False, "reason": "too low"}  # fmt: skip
    unjudged = {**line, "passed": None, "reason": "not judged: 7 users on gender=F, fewer than 20"}
    told = summarise(make_report(metrics={"overall": {"ndcg@10": 0.1234}}, gate=[line, unjudged, unjudged]))
    cells = [row.split() for row in told.splitlines()]
    assert ["ndcg@10:", "at", "least", "0.1", "overall", "0.1234", "0.0900", "–", "0.1500", "no"] in cells
    assert "2 not judged: 7 users on gender=F, fewer than 20" in told
