"""Short ways to write requests to the contract's models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from pipeline.serving.messages import (
    classification_pb2,
    example_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

REQUESTS: dict[str, type[Message]] = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}
"""Request message of each RPC."""

RESPONSES: dict[str, type[Message]] = {
    "Predict": predict_pb2.PredictResponse,
    "Classify": classification_pb2.ClassificationResponse,
    "Regress": regression_pb2.RegressionResponse,
    "MultiInference": inference_pb2.MultiInferenceResponse,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataResponse,
    "GetModelStatus": get_model_status_pb2.GetModelStatusResponse,
    "HandleReloadConfigRequest": model_management_pb2.ReloadConfigResponse,
}
"""Response message of each RPC."""

Proto = TypeVar("Proto", bound=Message)


def parse(text: str, message: Proto) -> Proto:
    """Returns the message, filled from a text proto."""
    return text_format.Parse(text, message)


def request(rpc: str, text: str) -> Callable[[], Message]:
    """Returns a function that makes a request to an RPC from a text proto."""
    return functools.partial(_request, rpc, text)


def spec(name: str = "half_plus", **fields: object) -> str:
    """Returns a text proto with a `model_spec`: `version`, `version_label` and `signature_name` may be given."""
    version = f" version {{ value: {fields['version']} }}" if "version" in fields else ""
    texts = (f' {field}: "{value}"' for field, value in fields.items() if field != "version")
    return f'model_spec {{ name: "{name}"{version}{"".join(texts)} }} '


def floats(name: str, *values: float, shape: tuple[int, ...] | None = None) -> str:
    """Returns a text proto with a float tensor as an entry of `inputs` or, by another name of the field, `outputs`."""
    return entry("inputs", name, tensor("DT_FLOAT", (len(values),) if shape is None else shape, "float_val", *values))


def tensor(dtype: str, shape: tuple[int, ...], field: str, *values: object) -> str:
    """Returns the text proto of a tensor's fields, its values in the field of its type."""
    dims = "".join(f" dim {{ size: {size} }}" for size in shape)
    return f"dtype: {dtype} tensor_shape {{{dims} }}" + "".join(f" {field}: {value}" for value in values)


def entry(field: str, key: str, value: str) -> str:
    """Returns the text proto of one entry of a map."""
    return f'{field} {{ key: "{key}" value {{ {value} }} }} '


def examples(*values: float | None, **others: float) -> str:
    """Returns the text proto of an `input`: an Example for each value of x; None leaves x out."""
    made = []
    for value in values:
        result = example_pb2.Example()
        for name, number in ({} if value is None else {"x": value}).items() | others.items():
            result.features.feature[name].float_list.value.append(number)
        made.append(f"examples {{ {text_format.MessageToString(result, as_one_line=True)} }}")
    return f"input {{ example_list {{ {' '.join(made)} }} }} "


def _request(rpc: str, text: str) -> Message:
    return parse(text, REQUESTS[rpc]())
