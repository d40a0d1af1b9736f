"""The server's configuration files: TensorFlow Serving's messages in protocol buffer text format.

`ModelServerConfig` comes with the API package. Of BatchingParameters, MonitoringConfig and SSLConfig the package has no
generated code, so their descriptors are built here (fields and numbers as in TensorFlow Serving's
`session_bundle_config.proto`, `monitoring_config.proto` and `ssl_config.proto`); the rest of the program gets plain
dataclasses.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.message import Message

from pipeline.config_files import ConfigError
from pipeline.serving.messages import model_server_config_pb2

TENSORFLOW_PLATFORM = "tensorflow"
DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"

_PACKAGE = "tensorflow.serving"
_INT64, _INT64_VALUE, _BOOL, _BOOL_VALUE = "int64", "google.protobuf.Int64Value", "bool", "google.protobuf.BoolValue"
_STRING, _STRING_VALUE = "string", "google.protobuf.StringValue"
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "BatchingParameters": {
        "max_batch_size": (1, _INT64_VALUE),
        "batch_timeout_micros": (2, _INT64_VALUE),
        "max_enqueued_batches": (3, _INT64_VALUE),
        "num_batch_threads": (4, _INT64_VALUE),
        "thread_pool_name": (5, _STRING_VALUE),
        "allowed_batch_sizes": (6, f"repeated {_INT64}"),
        "pad_variable_length_inputs": (7, _BOOL),
        "enable_large_batch_splitting": (8, _BOOL_VALUE),
        "max_execution_batch_size": (9, _INT64_VALUE),
    },
    "PrometheusConfig": {"enable": (1, _BOOL), "path": (2, _STRING)},
    "MonitoringConfig": {"prometheus_config": (1, f"{_PACKAGE}.PrometheusConfig")},
    "SSLConfig": {
        "server_key": (1, _STRING),
        "server_cert": (2, _STRING),
        "custom_ca": (3, _STRING),
        "client_verify": (4, _BOOL),
    },
}


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined into batches; the defaults are those of TensorFlow Serving's scheduler.

    Attributes:
      max_batch_size: rows of a request at most, and of a batch unless large ones are split.
      batch_timeout_micros: microseconds that a request waits for others at most.
      max_enqueued_batches: batches that may wait for a thread; requests beyond are refused.
      num_batch_threads: batches that run at a time.
      allowed_batch_sizes: sizes to which batches are filled up, ascending; empty: any.
      pad_variable_length_inputs: whether inputs of different lengths are padded to go together.
      enable_large_batch_splitting: whether a request may be spread over several batches.
      max_execution_batch_size: rows of a batch at most, if requests are split; None: `max_batch_size`.
      thread_pool_name: name of the threads.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None
    thread_pool_name: str = "batch_threads"

    def __post_init__(self) -> None:
        """Checks the values as TensorFlow Serving does.

        Raises:
          ValueError: naming the field, the value received and what was expected.
        """
        for field in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "max_execution_batch_size"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be positive; received {value}")
        if self.batch_timeout_micros < 0:
            raise ValueError(f"batch_timeout_micros must not be negative; received {self.batch_timeout_micros}")
        if self.enable_large_batch_splitting and self.rows_per_batch > self.max_batch_size:
            raise ValueError(
                f"max_execution_batch_size must be at most max_batch_size, which is {self.max_batch_size}; "
                f"received {self.max_execution_batch_size}"
            )
        sizes = self.allowed_batch_sizes
        if sizes and (sizes[0] < 1 or any(size >= larger for size, larger in itertools.pairwise(sizes))):
            raise ValueError(f"allowed_batch_sizes must be positive and ascending; received {list(sizes)}")
        if sizes and sizes[-1] != self.rows_per_batch:
            field = "max_batch_size" if self.rows_per_batch == self.max_batch_size else "max_execution_batch_size"
            raise ValueError(
                f"the last of allowed_batch_sizes must equal {field}, which is {self.rows_per_batch}; "
                f"received {sizes[-1]}"
            )

    @property
    def rows_per_batch(self) -> int:
        """Rows that are run at once at most."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size


@dataclasses.dataclass(frozen=True)
class MonitoringSettings:
    """Whether and where the server shows its metrics.

    Attributes:
      enabled: whether it does.
      path: of the REST address.
    """

    enabled: bool = False
    path: str = DEFAULT_METRICS_PATH


@dataclasses.dataclass(frozen=True)
class TlsSettings:
    """What a server needs for encrypted connections.

    Attributes:
      server_key: private key, PEM.
      server_cert: certificate chain, PEM.
      custom_ca: certificates of the authorities that sign clients' certificates, PEM; None: none.
      client_verify: whether a client must present a certificate that `custom_ca` vouches for.
    """

    server_key: bytes = dataclasses.field(repr=False)
    server_cert: bytes
    custom_ca: bytes | None = None
    client_verify: bool = False


def single_model_config(model_name: str, base_path: str) -> model_server_config_pb2.ModelServerConfig:
    """Returns the configuration of a server of one model, of which it serves the latest version."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=model_name, base_path=base_path, model_platform=TENSORFLOW_PLATFORM)
    return config


def read_model_server_config(path: str | Path) -> model_server_config_pb2.ModelServerConfig:
    """Reads a `model_config_file`. What is in it is checked by the manager, as on any other way there.

    Raises:
      ConfigError: if it cannot be read or parsed, naming line, column and field, or configures models in another way
        than by a list.
    """
    config = model_server_config_pb2.ModelServerConfig()
    _parse(path, config)
    if config.WhichOneof("config") == "custom_model_config":
        raise ConfigError(f"{path}: custom_model_config is not supported; expected model_config_list")
    return config


def read_batching_parameters(path: str | Path) -> BatchingParameters:
    """Reads a `batching_parameters_file`.

    Raises:
      ConfigError: if it cannot be read or parsed, or holds values that cannot be used.
    """
    message: Any = _new_message("BatchingParameters")
    _parse(path, message)
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        wrapped: Any = value  # Those fields that can be left out are messages that hold the value.
        values[field.name] = wrapped.value if field.message_type is not None else wrapped
    values["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
    try:
        return BatchingParameters(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_monitoring_config(path: str | Path) -> MonitoringSettings:
    """Reads a `monitoring_config_file`.

    Raises:
      ConfigError: if it cannot be read or parsed, or the path is none.
    """
    message: Any = _new_message("MonitoringConfig")
    _parse(path, message)
    prometheus = message.prometheus_config
    if prometheus.path and not prometheus.path.startswith("/"):
        raise ConfigError(f"{path}: prometheus_config.path must begin with a slash; received {prometheus.path!r}")
    return MonitoringSettings(prometheus.enable, prometheus.path or DEFAULT_METRICS_PATH)


def read_tls_config(path: str | Path) -> TlsSettings:
    """Reads an `ssl_config_file`. No error shows a part of a key.

    Raises:
      ConfigError: if it cannot be read or parsed, or lacks something.
    """
    message: Any = _new_message("SSLConfig")
    _parse(path, message, secret=True)
    for field in ("server_key", "server_cert", "custom_ca"):
        value = getattr(message, field)
        if (value or field != "custom_ca") and "-----BEGIN " not in value:
            received = f"{len(value)} characters without one" if value else "nothing"
            raise ConfigError(f"{path}: {field} must hold a PEM block, '-----BEGIN …'; received {received}")
    if message.client_verify and not message.custom_ca:
        raise ConfigError(f"{path}: client_verify needs custom_ca, the authority that signs the clients' certificates")
    return TlsSettings(
        message.server_key.encode(),
        message.server_cert.encode(),
        message.custom_ca.encode() or None,
        message.client_verify,
    )


def _parse(path: str | Path, message: Message, secret: bool = False) -> None:
    """Parses a file into `message`; if it is secret, errors tell the place only."""
    try:
        text = _read(str(path)).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file: {error.reason} at byte {error.start}") from None
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = "" if line is None else f", line {line}" + ("" if column is None else f", column {column}")
        kind = message.DESCRIPTOR.name
        reason = str(error).partition(" : ")[2] or str(error)
        what = "" if secret else f": {reason}"
        raise ConfigError(f"{path}{place}: not a {kind} in text format{what}") from None if secret else error


def _read(path: str) -> bytes:
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        import tensorflow as tf  # Heavy, and needed for remote files only.

        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                return file.read()
        except tf.errors.OpError as error:
            raise ConfigError(f"{path} cannot be read: {error.message}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def _build_pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="server_config_files.proto", package=_PACKAGE, syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    scalars = {_INT64: kinds.TYPE_INT64, _BOOL: kinds.TYPE_BOOL, _STRING: kinds.TYPE_STRING}
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, declared) in fields.items():
            kind = declared.removeprefix("repeated ")
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_OPTIONAL if kind == declared else kinds.LABEL_REPEATED
            field.type = scalars.get(kind, kinds.TYPE_MESSAGE)
            if field.type == kinds.TYPE_MESSAGE:
                field.type_name = f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _build_pool()


def _new_message(name: str) -> Message:
    descriptor = _POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    factory: Any = message_factory
    if hasattr(factory, "GetMessageClass"):
        return factory.GetMessageClass(descriptor)()
    return factory.MessageFactory(_POOL).GetPrototype(descriptor)()  # Before protobuf 4.22.
