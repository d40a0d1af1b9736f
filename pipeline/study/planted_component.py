"""`PlantedEffects`: asks a fitted model for what was planted in the synthetic world that it learned from."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from modules.artifact_files import PLANTED_RESPONSES
from pipeline.components.exported_model import load_recommend
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.study.planted import measure_responses

MODEL_KEY = "model"
EXAMPLES_KEY = "examples"
RESPONSES_KEY = "responses"
WORLD_KEY = "world"
_SPLIT = "test"


class PlantedResponses(types.Artifact):
    """Responses of one model to the planted effects, by user."""

    TYPE_NAME = "PlantedResponses"


class PlantedEffectsSpec(ComponentSpec):
    """Inputs, outputs and parameters of `PlantedEffects`."""

    PARAMETERS: ClassVar = {WORLD_KEY: ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar = {RESPONSES_KEY: ChannelParameter(type=PlantedResponses)}


class PlantedEffectsExecutor(base_executor.BaseExecutor):
    """Loads the exported model and asks it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `users` and the responses by effect, null where a user's request cannot show it, as JSON."""
        world = SyntheticWorld(**json.loads(exec_properties[WORLD_KEY]))
        (examples,) = input_dict[EXAMPLES_KEY]
        recommend = load_recommend(artifact_utils.get_single_instance(input_dict[MODEL_KEY]))
        files = sorted(tf.io.gfile.glob(os.path.join(artifact_utils.get_split_uri([examples], _SPLIT), "*")))
        records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
        responses = measure_responses(world, records, recommend)
        document = {
            "users": list(responses.users),
            **{
                effect: [None if np.isnan(value) else value for value in values.tolist()]
                for effect, values in responses.values.items()
            },
        }
        uri = artifact_utils.get_single_uri(output_dict[RESPONSES_KEY])
        with fileio.open(os.path.join(uri, PLANTED_RESPONSES), "w") as file:
            file.write(json.dumps(document))


class PlantedEffects(base_component.BaseComponent):
    """Measures how a model answers to planted effects.

    Args:
      model: the exported model.
      examples: raw interactions with the split `test`.
      world: arguments of `SyntheticWorld`, as JSON with sorted keys.
    """

    SPEC_CLASS = PlantedEffectsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PlantedEffectsExecutor)

    def __init__(self, model: types.BaseChannel, examples: types.BaseChannel, world: str):
        super().__init__(
            PlantedEffectsSpec(
                **{
                    MODEL_KEY: model,
                    EXAMPLES_KEY: examples,
                    WORLD_KEY: world,
                    RESPONSES_KEY: types.Channel(type=PlantedResponses),
                }
            )
        )
