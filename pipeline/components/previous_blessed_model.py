"""The baseline of an evaluation: the last blessed, servable model that is not the candidate itself."""

from __future__ import annotations

import abc
from typing import ClassVar

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types.standard_artifacts import InfraBlessing

CANDIDATE_KEY = "candidate"


class ServableModelStrategy(LatestBlessedModelStrategy):
    """Resolves the latest blessed model among some of those that a server could serve.

    TFX's own strategy also resolves to models that no server could load, which were never pushed and which the next
    evaluation may be unable to load either.
    """

    GIVEN_KEY: ClassVar[str]
    """Input that tells which models are meant; it is passed on."""

    @abc.abstractmethod
    def wanted(self, store: ml_metadata.MetadataStore, servable: set[int], given: list[types.Artifact]) -> set[int]:
        """Returns the ids of the models that are meant.

        Args:
          store: ML Metadata.
          servable: ids of what a server could serve.
          given: what is at `GIVEN_KEY`.
        """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Resolves `model` and `model_blessing`; see the base class.

        Args:
          store: ML Metadata.
          input_dict: all models and blessings, and what is at `GIVEN_KEY`.
        """
        given = input_dict[self.GIVEN_KEY]
        others = {key: artifacts for key, artifacts in input_dict.items() if key != self.GIVEN_KEY}
        wanted = self.wanted(store, _servable_ids(store), given)
        others["model"] = [artifact for artifact in others["model"] if artifact.id in wanted]
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, self.GIVEN_KEY: given}


class PreviousBlessedModelStrategy(ServableModelStrategy):
    """Resolves the latest blessed model among those that a server could serve, all but the candidate.

    TFX's own strategy resolves to the candidate once that is blessed, so the run after a blessing would compare a
    model to itself instead of finding its evaluation in the cache.
    """

    GIVEN_KEY = CANDIDATE_KEY

    def wanted(self, store: ml_metadata.MetadataStore, servable: set[int], given: list[types.Artifact]) -> set[int]:
        """Returns all but the candidate."""
        return servable - {artifact.id for artifact in given}


def _servable_ids(store: ml_metadata.MetadataStore) -> set[int]:
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
