"""Watching the file of the models to serve."""

from __future__ import annotations

from absl import logging

from pipeline.config_files import ConfigError
from pipeline.serving.errors import StatusError
from pipeline.serving.server.config_files import read_model_server_config
from pipeline.serving.server.manager import ModelManager


class ConfigFile:
    """A `model_config_file` that a manager follows.

    What is wrong with the file is logged once and the manager keeps what it has; the next look tries again. Versions
    that labels are to point at are loaded first, so that one change of the file can bring a version and its label.
    """

    def __init__(self, path: str, manager: ModelManager):
        """Follows `path` from the configuration that the manager already has."""
        self._path = path
        self._manager = manager
        self._served = read_model_server_config(path)
        self._last_failure = ""

    def poll(self) -> None:
        """Reloads if the file's content has changed. Blocks until new models are loaded."""
        try:
            config = read_model_server_config(self._path)
            if config == self._served:
                self._last_failure = ""
                return
            self._manager.reload(config, load_labelled_first=True)
        except (ConfigError, StatusError) as error:
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                logging.error("%s is not followed, the models stay as they are: %s", self._path, error)
            return
        self._served = config
        self._last_failure = ""
        logging.info("serving by the changed %s", self._path)
