"""What the server can be told, and its command line: TensorFlow Serving's names, and a few of our own.

Source: the flags in `model_servers/main.cc` of TensorFlow Serving and their defaults in `server.h`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from pipeline.config_files import ConfigError

DEFAULT_MAX_MESSAGE_BYTES = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Everything a server depends on; the attributes are the command line's options.

    Attributes:
      port: gRPC port; 0 picks a free one.
      grpc_socket_path: a UNIX socket to listen on for gRPC as well.
      rest_api_port: port of the REST API; 0 picks a free one, None means that there is none.
      host: interface to listen on.
      model_name: name of the only model.
      model_base_path: folder of the only model's numbered version folders.
      model_config_file: the models to serve, as a `ModelServerConfig` in text form.
      model_config_file_poll_wait_seconds: time between two looks at that file; 0: it is read at the start only.
      file_system_poll_wait_seconds: time between two looks for new versions; 0: one look; negative: none.
      enable_batching: whether to join requests into batches.
      batching_parameters_file: how to, as `BatchingParameters` in text form.
      monitoring_config_file: whether to show metrics, as a `MonitoringConfig` in text form.
      metrics_path: path of the metrics page, instead of that file; empty: none.
      ssl_config_file: key and certificates for gRPC, as an `SSLConfig` in text form.
      rest_api_timeout_in_ms: time that a model has to answer a REST request; 0: no limit.
      rest_api_enable_cors_support: whether to let web pages from any origin use the REST API.
      max_num_load_retries: attempts to load a version after the first.
      load_retry_interval_micros: microseconds between two attempts.
      allow_version_labels_for_unavailable_models: whether labels may point at versions that are not loaded yet.
      enable_model_warmup: whether a version answers its warm-up requests before it serves.
      enable_grpc_healthcheck_service: whether to offer gRPC's health service.
      max_message_bytes: largest request or answer.
      max_queued_requests: requests to run a model that may be under way at a time; more are refused. 0: no limit.
      max_kept_log_bytes: size of a model's request logs, from which on the oldest is removed; 0: no limit.
      start_wait_seconds: time that who connects at the start waits for the models that are found; then the server
        answers without those that are not loaded yet.
      grace_seconds: time that requests under way have to finish when the server stops.
      stop_on_end_of_input: whether to stop when standard input ends.
    """

    port: int = 8500
    grpc_socket_path: str = ""
    rest_api_port: int | None = None
    host: str = "127.0.0.1"
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0.0
    file_system_poll_wait_seconds: float = 1.0
    enable_batching: bool = False
    batching_parameters_file: str = ""
    monitoring_config_file: str = ""
    metrics_path: str = ""
    ssl_config_file: str = ""
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    enable_model_warmup: bool = True
    enable_grpc_healthcheck_service: bool = False
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_queued_requests: int = 1000
    max_kept_log_bytes: int = 1 << 30
    start_wait_seconds: float = 60.0
    grace_seconds: float = 10.0
    stop_on_end_of_input: bool = False

    def __post_init__(self) -> None:
        """Checks what goes together.

        Raises:
          ConfigError: naming the options and what was expected.
        """
        if not self.model_base_path and not self.model_config_file:
            raise ConfigError("a server needs --model_base_path or --model_config_file")
        if self.batching_parameters_file and not self.enable_batching:
            raise ConfigError("--batching_parameters_file needs --enable_batching")
        if self.model_config_file_poll_wait_seconds and not self.model_config_file:
            raise ConfigError("--model_config_file_poll_wait_seconds needs --model_config_file")
        for name in ("monitoring_config_file", "metrics_path"):
            if getattr(self, name) and self.rest_api_port is None:
                raise ConfigError(f"--{name} needs --rest_api_port, where the metrics are shown")
        if self.metrics_path and not self.metrics_path.startswith("/"):
            raise ConfigError(f"--metrics_path must begin with a slash; received {self.metrics_path!r}")
        if self.metrics_path and self.monitoring_config_file:
            raise ConfigError("--metrics_path and --monitoring_config_file exclude each other")
        if self.rest_api_port is not None and self.rest_api_port == self.port != 0:
            raise ConfigError(f"--rest_api_port must differ from --port; both are {self.port}")
        for name in ("port", "rest_api_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port <= 65535:
                raise ConfigError(f"--{name} must be between 0 and 65535; received {port}")
        for name in (
            "model_config_file_poll_wait_seconds",
            "rest_api_timeout_in_ms",
            "max_num_load_retries",
            "max_queued_requests",
            "max_kept_log_bytes",
            "start_wait_seconds",
            "grace_seconds",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name} must not be negative; received {getattr(self, name)}")
        if not 0 < self.max_message_bytes <= DEFAULT_MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"--max_message_bytes must be between 1 and 2147483647; received {self.max_message_bytes}"
            )


_HELP = {
    "port": "gRPC port; 0 picks a free one",
    "grpc_socket_path": "UNIX socket to listen on for gRPC as well",
    "rest_api_port": "port of the REST API, e.g. 8501; 0 picks a free one; without it there is no REST API",
    "host": "interface to listen on, e.g. 0.0.0.0",
    "model_name": "name of the model (with --model_base_path)",
    "model_base_path": "folder of the model's numbered version folders",
    "model_config_file": "ModelServerConfig in text form: the models to serve, instead of --model_base_path",
    "model_config_file_poll_wait_seconds": "seconds between two looks at that file; 0 reads it once",
    "file_system_poll_wait_seconds": "seconds between two looks for new versions; 0 looks once, below 0 never",
    "enable_batching": "join requests into batches",
    "batching_parameters_file": "BatchingParameters in text form (with --enable_batching)",
    "monitoring_config_file": "MonitoringConfig in text form: shows metrics on the REST port",
    "metrics_path": "path of a metrics page on the REST port, e.g. /monitoring/prometheus/metrics",
    "ssl_config_file": "SSLConfig in text form: key and certificates for gRPC",
    "rest_api_timeout_in_ms": "milliseconds that a model has to answer a REST request; 0 means no limit",
    "rest_api_enable_cors_support": "let web pages from any origin use the REST API",
    "max_num_load_retries": "attempts to load a version after the first",
    "load_retry_interval_micros": "microseconds between two attempts",
    "allow_version_labels_for_unavailable_models": "let new labels point at versions that are not loaded yet",
    "enable_model_warmup": "let versions answer their warm-up requests before they serve",
    "enable_grpc_healthcheck_service": "offer gRPC's health service",
    "max_message_bytes": "largest request or answer",
    "max_queued_requests": "requests that may be under way at a time; more are refused; 0 means no limit",
    "max_kept_log_bytes": "size of a model's request logs; beyond it the oldest are removed; 0 means no limit",
    "start_wait_seconds": "seconds that who connects at the start waits for models, instead of being refused",
    "grace_seconds": "seconds that requests under way have to finish when the server stops",
    "stop_on_end_of_input": "also stop when standard input ends",
}


def parse_command_line(arguments: Sequence[str] | None = None) -> ServerOptions:
    """Returns the options that a command line names. On a usage error it prints one sentence and exits with code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.serving.server",
        description="Serve SavedModels over gRPC and REST, as TensorFlow Serving does.",
        epilog="Example: python -m pipeline.serving.server --model_name=recommender "
        "--model_base_path=runs/movielens-100k/serving/recommender --rest_api_port=8501",
        allow_abbrev=False,
    )
    for field in dataclasses.fields(ServerOptions):
        kind = str(field.type).removesuffix(" | None")
        default = "" if field.default in (None, "") else f" (default: {str(field.default).lower()})"
        if kind == "bool":
            parser.add_argument(
                f"--{field.name}",
                type=_boolean,
                nargs="?",
                const=True,
                default=field.default,
                metavar="true|false",
                help=_HELP[field.name] + default,
            )
        else:
            parser.add_argument(
                f"--{field.name}",
                type={"int": int, "float": float, "str": str}[kind],
                default=field.default,
                metavar={"int": "N", "float": "SECONDS", "str": "TEXT"}[kind],
                help=_HELP[field.name] + default,
            )
    try:
        return ServerOptions(**vars(parser.parse_args(arguments)))
    except ConfigError as error:
        parser.error(str(error))


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected true or false; received {text!r}")
    return values[text.lower()]
