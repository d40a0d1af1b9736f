"""Versions come and go while a server runs: nothing is lost, nothing half-written is served."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from pipeline.serving.client import RecommenderClient
from pipeline.serving.errors import ServingError, StatusError
from pipeline.serving.model_versions import ModelVersions, State
from pipeline.serving.server import ModelServer
from tests.serving.saved_models import export_recommender, publish, truncate, write_warm_up_request


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two good models, that recommend different titles first, and one whose variables are missing."""
    folder = tmp_path_factory.mktemp("models")
    models = {name: export_recommender(folder / name, first=name) for name in ("i1", "i2")}
    models["broken"] = folder / "broken"
    shutil.copytree(models["i1"], models["broken"])
    shutil.rmtree(models["broken"] / "variables")
    return models


def states(versions: ModelVersions) -> dict[int, State]:
    return {version: status.state for version, status in versions.statuses.items()}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def wait_until_more_than(count: int, values: list[str]) -> None:
    wait_until(lambda: len(values) > count)


def wait_until_loaded(client: RecommenderClient, version: int) -> None:
    def loaded() -> bool:
        try:
            return any(status.version == version and status.state == "AVAILABLE" for status in client.status())
        except ServingError as error:
            assert error.code is grpc.StatusCode.NOT_FOUND
            return False

    wait_until(loaded)


def test_reloads_under_load_without_a_failed_request(tmp_path: Path, models: dict[str, Path]):
    base_path = tmp_path / "recommender"
    publish(models["i1"], base_path, 1)
    answers: list[str] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def ask(address: str) -> None:
        with RecommenderClient(address) as client:
            while not stop.is_set():
                try:
                    answers.append(client.recommend({"user_id": "u"}, k=1)[0].item_id)
                except ServingError as error:
                    failures.append(error)

    available = threading.Event()
    server = ModelServer(
        str(base_path), "recommender", 0, poll_seconds=0.02, on_available=lambda name, version: available.set()
    )
    threads = [threading.Thread(target=ask, args=(server.address,), daemon=True) for _ in range(3)]
    with server, RecommenderClient(server.address) as client:
        assert available.wait(30)
        for thread in threads:
            thread.start()
        wait_until_more_than(50, answers)
        for version, first in ((2, "i2"), (3, "i1"), (4, "i2")):
            publish(models[first], base_path, version)
            wait_until_loaded(client, version)
            position = len(answers) + len(threads)  # As many may be on their way from the old version.
            wait_until_more_than(position + 20, answers)
            assert set(answers[position:]) == {first}
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert [(status.version, status.state) for status in client.status()] == [
            (4, "AVAILABLE"),
            (3, "END"),
            (2, "END"),
            (1, "END"),
        ]


def test_a_version_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path, models: dict[str, Path]):
    base_path = tmp_path / "recommender"
    publish(models["i1"], base_path, 1)
    server = ModelServer(str(base_path), "recommender", 0, poll_seconds=0.02)
    with server, RecommenderClient(server.address) as client:
        wait_until_loaded(client, 1)
        publish(models["broken"], base_path, 2)
        wait_until(lambda: client.status()[0].state == "END")
        newest, oldest = client.status()
        assert (newest.version, oldest.version, oldest.state) == (2, 1, "AVAILABLE")
        assert "variables" in newest.error
        assert client.recommend({}, k=1)[0].item_id == "i1"

        # Written anew, it is tried anew.
        shutil.rmtree(base_path / "2")
        publish(models["i2"], base_path, 2)
        wait_until_loaded(client, 2)
        assert client.recommend({}, k=1)[0].item_id == "i2"


def test_waits_for_a_first_version(tmp_path: Path, models: dict[str, Path], caplog: pytest.LogCaptureFixture):
    versions = ModelVersions("recommender", str(tmp_path / "recommender"))
    with caplog.at_level("WARNING", logger="absl"):
        versions.poll()
        (tmp_path / "recommender").mkdir()
        versions.poll()
        versions.poll()
    assert "could not list the base path" in caplog.messages[0]
    assert [message for message in caplog.messages if "no versions of model recommender" in message] == [
        f"no versions of model recommender found under the base path {tmp_path / 'recommender'}; waiting"
    ]
    assert versions.statuses == {}
    with pytest.raises(StatusError, match="Servable not found for request: Latest"), versions.acquire():
        pass

    publish(models["i1"], tmp_path / "recommender", 1)
    versions.poll()
    assert states(versions) == {1: State.AVAILABLE}
    versions.close()


def test_takes_numbered_complete_folders_only(tmp_path: Path, models: dict[str, Path]):
    for name in ("v2", ".pushing-3", "4.5", "1_0", "-6", "notes"):
        shutil.copytree(models["i2"], tmp_path / name)
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()
    shutil.copytree(models["i2"] / "variables", tmp_path / "8" / "variables")
    publish(models["i1"], tmp_path, 1)
    versions = ModelVersions("recommender", str(tmp_path))
    versions.poll()
    assert states(versions) == {1: State.AVAILABLE}

    shutil.copy(models["i2"] / "saved_model.pb", tmp_path / "8" / "saved_model.pb")
    versions.poll()
    assert states(versions) == {8: State.AVAILABLE, 1: State.END}
    versions.close()


def test_requests_under_way_finish_before_their_version_goes(tmp_path: Path, models: dict[str, Path]):
    publish(models["i1"], tmp_path, 1)
    versions = ModelVersions("recommender", str(tmp_path))
    versions.poll()
    with versions.acquire() as (version, servable):
        assert version == 1
        publish(models["i2"], tmp_path, 2)
        thread = threading.Thread(target=versions.poll)
        thread.start()
        wait_until(lambda: states(versions) == {2: State.AVAILABLE, 1: State.UNLOADING})
        with versions.acquire() as (newest, _):
            assert newest == 2
        with pytest.raises(StatusError, match=r"Specific\(recommender, 1\)"), versions.acquire(1):
            pass
        request = predict_pb2.PredictRequest()
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto([b""]))
        assert servable.predict(request).outputs["item_ids"].string_val[0] == b"i1"
        assert thread.is_alive()
    thread.join(10)
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


def test_goes_back_when_the_latest_version_is_removed(tmp_path: Path, models: dict[str, Path]):
    publish(models["i1"], tmp_path, 1)
    publish(models["i2"], tmp_path, 2)
    versions = ModelVersions("recommender", str(tmp_path))
    versions.poll()
    assert states(versions) == {2: State.AVAILABLE}
    shutil.rmtree(tmp_path / "2")
    versions.poll()
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    shutil.rmtree(tmp_path / "1")
    versions.poll()
    assert states(versions) == {2: State.END, 1: State.END}


@pytest.mark.parametrize(
    ("signature", "example", "repeats", "text"),
    [
        ("no_such", b"", 1, 'Serving signature key "no_such" not found.'),
        ("serving_default", b"garbage", 1, "Could not parse example input"),
        ("serving_default", b"", 1001, r"Number of warmup records exceeds the maximum \(1000\)"),
    ],
)
def test_a_model_that_fails_its_own_warm_up_is_not_served(
    tmp_path: Path, models: dict[str, Path], signature: str, example: bytes, repeats: int, text: str
):
    write_warm_up_request(publish(models["i1"], tmp_path, 1), signature, [example], repeats)
    versions = ModelVersions("recommender", str(tmp_path))
    versions.poll()
    assert states(versions) == {1: State.END}
    error = versions.statuses[1].error
    assert error is not None
    with pytest.raises(StatusError, match=text):
        raise error


def test_a_file_that_is_no_model_is_reported(tmp_path: Path, models: dict[str, Path]):
    truncate(publish(models["i1"], tmp_path, 1))
    versions = ModelVersions("recommender", str(tmp_path))
    versions.poll()
    error = versions.statuses[1].error
    assert error is not None
    assert "Cannot parse file" in error.message
