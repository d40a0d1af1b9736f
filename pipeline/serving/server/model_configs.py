"""What makes a server refuse a configuration: the checks of TensorFlow Serving's `ServerCore`, in its words."""

from __future__ import annotations

import re

import grpc
import tensorflow as tf
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.server.config_files import TENSORFLOW_PLATFORM
from pipeline.serving.server.version_folders import choose, find_versions

# As TensorFlow's ParseURI splits it: without a scheme, the whole is a path.
_ABSOLUTE = re.compile(r"/|[a-zA-Z][0-9a-zA-Z.]*://")


def check_new_config(
    old: model_server_config_pb2.ModelServerConfig | None, new: model_server_config_pb2.ModelServerConfig
) -> None:
    """Checks names, base paths, and that no model changes its platform.

    Args:
      old: the list of models in force, if any.
      new: the list of models to come.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    entries = new.model_config_list.config
    names = set()
    for entry in entries:
        if entry.name in names:
            raise invalid_argument(f"Illegal to list model {entry.name} multiple times in config list")
        names.add(entry.name)
    for entry in entries:
        if not _ABSOLUTE.match(entry.base_path):
            raise invalid_argument(
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
            )
    if old is None:
        return
    platforms = {entry.name: platform(entry) for entry in old.model_config_list.config}
    for entry in entries:
        if entry.name in platforms and platform(entry) != platforms[entry.name]:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {entry.name} platform was {platforms[entry.name]} "
                f"and new platform requested is {platform(entry)}"
            )


def check_platforms(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Checks that each model is one of TensorFlow's.

    Raises:
      StatusError: INVALID_ARGUMENT.
    """
    for entry in config.model_config_list.config:
        if platform(entry) != TENSORFLOW_PLATFORM:
            raise invalid_argument(f"Model {entry.name} requests unsupported platform {platform(entry)}")


def platform(entry: model_server_config_pb2.ModelConfig) -> str:
    """Returns a model's platform, by the field of today or the deprecated one.

    Raises:
      StatusError: INVALID_ARGUMENT, if it has both or neither.
    """
    if entry.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        logging.log_first_n(
            logging.WARNING, "Model configurations use the deprecated model_type; prefer model_platform.", 1
        )
        if entry.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and "
                f"ModelServerConfig::model_platform, model name is {entry.name}"
            )
        if entry.model_type != model_server_config_pb2.TENSORFLOW:
            raise invalid_argument(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
        return TENSORFLOW_PLATFORM
    if not entry.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f"model name is {entry.name}"
        )
    return entry.model_platform


def require_versions(config: model_server_config_pb2.ModelServerConfig) -> None:
    """Checks that each model has at least one of the versions that its policy chooses.

    Raises:
      StatusError: INVALID_ARGUMENT, if a base path cannot be listed; NOT_FOUND, if there is no such version.
    """
    for entry in config.model_config_list.config:
        try:
            found = find_versions(entry.base_path)
        except (OSError, tf.errors.OpError) as error:
            raise invalid_argument(
                f"Could not find base path {entry.base_path} for servable {entry.name} with error NOT_FOUND: {error}"
            ) from error
        if not choose(entry.model_version_policy, found, lambda version: True).complete:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND,
                f"Unable to find a numerical version path for servable {entry.name} at: {entry.base_path}",
            )
