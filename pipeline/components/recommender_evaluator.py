"""An Evaluator that also leaves its verdict in plain JSON, so that a summary needs no TFMA to be read."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.components.evaluator.component import Evaluator
from tfx.components.evaluator.executor import Executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils

from modules.artifact_files import VERDICT_FILE
from pipeline.evaluation_results import read_evaluation, read_validation


class RecommenderEvaluatorExecutor(Executor):
    """TFX's executor, followed by writing `verdict.json` into the evaluation's folder.

    The file holds `slices`, by slice name and metric (value, interval, baseline, change), and `failures`, the reasons
    why the model is not blessed.
    """

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """Evaluates, validates and writes the verdict."""
        super().Do(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        verdict = {**dataclasses.asdict(read_evaluation(uri)), "failures": read_validation(uri)}
        with fileio.open(os.path.join(uri, VERDICT_FILE), "w") as file:
            file.write(json.dumps(verdict))
        _refuse_unless_judged(artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY]))


def _refuse_unless_judged(blessing: types.Artifact) -> None:
    """Marks the model as not blessed where TFX says nothing at all, which it does when the gate has no threshold."""
    if not blessing.has_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY):
        io_utils.write_string_file(os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME), "")
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE)


class RecommenderEvaluator(Evaluator):
    """Computes metrics slice by slice and blesses the models that pass every threshold; see TFX's Evaluator."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RecommenderEvaluatorExecutor)
