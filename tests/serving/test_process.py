"""The server process that validators use: it serves, it says why it cannot, and it never stays behind."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.serving.client import Recommendation, RecommenderClient
from pipeline.serving.process import ServerProcess, ServerProcessError
from tests.serving.saved_models import export_recommender, publish, truncate


def is_running(process_id: int) -> bool:
    try:
        # A process that has ended but that nobody has asked about yet does not count.
        return "Z" not in Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_process_serves_and_ends(tmp_path: Path):
    publish(export_recommender(tmp_path / "model"), tmp_path / "base", 1)
    with (
        ServerProcess(str(tmp_path / "base"), "films", 120) as server,
        RecommenderClient(server.address, "films") as client,
    ):
        assert client.recommend({}, k=1) == [Recommendation("i0", 1.0)]
        process_id = server.process_id
        assert is_running(process_id)
        assert f"listening on {server.address} (gRPC)" in server.log_tail()
        assert server.rest_address == ""
    assert not is_running(process_id)


def test_a_server_process_takes_further_options_and_may_be_killed(tmp_path: Path):
    publish(export_recommender(tmp_path / "model"), tmp_path / "base", 1)
    server = ServerProcess(
        str(tmp_path / "base"), "films", 120, with_rest=True, options=["--enable_batching", "--metrics_path=/metrics"]
    )
    with server:
        connection = http.client.HTTPConnection(server.rest_address, timeout=30)
        connection.request("POST", "/v1/models/films:predict", b'{"instances": [{"b64": ""}]}')
        assert b'"item_ids": ["i0", "i1"' in connection.getresponse().read()
        connection.request("GET", "/metrics")
        assert b"batching_session:wrapped_run_count{} 1" in connection.getresponse().read()
        connection.close()
        server.kill()
        assert not is_running(server.process_id)
        with pytest.raises(ConnectionRefusedError):
            connection.request("GET", "/metrics")


def test_a_server_process_fails_when_the_model_does_not_load(tmp_path: Path):
    truncate(publish(export_recommender(tmp_path / "model"), tmp_path / "base", 1))
    server = ServerProcess(str(tmp_path / "base"), "films", 120)
    with pytest.raises(ServerProcessError, match="could not load the model: Can't parse"), server:
        pass
    assert not is_running(server.process_id)


def test_a_server_process_fails_when_time_runs_out(tmp_path: Path):
    server = ServerProcess(str(tmp_path), "films", 0.1)
    with pytest.raises(ServerProcessError, match=r"has not started within 0.1 s"), server:
        pass
    assert not is_running(server.process_id)


def test_a_server_process_does_not_outlive_its_parent(tmp_path: Path):
    publish(export_recommender(tmp_path / "model"), tmp_path / "base", 1)
    program = f"""
import time
from pipeline.serving.process import ServerProcess
with ServerProcess({str(tmp_path / "base")!r}, "films") as server:
    print(server.process_id, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    process_id = int(parent.stdout.readline())
    assert is_running(process_id)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while is_running(process_id):
        assert time.monotonic() < deadline
        time.sleep(0.05)
