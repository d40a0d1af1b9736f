"""An Evaluator that also leaves its verdict in plain JSON, so that a summary needs no TFMA to be read."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from tfx.components.evaluator.component import Evaluator
from tfx.components.evaluator.executor import Executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs

from pipeline.evaluation_results import read_evaluation, read_validation

VERDICT_FILE = "verdict.json"


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


class RecommenderEvaluator(Evaluator):
    """Computes metrics slice by slice and blesses the models that pass every threshold; see TFX's Evaluator."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RecommenderEvaluatorExecutor)
