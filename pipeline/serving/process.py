"""`ServerProcess`: the local server in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from pipeline.serving.client import RecommenderClient, VersionState
from pipeline.serving.errors import ServingError

_LISTENING = re.compile(r"listening on (?P<grpc>\S+) \(gRPC\)(?: and (?P<rest>\S+) \(REST\))?$", re.MULTILINE)
_POLL_SECONDS = 0.05
_LOG_TAIL_LINES = 20


class ServerProcessError(RuntimeError):
    """A server process that did not come to serve its model. The message holds the reason and the log's tail."""


class ServerProcess:
    """Starts the local server on a free port, waits until the model is available, and always ends the process.

    The process also ends by itself when this one is gone, however it went.

    Attributes:
      address: where the server listens for gRPC, as `host:port`; known inside the `with` block.
      rest_address: where it listens for HTTP, as `host:port`; empty without a REST API.
    """

    def __init__(
        self,
        base_path: str,
        model_name: str,
        timeout_seconds: float = 120.0,
        *,
        with_rest: bool = False,
        options: Sequence[str] = (),
    ):
        """Starts nothing yet; the `with` block does.

        Args:
          base_path: folder of the numbered version folders.
          model_name: name that clients ask for.
          timeout_seconds: time that the process has to start and load the model.
          with_rest: whether to offer the REST API as well, on a free port.
          options: further options of the server's command line, e.g. `--enable_batching`.
        """
        self._base_path = base_path
        self._model_name = model_name
        self._options = (*(("--rest_api_port=0",) if with_rest else ()), *options)
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._log_folder: tempfile.TemporaryDirectory[str] | None = None
        self.address = ""
        self.rest_address = ""

    def __enter__(self) -> ServerProcess:
        """Starts the process.

        Raises:
          ServerProcessError: if the process ends, the model does not load, or time runs out.
        """
        self._log_folder = tempfile.TemporaryDirectory(prefix="server-")
        command = [sys.executable, "-m", "pipeline.serving.server", "--stop_on_end_of_input", "--port=0"]
        command += [
            f"--model_base_path={self._base_path}",
            f"--model_name={self._model_name}",
            "--max_num_load_retries=0",
        ]
        command += self._options
        # The child finds modules where this process does, however it was told.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            with self._log_file.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            self._wait_until_available()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        """Ends the process, with force if need be."""
        if self._process is not None:
            self.kill()
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self._log_folder is not None:
            self._log_folder.cleanup()

    def kill(self) -> None:
        """Ends the process at once, as a crash would, and waits until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def process_id(self) -> int:
        """The operating system's id of the process."""
        if self._process is None:
            raise RuntimeError("the server process has not been started")
        return self._process.pid

    def log_tail(self) -> str:
        """Returns the last lines of the server's log."""
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    @property
    def _log_file(self) -> Path:
        assert self._log_folder is not None
        return Path(self._log_folder.name, "log")

    def _wait_until_available(self) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        match = self._wait_for_addresses(deadline)
        self.address, self.rest_address = match["grpc"], match["rest"] or ""
        with RecommenderClient(self.address, self._model_name) as client:
            while True:
                for version in self._versions(client):
                    if version.state == "AVAILABLE":
                        return
                    if version.error:
                        raise ServerProcessError(f"the server could not load the model: {version.error}")
                self._check_progress(deadline, "loaded the model")

    def _wait_for_addresses(self, deadline: float) -> re.Match[str]:
        while not (match := _LISTENING.search(self._log_file.read_text(encoding="utf-8", errors="replace"))):
            self._check_progress(deadline, "started")
        return match

    def _versions(self, client: RecommenderClient) -> Sequence[VersionState]:
        """Returns what the server knows about the model's versions; nothing before it begins to load one."""
        try:
            return client.status()
        except ServingError as error:
            if error.code is grpc.StatusCode.NOT_FOUND:
                return ()
            raise ServerProcessError(f"{error}; its log ends:\n{self.log_tail()}") from error

    def _check_progress(self, deadline: float, achievement: str) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise ServerProcessError(
                f"the server ended with exit code {self._process.returncode}; its log ends:\n{self.log_tail()}"
            )
        if time.monotonic() > deadline:
            raise ServerProcessError(
                f"the server has not {achievement} within {self._timeout_seconds:g} s; its log ends:\n{self.log_tail()}"
            )
        time.sleep(_POLL_SECONDS)
