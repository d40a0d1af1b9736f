"""A model server that runs: what it serves, and how it is told to serve something else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from pipeline.serving.channels import TlsOptions, explain, open_channel
from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError, status_code
from pipeline.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_server_config_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from pipeline.serving.readers import read_status
from pipeline.serving.results import VersionState

_POLL_SECONDS = 0.1
_STALE_ERROR_SECONDS = 3.0
"""Time that a server has to begin to load a version which it failed to load earlier."""


class NotLoadedError(RuntimeError):
    """A version that did not become available. The message says why."""


class LiveServer:
    """Talks to a server about one model. Use it in a `with` block."""

    def __init__(self, address: str, model_name: str, timeout_seconds: float = 10.0, tls: TlsOptions | None = None):
        """Connects lazily.

        Args:
          address: the server, as `host:port`.
          model_name: the model's name on the server.
          timeout_seconds: deadline of each request, unless it says otherwise.
          tls: how to encrypt; None not to.

        Raises:
          OSError: if a file of `tls` cannot be read.
        """
        self.address = address
        self.model_name = model_name
        self._timeout_seconds = timeout_seconds
        self._channel = open_channel(grpc, address, tls)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *unused: object) -> None:
        self._channel.close()

    def statuses(self) -> dict[int, VersionState]:
        """Returns the status of each version that the server knows.

        Raises:
          ServingError: if the server does not answer.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.model_name
        try:
            response = self._call(self._models.GetModelStatus, request)
        except ServingError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        return {status.version: status for status in read_status(response)}

    def reload(self, config: model_server_config_pb2.ModelServerConfig, timeout_seconds: float) -> None:
        """Gives the server a new configuration in place of its own.

        Raises:
          ServingError: if it does not take it.
        """
        request = model_management_pb2.ReloadConfigRequest(config=config)
        response = self._call(self._models.HandleReloadConfigRequest, request, timeout_seconds)
        if response.status.error_code:
            raise ServingError(status_code(response.status.error_code), response.status.error_message, self.address)

    def resolve(self, label: str) -> int:
        """Returns the version that answers for a label.

        Raises:
          ServingError: if none does.
        """
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self.model_name
        request.model_spec.version_label = label
        return int(self._call(self._prediction.GetModelMetadata, request).model_spec.version.value)

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Sends a request as it is.

        Raises:
          ServingError: if it is not answered, or with an error.
        """
        return self._call(self._prediction.Predict, request)

    def wait_until_available(self, version: int, seconds: float, before: Mapping[int, VersionState]) -> None:
        """Waits until a version that the server was told to load is available.

        Args:
          version: its number.
          seconds: how long at most.
          before: the statuses before it was told so: an error from then says nothing of now.

        Raises:
          NotLoadedError: if it cannot be loaded, or time is over.
          ServingError: if the server does not answer.
        """
        started = time.monotonic()
        fresh = False
        while True:
            status = self.statuses().get(version)
            if status is not None and status.state == "AVAILABLE":
                return
            elapsed = time.monotonic() - started
            fresh = fresh or status != before.get(version) or elapsed > _STALE_ERROR_SECONDS
            if status is not None and status.state == "END" and status.error and fresh:
                raise NotLoadedError(f"the server cannot load it: {status.error}")
            if elapsed > seconds:
                state = "has not begun to load it" if status is None else f"says {status.state}"
                raise NotLoadedError(f"it is not available after {seconds:g} s; the server {state}")
            time.sleep(_POLL_SECONDS)

    def _call(self, method: Callable[..., Any], request: Any, timeout_seconds: float | None = None) -> Any:
        deadline = Deadline(self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        try:
            return method(request, timeout=deadline.seconds)
        except grpc.RpcError as error:
            raise explain(error.code(), error.details() or "", self.address, deadline) from error
