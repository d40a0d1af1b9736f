"""A release through the file that servers poll: no request for `stable` fails on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.serving.errors import ServingError
from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.cluster_config import next_step, with_base_path
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.model_config_file import with_versions, write_config
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_recommender, publish


@pytest.fixture
def store(tmp_path: Path) -> Path:
    model = export_recommender(tmp_path / "model")
    for version in (11, 12):
        publish(model, tmp_path / "store", version)
    return tmp_path / "store"


def release(store: Path, version: int) -> model_server_config_pb2.ModelServerConfig:
    empty = model_server_config_pb2.ModelServerConfig()
    config = with_versions(empty, "recommender", Path("/elsewhere"), [version], {"stable": version})
    return with_base_path(config, "recommender", str(store))


def wait_for(condition: Callable[[], bool], live: LiveServer) -> set[int]:
    """Waits for a condition, and returns the versions that answered for `stable` meanwhile."""
    deadline = time.monotonic() + 20
    answered: set[int] = set()
    while not condition():
        assert time.monotonic() < deadline
        answered.add(live.resolve("stable"))
        time.sleep(0.01)
    return answered


def test_two_steps_move_a_label_that_one_step_does_not(tmp_path: Path, store: Path):
    file = tmp_path / "models.config"
    old, new = release(store, 11), release(store, 12)
    write_config(file, old)
    options = ServerOptions(
        port=0,
        model_config_file=str(file),
        model_config_file_poll_wait_seconds=1,
        allow_version_labels_for_unavailable_models=True,
    )
    with ModelServer(options) as server, LiveServer(server.address, "recommender") as live:
        live.wait_until_available(11, 20, {})
        with pytest.raises(ServingError, match="not currently available for inference"):
            live.reload(new, 20)

        both = next_step(old, new, "recommender")
        write_config(file, both)
        assert wait_for(lambda: available(live) == {11, 12}, live) == {11}
        write_config(file, next_step(both, new, "recommender"))
        assert wait_for(lambda: available(live) == {12}, live) <= {11, 12}
        assert live.resolve("stable") == 12


def available(live: LiveServer) -> set[int]:
    return {version for version, status in live.statuses().items() if status.state == "AVAILABLE"}
