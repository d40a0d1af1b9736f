"""`RecommenderClient`: recommendations from TensorFlow Serving, or from the local server, in plain Python values."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping

import grpc
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.calls import Answer, Call, Calls, ModelSelection
from pipeline.serving.channels import TlsOptions, check_metadata, explain, open_channel
from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError
from pipeline.serving.methods import RecommenderMethods
from pipeline.serving.requests import HistoryEvent, Query
from pipeline.serving.results import (
    Outputs,
    Recommendation,
    Recommendations,
    Signature,
    TensorInfo,
    VersionState,
)
from pipeline.serving.retries import DEFAULT_RETRY, NO_RETRY, Retries, RetryPolicy

__all__ = [
    "HistoryEvent",
    "Outputs",
    "Query",
    "Recommendation",
    "Recommendations",
    "RecommenderClient",
    "RetryPolicy",
    "Signature",
    "TensorInfo",
    "TlsOptions",
    "VersionState",
]


class RecommenderClient(RecommenderMethods):
    """Talks to one model of one server over gRPC, on one connection. Thread-safe.

    Use it in a `with` block, or call `close`.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "recommender",
        timeout_seconds: float = 5.0,
        schema: schema_pb2.Schema | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        tls: TlsOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        generator: random.Random | None = None,
    ):
        """Connects lazily: nothing is sent before the first request.

        Args:
          address: the server, as `host:port`.
          model_name: the model's name on the server.
          timeout_seconds: deadline of each method, retries included.
          schema: tagged schema of the interactions; what does not fit it is refused before it is sent. None: fields are
            taken as they come, the whole history is sent, and feedback cannot be.
          version: the version that answers; None for the latest.
          label: name of the version that answers, e.g. `stable`, instead of its number.
          tls: how to encrypt the connection; None not to.
          metadata: sent along with each request, e.g. `{"authorization": "Bearer …"}`. Keys in lower case.
          retry: when requests are sent again.
          generator: makes the waits before retries random; None for one that differs from client to client.

        Raises:
          SchemaError: if the schema's tags contradict each other.
          ValueError: if an argument is out of its range.
          OSError: if a file of `tls` cannot be read.
        """
        super().__init__(Calls(ModelSelection(model_name, version, label), schema), timeout_seconds)
        self._address = address
        self._retries = Retries(retry, generator)
        self._metadata = check_metadata(metadata)
        self._channel = open_channel(grpc, address, tls)
        self._closed = False

    def close(self) -> None:
        """Closes the connection. A call of another thread that is under way ends with the code CANCELLED."""
        self._closed = True
        self._channel.close()

    def _send(self, call: Call[Answer], deadline: Deadline, *, retry: bool = True) -> Answer:
        method, request = self._channel.unary_unary(call.method.path), call.request.SerializeToString()
        retries = self._retries if retry else Retries(NO_RETRY)
        for attempt in itertools.count(1):
            try:
                response = method(request, timeout=deadline.remaining, metadata=self._metadata)
                break
            except grpc.RpcError as failure:
                if self._closed and failure.code() is grpc.StatusCode.CANCELLED:
                    raise ServingError(failure.code(), "the client was closed", self._address) from failure
                error = explain(failure.code(), failure.details() or "", self._address, deadline)
                wait = retries.wait_after(attempt, error, deadline)
                if wait is None:
                    raise error from failure
            except ValueError as error:  # gRPC's way to say that the channel is closed.
                if attempt == 1:
                    raise RuntimeError("the client is closed") from error
                raise ServingError(grpc.StatusCode.CANCELLED, "the client was closed", self._address) from error
            time.sleep(wait)
        retries.answered()
        return call.decode(response, self._address)
