"""What happened in a run, read from ML Metadata and the JSON files that components leave beside their artifacts.

Reading needs neither TensorFlow nor TFX, so `marquee status` answers at once.
"""

from __future__ import annotations

import datetime
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from pydantic import BaseModel

from modules.artifact_files import TRAINING_REPORT, VERDICT_FILE
from pipeline.gate_line import GateLine
from pipeline.metadata import open_metadata
from pipeline.search_results import is_tuner
from pipeline.verdict import Estimate, read_verdict

FAILURE_PROPERTY = "failure"
LOCK_FILE = ".lock"
GATE = "AnomalyGate"
PUSHER = "AtomicPusher"

_STATES = metadata_store_pb2.Execution.State
_STATE_NAMES = {
    _STATES.COMPLETE: "run",
    _STATES.CACHED: "cached",
    _STATES.FAILED: "failed",
    _STATES.RUNNING: "interrupted",
}


class NoRunError(LookupError):
    """There is no run to tell of."""


class ComponentReport(BaseModel):
    """One component of a run."""

    state: str
    """`run`, `cached`, `failed`, `running` or `interrupted`."""
    seconds: float
    """Wall-clock seconds, from the driver's start to publication; 0 for one that never got so far."""


class ChangeReport(BaseModel):
    """How a metric differs from that of the last blessed model."""

    value: float
    """Candidate minus baseline."""
    interval: tuple[float, float] | None
    """95 % confidence interval of the difference, computed pairwise."""


class PushReport(BaseModel):
    """Where a model went."""

    version: str
    """Version that clients see."""
    destination: str
    """Its folder."""


class RunReport(BaseModel):
    """Everything worth knowing about a run."""

    pipeline: str
    """Pipeline name."""
    run_id: str
    """When the run started, in ISO 8601."""
    state: str
    """`complete`, `failed`, `running` or `interrupted`."""
    failure: str | None = None
    """Why the run failed, in the words of the component that did."""
    components: dict[str, ComponentReport]
    """In order of execution."""
    total_seconds: float
    """Sum over the components."""
    data: dict[str, int | float | str] = {}
    """Counts of ingestion: rows, rejected rows, examples by split."""
    anomalies: str | None = None
    """The anomaly gate's verdict, also on data that it let not pass."""
    training: dict[str, Any] = {}
    """Model, learning curve and validation metric."""
    metrics: dict[str, dict[str, float]] = {}
    """Test metrics by slice and name, e.g. `metrics["overall"]["ndcg@10"]`."""
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    """95 % confidence intervals of the same."""
    baseline_metrics: dict[str, dict[str, float]] = {}
    """The same metrics of the last blessed model; empty without one."""
    changes: dict[str, dict[str, ChangeReport]] = {}
    """The differences to it, by slice and name."""
    example_counts: dict[str, int] = {}
    """Test events by slice."""
    user_counts: dict[str, int] = {}
    """Users that they are of."""
    gate: list[GateLine] = []
    """The gate's table, line by line."""
    blessed: bool | None = None
    """Whether the model passed the gate; None if it was not evaluated."""
    blessing_failures: list[str] = []
    """Why it did not."""
    servable: bool | None = None
    """Whether a model server could serve it; None if it was not tried."""
    servable_reason: str | None = None
    """Why it could not."""
    pushed: PushReport | None = None
    """Where the model was pushed, if it was, by this run or by the earlier one whose push it found in the cache."""
    served_version: str | None = None
    """Latest version that is in the serving folder now, whichever run pushed it; None if there is none."""


class RunStore:
    """Reads runs from ML Metadata.

    Args:
      metadata_path: the SQLite file.

    Raises:
      NoRunError: if there is no such file, or nothing in it yet.
    """

    def __init__(self, metadata_path: str):
        if not Path(metadata_path).is_file():
            raise NoRunError(f"no run yet: there is no metadata at {metadata_path}; `marquee run` makes one")
        try:
            self._store = open_metadata(metadata_path)
        except RuntimeError as error:  # The run that made it has written nothing yet, or it is another kind of file.
            raise NoRunError(f"no run yet: {metadata_path} holds no metadata") from error
        self._lock_path = Path(metadata_path).parent / LOCK_FILE

    def run_ids(self) -> list[str]:
        """Returns all runs, the earliest first."""
        contexts = self._store.get_contexts_by_type("pipeline_run")
        return [context.name for context in sorted(contexts, key=lambda context: context.id)]

    def component_states(self, run_id: str) -> dict[str, ComponentReport]:
        """Returns state and seconds by component, in order of execution. One that has not ended is `interrupted`."""
        return {
            name: ComponentReport(
                state=_STATE_NAMES.get(execution.last_known_state, "failed"),
                seconds=round((execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000, 3),
            )
            for name, execution in self._executions(run_id).items()
        }

    def is_running(self, run_id: str) -> bool:
        """Tells whether the process of a run is still at work: whether it holds the lock of the workspace."""
        try:
            with open(self._lock_path, encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            held_since = self._lock_path.read_text(encoding="utf-8")
            # A process that has just taken the lock has not begun its run; the latest is another's then.
            return datetime.datetime.fromisoformat(run_id) >= datetime.datetime.fromisoformat(held_since or run_id)
        return False

    def report(self, run_id: str | None = None) -> RunReport:
        """Returns the report of a run, by default of the latest that was no search for settings.

        Raises:
          NoRunError: if there is no such run.
        """
        run_ids = self.run_ids()
        if not run_ids or (run_id is not None and run_id not in run_ids):
            raise NoRunError(f"no run {run_id or ''} in ML Metadata; it holds {run_ids or 'none'}")
        chosen = run_id or next((name for name in reversed(run_ids) if not self._is_search(name)), run_ids[-1])
        components = self.component_states(chosen)
        failure = self._failure(chosen)
        states = {component.state for component in components.values()}
        if failure is not None or "failed" in states:
            state = "failed"
        elif (PUSHER in components or any(map(is_tuner, components))) and "interrupted" not in states:
            state = "complete"
        elif chosen == run_ids[-1] and self.is_running(chosen):
            state = "running"
            unfinished = [name for name, component in components.items() if component.state == "interrupted"]
            components.update({name: ComponentReport(state="running", seconds=0.0) for name in unfinished})
        else:
            state = "interrupted"
        report = RunReport(
            pipeline=self._pipeline_name(),
            run_id=chosen,
            state=state,
            failure=failure,
            components=components,
            total_seconds=round(sum(component.seconds for component in components.values()), 3),
            anomalies=failure if GATE in components and components[GATE].state == "failed" else None,
            served_version=self._served_version(),
        )
        return report.model_copy(update=_read_outputs(self._outputs(chosen)))

    def _is_search(self, run_id: str) -> bool:
        return any(map(is_tuner, self._executions(run_id)))

    def _failure(self, run_id: str) -> str | None:
        context = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        return context.custom_properties[FAILURE_PROPERTY].string_value or None

    def _served_version(self) -> str | None:
        pushes = [read_push(artifact) for artifact in self._store.get_artifacts_by_type("PushedModel")]
        folders = [Path(push.destination).parent for push in pushes if push is not None]
        return latest_version(folders[-1]) if folders else None

    def _executions(self, run_id: str) -> dict[str, metadata_store_pb2.Execution]:
        context = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        result = {}
        for execution in sorted(self._store.get_executions_by_context(context.id), key=lambda item: item.id):
            nodes = [c for c in self._store.get_contexts_by_execution(execution.id) if c.type == "node"]
            result[nodes[0].name.split(".", 1)[1]] = execution
        return result

    def _outputs(self, run_id: str) -> list[metadata_store_pb2.Artifact]:
        execution_ids = [execution.id for execution in self._executions(run_id).values()]
        events = self._store.get_events_by_execution_ids(execution_ids)
        output = metadata_store_pb2.Event.OUTPUT
        ids = [event.artifact_id for event in events if event.type == output]
        return list(self._store.get_artifacts_by_id(ids))

    def _pipeline_name(self) -> str:
        return self._store.get_contexts_by_type("pipeline")[-1].name


def read_push(artifact: metadata_store_pb2.Artifact) -> PushReport | None:
    """Reads from a `PushedModel` where a model went; None if it was not pushed."""
    properties = {key: _value(value) for key, value in artifact.custom_properties.items()}
    if properties.get("pushed") != 1:
        return None
    return PushReport(version=properties["pushed_version"], destination=properties["pushed_destination"])


def latest_version(directory: Path) -> str | None:
    """Returns the largest number whose folder in a serving folder holds a model; None if there is none."""
    models = [path.parent.name for path in directory.glob("*/saved_model.pb")]
    return max((name for name in models if name.isdecimal()), key=int, default=None)


def _read_outputs(artifacts: list[metadata_store_pb2.Artifact]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for artifact in artifacts:
        properties = {key: _value(value) for key, value in artifact.custom_properties.items()}
        if artifact.type == "Examples":
            counts = {key: value for key, value in properties.items() if isinstance(value, int)}
            fields.setdefault("data", {}).update(counts)
        elif artifact.type == "ModelRun":
            fields["training"] = _read_json(artifact.uri, TRAINING_REPORT)
        elif artifact.type == "ModelEvaluation":
            fields.update(_read_verdict(artifact.uri))
        elif artifact.type == "ModelBlessing" and "blessed" in properties:
            fields["blessed"] = properties["blessed"] == 1
        elif artifact.type == "InfraBlessing" and "blessed" in properties:
            fields["servable"] = properties["blessed"] == 1
            fields["servable_reason"] = properties.get("reason")
        elif artifact.type == "PushedModel":
            fields["pushed"] = read_push(artifact)
        elif "summary" in properties:
            fields["anomalies"] = properties["summary"]
    return fields


def _read_verdict(uri: str) -> dict[str, Any]:
    verdict = read_verdict(Path(uri) / VERDICT_FILE)

    def collect(read: Callable[[Estimate], Any]) -> dict[str, dict[str, Any]]:
        """Leaves out what is not there, or undefined."""
        return {
            name: {metric: value for metric, one in estimates.items() if (value := read(one)) is not None}
            for name, estimates in verdict.slices.items()
        }

    def change(estimate: Estimate) -> ChangeReport | None:
        value = estimate.change
        return None if value is None else ChangeReport(value=value, interval=estimate.change_interval)

    baseline, changes = collect(lambda estimate: estimate.baseline), collect(change)
    return {
        "metrics": collect(lambda estimate: estimate.value),
        "intervals": collect(lambda estimate: estimate.interval),
        "baseline_metrics": baseline if any(baseline.values()) else {},
        "changes": changes if any(changes.values()) else {},
        "example_counts": verdict.example_counts,
        "user_counts": verdict.user_counts,
        "gate": verdict.gate,
        "blessing_failures": verdict.failures,
    }


def _read_json(uri: str, name: str) -> dict[str, Any]:
    path = Path(uri) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _value(value: metadata_store_pb2.Value) -> Any:
    return getattr(value, value.WhichOneof("value"))
