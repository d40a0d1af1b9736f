"""What a run on this machine notes in ML Metadata beside what TFX does: why it failed, and pushes that were undone."""

from __future__ import annotations

from pathlib import Path

from ml_metadata.proto import metadata_store_pb2

from pipeline.metadata import open_metadata
from pipeline.runs import FAILURE_PROPERTY, PushReport, latest_version, read_push


def record_failure(metadata_path: str, run_id: str, reason: str) -> None:
    """Notes why a run failed; TFX itself notes only that a component did.

    Args:
      metadata_path: the SQLite file.
      run_id: the run.
      reason: in plain words.
    """
    store = open_metadata(metadata_path, writable=True)
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    context.custom_properties[FAILURE_PROPERTY].string_value = reason
    store.put_contexts([context])


def retire_undone_pushes(metadata_path: str) -> list[PushReport]:
    """Takes pushes out of the cache whose version is no longer the latest in its serving folder.

    The version may have been removed, or another model pushed since. A run whose model is the one of such a push has
    to push it anew, and would otherwise find it in the cache: TFX takes only live artifacts from there.

    Args:
      metadata_path: the SQLite file; need not exist yet.

    Returns:
      The pushes that were live until now.
    """
    if not Path(metadata_path).is_file():
        return []
    store = open_metadata(metadata_path, writable=True)
    undone = []
    for artifact in store.get_artifacts_by_type("PushedModel"):
        push = read_push(artifact)
        if push is None or artifact.state != metadata_store_pb2.Artifact.LIVE:
            continue
        if latest_version(Path(push.destination).parent) != push.version:
            artifact.state = metadata_store_pb2.Artifact.DELETED
            store.put_artifacts([artifact])
            undone.append(push)
    return undone
