"""A Tuner that also gets the catalogue, and keeps what became of every trial."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

import tensorflow as tf
from tfx import types
from tfx.components.tuner import executor
from tfx.components.tuner.component import Tuner
from tfx.dsl.components.base import executor_spec
from tfx.proto import trainer_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter

from modules.trials import TRIALS_FILE
from pipeline.components.catalogue_channel import CATALOGUE_KEY, with_catalogue_files


class RecommenderTunerExecutor(executor.Executor):
    """Adds the catalogue's files to the `custom_config` that `tuner_fn` sees, and writes the table of trials."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches, and writes the best hyper-parameters, TFX's list of results and `modules.trials.Search`."""
        key = standard_component_specs.CUSTOM_CONFIG_KEY
        custom_config = with_catalogue_files(json.loads(exec_properties[key]), input_dict)
        properties = {**exec_properties, key: json.dumps(custom_config)}
        tuner = executor.search(input_dict, properties, self._get_tmp_dir(), print_tuning_summary=False)
        executor.write_best_hyperparameters(tuner, output_dict)
        results = artifact_utils.get_single_uri(output_dict[standard_component_specs.TUNER_RESULTS_KEY])
        with tf.io.gfile.GFile(os.path.join(results, TRIALS_FILE), "w") as file:
            file.write(tuner.search_record.model_dump_json(indent=2))


class RecommenderTunerSpec(standard_component_specs.TunerSpec):
    """Tuner's specification with one input more."""

    INPUTS: ClassVar = {
        **standard_component_specs.TunerSpec.INPUTS,
        CATALOGUE_KEY: ChannelParameter(type=standard_artifacts.Examples),
    }


class RecommenderTuner(Tuner):
    """Searches for a family's settings on transformed interactions and the raw catalogue.

    Args:
      examples: transformed interactions with the splits `train` and `eval`.
      catalogue: raw examples of the catalogue, one split.
      transform_graph: the transform graph.
      schema: schema of the raw interactions.
      tuner_fn: dotted path of the function that prepares the search.
      custom_config: what it needs; see `modules.tuner.tuner_fn`.
    """

    SPEC_CLASS = RecommenderTunerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RecommenderTunerExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        transform_graph: types.BaseChannel,
        schema: types.BaseChannel,
        tuner_fn: str,
        custom_config: dict[str, Any],
    ):
        spec = RecommenderTunerSpec(
            examples=examples,
            catalogue=catalogue,
            transform_graph=transform_graph,
            schema=schema,
            tuner_fn=tuner_fn,
            # JSON with sorted keys: the same configuration must give the same cache key.
            custom_config=json.dumps(custom_config, sort_keys=True),
            train_args=trainer_pb2.TrainArgs(),
            eval_args=trainer_pb2.EvalArgs(),
            best_hyperparameters=types.Channel(type=standard_artifacts.HyperParameters),
            tuner_results=types.Channel(type=standard_artifacts.TunerResults),
        )
        # Tuner's own constructor knows no further input, so its parent's is called.
        super(Tuner, self).__init__(spec=spec)
