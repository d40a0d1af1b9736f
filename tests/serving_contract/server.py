"""The server that the contract is checked on: started here, or anywhere else."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message

from pipeline.serving.messages import get_model_status_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc
from tests.free_ports import free_ports
from tests.serving_contract.configuration import STATES, server_flags
from tests.serving_contract.contract import Answer, Failure, RpcCase
from tests.serving_contract.messages import REQUESTS, parse

TIMEOUT_SECONDS = 120.0
CONNECT_SECONDS = 15.0
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))


class Server:
    """A server by its addresses.

    Attributes:
      channel: gRPC channel.
      rest_address: `host:port` of the REST API; empty if it is not to be checked.
      models: folder of the models that it serves; None if not known.
    """

    def __init__(self, address: str, rest_address: str, models: Path | None):
        """Connects when first used.

        Args:
          address: `host:port` of the gRPC service.
          rest_address: `host:port` of the REST API, or empty.
          models: folder of the models that it serves, if known.
        """
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.rest_address = rest_address
        self.models = models
        services = (
            prediction_service_pb2_grpc.PredictionServiceStub(self.channel),
            model_service_pb2_grpc.ModelServiceStub(self.channel),
        )
        self._methods = {
            rpc: getattr(service, rpc) for service in services for rpc in REQUESTS if hasattr(service, rpc)
        }

    def call(self, rpc: str, request: Message) -> Message:
        """Calls an RPC; a failure is a `grpc.RpcError`."""
        return self._methods[rpc](request, timeout=TIMEOUT_SECONDS)

    def outcome(self, case: RpcCase) -> str:
        """Returns how a call ended as text: the response, or the error's code and message."""
        try:
            return canonical(self.call(case.rpc, case.request()))
        except grpc.RpcError as error:
            return describe(error.code(), error.details())

    def http(self, method: str, path: str, body: bytes = b"") -> tuple[int, Mapping[str, str], bytes]:
        """Sends an HTTP request, its path as it is; returns the status, the headers and the body."""
        connection = http.client.HTTPConnection(self.rest_address, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body or None)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def states(self, model: str) -> dict[int, str]:
        """Returns the states of a model's versions, in the order of the response; empty if it is not known."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response = self.call("GetModelStatus", request)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise
        assert isinstance(response, get_model_status_pb2.GetModelStatusResponse)
        states = get_model_status_pb2.ModelVersionStatus.State
        return {status.version: states.Name(status.state) for status in response.model_version_status}

    def wait_for_models(self) -> None:
        """Waits until the models are in their final `STATES`.

        Raises:
          TimeoutError: if they do not come to be, or nothing listens.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        try:
            grpc.channel_ready_future(self.channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            raise TimeoutError(f"no gRPC server answers within {CONNECT_SECONDS:g} s") from None
        for model, expected in STATES.items():
            while not expected.items() <= (received := self.states(model)).items():
                if time.monotonic() > deadline:
                    raise TimeoutError(f"expected versions of {model}: {dict(expected)}; received {received}")
                time.sleep(0.05)


def canonical(message: Message) -> str:
    """Returns a message as text, maps sorted and packed messages unpacked."""
    return text_format.MessageToString(message)


def describe(code: grpc.StatusCode, message: str | None) -> str:
    """Returns an error as text."""
    return f"{code.name}: {message}"


def expected_outcome(expected: Failure | Answer, response: type[Message]) -> str:
    """Returns an outcome that is known to the byte, as `Server.outcome` puts it."""
    if isinstance(expected, Failure):
        return describe(expected.code, expected.message)
    return canonical(parse(expected.text, response()))


def write_models(folder: Path) -> None:
    """Writes the contract's models in a process of its own, since this one may do without TensorFlow's runtime.

    Raises:
      subprocess.CalledProcessError: if it fails.
    """
    command = [sys.executable, "-m", "tests.serving_contract.models", str(folder)]
    subprocess.run(command, check=True, env=_environment(), stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def local_server(folder: Path, log: Path) -> Iterator[Server]:
    """Runs the project's own server on the models in a folder, in a process of its own.

    Args:
      folder: folder of the models.
      log: file that the server's output goes to.

    Yields:
      The server, with its models loaded.

    Raises:
      RuntimeError: if the process ends before it serves.
    """
    port, rest_port = free_ports(2)
    command = [sys.executable, "-m", "pipeline.serving.server", f"--port={port}", f"--rest_api_port={rest_port}"]
    command += [*server_flags(folder), "--stop_on_end_of_input=true", "--grace_seconds=1"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        ) as process,
    ):
        try:
            server = Server(f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}", folder)
            _wait_for_port(process, port, log)
            _wait_for_port(process, rest_port, log)
            server.wait_for_models()
            yield server
            server.channel.close()
        finally:
            process.kill()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not come to listen on port {port}; its log:\n{log.read_text()}")
        time.sleep(0.05)


def _environment() -> dict[str, str]:
    # Not all of `sys.path`: what some libraries add to it has a package `tests` of its own.
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
