"""TensorFlow Serving's protocol messages, without TensorFlow's runtime.

The messages of `tensorflow-serving-api` refer to some protocol buffer modules inside the `tensorflow` package.
Importing those the ordinary way runs the whole of `import tensorflow`: about six seconds and half a gigabyte, which a
process that only talks to a server has no use for. The packages in between are empty, so this module loads the protocol
buffer modules by their place on disk, dependencies first, in a tenth of a second. They are the ordinary modules under
their ordinary names: a later `import tensorflow` works and shares the message classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

_REQUIRED = (
    "tensorflow.core.example.example_pb2",
    "tensorflow.core.framework.tensor_pb2",
    "tensorflow.core.protobuf.config_pb2",
    "tensorflow.core.protobuf.error_codes_pb2",
    "tensorflow.core.protobuf.meta_graph_pb2",
    "tensorflow.core.protobuf.named_tensor_pb2",
)
_GENERATED_IMPORT = re.compile(r"^from (tensorflow\.[\w.]+) import (\w+_pb2)", re.MULTILINE)


def _load_without_runtime(name: str, root: Path) -> None:
    """Loads a generated module of the `tensorflow` package at `root`, after the modules that it imports itself.

    Once a dependency is an attribute of its package, the import statement inside the generated module finds it there
    and never asks for the top-level package.
    """
    if name in sys.modules:
        return
    package, _, _ = name.rpartition(".")
    folder = root.joinpath(*package.split(".")[1:])
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    source = folder / f"{name.removeprefix(package)[1:]}.py"
    for dependency in _GENERATED_IMPORT.findall(source.read_text(encoding="utf-8")):
        _load_without_runtime(".".join(dependency), root)
    importlib.import_module(name)


if "tensorflow" not in sys.modules:
    _tensorflow = importlib.util.find_spec("tensorflow")
    if _tensorflow is None or _tensorflow.origin is None:
        raise ModuleNotFoundError("the serving messages need the package 'tensorflow' to be installed")
    for _name in _REQUIRED:
        _load_without_runtime(_name, Path(_tensorflow.origin).parent)

from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from tensorflow.core.example import example_pb2, feature_pb2  # noqa: E402
from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    logging_pb2,
    model_management_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
    status_pb2,
)
from tensorflow_serving.config import (  # noqa: E402
    file_system_storage_path_source_pb2,
    log_collector_config_pb2,
    logging_config_pb2,
    model_server_config_pb2,
)

__all__ = [
    "classification_pb2",
    "error_codes_pb2",
    "example_pb2",
    "feature_pb2",
    "file_system_storage_path_source_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "health_pb2",
    "health_pb2_grpc",
    "inference_pb2",
    "input_pb2",
    "log_collector_config_pb2",
    "logging_config_pb2",
    "logging_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "status_pb2",
    "tensor_pb2",
    "types_pb2",
]
