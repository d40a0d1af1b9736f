"""The model to start training from: the last blessed, servable one that was fitted on earlier spans only."""

from __future__ import annotations

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.components.example_gen import utils

from pipeline.components.previous_blessed_model import ServableModelStrategy

CATALOGUE_KEY = "catalogue"


class EarlierModelStrategy(ServableModelStrategy):
    """Resolves the latest blessed model, servable, whose newest span is before that of this run.

    A model of the same span would be the one that an earlier attempt at this run has blessed; to start from that would
    train on the same data twice over, and never find the fit in the cache. One of a later span knows the future.
    """

    GIVEN_KEY = CATALOGUE_KEY

    def wanted(self, store: ml_metadata.MetadataStore, servable: set[int], given: list[types.Artifact]) -> set[int]:
        """Returns those of earlier spans; the `catalogue` of this run tells its newest one."""
        newest = given[0].get_int_custom_property(utils.SPAN_PROPERTY_NAME)
        spans = spans_of_models(store)
        return {model for model in servable if spans.get(model, newest) < newest}


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
