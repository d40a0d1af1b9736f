"""The model to start training from: the last blessed, servable one that was fitted on earlier spans only."""

from __future__ import annotations

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.components.example_gen import utils
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

from pipeline.components.previous_blessed_model import servable_ids

CATALOGUE_KEY = "catalogue"


class EarlierModelStrategy(LatestBlessedModelStrategy):
    """Resolves the latest blessed model, servable, whose newest span is before that of this run.

    A model of the same span would be the one that an earlier attempt at this run has blessed; to start from that would
    train on the same data twice over, and never find the fit in the cache. One of a later span knows the future.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]] | None:
        """Resolves `model` and `model_blessing`; see the base class.

        Args:
          store: ML Metadata.
          input_dict: all models and blessings, and the `catalogue` of this run, which tells its newest span.
        """
        catalogue = input_dict[CATALOGUE_KEY]
        newest = catalogue[0].get_int_custom_property(utils.SPAN_PROPERTY_NAME)
        others = {key: artifacts for key, artifacts in input_dict.items() if key != CATALOGUE_KEY}
        spans = spans_of_models(store)
        wanted = {model for model in servable_ids(store) if spans.get(model, newest) < newest}
        others["model"] = [artifact for artifact in others["model"] if artifact.id in wanted]
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, CATALOGUE_KEY: catalogue}


def spans_of_models(store: ml_metadata.MetadataStore) -> dict[int, int]:
    """Returns the newest span that each model was fitted on, by the model's id; those that had no span are left out."""
    models = [artifact.id for artifact in store.get_artifacts_by_type("Model")]
    if not models:
        return {}
    made_by = {
        event.execution_id: event.artifact_id
        for event in store.get_events_by_artifact_ids(models)
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    events = store.get_events_by_execution_ids(sorted(made_by))
    inputs = [event for event in events if event.type == metadata_store_pb2.Event.INPUT]
    given = {
        artifact.id: artifact.custom_properties[utils.SPAN_PROPERTY_NAME].int_value
        for artifact in store.get_artifacts_by_id(sorted({event.artifact_id for event in inputs}))
        if utils.SPAN_PROPERTY_NAME in artifact.custom_properties
    }
    spans: dict[int, int] = {}
    for event in inputs:
        if event.artifact_id in given:
            model = made_by[event.execution_id]
            spans[model] = max(given[event.artifact_id], spans.get(model, 0))
    return spans
