"""The gRPC side of the server: PredictionService, ModelService and the health service.

Sources: `model_servers/server.cc`, `prediction_service_impl.cc` and `model_service_impl.cc` of TensorFlow Serving.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from absl import logging
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from pipeline.serving.server.admission import Admission
from pipeline.serving.server.config_files import TlsSettings
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.services import Services
from pipeline.serving.server.tls import server_credentials

HEALTH_SERVICES = ("", "ModelService", "PredictionService")
"""Names whose health can be asked for; the empty one is the server as a whole."""

_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
_MODEL_SERVICE = "tensorflow.serving.ModelService"
_TIMED = frozenset({"Predict", "Classify", "Regress"})
_Handler = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class GrpcTransport:
    """A gRPC server on the running event loop."""

    def __init__(
        self,
        services: Services,
        metrics: ServerMetrics,
        admission: Admission,
        *,
        max_message_bytes: int,
        with_health: bool,
    ):
        """Makes the server; `listen` gives it addresses and `start` starts it. Call it on the event loop.

        Args:
          services: what answers.
          metrics: is told how long requests took.
          admission: bounds the requests to run a model.
          max_message_bytes: largest message to receive or send.
          with_health: whether to add gRPC's health service.
        """
        self._services = services
        self._metrics = metrics
        self._admission = admission
        options = (
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.so_reuseport", 0),  # A port in use is an error, not a port shared with a stranger.
        )
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(self._handlers())
        self._health = health.aio.HealthServicer() if with_health else None
        if self._health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def listen(self, address: str, tls: TlsSettings | None) -> int:
        """Adds an address to listen on and returns the port.

        Args:
          address: `host:port`, where port 0 picks a free one, or `unix:PATH`.
          tls: how to encrypt, if at all.

        Raises:
          OSError: if the address cannot be listened on.
        """
        try:
            if tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, server_credentials(tls))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}; is another server running there?") from error

    async def start(self) -> None:
        """Begins to answer."""
        await self._server.start()

    async def set_serving(self, is_serving: bool) -> None:
        """Tells clients of the health service whether to send requests here."""
        if self._health is not None:
            states = health_pb2.HealthCheckResponse
            for name in HEALTH_SERVICES:
                await self._health.set(name, states.SERVING if is_serving else states.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Refuses new requests, waits for those under way, and cancels what is left after `grace_seconds`."""
        await self._server.stop(grace_seconds)

    def _handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        services = self._services
        status, reload = get_model_status_pb2.GetModelStatusRequest, model_management_pb2.ReloadConfigRequest
        metadata = get_model_metadata_pb2.GetModelMetadataRequest
        prediction: dict[str, _Handler] = {
            "Predict": self._running("Predict", predict_pb2.PredictRequest, services.predict),
            "Classify": self._running("Classify", classification_pb2.ClassificationRequest, services.classify),
            "Regress": self._running("Regress", regression_pb2.RegressionRequest, services.regress),
            "MultiInference": self._running(
                "MultiInference", inference_pb2.MultiInferenceRequest, services.multi_inference
            ),
            "GetModelMetadata": _handler("GetModelMetadata", metadata, services.get_model_metadata),
        }
        models: dict[str, _Handler] = {
            "GetModelStatus": _handler("GetModelStatus", status, services.get_model_status),
            "HandleReloadConfigRequest": _handler("HandleReloadConfigRequest", reload, services.handle_reload_config),
        }
        return [
            grpc.method_handlers_generic_handler(
                service, {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}
            )
            for service, handlers in ((_PREDICTION_SERVICE, prediction), (_MODEL_SERVICE, models))
        ]

    def _running(self, name: str, request_type: type[Message], method: Callable[[Any], Awaitable[Message]]) -> _Handler:
        """Returns the handler of a method that runs a model: it is bounded, and timed if it succeeds."""

        async def run(request: Any) -> Message:
            started = time.perf_counter()
            with self._admission:
                response = await method(request)
            if name in _TIMED:
                self._metrics.request_latency(request.model_spec.name, name, "GRPC", time.perf_counter() - started)
            return response

        return _handler(name, request_type, run)


def _handler(name: str, request_type: type[Message], method: Callable[[Any], Awaitable[Message]]) -> _Handler:
    """Returns the handler of a method from request to response: errors become the call's status.

    It takes and gives bytes, so that nothing but this function sees a message that cannot be parsed.
    """

    async def answer(serialized: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = request_type.FromString(serialized)
            return (await method(request)).SerializeToString()
        except StatusError as error:
            failure = error
        except DecodeError:
            failure = StatusError(grpc.StatusCode.INTERNAL, f"the request is no {request_type.DESCRIPTOR.full_name}")
        except Exception as error:
            logging.exception("%s failed", name)
            failure = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        await context.abort(failure.code, failure.details)
        raise AssertionError("abort raises")

    return answer
