"""Labels moved on a real server over a real socket, while clients keep asking for them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.serving.errors import ServingError
from pipeline.serving.messages import predict_pb2
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.model_config_file import labels_of, read_config
from pipeline.serving.release.move import move_labels
from pipeline.serving.release.plans import Plan, plan_canary, plan_rollback, plan_stable
from pipeline.serving.release.record import Move, RunEvidence, read_moves
from pipeline.serving.release.release import make_release
from pipeline.serving.server.server import ModelServer
from pipeline.serving.tensors import make_tensor, read_tensor, string_array

Start = Callable[[], ModelServer]
FIRST_TITLES = {1: b"i0", 2: b"i5"}


def make_request(label: str | None) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "recommender"
    if label is not None:
        request.model_spec.version_label = label
    request.inputs["examples"].CopyFrom(make_tensor(string_array([b""])))
    return request


class Visitor:
    """Asks for a label over and over, and notes what is wrong with the answers."""

    def __init__(self, address: str, label: str | None):
        self._server = LiveServer(address, "recommender")
        self._label = label
        self.versions: list[int] = []
        self.failures: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._server.__exit__()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            try:
                response = self._server.predict(make_request(self._label))
            except ServingError as error:
                self.failures.append(str(error))
                continue
            version = response.model_spec.version.value
            if read_tensor(response.outputs["item_ids"])[0][0] != FIRST_TITLES[version]:
                self.failures.append(f"version {version} answered as another")
            if not self.versions or self.versions[-1] != version:
                self.versions.append(version)
            time.sleep(0.001)


def release(folder: ServingFolder, plan: Plan, server: LiveServer | None, **more: object) -> list[Move]:
    arguments = {"action": "release", "who": "me@here", "timeout_seconds": 20.0} | more
    return make_release(folder, plan, server, **arguments)  # type: ignore[arg-type]


@contextmanager
def connect(server: ModelServer) -> Iterator[LiveServer]:
    with LiveServer(server.address, "recommender") as live:
        deadline = time.monotonic() + 20
        while not any(status.state == "AVAILABLE" for status in live.statuses().values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield live
    server.stop()


def available(live: LiveServer) -> set[int]:
    return {version for version, status in live.statuses().items() if status.state == "AVAILABLE"}


def wait_for(what: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def config_labels(folder: ServingFolder) -> dict[str, int]:
    return labels_of(read_config(folder.config), folder.model_name)


@pytest.mark.parametrize("restart", [False, True], ids=["started by base path", "started from the file, polling it"])
def test_canary_stable_and_rollback_under_way_fail_no_request_and_answer_by_no_other_version(
    folder: ServingFolder, start: Start, restart: bool
) -> None:
    shutil.rmtree(folder.versions / "3")
    if restart:
        release(folder, plan_stable(1), None)
    with connect(start()) as live:
        if not restart:
            release(folder, plan_stable(1), live)
        release(folder, plan_canary(folder, 1), live)
        with Visitor(live.address, "stable") as visitor, Visitor(live.address, "canary") as other:
            (move,) = release(folder, plan_canary(folder, None), live, note="new")
            assert (move.label, move.from_version, move.to_version, move.state) == ("canary", 1, 2, "confirmed")
            assert visitor.versions == [1]
            release(folder, plan_stable(None), live)
            time.sleep(0.5)  # Long enough for the file to be polled.
            assert live.resolve("stable") == live.resolve("canary") == 2
            wait_for(lambda: available(live) == {2})
            moves = release(folder, plan_rollback(folder), live, action="rollback")
            assert {(move.label, move.from_version, move.to_version) for move in moves} == {
                ("stable", 2, 1),
                ("canary", 2, 1),
            }
            time.sleep(0.5)
        assert visitor.failures == other.failures == []
        assert visitor.versions == other.versions == [1, 2, 1]
        wait_for(lambda: available(live) == {1})
        with pytest.raises(ReleaseError, match=r"nothing to roll back to: version 1 is the first that was stable"):
            release(folder, plan_rollback(folder), live, action="rollback")
    recorded = read_moves(folder.record)
    assert [(move.action, move.label, move.to_version) for move in recorded] == [
        ("release", "stable", 1),
        ("release", "canary", 1),
        ("release", "canary", 2),
        ("release", "stable", 2),
        ("rollback", "stable", 1),
        ("rollback", "canary", 1),
    ]
    assert recorded[2].note == "new"
    with connect(start()) as fresh:  # A server that starts from the file serves the same.
        assert fresh.resolve("stable") == fresh.resolve("canary") == 1
        assert available(fresh) == {1}


@pytest.mark.parametrize("with_file", [False, True])
def test_a_version_that_cannot_be_loaded_changes_nothing(folder: ServingFolder, start: Start, with_file: bool) -> None:
    shutil.move(folder.versions / "3", folder.path / "broken")
    if with_file:
        release(folder, plan_stable(1), None)
    before = folder.config.read_bytes() if with_file else None
    recorded = read_moves(folder.record)
    with connect(start()) as live:
        serving = available(live)
        assert serving == ({1} if with_file else {2})
        shutil.move(folder.path / "broken", folder.versions / "3")
        with Visitor(live.address, "stable" if with_file else None) as visitor:
            after = "Nothing has changed" if with_file else "the server serves the latest version of recommender only"
            with pytest.raises(ReleaseError, match=rf"version 3: the server cannot load it: .*{after}$"):
                release(folder, plan_canary(folder, 3), live)
            wait_for(lambda: available(live) == serving)
        assert visitor.failures == []
        assert visitor.versions == list(serving)
        if with_file:
            assert live.resolve("stable") == 1
    assert (folder.config.read_bytes() if folder.config.exists() else None) == before
    assert read_moves(folder.record) == recorded


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.slow
def test_wherever_a_move_is_cut_off_the_file_serves_and_the_next_move_succeeds(
    folder: ServingFolder, start: Start
) -> None:
    release(folder, plan_stable(1), None)
    steps: list[str] = []
    with connect(start()) as live:
        move_labels(folder, {"stable": 2}, live, tell=steps.append)
        move_labels(folder, {"stable": 1}, live)
    assert len(steps) == 4
    for crash_at in range(len(steps)):
        for after_write in (False, True):
            with connect(start()) as live:
                _move_and_crash(folder, live, crash_at, after_write)
            config = read_config(folder.config)
            labels = labels_of(config, "recommender")
            assert set(labels.values()) <= {1, 2}
            (model,) = config.model_config_list.config
            assert set(labels.values()) <= set(model.model_version_policy.specific.versions)
            with connect(start()) as fresh:
                fresh.wait_until_available(labels["stable"], 20, {})
                assert fresh.resolve("stable") == labels["stable"]
                move_labels(folder, {"stable": 1}, fresh, timeout_seconds=20)
                assert fresh.resolve("stable") == 1


def _move_and_crash(folder: ServingFolder, live: LiveServer, crash_at: int, after_write: bool) -> None:
    """Crashes at a step, or when the server is told for the first time after it."""
    count = 0
    reload = live.reload

    def crash(*unused: object) -> None:
        raise Crash

    def tell(step: str) -> None:
        nonlocal count
        if count == crash_at:
            if not after_write:
                raise Crash
            live.reload = crash  # type: ignore[method-assign, assignment]
        count += 1

    try:
        move_labels(folder, {"stable": 2}, live, tell=tell)
    except Crash:
        pass
    finally:
        live.reload = reload  # type: ignore[method-assign]


def test_without_a_server_only_the_file_is_written_and_a_server_starts_from_it(
    folder: ServingFolder, start: Start
) -> None:
    release(folder, plan_stable(1), None)
    (move,) = release(folder, plan_canary(folder, 2), None)
    assert (move.state, move.address) == ("offline", None)
    with connect(start()) as live:
        wait_for(lambda: available(live) == {1, 2})
        assert (live.resolve("stable"), live.resolve("canary")) == (1, 2)


def test_a_folder_without_a_model_is_refused_before_anything_is_asked(folder: ServingFolder) -> None:
    (folder.versions / "7").mkdir()
    (folder.versions / "8").mkdir()
    (folder.versions / "8" / "saved_model.pb").write_bytes(b"nothing of the kind")
    with pytest.raises(ReleaseError, match=r"recommender/7 holds no saved_model.pb; pushed versions: 8, 3, 2, 1"):
        release(folder, plan_canary(folder, 7), None)
    with pytest.raises(ReleaseError, match=r"8/saved_model.pb is no SavedModel"):
        release(folder, plan_canary(folder, 8), None)
    with pytest.raises(ReleaseError, match=r"there is no folder .*recommender/9"):
        release(folder, plan_canary(folder, 9), None)
    with pytest.raises(ReleaseError, match="no version is the canary"):
        release(folder, plan_stable(None), None)
    assert not folder.config.exists()
    assert not folder.record.exists()


def test_a_rollback_to_a_version_whose_folder_is_gone_is_refused(folder: ServingFolder) -> None:
    release(folder, plan_stable(2), None)
    release(folder, plan_stable(1), None)
    before = folder.config.read_bytes()
    shutil.rmtree(folder.versions / "2")
    with pytest.raises(ReleaseError, match=r"cannot roll back to version 2: its model is gone from .*recommender"):
        release(folder, plan_rollback(folder), None, action="rollback")
    assert folder.config.read_bytes() == before


def test_a_label_on_a_version_that_is_gone_does_not_block_a_release(folder: ServingFolder, start: Start) -> None:
    release(folder, plan_stable(1), None)
    release(folder, plan_canary(folder, 2), None)
    shutil.rmtree(folder.versions / "2")
    told: list[str] = []
    with connect(start()) as live:
        release(folder, plan_stable(1), live, tell=told.append)
        assert live.resolve("stable") == 1
    assert config_labels(folder) == {"stable": 1}
    assert any(step.startswith("label 'canary' is dropped: version 2: it is gone from") for step in told)
    dropped = read_moves(folder.record)[-1]
    assert (dropped.action, dropped.label, dropped.from_version, dropped.to_version) == ("drop", "canary", 2, None)


def test_without_a_server_a_label_on_a_version_that_is_gone_is_dropped_and_recorded(folder: ServingFolder) -> None:
    release(folder, plan_stable(1), None)
    release(folder, plan_canary(folder, 2), None)
    shutil.rmtree(folder.versions / "2")
    (dropped,) = release(folder, plan_stable(1), None)
    assert (dropped.action, dropped.label, dropped.state) == ("drop", "canary", "offline")
    assert config_labels(folder) == {"stable": 1}


@pytest.mark.parametrize(
    ("seconds", "says"), [(5.0, "the server cannot load it: "), (2.0, "it is not available after 2 s; the server says")]
)
def test_stable_is_never_lost_to_the_release_of_a_canary(
    folder: ServingFolder, start: Start, seconds: float, says: str
) -> None:
    release(folder, plan_stable(3), None)
    release(folder, plan_canary(folder, 1), None)
    before, recorded = folder.config.read_bytes(), folder.record.read_bytes()
    with connect(start()) as live:
        refusal = rf"version 2: the label 'stable' would be lost: its version 3: {says}.*Nothing has changed$"
        with pytest.raises(ReleaseError, match=refusal):
            release(folder, plan_canary(folder, 2), live, timeout_seconds=seconds)
        assert live.resolve("canary") == 1
    assert (folder.config.read_bytes(), folder.record.read_bytes()) == (before, recorded)


def test_the_first_release_says_that_it_replaces_what_the_server_was_started_with(
    folder: ServingFolder, start: Start
) -> None:
    shutil.rmtree(folder.versions / "3")
    told: list[str] = []
    with connect(start()) as live:
        release(folder, plan_stable(2), live, tell=told.append)
        assert "models.config yet: the server's whole configuration is replaced" in told[0]
        told.clear()
        release(folder, plan_stable(1), live, tell=told.append)
        assert told[0].startswith("loading")


def test_a_server_that_does_not_answer_changes_nothing(folder: ServingFolder) -> None:
    with (
        LiveServer("127.0.0.1:1", "recommender", 0.5) as live,
        pytest.raises(ReleaseError, match=r"no (server answers at this address|answer).*Nothing has changed"),
    ):
        release(folder, plan_stable(1), live)
    assert not folder.config.exists()


def test_two_releases_at_once_do_not_interleave(folder: ServingFolder) -> None:
    with folder.exclusive(), pytest.raises(ReleaseError, match=r"another release is under way in .*serving; wait"):
        release(folder, plan_stable(1), None)
    assert len(release(folder, plan_stable(1), None)) == 1
    assert release(folder, plan_stable(1), None) == []
    assert len(read_moves(folder.record)) == 1


def test_a_move_that_could_not_be_recorded_says_so(folder: ServingFolder) -> None:
    folder.record.mkdir()
    with pytest.raises(
        ReleaseError, match=r"the labels have moved, but .*releases\.jsonl lacks stable: None → 1: .*Is a directory"
    ):
        release(folder, plan_stable(1), None)
    assert config_labels(folder) == {"stable": 1}


def test_nothing_moves_if_the_runs_cannot_be_read(folder: ServingFolder) -> None:
    def find_evidence() -> dict[int, RunEvidence]:
        raise ReleaseError("the runs cannot be read")

    with pytest.raises(ReleaseError, match="the runs cannot be read"):
        release(folder, plan_stable(1), None, find_evidence=find_evidence)
    assert not folder.config.exists()
    assert not folder.record.exists()
