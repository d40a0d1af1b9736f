"""The baseline of an evaluation: the last blessed, servable model that is not the candidate itself."""

from __future__ import annotations

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types.standard_artifacts import InfraBlessing

CANDIDATE_KEY = "candidate"


class PreviousBlessedModelStrategy(LatestBlessedModelStrategy):
    """Resolves the latest blessed model among those that a server could serve, all but the candidate.

    TFX's own strategy resolves to the candidate once that is blessed, so the run after a blessing would compare a
    model to itself instead of finding its evaluation in the cache. It also resolves to models that no server could
    load, which were never pushed and which the next evaluation may be unable to load either.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Resolves `model` and `model_blessing`; see the base class.

        Args:
          store: ML Metadata.
          input_dict: all models and blessings, and the `candidate`.
        """
        candidates = input_dict[CANDIDATE_KEY]
        candidate_ids = {artifact.id for artifact in candidates}
        others = {key: artifacts for key, artifacts in input_dict.items() if key != CANDIDATE_KEY}
        wanted = servable_ids(store) - candidate_ids
        others["model"] = [artifact for artifact in others["model"] if artifact.id in wanted]
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, CANDIDATE_KEY: candidates}


def servable_ids(store: ml_metadata.MetadataStore) -> set[int]:
    """Returns the ids of the artifacts, models among them, that went into a good `InfraBlessing`."""
    blessings = [
        artifact.id
        for artifact in store.get_artifacts_by_type(InfraBlessing.TYPE_NAME)
        if artifact.custom_properties["blessed"].int_value == 1
    ]
    if not blessings:
        return set()
    executions = {event.execution_id for event in store.get_events_by_artifact_ids(blessings)}
    events = store.get_events_by_execution_ids(sorted(executions))
    return {event.artifact_id for event in events if event.type == metadata_store_pb2.Event.INPUT}
