"""A Trainer that also gets the catalogue, which a retrieval model must know to index it.

What may be said when a compiled pipeline is submitted comes as parameters of its own, which win over `custom_config`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tfx import types
from tfx.components.trainer.component import Trainer
from tfx.components.trainer.executor import GenericExecutor
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ExecutionParameter
from tfx.utils import path_utils

from pipeline.components.catalogue_channel import CATALOGUE_KEY, with_catalogue_files
from pipeline.components.impression_files import with_impression_files
from pipeline.config import FEATURE_GROUPS

MAX_EPOCHS_KEY = "max_epochs"
FEATURE_GROUPS_KEY = "feature_groups"


class RecommenderTrainerExecutor(GenericExecutor):
    """Adds the files of the catalogue and of the impressions to the `custom_config` that `run_fn` sees."""

    def _GetFnArgs(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> FnArgs:
        fn_args = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        fn_args.base_model = _saved_model_of(input_dict.get(standard_component_specs.BASE_MODEL_KEY))
        custom_config = with_parameters(fn_args.custom_config, exec_properties)
        custom_config = with_catalogue_files(custom_config, input_dict)
        fn_args.custom_config = with_impression_files(custom_config, input_dict)
        return fn_args


def _saved_model_of(base_models: Sequence[types.Artifact] | None) -> str | None:
    """Returns the folder of a base model's SavedModel; None without one, or if the artifact is empty.

    A model that the Trainer wrote has it in a folder of its own, a pushed version is one itself.
    """
    for artifact in base_models or ():
        for folder in (path_utils.serving_model_path(artifact.uri), artifact.uri):
            if fileio.exists(os.path.join(folder, "saved_model.pb")):
                return folder
    return None


def with_parameters(custom_config: Mapping[str, Any], exec_properties: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `run_fn` needs to know, with the parameters of this run.

    Args:
      custom_config: as configured.
      exec_properties: `max_epochs` and `feature_groups`, or neither.

    Raises:
      ValueError: naming the parameter, the value received and what was expected.
    """
    config = dict(custom_config)
    max_epochs, groups = exec_properties.get(MAX_EPOCHS_KEY), exec_properties.get(FEATURE_GROUPS_KEY)
    if max_epochs is not None:
        if max_epochs < 1:
            raise ValueError(f"{MAX_EPOCHS_KEY}: received {max_epochs}; expected a whole number from 1 on")
        model = config["model"]
        config["model"] = {**model, "settings": {**model["settings"], MAX_EPOCHS_KEY: max_epochs}}
    if groups is not None:
        chosen = [group.strip() for group in groups.split(",") if group.strip()]
        unknown = sorted(set(chosen) - set(FEATURE_GROUPS))
        if unknown or not chosen:
            raise ValueError(
                f"{FEATURE_GROUPS_KEY}: received {groups!r}; expected some of {', '.join(FEATURE_GROUPS)}, "
                "separated by commas"
            )
        config[FEATURE_GROUPS_KEY] = chosen
    return config


class RecommenderTrainerSpec(standard_component_specs.TrainerSpec):
    """Trainer's specification with one input more, and the parameters of a run."""

    PARAMETERS: ClassVar = {
        **standard_component_specs.TrainerSpec.PARAMETERS,
        MAX_EPOCHS_KEY: ExecutionParameter(type=int, optional=True),
        FEATURE_GROUPS_KEY: ExecutionParameter(type=str, optional=True),
    }

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
      base_model: a `Model` whose weights the fit begins with, as far as they fit; none, or an empty one, means random
        ones.
      max_epochs: passes over the training split, to be said when the pipeline is submitted.
      feature_groups: groups that the model may use, separated by commas, likewise.
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
        base_model: types.BaseChannel | None = None,
        max_epochs: RuntimeParameter | None = None,
        feature_groups: RuntimeParameter | None = None,
    ):
        at_run_time = {MAX_EPOCHS_KEY: max_epochs, FEATURE_GROUPS_KEY: feature_groups}
        spec = RecommenderTrainerSpec(
            examples=examples,
            catalogue=catalogue,
            transform_graph=transform_graph,
            schema=schema,
            hyperparameters=hyperparameters,
            base_model=base_model,
            run_fn=run_fn,
            # JSON with sorted keys: the same configuration must give the same cache key.
            custom_config=json.dumps(custom_config, sort_keys=True),
            train_args=trainer_pb2.TrainArgs(),
            eval_args=trainer_pb2.EvalArgs(),
            model=types.Channel(type=standard_artifacts.Model),
            model_run=types.Channel(type=standard_artifacts.ModelRun),
            **{name: value for name, value in at_run_time.items() if value is not None},
        )
        # Trainer's own constructor knows no further input, so its parent's is called.
        super(Trainer, self).__init__(spec=spec)
