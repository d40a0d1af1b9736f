"""The calls of a recommender's API: what each sends and how its answer is read, whatever the transport.

A call knows nothing of connections, so the blocking, the asynchronous and the REST client share all of it.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.errors import RequestError, ServingError
from pipeline.serving.field_checks import check_item_ids
from pipeline.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)
from pipeline.serving.readers import (
    read_outputs,
    read_ranking,
    read_recommendations,
    read_signatures,
    read_status,
)
from pipeline.serving.requests import Query, RequestFormat, build_example
from pipeline.serving.results import Outputs, Recommendations, Signature, VersionState
from pipeline.serving.tensors import string_array, write_tensor

Answer = TypeVar("Answer")

MAX_BATCH = 128
"""Queries that go into one request; longer batches are sent as several."""


class Method(enum.Enum):
    """A remote procedure.

    Attributes:
      path: its path over gRPC.
      response_type: class of the message that it answers with.
      read: makes plain values of that message; raises ValueError if it cannot.
    """

    PREDICT = ("/tensorflow.serving.PredictionService/Predict", predict_pb2.PredictResponse, read_outputs)
    METADATA = (
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        get_model_metadata_pb2.GetModelMetadataResponse,
        read_signatures,
    )
    STATUS = (
        "/tensorflow.serving.ModelService/GetModelStatus",
        get_model_status_pb2.GetModelStatusResponse,
        read_status,
    )

    def __init__(self, path: str, response_type: Any, read: Callable[[Any], Any]):
        """Names the parts of the value.

        Args:
          path: path over gRPC.
          response_type: class of the answer's message.
          read: makes plain values of it.
        """
        self.path = path
        self.response_type = response_type
        self.read = read


@dataclasses.dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request.

    Attributes:
      method: what is called.
      request: what is sent.
      read: makes the result of what `method.read` returns; raises ValueError if it is not what was asked for.
      only_output: name of the signature's output if it has just one, which REST leaves out of answers.
    """

    method: Method
    request: Message
    read: Callable[[Any], Answer]
    only_output: str | None = None

    def decode(self, response: bytes, address: str) -> Answer:
        """Reads an answer off the wire.

        Raises:
          ServingError: DATA_LOSS if it cannot be used.
        """
        try:
            return self.read(self.method.read(self.method.response_type.FromString(response)))
        except DecodeError as error:
            name = self.method.response_type.DESCRIPTOR.name
            raise unusable(f"{len(response)} bytes are no {name}", address) from error
        except ValueError as error:
            raise unusable(str(error), address) from error


def unusable(reason: str, address: str) -> ServingError:
    """Returns the error of an answer that came, but cannot be used."""
    return ServingError(grpc.StatusCode.DATA_LOSS, f"the answer cannot be read: {reason}", address)


@dataclasses.dataclass(frozen=True)
class ModelSelection:
    """Which model answers.

    Attributes:
      name: its name on the server.
      version: its version; None for the label's, or the latest.
      label: name of a version, e.g. `stable`; None for the given version, or the latest.

    Raises:
      ValueError: if both a version and a label are given, or the name is empty.
    """

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("model_name: received ''; expected the name of a model")
        if self.version is not None and self.label is not None:
            raise ValueError(f"received version={self.version!r} and label={self.label!r}; expected at most one")
        if self.version is not None and not 0 <= self.version < 2**63:
            raise ValueError(f"version: received {self.version!r}; expected a number from 0 to {2**63 - 1}")
        if self.label == "":
            raise ValueError("label: received ''; expected the name of a version, or None")

    def write(self, spec: model_pb2.ModelSpec) -> None:
        """Writes the selection into a request."""
        spec.name = self.name
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label


class Calls:
    """Makes the calls for one model."""

    def __init__(self, model: ModelSelection, schema: schema_pb2.Schema | None):
        """Derives the format of requests.

        Args:
          model: which model answers.
          schema: tagged schema that requests must fit; None to take fields as they come.

        Raises:
          SchemaError: if the schema's tags contradict each other.
        """
        self.model = model
        self._format = RequestFormat() if schema is None else RequestFormat.from_schema(schema)

    def recommend(self, queries: Sequence[Query], k: int, *, numbered: bool) -> Iterator[Call[list[Recommendations]]]:
        """Yields the requests for queries, at most `MAX_BATCH` in each.

        All queries are checked before the first request goes out.

        Args:
          queries: who asks.
          k: most recommendations for each.
          numbered: whether errors say which query they are about.

        Raises:
          RequestError: if a field does not fit the schema, or `k` is below 1.
        """
        _check_count(k)
        examples = [
            self._example(query, f"queries[{position}]: " if numbered else "") for position, query in enumerate(queries)
        ]
        return self._chunks(
            examples,
            lambda chunk: self.predict("serving_default", {"examples": string_array(chunk)}).request,
            k,
        )

    def rank(self, query: Query, candidates: Sequence[str]) -> Call[Recommendations]:
        """Returns the request that orders candidates.

        Raises:
          RequestError: if a field does not fit the schema, or there is no candidate.
        """
        check_item_ids("candidates", candidates)
        candidates = list(candidates)
        if not candidates:
            raise RequestError("candidates: received []; expected at least one item id")
        inputs = {"examples": string_array([self._example(query, "")]), "candidate_ids": string_array([candidates])}
        request = self.predict("rank", inputs).request
        return Call(Method.PREDICT, request, functools.partial(read_ranking, candidates=candidates), "scores")

    def similar(self, item_ids: Sequence[str], k: int) -> Iterator[Call[list[Recommendations]]]:
        """Yields the requests for items, at most `MAX_BATCH` in each.

        Raises:
          RequestError: if an item id is empty or no text, or `k` is below 1.
        """
        _check_count(k)
        check_item_ids("item_ids", item_ids)
        return self._chunks(
            item_ids, lambda chunk: self.predict("similar", {"item_ids": string_array(list(chunk))}).request, k
        )

    def predict(self, signature: str, inputs: Mapping[str, np.ndarray]) -> Call[Outputs]:
        """Returns the request that runs any signature."""
        request = predict_pb2.PredictRequest()
        self.model.write(request.model_spec)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            write_tensor(array, request.inputs[name])
        return Call(Method.PREDICT, request, _as_it_is)

    def metadata(self) -> Call[dict[str, Signature]]:
        """Returns the request for the signatures."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self.model.write(request.model_spec)
        return Call(Method.METADATA, request, _as_it_is)

    def status(self) -> Call[list[VersionState]]:
        """Returns the request for the state of the versions."""
        request = get_model_status_pb2.GetModelStatusRequest()
        self.model.write(request.model_spec)
        return Call(Method.STATUS, request, _as_it_is)

    def _example(self, query: Query, prefix: str) -> bytes:
        try:
            return build_example(
                query.user,
                query.history,
                seen=query.seen,
                context=query.context,
                timestamp=query.timestamp,
                request_format=self._format,
            ).SerializeToString()
        except RequestError as error:
            raise RequestError(f"{prefix}{error}") from error

    @staticmethod
    def _chunks(
        rows: Sequence[Any], build: Callable[[Sequence[Any]], Message], k: int
    ) -> Iterator[Call[list[Recommendations]]]:
        for start in range(0, len(rows), MAX_BATCH):
            chunk = rows[start : start + MAX_BATCH]
            yield Call(Method.PREDICT, build(chunk), functools.partial(read_recommendations, rows=len(chunk), k=k))


def _as_it_is(value: Any) -> Any:
    return value


def _check_count(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or k < 1:
        raise RequestError(f"k: received {k!r}; expected at least 1")
