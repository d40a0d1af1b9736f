"""Which run pushed a version, and how good its model is, from ML Metadata."""

from __future__ import annotations

from pathlib import Path

from ml_metadata import errors

from pipeline.runs import NoRunError, RunStore
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.record import RunEvidence
from pipeline.slice_names import OVERALL


def find_evidence(metadata_path: str, model_name: str) -> dict[int, RunEvidence]:
    """Returns what is known of each pushed version of a model; of runs that share a push, the one that made it.

    Args:
      metadata_path: the SQLite file; need not exist.
      model_name: name of the folder that versions are pushed to.

    Raises:
      ReleaseError: if ML Metadata, or what a run has left beside it, cannot be read.
    """
    try:
        return _find_evidence(metadata_path, model_name)
    except (errors.StatusError, OSError, ValueError) as error:
        raise ReleaseError(f"the runs in {metadata_path} cannot be read: {error}") from error


def _find_evidence(metadata_path: str, model_name: str) -> dict[int, RunEvidence]:
    try:
        store = RunStore(metadata_path)
    except NoRunError:
        return {}
    found: dict[int, RunEvidence] = {}
    for run_id in store.run_ids():
        report = store.report(run_id)
        push = report.pushed
        if push is None or Path(push.destination).parent.name != model_name or int(push.version) in found:
            continue
        found[int(push.version)] = RunEvidence(
            run_id=run_id, metrics=report.metrics.get(OVERALL, {}), blessed=report.blessed, gate=report.gate
        )
    return found
