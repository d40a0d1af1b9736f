"""The request loggers of a server's models, which come and go with the configuration."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import logging_config_pb2, model_server_config_pb2
from pipeline.serving.server.leases import Lent

if TYPE_CHECKING:
    from pipeline.serving.server.request_log import RequestLogger

MakeRequestLogger: TypeAlias = Callable[[str, logging_config_pb2.LoggingConfig], "RequestLogger"]
"""Makes the logger of a model from its name and `logging_config`; raises StatusError, ValueError or OSError."""


class RequestLoggers:
    """The loggers of the models whose configuration has a `logging_config`."""

    def __init__(self, make: MakeRequestLogger | None, changed: threading.Condition):
        """Makes none yet.

        Args:
          make: None: no model may have a logger.
          changed: lock of everything that requests borrow.
        """
        self._make = make
        self._changed = changed
        self._configs: dict[str, logging_config_pb2.LoggingConfig] = {}
        self._loggers: Mapping[str, Lent[RequestLogger]] = {}
        self._retired: list[Lent[RequestLogger]] = []

    def get(self, name: str) -> Lent[RequestLogger] | None:
        """Returns a model's logger, if it has one."""
        return self._loggers.get(name)

    def prepare(self, config: model_server_config_pb2.ModelServerConfig) -> Mapping[str, Lent[RequestLogger]]:
        """Returns the loggers that a configuration asks for: those there are, as long as it has not changed for them.

        Raises:
          StatusError: if one cannot be made; then none is.
        """
        loggers: dict[str, Lent[RequestLogger]] = {}
        made: list[RequestLogger] = []
        name = ""
        try:
            for entry in config.model_config_list.config:
                name = entry.name
                if not entry.HasField("logging_config"):
                    continue
                if self._configs.get(name) == entry.logging_config:
                    loggers[name] = self._loggers[name]
                elif self._make is None:
                    raise invalid_argument("No request-logger-creator provided.")
                else:
                    made.append(self._make(name, entry.logging_config))
                    loggers[name] = Lent(made[-1])
        except (StatusError, ValueError, OSError) as error:
            for logger in made:
                logger.close()
            if isinstance(error, StatusError):
                raise
            raise invalid_argument(f"logging_config of model {name}: {error}") from error
        return loggers

    def replace(
        self, config: model_server_config_pb2.ModelServerConfig, loggers: Mapping[str, Lent[RequestLogger]]
    ) -> None:
        """Puts into force what `prepare` returned for a configuration. The caller holds the lock."""
        for name, logger in self._loggers.items():
            if loggers.get(name) is not logger:
                logger.retired = True
                self._retired.append(logger)
        self._configs = {}
        for entry in config.model_config_list.config:
            if entry.HasField("logging_config"):
                self._configs[entry.name] = logging_config_pb2.LoggingConfig()
                self._configs[entry.name].CopyFrom(entry.logging_config)
        self._loggers = loggers

    @property
    def has_returned(self) -> bool:
        """Whether a logger waits to be closed that no request has any more."""
        return any(logger.is_returned for logger in self._retired)

    def close_returned(self) -> None:
        """Closes the loggers that are no longer in force, as far as no request has them."""
        with self._changed:
            returned = [logger for logger in self._retired if logger.is_returned]
            self._retired = [logger for logger in self._retired if not logger.is_returned]
        for logger in returned:
            logger.thing.close()

    def close(self) -> None:
        """Closes all, once the requests under way are answered."""
        with self._changed:
            self.replace(model_server_config_pb2.ModelServerConfig(), {})
            self._changed.wait_for(lambda: all(logger.is_returned for logger in self._retired))
        self.close_returned()
