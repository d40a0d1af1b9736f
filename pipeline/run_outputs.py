"""What the nodes of one run left behind, from ML Metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ml_metadata.proto import metadata_store_pb2

from pipeline.metadata import open_metadata

Artifacts = Sequence[metadata_store_pb2.Artifact]


def outputs_by_node(metadata_path: str, run_id: str) -> Mapping[str, Artifacts]:
    """Returns the output artifacts of every node that ran or was found in the cache.

    Args:
      metadata_path: SQLite file of ML Metadata.
      run_id: the run.
    """
    store = open_metadata(metadata_path)
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    outputs: dict[str, Artifacts] = {}
    for execution in store.get_executions_by_context(run.id):
        (node,) = (context for context in store.get_contexts_by_execution(execution.id) if context.type == "node")
        events = store.get_events_by_execution_ids([execution.id])
        ids = [event.artifact_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
        outputs[node.name.split(".", 1)[1]] = list(store.get_artifacts_by_id(ids))
    return outputs


def uri_of(artifacts: Artifacts, type_name: str) -> str:
    """Returns the folder of the only artifact of a type."""
    (artifact,) = (artifact for artifact in artifacts if artifact.type == type_name)
    return artifact.uri


def example_counts(artifacts: Iterable[metadata_store_pb2.Artifact]) -> dict[str, int]:
    """Returns the examples by split."""
    prefix = "num_examples_"
    return {
        key.removeprefix(prefix): value.int_value
        for artifact in artifacts
        if artifact.type == "Examples"
        for key, value in artifact.custom_properties.items()
        if key.startswith(prefix)
    }
