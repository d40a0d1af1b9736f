"""The server from start to end: configuration and its changes, limits, health, and the way it stops."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, predict_pb2

from pipeline.config_files import ConfigError
from pipeline.serving.server.__main__ import main
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_arithmetic, export_half_plus_two, publish
from tests.serving.server.servers import (
    PLAIN_CHANNEL,
    connected,
    export_counter,
    models_config,
    request,
    running_server,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one version each of `half`, `arithmetic` and `counter`."""
    folder = tmp_path_factory.mktemp("models")
    exports = {"half": export_half_plus_two, "arithmetic": export_arithmetic, "counter": export_counter}
    for name, export in exports.items():
        publish(export(folder / f"{name}.model"), folder / name, 1)
    return folder


def count_to(number: int) -> predict_pb2.PredictRequest:
    return request("counter", n=np.int64(number))


@pytest.fixture(scope="module")
def one_second(models: Path) -> int:
    """How far the counter comes in about a second on this machine."""
    with (
        running_server(model_base_path=str(models / "counter"), model_name="counter") as server,
        connected(server.address) as stubs,
    ):
        stubs.prediction.Predict(count_to(10))
        started = time.perf_counter()
        stubs.prediction.Predict(count_to(20_000))
        return int(20_000 / (time.perf_counter() - started))


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def available(server: ModelServer, model: str) -> list[int]:
    with connected(server.address) as stubs:
        try:
            response = stubs.models.GetModelStatus(
                get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model})
            )
        except grpc.RpcError:
            return []
        return [status.version for status in response.model_version_status if status.state == status.AVAILABLE]


def test_several_models_are_served_by_a_file_that_is_followed(models: Path, tmp_path: Path):
    config = tmp_path / "models.config"
    config.write_text(models_config(half=models / "half", arithmetic=models / "arithmetic"))
    with (
        running_server(wait_for=2, model_config_file=str(config), model_config_file_poll_wait_seconds=0.1) as server,
        connected(server.address) as stubs,
    ):
        assert list(stubs.prediction.Predict(request("half", x=[[2.0]])).outputs["y"].float_val) == [3.0]
        assert set(stubs.prediction.Predict(request("arithmetic", a=[1.0], b=[2.0])).outputs) == {"sum", "product"}

        config.write_text("model_config_list { config { name: }")
        time.sleep(0.5)
        assert available(server, "half") == [1]

        config.write_text(models_config(half=models / "half", counter=models / "counter"))
        eventually(lambda: available(server, "counter") == [1] and available(server, "arithmetic") == [])
        assert list(stubs.prediction.Predict(count_to(7)).outputs["count"].int64_val) == [7]
        assert available(server, "half") == [1]

        text = config.read_text().replace('name: "half"', 'name: "half" version_labels { key: "stable" value: 1 }')
        config.write_text(text)
        labelled = request("half", x=[[4.0]])
        labelled.model_spec.version_label = "stable"

        def answers() -> bool:
            with contextlib.suppress(grpc.RpcError):
                return list(stubs.prediction.Predict(labelled).outputs["y"].float_val) == [4.0]
            return False

        eventually(answers)


def test_a_reload_request_changes_the_models(models: Path):
    with (
        running_server(model_base_path=str(models / "half"), model_name="half") as server,
        connected(server.address) as stubs,
    ):
        change = model_management_pb2.ReloadConfigRequest()
        for name in ("half", "arithmetic"):
            change.config.model_config_list.config.add(
                name=name, base_path=str(models / name), model_platform="tensorflow"
            )
        response = stubs.models.HandleReloadConfigRequest(change, timeout=60)
        assert (response.status.error_code, response.status.error_message) == (0, "")
        assert available(server, "arithmetic") == [1]


def test_more_requests_than_may_wait_are_refused_at_once(models: Path, one_second: int):
    with (
        running_server(model_base_path=str(models / "counter"), model_name="counter", max_queued_requests=2) as server,
        connected(server.address) as stubs,
    ):
        running = [stubs.prediction.Predict.future(count_to(one_second)) for _ in range(2)]
        time.sleep(0.2)
        started = time.perf_counter()
        with pytest.raises(grpc.RpcError) as raised:
            stubs.prediction.Predict(count_to(1))
        assert (raised.value.code(), raised.value.details()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Server Threadpool Exhausted",
        )
        connection = http.client.HTTPConnection(server.rest_address, timeout=30)
        connection.request("POST", "/v1/models/counter:predict", b'{"inputs": 1}')
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (429, {"error": "Server Threadpool Exhausted"})
        connection.close()
        assert available(server, "counter") == [1]  # Questions about the server are always answered.
        assert not any(call.done() for call in running), time.perf_counter() - started
        assert [call.result().outputs["count"].int64_val[0] for call in running] == [one_second] * 2
        assert stubs.prediction.Predict(count_to(1)).outputs["count"].int64_val[0] == 1


def test_a_message_over_the_limit_is_refused(models: Path):
    with (
        running_server(model_base_path=str(models / "half"), model_name="half", max_message_bytes=10_000) as server,
        connected(server.address) as stubs,
    ):
        assert len(stubs.prediction.Predict(request("half", x=[[2.0]] * 1000)).outputs["y"].float_val) == 1000
        with pytest.raises(grpc.RpcError) as raised:
            stubs.prediction.Predict(request("half", x=[[2.0]] * 3000))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_ends_a_request_and_not_the_server(models: Path, one_second: int):
    with (
        running_server(model_base_path=str(models / "counter"), model_name="counter") as server,
        connected(server.address) as stubs,
    ):
        with pytest.raises(grpc.RpcError) as raised:
            stubs.prediction.Predict(count_to(one_second), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert stubs.prediction.Predict(count_to(3)).outputs["count"].int64_val[0] == 3


def test_health_tells_whether_the_models_serve(models: Path, tmp_path: Path):
    base_path = tmp_path / "base"
    base_path.mkdir()
    with (
        running_server(
            wait_for=0,
            model_base_path=str(base_path),
            model_name="half",
            enable_grpc_healthcheck_service=True,
            file_system_poll_wait_seconds=0.1,
        ) as server,
        grpc.insecure_channel(server.address, PLAIN_CHANNEL) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        def state(service: str) -> str:
            response = stub.Check(health_pb2.HealthCheckRequest(service=service))
            return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

        names = ("", "ModelService", "PredictionService")
        assert [state(name) for name in names] == ["NOT_SERVING"] * 3
        publish(models / "half.model", base_path, 1)
        eventually(lambda: [state(name) for name in names] == ["SERVING"] * 3)
        with pytest.raises(grpc.RpcError) as raised:
            state("other")
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_there_is_no_health_service_unless_asked_for(models: Path):
    with (
        running_server(model_base_path=str(models / "half")) as server,
        grpc.insecure_channel(server.address, PLAIN_CHANNEL) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_ports_in_use_are_refused(models: Path):
    options: dict[str, Any] = {"model_base_path": str(models / "half")}
    with running_server(**options) as server:
        for name, address in (("port", server.address), ("rest_api_port", server.rest_address)):
            taken: dict[str, Any] = {"port": 0, "rest_api_port": 0, name: int(address.rpartition(":")[2])}
            with pytest.raises(OSError, match=f"cannot listen on {address}; is another server running there"):
                ModelServer(ServerOptions(**options, **taken)).start()


def test_a_unix_socket_serves_too(models: Path, tmp_path: Path):
    socket = tmp_path / "server.socket"
    with (
        running_server(model_base_path=str(models / "half"), model_name="half", grpc_socket_path=str(socket)),
        connected(f"unix:{socket}") as stubs,
    ):
        assert list(stubs.prediction.Predict(request("half", x=[[2.0]])).outputs["y"].float_val) == [3.0]


def test_batching_gives_everyone_their_own_answer(models: Path, tmp_path: Path):
    parameters = tmp_path / "batching"
    parameters.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 20000 }")
    with (
        running_server(
            model_base_path=str(models / "half"),
            model_name="half",
            enable_batching=True,
            batching_parameters_file=str(parameters),
        ) as server,
        connected(server.address) as stubs,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        answers = list(
            pool.map(
                lambda x: stubs.prediction.Predict(request("half", x=[[x]])).outputs["y"].float_val[0],
                map(float, range(64)),
            )
        )
        page = server.metrics.render()
    assert answers == [x / 2 + 2 for x in range(64)]
    (runs,) = (
        line for line in page.splitlines() if line.startswith(":tensorflow:serving:batching_session:wrapped_run")
    )
    assert 8 <= int(runs.split()[1]) < 64


@pytest.mark.parametrize("field", ["model_config_file", "ssl_config_file", "monitoring_config_file"])
def test_a_configuration_file_that_cannot_be_read_stops_the_start(field: str, tmp_path: Path):
    options: dict[str, Any] = {"model_base_path": str(tmp_path), "rest_api_port": 0, field: str(tmp_path / "absent")}
    with pytest.raises(ConfigError, match="absent cannot be read"):
        ModelServer(ServerOptions(**options))


@contextlib.contextmanager
def server_command(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs the server's command; gives the process and where it serves."""
    command = [sys.executable, "-m", "pipeline.serving.server", "--port=0", *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_requests_under_way_are_answered_before_the_command_ends(models: Path, one_second: int):
    options = (f"--model_base_path={models / 'counter'}", "--model_name=counter", "--rest_api_port=0")
    with server_command(*options) as (process, line):
        words = line.split()
        assert words[:5] == ["serving", "counter", "version", "1", "on"]
        assert (words[6:8], words[9]) == (["(gRPC)", "and"], "(REST)")
        rest = http.client.HTTPConnection(words[8], timeout=60)
        rest.request("POST", "/v1/models/counter:predict", json.dumps({"inputs": one_second}))
        with connected(words[5]) as stubs:
            running = stubs.prediction.Predict.future(count_to(one_second))
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            assert running.result(60).outputs["count"].int64_val[0] == one_second
            response = rest.getresponse()
            assert (response.status, json.loads(response.read())) == (200, {"outputs": one_second})
            with pytest.raises(grpc.RpcError) as raised:
                stubs.prediction.Predict(count_to(1), timeout=10)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        rest.close()
        assert process.wait(20) == 0


def test_grace_ends(models: Path, one_second: int):
    options: dict[str, Any] = {
        "model_base_path": str(models / "counter"),
        "model_name": "counter",
        "grace_seconds": 0.2,
    }
    with running_server(**options) as server, connected(server.address) as stubs:
        running = stubs.prediction.Predict.future(count_to(3 * one_second))
        time.sleep(0.3)
        stopping = threading.Thread(target=server.stop)
        started = time.monotonic()
        stopping.start()
        with pytest.raises(grpc.RpcError) as raised:
            running.result(60)
        assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert time.monotonic() - started < 2
        stopping.join(60)  # A run cannot be broken off; the model is unloaded after it.
        assert not stopping.is_alive()


def test_the_command_refuses_in_one_sentence(models: Path):
    with running_server(model_base_path=str(models / "half")) as server:
        port = server.address.rpartition(":")[2]
        with pytest.raises(SystemExit) as raised:
            main([f"--model_base_path={models / 'half'}", f"--port={port}"])
    assert raised.value.code == f"error: cannot listen on 127.0.0.1:{port}; is another server running there?"


def test_stopping_twice_and_without_a_start_is_allowed(models: Path):
    threads = threading.active_count()
    server = ModelServer(ServerOptions(model_base_path=str(models / "half"), port=0))
    server.stop()
    server.start()
    server.stop()
    server.stop()
    eventually(lambda: threading.active_count() <= threads + 1)  # gRPC keeps a thread of its own.
