"""Servers on the loopback interface: of one file, which can be told to misbehave, and none at all."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator

import pytest


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `content` at every path, with byte ranges.

    Attributes:
      content: what it serves.
      cut_after: bytes of the next answer after which it closes the connection, then forgets about it. None: never.
      honours_ranges: whether it answers 206 to a `Range`, or 200 with everything.
      ranges: the `Range` header (or None) of each request received.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b""
        self.cut_after: int | None = None
        self.honours_ranges = True
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ml-100k.zip"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        content, first = self.server.content, 0
        if requested and self.server.honours_ranges:
            first = int(requested.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[first:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(body[:cut])

    def log_message(self, *arguments: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """A port that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/ml-100k.zip"
