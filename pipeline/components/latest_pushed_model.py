"""`LatestPushedModel`: the model to beat, where there is no ML Metadata to ask for the last blessed one.

Kubeflow Pipelines does not run resolvers. What the serving folder holds is what both gates have let through, so its
latest version is the last model that was blessed and could be served.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from absl import logging
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

SERVING_DIRECTORY_KEY = "serving_directory"
MODEL_KEY = "model"
VERSION = "version"
"""Custom property of the model: the version that it is a copy of, empty before the first push."""

_MODEL_FILE = "saved_model.pb"


class LatestPushedModelSpec(ComponentSpec):
    """Parameters and output of `LatestPushedModel`."""

    PARAMETERS: ClassVar = {SERVING_DIRECTORY_KEY: ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {MODEL_KEY: ChannelParameter(type=standard_artifacts.Model)}


class LatestPushedModelExecutor(base_executor.BaseExecutor):
    """Copies the latest complete version, which the next push may replace while others still read it."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the model, or an artifact without one before the first push; see `has_model`."""
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict[MODEL_KEY])
        directory = exec_properties[SERVING_DIRECTORY_KEY]
        version = latest_complete_version(directory)
        model.set_string_custom_property(VERSION, version or "")
        if version is None:
            logging.info("Nothing has been pushed to %s yet: there is no model to compare with.", directory)
            fileio.makedirs(model.uri)
            return
        io_utils.copy_dir(os.path.join(directory, version), path_utils.serving_model_dir(model.uri))
        logging.info("The model to compare with is version %s of %s.", version, directory)


class LatestPushedModel(base_component.BaseComponent):
    """Outputs `model`: a copy of the latest version in a serving folder, or a `Model` without one.

    Args:
      serving_directory: folder of the versions.
    """

    SPEC_CLASS = LatestPushedModelSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(LatestPushedModelExecutor)

    def __init__(self, serving_directory: str):
        super().__init__(
            LatestPushedModelSpec(
                serving_directory=serving_directory, model=types.Channel(type=standard_artifacts.Model)
            )
        )


def latest_complete_version(directory: str) -> str | None:
    """Returns the largest number whose folder holds a whole model; None if there is none."""
    if not fileio.exists(directory):
        return None
    names = (name.rstrip("/") for name in fileio.listdir(directory))
    versions = sorted((name for name in names if name.isdecimal()), key=int, reverse=True)
    return next((name for name in versions if fileio.exists(os.path.join(directory, name, _MODEL_FILE))), None)


def has_model(artifact: types.Artifact) -> bool:
    """Tells whether there is a model in a `Model`; not in that of `LatestPushedModel` before the first push."""
    return fileio.exists(os.path.join(path_utils.serving_model_dir(artifact.uri), _MODEL_FILE))
