"""Servers on real sockets that are down, slow, full or mad, for clients to cope with."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc

Handler = Callable[[bytes, grpc.ServicerContext], bytes]


@contextlib.contextmanager
def unheard_address() -> Iterator[str]:
    """Yields an address where nothing listens, and nobody else will meanwhile."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield _address(unheard)


class RawServer:
    """Says one thing to whoever connects, byte by byte if so told, and counts them.

    Args:
      first: what is sent at once.
      then: what is sent after the first bytes of the client.
      close: whether the connection is closed after that.
      pause_seconds: time before each byte of `then`, if not 0.
    """

    def __init__(self, first: bytes = b"", then: bytes = b"", close: bool = False, pause_seconds: float = 0.0):
        self._first, self._then, self._close, self._pause_seconds = first, then, close, pause_seconds
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self.address = _address(self._socket)

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        for connection in (self._socket, *self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # Until the socket is closed.
            while True:
                connection, _ = self._socket.accept()
                self._connections.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(self._first)
            if self._then and connection.recv(4096):
                for byte in self._then if self._pause_seconds else ():
                    time.sleep(self._pause_seconds)
                    connection.sendall(bytes([byte]))
                if not self._pause_seconds:
                    connection.sendall(self._then)
            if self._close:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()


class GrpcServer(grpc.GenericRpcHandler):
    """Answers every call with what a function makes of it; remembers paths and metadata.

    Args:
      handler: makes the answer's bytes of the request's, or aborts.
      credentials: for TLS.
      port: where it listens; 0 for a free port.
    """

    def __init__(self, handler: Handler, credentials: grpc.ServerCredentials | None = None, port: int = 0):
        self._handler = handler
        self.paths: list[str] = []
        self.metadata: list[dict[str, str]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        if credentials is None:
            port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.address = f"127.0.0.1:{port}"

    def __enter__(self) -> GrpcServer:
        self._server.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.stop(0).wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.paths.append(handler_call_details.method)
            self.metadata.append(dict(handler_call_details.invocation_metadata))
            return self._handler(request, context)

        return grpc.unary_unary_rpc_method_handler(answer)


class HttpServer:
    """Answers every request with what a function makes of it; remembers paths, headers and bodies.

    Args:
      handler: from path and body to status and body; what is no bytes is sent as JSON.
      context: for TLS.
    """

    def __init__(self, handler: Callable[[str, bytes], tuple[int, object]], context: ssl.SSLContext | None = None):
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        requests = self.requests

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                status, content = handler(self.path, body)
                encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                with contextlib.suppress(OSError):  # The client may have given up.
                    self.wfile.write(encoded)

            do_POST = do_GET

            def log_message(self, *unused: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> HttpServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def failing_first(failures: int, code: grpc.StatusCode, answer: bytes) -> Handler:
    """Returns a handler that aborts as often, then answers."""
    calls = iter(range(failures))

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        if next(calls, None) is not None:
            context.abort(code, "not now")
        return answer

    return handle


def _address(bound: socket.socket) -> str:
    return f"127.0.0.1:{bound.getsockname()[1]}"
