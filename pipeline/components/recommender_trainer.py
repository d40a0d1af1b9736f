"""A Trainer that also gets the catalogue, which a retrieval model must know to index it."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from tfx import types
from tfx.components.trainer.component import Trainer
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import executor_spec
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter

from pipeline.components.catalogue_channel import CATALOGUE_KEY, with_catalogue_files
from pipeline.components.impression_files import with_impression_files


class RecommenderTrainerExecutor(GenericExecutor):
    """Adds the files of the catalogue and of the impressions to the `custom_config` that `run_fn` sees."""

    def _GetFnArgs(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> FnArgs:
        fn_args = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        custom_config = with_catalogue_files(fn_args.custom_config, input_dict)
        fn_args.custom_config = with_impression_files(custom_config, input_dict)
        return fn_args


class RecommenderTrainerSpec(standard_component_specs.TrainerSpec):
    """Trainer's specification with one input more."""

    INPUTS: ClassVar = {
        **standard_component_specs.TrainerSpec.INPUTS,
        CATALOGUE_KEY: ChannelParameter(type=standard_artifacts.Examples),
    }


class RecommenderTrainer(Trainer):
    """Fits a recommender on transformed interactions and the raw catalogue.

    Args:
      examples: transformed interactions with the splits `train` and `eval`.
      catalogue: raw examples of the catalogue, one split.
      transform_graph: the transform graph.
      schema: schema of the raw interactions.
      run_fn: dotted path of the training function.
      custom_config: what it needs; see `modules.trainer.run_fn`.
      hyperparameters: what a search found, if that is to be used.
    """

    SPEC_CLASS = RecommenderTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RecommenderTrainerExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        transform_graph: types.BaseChannel,
        schema: types.BaseChannel,
        run_fn: str,
        custom_config: dict[str, Any],
        hyperparameters: types.BaseChannel | None = None,
    ):
        spec = RecommenderTrainerSpec(
            examples=examples,
            catalogue=catalogue,
            transform_graph=transform_graph,
            schema=schema,
            hyperparameters=hyperparameters,
            run_fn=run_fn,
            # JSON with sorted keys: the same configuration must give the same cache key.
            custom_config=json.dumps(custom_config, sort_keys=True),
            train_args=trainer_pb2.TrainArgs(),
            eval_args=trainer_pb2.EvalArgs(),
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
        )
        # Trainer's own constructor knows no further input, so its parent's is called.
        super(Trainer, self).__init__(spec=spec)
