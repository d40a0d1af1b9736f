"""`RecommenderClient`: recommendations from TensorFlow Serving, or from the local server, in plain Python values."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.errors import ServingError
from pipeline.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    types_pb2,
)
from pipeline.serving.requests import HistoryEvent, RequestFormat, build_example
from pipeline.serving.tensors import make_tensor, read_tensor, string_array

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # A model server is a neighbour, never behind the proxy to the outside.
    ("grpc.initial_reconnect_backoff_ms", 100),  # Who waits for a server to start wants to know soon.
    ("grpc.max_reconnect_backoff_ms", 2000),
)
_POLL_SECONDS = 0.1
_POLL_TIMEOUT_SECONDS = 5.0
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
      item_id: which item.
      score: the model's score; higher is better. Comparable within one answer only.
    """

    item_id: str
    score: float


@dataclasses.dataclass(frozen=True)
class VersionState:
    """The state of one version of a model on the server.

    Attributes:
      version: its number.
      state: START, LOADING, AVAILABLE, UNLOADING or END.
      error: why it could not be loaded; empty if it could.
    """

    version: int
    state: str
    error: str


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Type and shape of a signature's input or output.

    Attributes:
      dtype: TensorFlow's name of the type, e.g. `string` or `float`.
      shape: sizes, None where any size is accepted.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class RecommenderClient:
    """Talks to one model of one server. Thread-safe. Use it in a `with` block, or call `close`.

    Every request has a deadline. A request that is not answered, or is answered with an error, raises `ServingError`.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "recommender",
        timeout_seconds: float = 5.0,
        schema: schema_pb2.Schema | None = None,
    ):
        """Connects lazily: nothing is sent before the first request.

        Args:
          address: the server, as `host:port`.
          model_name: the model's name on the server.
          timeout_seconds: deadline of each request.
          schema: tagged schema of the interactions; what does not fit it is refused before it is sent. None: fields are
            taken as they come, the whole history is sent, and feedback cannot be.

        Raises:
          SchemaError: if the schema's tags contradict each other.
        """
        self._address = address
        self._model_name = model_name
        self._timeout_seconds = timeout_seconds
        self._format = RequestFormat() if schema is None else RequestFormat.from_schema(schema)
        self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> RecommenderClient:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def recommend(
        self,
        user: Mapping[str, Any],
        history: Sequence[HistoryEvent] = (),
        *,
        seen: Sequence[str] = (),
        context: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        k: int = 10,
    ) -> list[Recommendation]:
        """Recommends items that the user has not seen, out of the whole catalogue.

        Args:
          user: `user_id` and the user's columns, as far as known.
          history: the user's past events, in any order.
          seen: further items that must not be recommended.
          context: context columns.
          timestamp: time of the request in seconds since 1970 (UTC); None for now.
          k: most recommendations wanted. There are never more than the exported model returns.

        Returns:
          Best first. Fewer than `k` if the catalogue has no more.

        Raises:
          RequestError: if a field does not fit the schema.
          ServingError: if the server does not answer, or answers with an error.
        """
        _check_count(k)
        example = self._example(user, history, seen=seen, context=context, timestamp=timestamp)
        outputs = self.predict("serving_default", {"examples": string_array([example])})
        return _recommendations(outputs, k)

    def rank(
        self,
        user: Mapping[str, Any],
        history: Sequence[HistoryEvent] = (),
        *,
        candidates: Sequence[str],
        seen: Sequence[str] = (),
        context: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> list[Recommendation]:
        """Orders given items for a user; arguments and errors are those of `recommend`.

        Returns:
          All candidates with their scores, best first; among equals, in the order given.
        """
        example = self._example(user, history, seen=seen, context=context, timestamp=timestamp)
        inputs = {"examples": string_array([example]), "candidate_ids": string_array([list(candidates)])}
        scores = self.predict("rank", inputs)["scores"][0].tolist()
        ranked = sorted(zip(candidates, scores, strict=True), key=lambda pair: -pair[1])
        return [Recommendation(item_id, score) for item_id, score in ranked]

    def similar(self, item_id: str, k: int = 10) -> list[Recommendation]:
        """Returns the items most alike to one, best first.

        Raises:
          ServingError: if the server does not answer, or answers with an error.
        """
        _check_count(k)
        return _recommendations(self.predict("similar", {"item_ids": string_array([item_id])}), k)

    def wait_until_available(self, seconds: float) -> bool:
        """Waits while no server listens, or it has not loaded a version yet.

        Does not wait for a version that cannot be loaded, nor on any other error: a request tells what is wrong.

        Args:
          seconds: how long at most.

        Returns:
          Whether a request is worth while now.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                states = {version.state for version in self.status(_POLL_TIMEOUT_SECONDS)}
                if "AVAILABLE" in states or not states & {"START", "LOADING"}:
                    return True
            except ServingError as error:
                if error.code not in _NOT_YET:
                    return True
            if time.monotonic() + _POLL_SECONDS > deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def status(self, timeout_seconds: float | None = None) -> list[VersionState]:
        """Returns the state of each version that the server has tried to load, latest first.

        Args:
          timeout_seconds: deadline, if not the client's.

        Raises:
          ServingError: NOT_FOUND if there is none; or if the server does not answer.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model_name
        response = self._call(self._models.GetModelStatus, request, timeout_seconds)
        return [
            VersionState(entry.version, entry.State.Name(entry.state), entry.status.error_message)
            for entry in response.model_version_status
        ]

    def metadata(self) -> dict[str, Signature]:
        """Returns the signatures of the latest version, by name.

        Raises:
          ServingError: if the server does not answer, or answers with an error.
        """
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model_name
        response = self._call(self._prediction.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            name: Signature(
                {key: _describe(info) for key, info in signature.inputs.items()},
                {key: _describe(info) for key, info in signature.outputs.items()},
            )
            for name, signature in signatures.signature_def.items()
        }

    def predict(
        self, signature: str, inputs: Mapping[str, np.ndarray], timeout_seconds: float | None = None
    ) -> dict[str, np.ndarray]:
        """Runs any signature on arrays, e.g. for a batch; strings are object arrays of `bytes`.

        Args:
          signature: the signature's name.
          inputs: its inputs by name.
          timeout_seconds: deadline, if not the client's.

        Returns:
          Its outputs by name.

        Raises:
          ServingError: if the server does not answer, or answers with an error.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(make_tensor(array))
        response = self._call(self._prediction.Predict, request, timeout_seconds)
        return {name: read_tensor(tensor) for name, tensor in response.outputs.items()}

    def _example(self, *arguments: Any, **named: Any) -> bytes:
        return build_example(*arguments, **named, request_format=self._format).SerializeToString()

    def _call(self, method: Callable[..., Any], request: Any, timeout_seconds: float | None = None) -> Any:
        timeout = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            code, message = error.code(), error.details() or ""
            if code is grpc.StatusCode.UNAVAILABLE:
                message = f"no server answers at this address; is it running? ({message})"
            elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"no answer within {timeout:g} s"
            raise ServingError(code, message, self._address) from error


def _check_count(k: int) -> None:
    if k < 1:
        raise ValueError(f"k: received {k!r}; expected at least 1")


def _recommendations(outputs: Mapping[str, np.ndarray], k: int) -> list[Recommendation]:
    """Reads the first row of an answer; empty ids fill it up where there are no more items."""
    pairs = zip(outputs["item_ids"][0][:k], outputs["scores"][0][:k].tolist(), strict=True)
    return [Recommendation(item_id.decode("utf-8"), score) for item_id, score in pairs if item_id]


def _describe(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    dtype = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
    return TensorInfo(dtype, tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim))
