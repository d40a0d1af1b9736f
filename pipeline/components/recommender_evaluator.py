"""An Evaluator with a gate that knows intervals, whose verdict is plain JSON: a summary needs no TFMA to read it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from tensorflow_model_analysis.proto import config_pb2
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.evaluator.executor import Executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types import standard_component_specs as specs
from tfx.types.channel import Channel
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import io_utils, json_utils

from modules.artifact_files import VERDICT_FILE
from pipeline import gate
from pipeline.components.latest_pushed_model import has_model
from pipeline.components.whole_file_examples import read_whole_files
from pipeline.config import GateConfig
from pipeline.evaluation_results import read_evaluation

GATE_KEY = "gate"
"""The execution parameter that holds the rules, and the property of the blessing that holds the table, in JSON."""


class RecommenderEvaluatorExecutor(Executor):
    """TFX's executor, followed by the gate and by writing `verdict.json` into the evaluation's folder.

    The file holds `slices`, by slice name and metric (value, interval, baseline, change), `example_counts` and
    `user_counts` by slice, `gate`, the table of the rules, and `failures`, why the model is not blessed. The table is
    also a property of the blessing, in JSON.
    """

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """Evaluates, judges, blesses and writes the verdict."""
        baselines = [model for model in input_dict.get(specs.BASELINE_MODEL_KEY) or () if has_model(model)]
        input_dict = {**input_dict, specs.BASELINE_MODEL_KEY: baselines}
        with read_whole_files():
            super().Do(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict[specs.EVALUATION_KEY])
        result = read_evaluation(uri)
        table = gate.judge(GateConfig.model_validate_json(exec_properties[GATE_KEY]), result)
        failures = gate.failures(table)
        lines = [line.model_dump() for line in table]
        with fileio.open(os.path.join(uri, VERDICT_FILE), "w") as file:
            document = {**dataclasses.asdict(result), GATE_KEY: lines, "failures": failures}
            # JSON knows no NaN: what is undefined is null.
            file.write(json.dumps(json.loads(json.dumps(document), parse_constant=lambda constant: None)))
        blessing = artifact_utils.get_single_instance(output_dict[specs.BLESSING_KEY])
        blessing.set_string_custom_property(GATE_KEY, json.dumps(lines))
        _bless(blessing, not failures, input_dict, exec_properties)


def _bless(blessing: types.Artifact, is_blessed: bool, input_dict: Any, exec_properties: Any) -> None:
    """Marks the model as TFX does, whose own components then know what the verdict was, and about which model."""
    model = artifact_utils.get_single_instance(input_dict[specs.MODEL_KEY])
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    for baseline in input_dict.get(specs.BASELINE_MODEL_KEY, ()):
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, baseline.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, baseline.id)
    if "current_component_id" in exec_properties:
        blessing.set_string_custom_property("component_id", exec_properties["current_component_id"])
    name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY,
        constants.BLESSED_VALUE if is_blessed else constants.NOT_BLESSED_VALUE,
    )


class RecommenderEvaluatorSpec(specs.EvaluatorSpec):
    """Evaluator's specification with the gate's rules."""

    PARAMETERS: ClassVar = {**specs.EvaluatorSpec.PARAMETERS, GATE_KEY: ExecutionParameter(type=str)}


class RecommenderEvaluator(base_beam_component.BaseBeamComponent):
    """Computes metrics slice by slice and blesses the models that pass every rule; see TFX's Evaluator.

    Args:
      examples: raw examples.
      example_splits: splits to evaluate on.
      model: the candidate.
      eval_config: metrics and slices; see `pipeline.evaluation`.
      gate: what the candidate must satisfy.
      baseline_model: the last blessed model, if there is one to compare with.
      schema: schema of the examples.
    """

    SPEC_CLASS = RecommenderEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RecommenderEvaluatorExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        example_splits: Sequence[str],
        model: types.BaseChannel,
        eval_config: config_pb2.EvalConfig,
        gate: GateConfig,
        baseline_model: types.BaseChannel | None = None,
        schema: types.BaseChannel | None = None,
    ) -> None:
        super().__init__(
            RecommenderEvaluatorSpec(
                examples=examples,
                example_splits=json_utils.dumps(list(example_splits)),
                model=model,
                baseline_model=baseline_model,
                eval_config=eval_config,
                fairness_indicator_thresholds="null",
                gate=gate.model_dump_json(),
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
                schema=schema,
            )
        )
