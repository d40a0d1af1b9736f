"""What searches for settings have found, read from ML Metadata without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import ml_metadata
from ml_metadata.proto import metadata_store_pb2

from modules.trials import TRIALS_FILE, Search
from pipeline.metadata import open_metadata

_TUNER = "Tuner"


def tuner_id(family: str) -> str:
    """Returns the id of the component that tunes a family."""
    return f"{_TUNER}.{family}"


def is_tuner(component_id: str) -> bool:
    """Tells whether a component tunes a family."""
    return component_id.startswith(f"{_TUNER}.")


def latest_search(metadata_path: str, pipeline_name: str, family: str) -> Search | None:
    """Returns the latest search of a family in a workspace; None if there was none.

    Args:
      metadata_path: the SQLite file of ML Metadata.
      pipeline_name: name of the pipeline.
      family: name in the registry.
    """
    if not Path(metadata_path).is_file():
        return None
    store = open_metadata(metadata_path)
    node = store.get_context_by_type_and_name("node", f"{pipeline_name}.{tuner_id(family)}")
    artifacts = [] if node is None else store.get_artifacts_by_context(node.id)
    results = {artifact.id: artifact for artifact in artifacts if artifact.type == "TunerResults"}
    latest = latest_output(store, results)
    if latest is None:
        return None
    path = Path(results[latest].uri) / TRIALS_FILE
    return Search.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def latest_output(store: ml_metadata.MetadataStore, artifact_ids: Iterable[int]) -> int | None:
    """Returns which of some artifacts was put out last, be it anew or from the cache; None if none was."""
    ids = list(artifact_ids)
    events = store.get_events_by_artifact_ids(ids) if ids else []
    outputs = [event for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
    return max(outputs, key=lambda event: event.execution_id).artifact_id if outputs else None
