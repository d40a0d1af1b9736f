"""`OnlineDeployment`: puts a trained model online in the world that its log is from."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from modules.features import parse_schema
from pipeline.components.exported_model import load_recommend
from pipeline.serving.requests import RequestFormat
from pipeline.simulation.deployment import EARNINGS_FILE, ask, build_requests, draw_visits, earn
from pipeline.simulation.log import simulate_log
from pipeline.simulation.scenario import Scenario

MODEL_KEY = "model"
EARNINGS_KEY = "earnings"
SCENARIO_KEY = "scenario"
SCHEMA_TEXT_KEY = "schema_text"


class OnlineEarnings(types.Artifact):
    """What one model earned online, by visit."""

    TYPE_NAME = "OnlineEarnings"


class OnlineDeploymentSpec(ComponentSpec):
    """Inputs, outputs and parameters of `OnlineDeployment`."""

    PARAMETERS: ClassVar = {
        SCENARIO_KEY: ExecutionParameter(type=str),
        SCHEMA_TEXT_KEY: ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {MODEL_KEY: ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS: ClassVar = {EARNINGS_KEY: ChannelParameter(type=OnlineEarnings)}


class OnlineDeploymentExecutor(base_executor.BaseExecutor):
    """Loads the exported model, asks `serving_default` for the list of every visit, and counts what the lists earn."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes `users` (indices), `expected` and `sampled` clicks by visit, as JSON.

        Raises:
          ValueError: if the model recommends what is not in the catalogue, or too little.
        """
        scenario = Scenario.from_json(exec_properties[SCENARIO_KEY])
        world, log = scenario.world, simulate_log(scenario.world, scenario.logging)
        request_format = RequestFormat.from_schema(parse_schema(exec_properties[SCHEMA_TEXT_KEY], SCHEMA_TEXT_KEY))
        recommend = load_recommend(artifact_utils.get_single_instance(input_dict[MODEL_KEY]))
        visits = draw_visits(world, scenario.deployment)
        earnings = earn(world, visits, ask(recommend, build_requests(world, log, visits, request_format), world))
        document = {
            "users": visits.users.tolist(),
            "expected": earnings.expected.tolist(),
            "sampled": earnings.sampled.tolist(),
        }
        uri = artifact_utils.get_single_uri(output_dict[EARNINGS_KEY])
        with fileio.open(os.path.join(uri, EARNINGS_FILE), "w") as file:
            file.write(json.dumps(document))


class OnlineDeployment(base_component.BaseComponent):
    """Measures what a model earns online.

    Args:
      model: the exported model.
      scenario: the world, as `Scenario.to_json` writes it.
      schema_text: the curated schema, which says what requests may hold.
    """

    SPEC_CLASS = OnlineDeploymentSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(OnlineDeploymentExecutor)

    def __init__(self, model: types.BaseChannel, scenario: str, schema_text: str):
        super().__init__(
            OnlineDeploymentSpec(
                **{
                    MODEL_KEY: model,
                    SCENARIO_KEY: scenario,
                    SCHEMA_TEXT_KEY: schema_text,
                    EARNINGS_KEY: types.Channel(type=OnlineEarnings),
                }
            )
        )
