"""What the components of a run put out and were told, from ML Metadata, by component."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from modules.artifact_files import VERDICT_FILE
from pipeline.verdict import Verdict, read_verdict

INTERACTIONS = "InteractionExampleGen"
CATALOGUE = "CatalogueExampleGen"
INTERACTION_STATISTICS = "InteractionStatistics"
CATALOGUE_STATISTICS = "CatalogueStatistics"
_SCHEMA = "CuratedSchema"
_TRAINER = "RecommenderTrainer"
_EVALUATOR = "RecommenderEvaluator"
_SERVING_FOLDER = "Format-Serving"


@dataclasses.dataclass(frozen=True)
class RunArtifacts:
    """One run's artifacts and parameters.

    Attributes:
      run_id: the run.
      outputs: artifacts by component and output, those found in the cache included.
      parameters: execution parameters by component.
    """

    run_id: str
    outputs: Mapping[tuple[str, str], metadata_store_pb2.Artifact]
    parameters: Mapping[str, Mapping[str, Any]]

    def folder(self, component: str, output: str) -> Path | None:
        """Returns the folder of an artifact; None if the run did not get so far, or it was removed."""
        artifact = self.outputs.get((component, output))
        path = Path(artifact.uri) if artifact is not None else None
        return path if path is not None and path.is_dir() else None

    @property
    def data_id(self) -> int | None:
        """Id of the ingested interactions: two runs that share it have the same data."""
        artifact = self.outputs.get((INTERACTIONS, "examples"))
        return artifact.id if artifact is not None else None

    @property
    def model(self) -> Path | None:
        """Folder of the exported SavedModel."""
        folder = self.folder(_TRAINER, "model")
        return folder / _SERVING_FOLDER if folder is not None and (folder / _SERVING_FOLDER).is_dir() else None

    @property
    def schema_text(self) -> str | None:
        """The curated schema that the run was given."""
        return self.parameters.get(_SCHEMA, {}).get("schema_text")

    @property
    def training_parameters(self) -> dict[str, Any]:
        """What the Trainer was told: feature groups, version of the code, model."""
        return json.loads(self.parameters.get(_TRAINER, {}).get("custom_config") or "{}")

    @property
    def verdict(self) -> Verdict:
        """What the Evaluator found; empty if the run did not get so far."""
        folder = self.folder(_EVALUATOR, "evaluation")
        return read_verdict(folder / VERDICT_FILE) if folder is not None else Verdict()


def read_run_artifacts(store: ml_metadata.MetadataStore, run_id: str) -> RunArtifacts:
    """Reads a run that is known to exist."""
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    components: dict[int, str] = {}
    parameters = {}
    for execution in sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id):
        (node,) = (found for found in store.get_contexts_by_execution(execution.id) if found.type == "node")
        components[execution.id] = node.name.split(".", 1)[1]
        parameters[components[execution.id]] = {
            name: getattr(value, value.WhichOneof("value")) for name, value in execution.custom_properties.items()
        }
    events = store.get_events_by_execution_ids(list(components)) if components else []
    events = [event for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    outputs = {
        (components[event.execution_id], event.path.steps[0].key): artifacts[event.artifact_id] for event in events
    }
    return RunArtifacts(run_id, outputs, parameters)


def latest_with_other_data(
    store: ml_metadata.MetadataStore, run_ids: list[str], current: RunArtifacts
) -> RunArtifacts | None:
    """Returns the latest run before this one that described other data; None if there is none.

    Args:
      store: ML Metadata.
      run_ids: all runs, the earliest first.
      current: this run.
    """
    for run_id in reversed(run_ids[: run_ids.index(current.run_id)]):
        earlier = read_run_artifacts(store, run_id)
        described = earlier.folder(INTERACTION_STATISTICS, "statistics") is not None
        if described and earlier.data_id != current.data_id:
            return earlier
    return None
