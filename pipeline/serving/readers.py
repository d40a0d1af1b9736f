"""From a server's answers to results: nothing of an answer is taken on trust.

Every reader raises ValueError, saying what is wrong, if the answer is not what the request asked for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf.message import DecodeError

from pipeline.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    predict_pb2,
    types_pb2,
)
from pipeline.serving.results import (
    Outputs,
    Recommendation,
    Recommendations,
    Signature,
    TensorInfo,
    VersionState,
)
from pipeline.serving.tensors import read_tensor


def read_outputs(response: predict_pb2.PredictResponse) -> Outputs:
    """Returns the arrays of an answer."""
    spec = response.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return Outputs({name: read_tensor(tensor) for name, tensor in response.outputs.items()}, version)


def read_recommendations(outputs: Outputs, rows: int, k: int) -> list[Recommendations]:
    """Returns the first `k` entries of each row; empty ids fill a row up where there are no more items."""
    item_ids = _output(outputs, "item_ids", "O", "strings", rows)
    scores = _output(outputs, "scores", "f", "floating-point numbers", rows)
    if item_ids.shape != scores.shape:
        raise ValueError(f"'item_ids' have the shape {list(item_ids.shape)}, 'scores' {list(scores.shape)}")
    return [
        Recommendations(_best_first(ids, row.tolist())[:k], outputs.model_version)
        for ids, row in zip(item_ids.tolist(), scores, strict=True)
    ]


def _best_first(item_ids: Sequence[bytes], scores: Sequence[float]) -> list[Recommendation]:
    pairs = zip(item_ids, scores, strict=True)
    entries = [Recommendation(_text(item_id), score) for item_id, score in pairs if item_id]
    for entry in entries:
        if math.isnan(entry.score):
            raise ValueError(f"the score of {entry.item_id!r} is no number")
    for better, worse in itertools.pairwise(entries):
        if better.score < worse.score:
            raise ValueError(
                f"the list is not in order: {better.item_id!r} ({better.score:g}) comes before "
                f"{worse.item_id!r} ({worse.score:g})"
            )
    return entries


def read_ranking(outputs: Outputs, candidates: Sequence[str]) -> Recommendations:
    """Returns the candidates of one user by score, best first; among equals, in the order given."""
    scores = _output(outputs, "scores", "f", "floating-point numbers", 1)
    if scores.shape != (1, len(candidates)):
        raise ValueError(f"'scores' have the shape {list(scores.shape)}; expected {[1, len(candidates)]}")
    if np.isnan(scores).any():
        raise ValueError(f"the score of {candidates[int(np.argmax(np.isnan(scores[0])))]!r} is no number")
    entries = [Recommendation(item_id, score) for item_id, score in zip(candidates, scores[0].tolist(), strict=True)]
    return Recommendations(sorted(entries, key=lambda entry: -entry.score), outputs.model_version)


def read_status(response: get_model_status_pb2.GetModelStatusResponse) -> list[VersionState]:
    """Returns the state of each version, in the server's order."""
    states = get_model_status_pb2.ModelVersionStatus.State
    return [
        VersionState(entry.version, _enum_name(states, entry.state), entry.status.error_message)
        for entry in response.model_version_status
    ]


def read_signatures(response: get_model_metadata_pb2.GetModelMetadataResponse) -> dict[str, Signature]:
    """Returns the signatures by name."""
    if "signature_def" not in response.metadata:
        raise ValueError(f"the metadata lacks 'signature_def'; it has {sorted(response.metadata)}")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    try:
        unpacked = response.metadata["signature_def"].Unpack(signatures)
    except DecodeError as error:
        raise ValueError(f"the metadata's 'signature_def' cannot be decoded: {error}") from error
    if not unpacked:
        raise ValueError(f"the metadata's 'signature_def' is a {response.metadata['signature_def'].type_url!r}")
    return {
        name: Signature(_tensor_infos(signature.inputs), _tensor_infos(signature.outputs))
        for name, signature in signatures.signature_def.items()
    }


def _tensor_infos(tensors: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            _enum_name(types_pb2.DataType, info.dtype).removeprefix("DT_").lower(),
            tuple(None if dimension.size < 0 else dimension.size for dimension in info.tensor_shape.dim),
        )
        for name, info in tensors.items()
    }


def _enum_name(enum: type, number: int) -> str:
    """Returns a value's name; its number, if it is newer than this client."""
    return enum.Name(number) if number in enum.values() else str(number)  # type: ignore[attr-defined]


def _output(outputs: Outputs, name: str, kind: str, description: str, rows: int) -> np.ndarray:
    """Returns an output of shape `[rows, any]`."""
    if name not in outputs:
        raise ValueError(f"the output {name!r} is missing; received {sorted(outputs)}")
    array = outputs[name]
    if array.dtype.kind != kind:
        raise ValueError(f"{name!r} must be {description}; received {array.dtype}")
    if array.ndim != 2 or len(array) != rows:
        raise ValueError(f"{name!r} must have {rows} rows; received the shape {list(array.shape)}")
    return array


def _text(item_id: bytes) -> str:
    try:
        return item_id.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the item id {item_id!r} is no UTF-8") from error
