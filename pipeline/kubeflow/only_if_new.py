"""Puts a condition before a compiled pipeline: that new data have come.

All tasks move into a DAG of their own, which runs if the task before it says so. What that looks like in the
specification is what the Kubeflow Pipelines SDK makes of `dsl.If`.
"""

from __future__ import annotations

import copy
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.kubeflow.look_for_new_data import DATA_DIRECTORY, FINGERPRINT, NEW_DATA, NEWEST_SPAN

LOOK = "LookForNewData"
RUN = "run-if-new"
DATA_FINGERPRINT = "data_fingerprint"
"""Parameter of the tasks that move: what the task before them found."""


def run_only_if_new(spec: dict[str, Any], config: PipelineConfig, image: str) -> None:
    """Puts the condition in.

    Args:
      spec: the specification, whose tasks may take `DATA_FINGERPRINT`; it is changed.
      config: what was compiled; its data must be of spans.
      image: container image that has this package installed.
    """
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    # An exit handler watches a DAG that holds all else; the condition is within, so that it is watched, too.
    holder, inputs = spec["root"], None
    for task in spec["root"]["dag"]["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            holder, inputs = component, task["inputs"]["parameters"]
    inner = {
        **copy.deepcopy(definitions),
        DATA_FINGERPRINT: {"parameterType": "STRING"},
        NEW_DATA: {"parameterType": "BOOLEAN"},
    }
    for outer in (definitions, holder["inputDefinitions"]["parameters"], inputs or {}):
        outer.pop(DATA_FINGERPRINT, None)
    spec["components"][RUN] = {"dag": holder["dag"], "inputDefinitions": {"parameters": inner}}
    spec["components"][LOOK] = {
        "executorLabel": f"{LOOK}_executor",
        "inputDefinitions": {"parameters": {name: dict(definitions[name]) for name in (DATA_DIRECTORY, NEWEST_SPAN)}},
        "outputDefinitions": {
            "parameters": {NEW_DATA: {"parameterType": "BOOLEAN"}, FINGERPRINT: {"parameterType": "STRING"}}
        },
    }
    spec["deploymentSpec"]["executors"][f"{LOOK}_executor"] = {"container": _container(config, image)}
    holder["dag"] = {"tasks": {LOOK: _look_task(), RUN: _run_task(list(definitions))}}


def _container(config: PipelineConfig, image: str) -> dict[str, Any]:
    arguments = {
        "--data": config.data.model_dump_json(),
        "--workspace": config.workspace,
        "--executor_input": "{{$}}",
    }
    return {
        "image": image,
        "command": ["python", "-m", "pipeline.kubeflow.look_for_new_data"],
        "args": [part for pair in arguments.items() for part in pair],
    }


def _look_task() -> dict[str, Any]:
    return {
        "componentRef": {"name": LOOK},
        "inputs": {"parameters": {name: {"componentInputParameter": name} for name in (DATA_DIRECTORY, NEWEST_SPAN)}},
        "taskInfo": {"name": LOOK},
    }


def _run_task(parameters: list[str]) -> dict[str, Any]:
    found = {NEW_DATA: NEW_DATA, DATA_FINGERPRINT: FINGERPRINT}
    return {
        "componentRef": {"name": RUN},
        "dependentTasks": [LOOK],
        "inputs": {
            "parameters": {
                **{name: {"componentInputParameter": name} for name in parameters},
                **{
                    name: {"taskOutputParameter": {"producerTask": LOOK, "outputParameterKey": output}}
                    for name, output in found.items()
                },
            }
        },
        "taskInfo": {"name": RUN},
        "triggerPolicy": {"condition": f"inputs.parameter_values['{NEW_DATA}'] == true"},
    }
