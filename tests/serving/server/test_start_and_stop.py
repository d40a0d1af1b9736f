"""What may go wrong at the start and the end: models that take their time, files that are wrong, waiting reloads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pipeline.serving.messages import (
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    model_server_config_pb2,
)
from pipeline.serving.server.config_files import read_model_server_config
from pipeline.serving.server.config_polling import ConfigFile
from pipeline.serving.server.manager import ModelManager
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_half_plus_two, publish
from tests.serving.server.servers import PLAIN_CHANNEL, connected, running_server
from tests.serving.server.text_models import TextModel, wait_until, write_version

load_text: Any = TextModel
"""Loads a text in the place of a servable."""
HEALTH = health_pb2.HealthCheckRequest()


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    publish(export_half_plus_two(folder / "model"), folder / "half", 1)
    return folder / "half"


def health(server: ModelServer) -> str:
    with grpc.insecure_channel(server.address, PLAIN_CHANNEL) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(HEALTH, timeout=10).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def test_a_server_whose_models_were_there_at_the_start_is_healthy(half: Path):
    with running_server(model_base_path=str(half), model_name="half", enable_grpc_healthcheck_service=True) as server:
        wait_until(lambda: health(server) == "SERVING")


def test_a_server_without_models_is_healthy(tmp_path: Path):
    config = tmp_path / "models.config"
    config.write_text("model_config_list {}")
    options = ServerOptions(port=0, model_config_file=str(config), enable_grpc_healthcheck_service=True)
    with ModelServer(options) as server:
        wait_until(lambda: health(server) == "SERVING")


def test_who_connects_while_models_load_is_answered_by_them(half: Path):
    options = ServerOptions(port=0, rest_api_port=0, model_base_path=str(half), model_name="half")
    with ModelServer(options) as server:
        # Nothing was waited for: the start itself has loaded the model.
        assert available(server) == [1]


def available(server: ModelServer) -> list[int]:
    with connected(server.address) as stubs:
        response = stubs.models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "half"}))
        return [status.version for status in response.model_version_status if status.state == status.AVAILABLE]


def test_a_server_answers_after_a_while_without_models_that_do_not_come(half: Path, monkeypatch: pytest.MonkeyPatch):
    holds = threading.Event()
    monkeypatch.setattr(ModelManager, "wait_until_settled", lambda self, seconds: holds.wait(seconds))
    options = ServerOptions(port=0, model_base_path=str(half), model_name="half", start_wait_seconds=0.2)
    with ModelServer(options) as server:
        wait_until(lambda: available(server) == [1])


def test_a_server_that_is_stopped_while_it_waits_for_models_ends(half: Path, monkeypatch: pytest.MonkeyPatch):
    holds = threading.Event()
    monkeypatch.setattr(ModelManager, "wait_until_settled", lambda self, seconds: holds.wait(30))
    server = ModelServer(ServerOptions(port=0, model_base_path=str(half), model_name="half"))
    starting = threading.Thread(target=server.start)
    starting.start()
    time.sleep(0.3)
    server.request_stop()
    starting.join(10)
    assert not starting.is_alive()
    holds.set()
    server.stop()


def test_reloads_that_wait_for_ever_do_not_keep_the_server_from_stopping(half: Path, tmp_path: Path):
    with running_server(model_base_path=str(half), model_name="half", grace_seconds=1.0) as server:
        with connected(server.address) as stubs:
            for number in range(40):
                request = model_management_pb2.ReloadConfigRequest()
                for name, path in (("half", half), (f"empty-{number}", tmp_path)):
                    request.config.model_config_list.config.add(
                        name=name, base_path=str(path), model_platform="tensorflow"
                    )
                with contextlib.suppress(grpc.RpcError):
                    stubs.models.HandleReloadConfigRequest(request, timeout=0.05)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_interface_can_be_listened_on(half: Path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 interface")
    options = ServerOptions(port=0, rest_api_port=0, host="::1", model_base_path=str(half), model_name="half")
    with ModelServer(options) as server:
        assert server.address.startswith("[::1]:")
        assert server.rest_address.startswith("[::1]:")
        assert available(server) == [1]


def _write_config(file: Path, **models: tuple[Path, str]) -> model_server_config_pb2.ModelServerConfig:
    entries = [
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'
        for name, (path, more) in models.items()
    ]
    file.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    return read_model_server_config(str(file))


def test_a_config_file_that_is_put_back_is_followed(tmp_path: Path):
    for version in (1, 2):
        write_version(tmp_path / "m", version)
    write_version(tmp_path / "other", 1, "broken")
    file = tmp_path / "models.config"
    both = "model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: 'stable' value: %d }"
    config = _write_config(file, m=(tmp_path / "m", both % 2))
    manager = ModelManager(config, load=load_text, poll_seconds=0.05, allow_version_labels_for_unavailable_models=True)
    manager.start()
    try:
        manager.wait_until_available(30)
        followed = ConfigFile(str(file), manager, config)
        _write_config(file, m=(tmp_path / "m", both % 1), other=(tmp_path / "other", ""))
        followed.poll()
        assert _version_of_stable(manager) == 1
        # The new model never comes, and does not keep the file from being read.
        file.write_text(_text_of(config))
        followed.poll()
        assert _version_of_stable(manager) == 2
    finally:
        manager.close()


def test_a_new_model_that_has_no_version_does_not_hold_up_the_config_file(tmp_path: Path):
    write_version(tmp_path / "m", 1)
    (tmp_path / "empty").mkdir()
    file = tmp_path / "models.config"
    config = _write_config(file, m=(tmp_path / "m", ""))
    manager = ModelManager(config, load=load_text, poll_seconds=0.05)
    manager.start()
    try:
        manager.wait_until_available(30)
        followed = ConfigFile(str(file), manager, config)
        _write_config(file, m=(tmp_path / "m", ""), new=(tmp_path / "empty", ""))
        polling = threading.Thread(target=followed.poll)
        polling.start()
        polling.join(10)
        assert not polling.is_alive()
    finally:
        manager.close()


def test_a_label_on_a_broken_version_does_not_make_it_load_again_and_again(tmp_path: Path):
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "m", 2, "broken")
    loads: list[str] = []

    def load(path: str) -> Any:
        loads.append(path)
        return TextModel(path)

    file = tmp_path / "models.config"
    only_first = "model_version_policy { specific { versions: 1 } }"
    config = _write_config(file, m=(tmp_path / "m", only_first))
    manager = ModelManager(config, load=load, poll_seconds=0.05)
    manager.start()
    try:
        manager.wait_until_available(30)
        followed = ConfigFile(str(file), manager, config)
        both = "model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: 'canary' value: 2 }"
        _write_config(file, m=(tmp_path / "m", both))
        for _ in range(5):
            followed.poll()
        assert len([path for path in loads if path.endswith("/2")]) == 1
    finally:
        manager.close()


def test_a_folder_that_keeps_changing_does_not_hold_up_the_start(tmp_path: Path):
    write_version(tmp_path / "m", 1)

    def load(path: str) -> Any:
        time.sleep(0.05)
        Path(path, f"file-{time.monotonic_ns()}").write_text("more")
        return TextModel(path)

    file = tmp_path / "models.config"
    manager = ModelManager(_write_config(file, m=(tmp_path / "m", "")), load=load, poll_seconds=0.01)
    manager.start()
    try:
        settled = threading.Thread(target=manager.wait_until_settled)
        settled.start()
        settled.join(10)
        assert not settled.is_alive()
    finally:
        manager.close()


def test_a_name_that_is_no_text_below_the_base_path_is_passed_over(tmp_path: Path):
    write_version(tmp_path / "m", 1)
    (tmp_path / "m" / b"caf\xe9".decode("utf-8", "surrogateescape")).mkdir()
    manager = ModelManager(
        _write_config(tmp_path / "models.config", m=(tmp_path / "m", "")), load=load_text, poll_seconds=0.05
    )
    manager.start()
    try:
        manager.wait_until_available(30)
    finally:
        manager.close()


def _version_of_stable(manager: ModelManager) -> int:
    with manager.acquire(model_pb2.ModelSpec(name="m", version_label="stable")) as lease:
        return lease.version


def _text_of(config: model_server_config_pb2.ModelServerConfig) -> str:
    return text_format.MessageToString(config)
