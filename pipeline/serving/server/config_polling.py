"""Watching the file of the models to serve."""

from __future__ import annotations

import time

from absl import logging

from pipeline.config_files import ConfigError
from pipeline.serving.errors import StatusError
from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.server.config_files import read_model_server_config
from pipeline.serving.server.manager import ModelManager

_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


class ConfigFile:
    """A `model_config_file` that a manager follows.

    What is wrong with the file is logged once and the manager keeps what it has; later looks try again. Versions that
    labels are to point at are loaded first, so that one change of the file can bring a version and its label. Models
    that are new are not waited for: one that never comes must not keep the next change from being read. A content that
    was refused is tried again after growing pauses, since it may make the manager load a broken version each time.
    """

    def __init__(self, path: str, manager: ModelManager, served: model_server_config_pb2.ModelServerConfig):
        """Follows a file.

        Args:
          path: the file.
          manager: what serves by it.
          served: the configuration that the manager already has.
        """
        self._path = path
        self._manager = manager
        self._served = served
        self._last_failure = ""
        self._refused: model_server_config_pb2.ModelServerConfig | None = None
        self._pause_seconds = _SHORTEST_PAUSE_SECONDS
        self._next_attempt = 0.0

    def poll(self) -> None:
        """Reloads if the file's content has changed. Blocks until versions that labels need are loaded."""
        try:
            config = read_model_server_config(self._path)
            if config == self._served:
                self._last_failure = ""
                return
            if config != self._refused:
                self._pause_seconds = _SHORTEST_PAUSE_SECONDS
            elif time.monotonic() < self._next_attempt:
                return
            self._refused = config  # Until it is known that it is not.
            self._manager.reload(config, load_labelled_first=True, wait=False)
        except (ConfigError, StatusError) as error:
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                logging.error("%s is not followed, the models stay as they are: %s", self._path, error)
            self._next_attempt = time.monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            return
        self._served = config
        self._refused = None
        self._last_failure = ""
        logging.info("serving by the changed %s", self._path)
