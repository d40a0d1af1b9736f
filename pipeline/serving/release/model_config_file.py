"""Reads and writes the servers' `model_config_file`: a ModelServerConfig in protobuf text format.

Only the policy and the labels of one model are ever changed; its other fields and other models stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf import text_format

from pipeline.atomic_files import write_text_atomically
from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.errors import ReleaseError

PLATFORM = "tensorflow"
_HEADER = """\
# Which versions a model server loads, and their labels; `marquee release` and `marquee rollback` change both here.
# TensorFlow Serving starts from this file with --allow_version_labels_for_unavailable_models=true.
"""


def read_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Reads the file; the configuration is empty if there is none.

    Raises:
      ReleaseError: naming the file, line and column where it does not parse.
    """
    config = model_server_config_pb2.ModelServerConfig()
    if not path.is_file():
        return config
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path} is no ModelServerConfig in text format: {error}") from error
    if config.WhichOneof("config") == "custom_model_config":
        raise ReleaseError(f"{path}: expected a model_config_list; received a custom_model_config")
    return config


def write_config(path: Path, config: model_server_config_pb2.ModelServerConfig) -> None:
    """Writes the file, all at once."""
    write_text_atomically(path, _HEADER + text_format.MessageToString(config, as_utf8=True))


def labels_of(config: model_server_config_pb2.ModelServerConfig, model_name: str) -> dict[str, int]:
    """Returns a model's labels with their versions."""
    model = _find(config, model_name)
    return {} if model is None else dict(model.version_labels)


def log_prefix_of(config: model_server_config_pb2.ModelServerConfig, model_name: str) -> str | None:
    """Returns what the files of a model's logged requests begin with; None if none are logged."""
    model = _find(config, model_name)
    return (model.logging_config.log_collector_config.filename_prefix or None) if model is not None else None


def plain_config(model_name: str, base_path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Returns the configuration of a server that was started with a name and a base path: it serves the latest."""
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(name=model_name, base_path=str(base_path.absolute()), model_platform=PLATFORM)
    return config


def with_versions(
    config: model_server_config_pb2.ModelServerConfig,
    model_name: str,
    base_path: Path,
    versions: Iterable[int],
    labels: Mapping[str, int],
) -> model_server_config_pb2.ModelServerConfig:
    """Returns a configuration in which a model has exactly these versions and labels.

    Args:
      config: the configuration to start from.
      model_name: the model, which is added if it is not there yet.
      base_path: its folder of versions, if it is added; one that is there keeps its own.
      versions: what is loaded.
      labels: versions by label.
    """
    changed = model_server_config_pb2.ModelServerConfig()
    changed.CopyFrom(config)
    model = _find(changed, model_name)
    if model is None:
        changed.model_config_list.MergeFrom(plain_config(model_name, base_path).model_config_list)
        model = changed.model_config_list.config[-1]
    model.ClearField("model_version_policy")
    model.model_version_policy.specific.versions.extend(sorted(set(versions)))
    return with_labels(changed, model_name, labels)


def with_labels(
    config: model_server_config_pb2.ModelServerConfig, model_name: str, labels: Mapping[str, int]
) -> model_server_config_pb2.ModelServerConfig:
    """Returns a configuration in which a model has exactly these labels; a model that is not there is not added."""
    changed = model_server_config_pb2.ModelServerConfig()
    changed.CopyFrom(config)
    model = _find(changed, model_name)
    if model is not None:
        model.ClearField("version_labels")
        model.version_labels.update(labels)
    return changed


def _find(
    config: model_server_config_pb2.ModelServerConfig, model_name: str
) -> model_server_config_pb2.ModelConfig | None:
    return next((model for model in config.model_config_list.config if model.name == model_name), None)
