"""A local model server that speaks TensorFlow Serving's gRPC protocol.

It is for development and for validating a candidate before it is pushed: same requests, same error codes and texts,
same handling of versions as TensorFlow Serving, without a container. Run it with
`python -m pipeline.serving.server --base-path runs/…/serving/recommender --model-name recommender`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
import tensorflow as tf
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from pipeline.serving.model_manager import ModelManager

SIGNATURE_DEF = "signature_def"
GRACE_SECONDS = 10.0
"""Time that requests under way have to finish when the server stops."""

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),  # A port in use is an error, not a port shared with a stranger.
)


def _rpc(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    """Turns a method from request to response into an RPC: errors become the call's status."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            if not request.HasField("model_spec"):
                raise invalid_argument("Missing ModelSpec")
            return method(self, request)
        except StatusError as error:
            failure = error
        except Exception as error:
            logging.exception("%s failed", method.__name__)
            failure = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        return context.abort(failure.code, failure.details)

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers inference requests and describes the models' signatures."""

    def __init__(self, manager: ModelManager):
        self._manager = manager

    @_rpc
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        with self._manager.acquire(request.model_spec) as (version, servable):
            response = servable.predict(request)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        return response

    @_rpc
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describes a model's signatures."""
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid_argument(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._manager.acquire(request.model_spec) as (version, servable):
            for name, signature in servable.signatures.items():
                signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports the state of the models' versions."""

    def __init__(self, manager: ModelManager):
        self._manager = manager

    @_rpc
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Lists the versions with their states, latest version first."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, status in self._manager.statuses(request.model_spec).items():
            entry = response.model_version_status.add(version=version, state=int(status.state))
            entry.status.error_code = status.error.code.value[0] if status.error else 0
            entry.status.error_message = status.error.message if status.error else ""
        return response


class ModelServer:
    """The server: a socket, the services and the models behind them."""

    def __init__(
        self,
        base_path: str,
        model_name: str,
        port: int = 8500,
        *,
        host: str = "127.0.0.1",
        poll_seconds: float = 1.0,
        max_workers: int = 8,
        on_available: Callable[[str, int], None] = lambda name, version: None,
    ):
        """Binds the socket; `start` begins to listen and to load.

        Args:
          base_path: folder of the numbered version folders.
          model_name: name that clients ask for.
          port: port to listen on; 0 picks a free one.
          host: interface to listen on.
          poll_seconds: time between two looks for new versions.
          max_workers: requests that are worked on at once.
          on_available: is called with the model's name and version whenever one begins to serve.

        Raises:
          OSError: if the address cannot be listened on.
        """
        self._manager = ModelManager({model_name: base_path}, poll_seconds, on_available)
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(max_workers, thread_name_prefix="rpc"), options=_CHANNEL_OPTIONS
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._manager), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self._manager), self._server)
        try:
            bound_port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host}:{port}; is another server running there?") from error
        self.address = f"{host}:{bound_port}"
        """Where clients reach it, as `host:port`."""

    def start(self) -> None:
        """Begins to answer and to load, and returns at once."""
        self._server.start()
        self._manager.start()

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Refuses new requests, waits for those under way and unloads the models."""
        self._server.stop(grace_seconds).wait()
        self._manager.close()

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()


def serve(
    base_path: str,
    model_name: str,
    port: int = 8500,
    *,
    host: str = "127.0.0.1",
    poll_seconds: float = 1.0,
    stop_on_end_of_input: bool = False,
) -> None:
    """Serves a model until SIGTERM or SIGINT, then stops gracefully. Call it from the main thread.

    Whenever a version begins to serve, it prints `serving <model> version <version> on <host:port>`.

    Args:
      base_path: folder of the numbered version folders; may be empty still.
      model_name: name that clients ask for.
      port: port to listen on; 0 picks a free one.
      host: interface to listen on.
      poll_seconds: time between two looks for new versions.
      stop_on_end_of_input: also stop when standard input ends, so that no server outlives the process that holds the
        other end.

    Raises:
      OSError: if the address cannot be listened on.
    """
    stop = threading.Event()

    def announce(name: str, version: int) -> None:
        print(f"serving {name} version {version} on {server.address}", flush=True)

    def wait_for_end_of_input() -> None:
        sys.stdin.read()
        stop.set()

    server = ModelServer(base_path, model_name, port, host=host, poll_seconds=poll_seconds, on_available=announce)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    if stop_on_end_of_input:
        threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    try:
        with server:
            logging.info("listening on %s", server.address)
            stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> None:
    """Runs the server from the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.serving.server", description=__doc__)
    parser.add_argument("--base-path", required=True, help="folder of the numbered version folders")
    parser.add_argument("--model-name", required=True, help="name that clients ask for")
    parser.add_argument("--port", type=int, default=8500, help="gRPC port; 0 picks a free one")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on, e.g. 0.0.0.0")
    parser.add_argument("--poll-seconds", type=float, default=1.0, help="time between two looks for new versions")
    parser.add_argument("--stop-on-end-of-input", action="store_true", help="also stop when standard input is closed")
    options = parser.parse_args(arguments)
    logging.set_verbosity(logging.INFO)
    tf.get_logger().setLevel("ERROR")
    try:
        serve(**vars(options))
    except OSError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
