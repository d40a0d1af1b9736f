"""Beam's own job service and a pool of Python workers, each in processes of their own, as a stand-in for a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.free_ports import free_ports

_START_SECONDS = 120


@contextlib.contextmanager
def serve_jobs(folder: Path) -> Iterator[str]:
    """Runs both while the block does.

    Args:
      folder: gets the logs and what jobs stage; must exist.

    Yields:
      The value of the configuration's `beam` that has the pipeline run there.
    """
    jobs, workers = free_ports(2)
    root = str(Path(__file__).parents[2])
    # The pool starts workers by the name `python`, which must be this one.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": root, "no_proxy": "localhost"}
    modules = {
        "portability.local_job_service_main": [f"--port={jobs}", f"--staging_dir={folder / 'staging'}"],
        "worker.worker_pool_main": [f"--service_port={workers}"],
    }
    with contextlib.ExitStack() as stack:
        for module, arguments in modules.items():
            log = stack.enter_context((folder / f"{module}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"apache_beam.runners.{module}", *arguments],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_end, process)
        for port in (jobs, workers):
            _await_port(port)
        yield (
            f"{{runner: portable, endpoint: 'localhost:{jobs}', environment_type: EXTERNAL, "
            f"environment_config: 'localhost:{workers}'}}"
        )


def _await_port(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing listens on port {port} after {_START_SECONDS} s")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a service and the workers that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
