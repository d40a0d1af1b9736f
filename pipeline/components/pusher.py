"""`AtomicPusher`: TFX's Pusher, without its chance of leaving half a model in the serving folder.

A model server may look at the serving folder at any moment, and a push may be killed at any moment. So the model is
copied to a hidden folder beside the versions, whose name no model server takes for a version, and renamed at the end.
"""

from __future__ import annotations

import os
import time
from typing import Any

from absl import logging
from tfx import types
from tfx.components import Pusher
from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.standard_component_specs import PUSH_DESTINATION_KEY, PUSHED_MODEL_KEY
from tfx.utils import io_utils, proto_utils

_STAGING_PREFIX = ".pushing-"
_MODEL_FILE = "saved_model.pb"
_OBJECT_STORES = ("gs://", "s3://")


class AtomicPusherExecutor(pusher_executor.Executor):
    """Pushes a blessed model as a new version, all at once."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Copies the model to its destination if every blessing given is one.

        The version is the time in seconds, or one more than the latest version there if that is not earlier. The
        artifact `pushed_model` gets a copy and TFX's custom properties `pushed`, `pushed_destination` and
        `pushed_version`.

        Raises:
          ValueError: if the destination is no file system with versions by time.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(output_dict[PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        base_directory = _base_directory(exec_properties[PUSH_DESTINATION_KEY])
        fileio.makedirs(base_directory)
        names = [name.rstrip("/") for name in fileio.listdir(base_directory)]
        _remove_leftovers(base_directory, names)
        version = max([int(time.time()), *(int(name) + 1 for name in names if name.isdecimal())])
        destination = os.path.join(base_directory, str(version))
        model_path = self.GetModelPath(input_dict)
        # The archive first: once the version is visible, nothing may fail any more.
        io_utils.copy_dir(model_path, pushed_model.uri)
        if base_directory.startswith(_OBJECT_STORES):
            _copy_model_file_last(model_path, destination)
        else:
            staging = os.path.join(base_directory, f"{_STAGING_PREFIX}{version}")
            io_utils.copy_dir(model_path, staging)
            fileio.rename(staging, destination)
        self._MarkPushed(pushed_model, pushed_destination=destination, pushed_version=str(version))
        logging.info("The model was pushed to %s.", destination)


class AtomicPusher(Pusher):
    """Hands a model to TensorFlow Serving if, and only if, it is blessed.

    Outputs: `pushed_model`, a standard `PushedModel`.
    """

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPusherExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        push_destination: pusher_pb2.PushDestination,
        model_blessing: types.BaseChannel | None = None,
        infra_blessing: types.BaseChannel | None = None,
    ):
        """Describes the component.

        Args:
          model: the `Model` to push.
          push_destination: file system folder of the versions.
          model_blessing: a `ModelBlessing`; without it the model's quality is not asked for.
          infra_blessing: an `InfraBlessing`; without it nobody asks whether the model can be served.
        """
        super().__init__(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            push_destination=push_destination,
        )


def _base_directory(push_destination: str) -> str:
    destination = pusher_pb2.PushDestination()
    proto_utils.json_to_proto(push_destination, destination)
    versioning = destination.filesystem.versioning
    known = (pusher_pb2.Versioning.AUTO, pusher_pb2.Versioning.UNIX_TIMESTAMP)
    if destination.WhichOneof("destination") != "filesystem" or versioning not in known:
        raise ValueError(f"push_destination must be a file system with versions by time; received {push_destination}")
    return destination.filesystem.base_directory


def _remove_leftovers(base_directory: str, names: list[str]) -> None:
    """Removes what pushes that were killed have left behind."""
    for name in names:
        if name.startswith(_STAGING_PREFIX):
            logging.warning("Removing %s, which an interrupted push left in %s.", name, base_directory)
            fileio.rmtree(os.path.join(base_directory, name))


def _copy_model_file_last(model_path: str, destination: str) -> None:
    """Copies a model to where folders cannot be renamed at once: it counts as there when its last file is."""
    io_utils.copy_dir(model_path, destination, deny_regex_patterns=[rf"/{_MODEL_FILE}$".replace(".", r"\.")])
    io_utils.copy_file(os.path.join(model_path, _MODEL_FILE), os.path.join(destination, _MODEL_FILE))
