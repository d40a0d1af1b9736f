"""How the contract's models are served: configuration, flags, and the states that they come to be in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format

from pipeline.serving.messages import model_server_config_pb2

MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
MONITORING_CONFIG = "monitoring.config"

STATES: Mapping[str, Mapping[int, str]] = {
    "half_plus": {3: "AVAILABLE", 2: "AVAILABLE"},
    "plain": {4: "AVAILABLE"},
    "movable": {4: "AVAILABLE"},
    "tensors": {1: "AVAILABLE"},
    "misfits": {1: "AVAILABLE"},
    "recommender": {1: "AVAILABLE"},
    "broken": {2: "END", 1: "AVAILABLE"},
}
"""States of the versions of the models that `models.config` lists, once they are loaded."""

_BATCHING = """max_batch_size { value: 16 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: 2 }
"""


def write_configuration(folder: Path) -> None:
    """Writes the configuration files for the models in a folder, which they name by its path."""
    (folder / MODELS_CONFIG).write_text(text_format.MessageToString(_models_config(folder)))
    (folder / BATCHING_CONFIG).write_text(_BATCHING)
    (folder / MONITORING_CONFIG).write_text("prometheus_config { enable: true }\n")


def read_models_config(folder: Path) -> model_server_config_pb2.ModelServerConfig:
    """Returns the configuration that a folder's models are served by."""
    return text_format.Parse((folder / MODELS_CONFIG).read_text(), model_server_config_pb2.ModelServerConfig())


def _models_config(folder: Path) -> model_server_config_pb2.ModelServerConfig:
    config = model_server_config_pb2.ModelServerConfig()
    for name in STATES:
        model = config.model_config_list.config.add(
            name=name, base_path=str(folder / name), model_platform="tensorflow"
        )
        if name in ("half_plus", "broken"):
            model.model_version_policy.all.SetInParent()
        if name == "half_plus":
            model.version_labels["stable"] = 2
            model.version_labels["canary"] = 3
    return config


def server_flags(folder: Path) -> list[str]:
    """Returns the flags of TensorFlow Serving's that the models in a folder are to be served with."""
    return [
        f"--model_config_file={folder / MODELS_CONFIG}",
        f"--monitoring_config_file={folder / MONITORING_CONFIG}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service=true",
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=500000",
    ]
