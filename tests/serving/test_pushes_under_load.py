"""A server under load, while versions come, one of them bad; and one that is killed and started again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.serving.client import RecommenderClient
from pipeline.serving.process import ServerProcess
from tests.serving.clients_under_load import ClientsUnderLoad
from tests.serving.saved_models import CATALOGUE, export_recommender, publish, truncate

pytestmark = pytest.mark.slow

CLIENTS = 32
SECONDS = 60.0


def _model(folder: Path, version: int) -> Path:
    """Exports the model whose lists begin with the title at place `version`."""
    return export_recommender(folder / f"model-{version}", first=CATALOGUE[version])


def _states(address: str) -> dict[int, tuple[str, str]]:
    with RecommenderClient(address) as client:
        return {status.version: (status.state, status.error) for status in client.status()}


def _wait_for_state(address: str, version: int, state: str, seconds: float = 30.0) -> str:
    """Waits until a version is in a state; returns its error."""
    deadline = time.monotonic() + seconds
    while (states := _states(address)).get(version, ("", ""))[0] != state:
        assert time.monotonic() < deadline, f"version {version} is not {state}: {states}"
        time.sleep(0.05)
    return states[version][1]


@pytest.mark.parametrize("batching", [pytest.param(True, id="batching")])
def test_no_request_fails_and_no_answer_is_mixed_while_versions_are_pushed(batching: bool, tmp_path: Path):
    base_path = tmp_path / "recommender"
    models = {version: _model(tmp_path, version) for version in (1, 2, 3, 5)}
    bad = truncate(_model(tmp_path, 4))
    publish(models[1], base_path, 1)
    options = ["--enable_batching"] if batching else []
    with ServerProcess(str(base_path), "recommender", options=options) as server:
        started = time.monotonic()
        with ClientsUnderLoad(server.address, CLIENTS) as clients:
            for position, version in enumerate((2, 3, 4, 5), start=1):
                time.sleep(max(0.0, started + position * SECONDS / 5 - time.monotonic()))
                publish(bad if version == 4 else models[version], base_path, version)
                if version == 4:
                    error = _wait_for_state(server.address, 4, "END")
                    assert "saved_model.pb" in error
                    assert _states(server.address)[3][0] == "AVAILABLE"
                else:
                    _wait_for_state(server.address, version, "AVAILABLE")
            time.sleep(max(0.0, started + SECONDS - time.monotonic()))
            assert clients.wait_until(lambda outcome: outcome.answered[5] > 0, 20)
        outcome = clients.outcome
    assert not outcome.failures
    assert not outcome.mixed
    assert set(outcome.answered) == {1, 2, 3, 5}
    assert min(outcome.answered.values()) > CLIENTS


def test_a_killed_server_serves_again_as_soon_as_it_started(tmp_path: Path):
    base_path = tmp_path / "recommender"
    publish(_model(tmp_path, 1), base_path, 1)
    begun = time.monotonic()
    with ServerProcess(str(base_path), "recommender") as server:
        start_seconds = time.monotonic() - begun
        address = server.address
        with ClientsUnderLoad(address, 8, wait_for_ready=True) as clients:
            assert clients.wait_until(lambda outcome: outcome.answered[1] > 100, 30)
            server.kill()
            killed = time.monotonic()
            again = ServerProcess(str(base_path), "recommender", options=[f"--port={address.rpartition(':')[2]}"])
            with again:
                restart_seconds = time.monotonic() - killed
                before = clients.outcome.answered[1]
                assert clients.wait_until(lambda outcome: outcome.answered[1] > before + 100, 30)
                assert clients.outcome.last_answer > killed
                clients.stop()  # Before this server is gone as well.
    # Not exactly as soon, since the machine is shared with those who ask and with other tests.
    assert restart_seconds < 3 * start_seconds + 5
    assert not clients.outcome.mixed
    # Only what was under way when the server died may have failed.
    assert sum(clients.outcome.failures.values()) <= 2 * 8
    assert all(failure.startswith("UNAVAILABLE") for failure in clients.outcome.failures), clients.outcome.failures


def test_a_half_copied_version_is_never_loaded_and_a_corrupt_one_is_told_of(tmp_path: Path):
    base_path = tmp_path / "recommender"
    publish(_model(tmp_path, 1), base_path, 1)
    model = _model(tmp_path, 2)
    with ServerProcess(str(base_path), "recommender") as server, ClientsUnderLoad(server.address, 4) as clients:
        # A copy that goes on: everything but the file that makes a folder a model.
        (base_path / "2" / "variables").mkdir(parents=True)
        for file in (model / "variables").iterdir():
            (base_path / "2" / "variables" / file.name).write_bytes(file.read_bytes())
        time.sleep(3)
        assert 2 not in _states(server.address)
        # The copy breaks off within that file.
        whole = (model / "saved_model.pb").read_bytes()
        (base_path / "2" / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
        error = _wait_for_state(server.address, 2, "END")
        assert "saved_model.pb" in error
        assert _states(server.address)[1][0] == "AVAILABLE"
        # Somebody copies it again, whole.
        (base_path / "2" / "saved_model.pb").write_bytes(whole)
        _wait_for_state(server.address, 2, "AVAILABLE")
        assert clients.wait_until(lambda outcome: outcome.answered[2] > 10, 20)
    assert not clients.outcome.failures
    assert not clients.outcome.mixed
