"""Versions come and go while a server runs: nothing is lost, nothing half-written is served."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import tensorflow as tf

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import predict_pb2
from pipeline.serving.server.servable import Servable
from pipeline.serving.server.version_folders import Choice, Policy, choose, fingerprint, version_number
from pipeline.serving.server.versions import LoadOptions, ModelVersions, State, Target, VersionStatus
from tests.serving.saved_models import export_recommender, publish, truncate, write_warm_up_request
from tests.serving.server.text_models import BlockingLoader, TextModel, wait_until, write_version

ONCE = LoadOptions(max_num_load_retries=0)
LATEST = Policy()
ALL = Policy(all=Policy.All())


def latest(count: int) -> Policy:
    return Policy(latest=Policy.Latest(num_versions=count))


def specific(*versions: int) -> Policy:
    return Policy(specific=Policy.Specific(versions=versions))


def text_versions(
    base_path: Path,
    policy: Policy = LATEST,
    options: LoadOptions = ONCE,
    load: Callable[[str], TextModel] = TextModel,
    on_available: Callable[[int], None] = lambda version: None,
) -> ModelVersions:
    target = Target(str(base_path), policy)
    return ModelVersions("m", load, target, options=options, on_available=on_available)  # type: ignore[arg-type]


def settle(versions: ModelVersions) -> None:
    versions.poll()
    while versions.advance():
        pass


def states(versions: ModelVersions) -> dict[int, State]:
    return {version: status.state for version, status in versions.statuses.items()}


def available(versions: ModelVersions) -> list[int]:
    return sorted(version for version, state in states(versions).items() if state is State.AVAILABLE)


def error_of(versions: ModelVersions, version: int) -> StatusError:
    error = versions.statuses[version].error
    assert error is not None
    return error


# Which folders are versions, and which of them a policy chooses.


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("7", 7),
        ("007", 7),
        ("-6", -6),
        ("+6", 6),
        (" 5 ", 5),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", None),
        ("1700000000", 1700000000),
        ("4.5", None),
        ("1_0", None),
        ("0x10", None),
        ("v2", None),
        ("", None),
        ("- 6", None),
        ("٣", None),
        (".pushing-3", None),
    ],
)
def test_folder_names_are_read_as_tensorflow_serving_reads_them(folder: str, version: int | None):
    assert version_number(folder) == version


@pytest.mark.parametrize(
    ("policy", "complete", "incomplete", "missing"),
    [
        (LATEST, {5}, {7}, set()),
        (latest(0), {5}, {7}, set()),
        (latest(2), {3, 5}, {7}, set()),
        (latest(9), {1, 3, 5}, {7}, set()),
        (ALL, {1, 3, 5}, {7}, set()),
        (specific(3), {3}, set(), set()),
        (specific(1, 5, 7, 9), {1, 5}, {7}, {9}),
        (specific(), set(), set(), set()),
    ],
)
def test_policies_choose_among_complete_versions(
    policy: Policy, complete: set[int], incomplete: set[int], missing: set[int]
):
    found = {version: f"/models/{version}" for version in (1, 3, 5, 7)}
    choice = choose(policy, found, lambda version: version != 7)
    assert choice == Choice(frozenset(complete), frozenset(incomplete), frozenset(missing))


def test_of_two_folders_of_a_version_the_last_in_order_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path, "007", "zeros")
    write_version(tmp_path, "7", "plain")
    versions = text_versions(tmp_path)
    with caplog.at_level("WARNING", logger="absl"):
        settle(versions)
        settle(versions)
    assert [message for message in caplog.messages if "two folders" in message] == [
        f"version 7 of model m has two folders below {tmp_path}: 7 is used, 007 is ignored"
    ]
    with versions.lend(7) as lease:
        assert lease.servable.text == "plain"  # type: ignore[attr-defined]
    versions.close()


def test_a_fingerprint_changes_with_any_file(tmp_path: Path):
    path = write_version(tmp_path, 1)
    (path / "variables").mkdir()
    prints = [fingerprint(str(path))]
    for name, text in (("variables/data", "a"), ("variables/data", "b"), ("saved_model.pb", "good")):
        replaced = path / f"{name}.new"
        replaced.write_text(text)
        replaced.rename(path / name)
        prints.append(fingerprint(str(path)))
    (path / "variables" / "data").unlink()
    prints.append(fingerprint(str(path)))
    assert len(set(prints)) == 5
    assert fingerprint(str(path)) == prints[-1]


def test_a_remote_folder_has_a_fingerprint_as_well(tmp_path: Path):
    path = write_version(tmp_path, 1)
    before = fingerprint(f"file://{path}")
    assert fingerprint(f"file://{path}") == before
    (path / "saved_model.pb").write_text("longer than before")
    assert fingerprint(f"file://{path}") != before


# What is loaded and unloaded, and in which order.


def test_the_latest_version_is_served_and_an_older_one_when_it_goes(tmp_path: Path):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    served: list[int] = []
    versions = text_versions(tmp_path, on_available=served.append)
    settle(versions)
    assert states(versions) == {2: State.AVAILABLE}
    shutil.rmtree(tmp_path / "2")
    settle(versions)
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    shutil.rmtree(tmp_path / "1")
    settle(versions)
    assert states(versions) == {2: State.END, 1: State.END}
    assert versions.statuses[1] == VersionStatus(State.END)
    assert served == [2, 1]


def test_a_remote_base_path_is_served(tmp_path: Path):
    write_version(tmp_path, 4)
    versions = ModelVersions(
        "m",
        lambda path: TextModel(path.removeprefix("file://")),  # type: ignore[arg-type, return-value]
        Target(f"file://{tmp_path}", LATEST),
    )
    settle(versions)
    assert available(versions) == [4]
    versions.close()


def test_policies_are_followed_and_may_change(tmp_path: Path):
    for version in range(1, 6):
        write_version(tmp_path, version)
    versions = text_versions(tmp_path, latest(2))
    for policy, expected in ((latest(2), [4, 5]), (ALL, [1, 2, 3, 4, 5]), (specific(2, 4), [2, 4]), (LATEST, [5])):
        versions.target = Target(str(tmp_path), policy)
        settle(versions)
        assert available(versions) == expected
        with versions.lend() as lease:
            assert lease.version == expected[-1]
    versions.target = None
    settle(versions)
    assert available(versions) == []
    with pytest.raises(StatusError, match=r"^Servable not found for request: Latest\(m\)$"):
        versions.lend()
    assert set(states(versions).values()) == {State.END}


def test_a_version_is_loaded_before_the_last_old_one_is_unloaded(tmp_path: Path):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    versions = text_versions(tmp_path, ALL)
    settle(versions)
    write_version(tmp_path, 3)
    write_version(tmp_path, 4)
    versions.target = Target(str(tmp_path), specific(3, 4))
    versions.poll()
    seen = [states(versions)]
    while versions.advance():
        seen.append(states(versions))
    start, available_, unloading, end = State.START, State.AVAILABLE, State.UNLOADING, State.END
    # As TensorFlow Serving's AvailabilityPreservingPolicy: one old version is enough to stay available.
    assert seen == [
        {4: start, 3: start, 2: available_, 1: available_},
        {4: start, 3: start, 2: available_, 1: unloading},
        {4: start, 3: start, 2: available_, 1: end},
        {4: available_, 3: start, 2: available_, 1: end},
        {4: available_, 3: start, 2: unloading, 1: end},
        {4: available_, 3: start, 2: end, 1: end},
        {4: available_, 3: available_, 2: end, 1: end},
    ]
    versions.close()


def test_states_have_the_numbers_of_tensorflow_serving():
    assert {state.name: int(state) for state in State} == {
        "START": 10,
        "LOADING": 20,
        "AVAILABLE": 30,
        "UNLOADING": 40,
        "END": 50,
    }


def test_requests_under_way_finish_before_their_version_goes(tmp_path: Path):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path)
    settle(versions)
    with versions.lend() as lease, versions.lend(1):
        write_version(tmp_path, 2)
        settle(versions)  # Does not wait for them.
        assert states(versions) == {2: State.AVAILABLE, 1: State.UNLOADING}
        assert not versions.has_returned
        with versions.lend() as newest:
            assert newest.version == 2
        with pytest.raises(StatusError, match=r"Servable not found for request: Specific\(m, 1\)") as raised:
            versions.lend(1)
        assert raised.value.code is grpc.StatusCode.NOT_FOUND
        assert not lease.servable.is_closed  # type: ignore[attr-defined]
    assert versions.has_returned
    assert versions.advance()
    assert lease.servable.is_closed  # type: ignore[attr-defined]
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


def test_a_version_wanted_again_while_requests_have_it_is_loaded_again(tmp_path: Path):
    for version in (1, 2):
        write_version(tmp_path, version)
    versions = text_versions(tmp_path, specific(1))
    settle(versions)
    with versions.lend(1):
        versions.target = Target(str(tmp_path), specific(2))
        settle(versions)
        versions.target = Target(str(tmp_path), specific(1))
        settle(versions)
        assert states(versions) == {2: State.AVAILABLE, 1: State.UNLOADING}
    while versions.advance():
        pass
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    versions.close()


def test_closing_waits_for_requests(tmp_path: Path):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path)
    settle(versions)
    with versions.lend() as lease:
        thread = threading.Thread(target=versions.close)
        thread.start()
        wait_until(lambda: states(versions) == {1: State.UNLOADING})
        assert thread.is_alive()
    thread.join(10)
    assert states(versions) == {1: State.END}
    assert lease.servable.is_closed  # type: ignore[attr-defined]


def test_a_model_that_cannot_be_closed_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Stubborn(TextModel):
        def close(self) -> None:
            raise RuntimeError("no")

    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, load=Stubborn)
    settle(versions)
    versions.close()
    assert states(versions) == {1: State.END}
    assert "closing version 1 of model m failed" in caplog.text


def test_a_failing_listener_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def fail(version: int) -> None:
        raise RuntimeError(version)

    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, on_available=fail)
    settle(versions)
    assert available(versions) == [1]
    assert "telling of version 1 of model m failed" in caplog.text
    versions.close()


# What is not there, or not there yet.


def test_waits_for_a_first_version(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    base_path = tmp_path / "m"
    versions = text_versions(base_path)
    with caplog.at_level("WARNING", logger="absl"):
        settle(versions)
        base_path.mkdir()
        settle(versions)
        settle(versions)
    assert caplog.messages == [
        f"could not list the base path {base_path} of model m: there is no folder {base_path}",
        f"no versions of model m found under the base path {base_path}; waiting",
    ]
    assert versions.statuses == {}
    write_version(base_path, 1)
    settle(versions)
    assert states(versions) == {1: State.AVAILABLE}
    versions.close()


def test_a_base_path_that_is_away_for_a_moment_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    base_path = tmp_path / "m"
    write_version(base_path, 1)
    versions = text_versions(base_path)
    settle(versions)
    base_path.rename(tmp_path / "away")
    with caplog.at_level("WARNING", logger="absl"):
        for _ in range(3):
            settle(versions)
        assert len(caplog.messages) == 1
        assert available(versions) == [1]
        (tmp_path / "away").rename(base_path)
        settle(versions)
        base_path.rename(tmp_path / "away")
        settle(versions)
        assert len(caplog.messages) == 2  # It was well in between.
    versions.close()


def test_versions_that_a_policy_names_in_vain_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, specific(1, 9))
    with caplog.at_level("WARNING", logger="absl"):
        settle(versions)
        settle(versions)
        versions.target = Target(str(tmp_path), specific())
        settle(versions)
        settle(versions)
    assert caplog.messages == [
        f"version 9 of model m, which its version policy names, is not below {tmp_path}",
        "the version policy of model m names no versions",
    ]
    assert states(versions) == {1: State.END}


def test_the_last_version_stays_if_versions_must_always_be_present(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, options=LoadOptions(servable_versions_always_present=True))
    settle(versions)
    shutil.rmtree(tmp_path / "1")
    settle(versions)
    assert available(versions) == [1]
    assert "refusing to unload all versions of model m" in caplog.messages
    versions.close()


@pytest.mark.parametrize("policy", [LATEST, specific(2), ALL])
def test_a_folder_without_a_model_file_is_not_looked_at(
    tmp_path: Path, policy: Policy, caplog: pytest.LogCaptureFixture
):
    write_version(tmp_path, 1)
    loader: list[str] = []

    def load(path: str) -> TextModel:
        loader.append(Path(path).name)
        return TextModel(path)

    versions = text_versions(tmp_path, load=load)
    settle(versions)
    (tmp_path / "2" / "variables").mkdir(parents=True)
    versions.target = Target(str(tmp_path), policy)
    with caplog.at_level("WARNING", logger="absl"):
        settle(versions)
        settle(versions)
    assert states(versions) == {1: State.AVAILABLE}
    assert caplog.messages == [f"version 2 of model m is not complete: {tmp_path}/2 has no saved_model.pb"]
    write_version(tmp_path, 2)
    settle(versions)
    assert available(versions) == ([1, 2] if policy is ALL else [2])
    assert loader == ["1", "2"]
    versions.close()


def test_the_old_version_stays_while_the_only_folder_is_half_copied(tmp_path: Path):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path)
    settle(versions)
    (tmp_path / "2").mkdir()
    shutil.rmtree(tmp_path / "1")
    settle(versions)
    assert states(versions) == {1: State.AVAILABLE}
    write_version(tmp_path, 2)
    settle(versions)
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


def test_a_text_saved_model_is_one_too(tmp_path: Path):
    path = write_version(tmp_path, 1)
    shutil.copy(path / "saved_model.pb", path / "saved_model.pbtxt")
    (path / "saved_model.pb").unlink()
    loaded: list[str] = []

    def load(path: str) -> TextModel:
        loaded.append(path)
        shutil.copy(Path(path) / "saved_model.pbtxt", tmp_path / "saved_model.pb")
        return TextModel(str(tmp_path))

    versions = text_versions(tmp_path, load=load)
    settle(versions)
    assert loaded == [str(path)]
    assert available(versions) == [1]
    versions.close()


# What does not load.


def test_a_version_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path)
    settle(versions)
    write_version(tmp_path, 2, "broken")
    for _ in range(3):
        settle(versions)
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    assert error_of(versions, 2).code is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(versions, 2).message == "broken cannot be parsed"
    assert (
        caplog.messages.count("version 2 of model m could not be loaded: INVALID_ARGUMENT: broken cannot be parsed")
        == 1
    )
    write_version(tmp_path, 2, "repaired")
    settle(versions)
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


def test_a_version_that_failed_is_tried_again_only_when_its_files_change(tmp_path: Path):
    attempts: list[str] = []

    def load(path: str) -> TextModel:
        attempts.append(path)
        return TextModel(path)

    write_version(tmp_path, 1, "broken")
    versions = text_versions(tmp_path, load=load)
    for _ in range(3):
        settle(versions)
    assert len(attempts) == 1
    (tmp_path / "1" / "asset").write_text("new")
    settle(versions)
    settle(versions)
    assert len(attempts) == 2
    os.utime(tmp_path / "1" / "asset", ns=(0, 0))
    settle(versions)
    assert len(attempts) == 3
    assert states(versions) == {1: State.END}


def test_files_that_change_while_they_are_loaded_are_not_served(tmp_path: Path):
    copies = iter(["half", "whole"])
    loaded: list[TextModel] = []

    def load(path: str) -> TextModel:
        loaded.append(TextModel(path))
        if (text := next(copies, None)) is not None:
            (Path(path) / "asset").write_text(text)  # The copy goes on.
        return loaded[-1]

    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, load=load)
    settle(versions)
    assert error_of(versions, 1).code is grpc.StatusCode.UNAVAILABLE
    assert error_of(versions, 1).message == f"The files in {tmp_path}/1 changed while they were loaded"
    settle(versions)
    assert states(versions) == {1: State.END}
    settle(versions)
    assert available(versions) == [1]
    assert [model.is_closed for model in loaded] == [True, True, False]
    versions.close()


def test_whatever_a_loader_raises_is_a_status(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def load(path: str) -> TextModel:
        raise MemoryError("too big")

    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, load=load)
    settle(versions)
    assert error_of(versions, 1).code is grpc.StatusCode.UNKNOWN
    assert error_of(versions, 1).message == "MemoryError: too big"
    assert f"loading {tmp_path}/1 failed" in caplog.text


def test_loading_is_retried_without_holding_up_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    attempts: list[int] = []

    def load(path: str) -> TextModel:
        attempts.append(int(Path(path).name))
        return TextModel(path)

    write_version(tmp_path, 1)
    write_version(tmp_path, 2, "broken")
    versions = text_versions(tmp_path, latest(2), LoadOptions(2, 0.05), load=load)
    settle(versions)
    # TensorFlow Serving shows a version that is to be tried again as LOADING, without an error.
    assert versions.statuses == {2: VersionStatus(State.LOADING), 1: VersionStatus(State.AVAILABLE)}
    assert "broken cannot be parsed (trying again in 0.05 s)" in caplog.text
    assert versions.next_attempt is not None
    wait_until(lambda: versions.advance() and states(versions)[2] is State.END)
    assert attempts == [2, 1, 2, 2]
    assert versions.next_attempt is None
    assert error_of(versions, 2).message == "broken cannot be parsed"
    versions.close()


def test_a_change_of_files_or_policy_cuts_a_retry_short(tmp_path: Path):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2, "broken")
    versions = text_versions(tmp_path, specific(2), LoadOptions(5, 3600))
    settle(versions)
    assert states(versions) == {2: State.LOADING}
    versions.target = Target(str(tmp_path), specific(1))
    settle(versions)
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    versions.target = Target(str(tmp_path), specific(2))
    settle(versions)
    assert states(versions) == {2: State.LOADING, 1: State.AVAILABLE}
    write_version(tmp_path, 2, "repaired")
    settle(versions)
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


@pytest.mark.parametrize("options", [ONCE, LoadOptions(5, 3600)])
def test_if_nothing_serves_the_next_version_down_does(tmp_path: Path, options: LoadOptions):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2, "broken as well")
    write_version(tmp_path, 3, "broken")
    versions = text_versions(tmp_path, options=options)
    for _ in range(3):
        settle(versions)
        assert available(versions) == [1]
    assert states(versions)[2] is State.END
    write_version(tmp_path, 3, "repaired")
    settle(versions)
    assert available(versions) == [3]
    versions.close()


def test_a_policy_that_names_versions_gets_no_other(tmp_path: Path):
    write_version(tmp_path, 1)
    write_version(tmp_path, 2, "broken")
    versions = text_versions(tmp_path, specific(2))
    settle(versions)
    assert states(versions) == {2: State.END}


def test_loading_is_visible_and_the_old_version_answers_meanwhile(tmp_path: Path):
    loader = BlockingLoader()
    loader.allowed.release()
    write_version(tmp_path, 1)
    versions = text_versions(tmp_path, load=loader)
    settle(versions)
    write_version(tmp_path, 2)
    thread = threading.Thread(target=settle, args=(versions,))
    thread.start()
    assert loader.started.acquire(timeout=10)
    wait_until(lambda: len(loader.paths) == 2)
    assert states(versions) == {2: State.LOADING, 1: State.AVAILABLE}
    with versions.lend() as lease:
        assert lease.version == 1
    loader.allowed.release()
    thread.join(10)
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


# With real models.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two good models, that recommend different titles first."""
    folder = tmp_path_factory.mktemp("models")
    return {name: export_recommender(folder / name, first=name) for name in ("i1", "i2")}


def recommends(versions: ModelVersions) -> bytes:
    request = predict_pb2.PredictRequest()
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([b""]))
    with versions.lend() as lease:
        return lease.servable.predict(request).outputs["item_ids"].string_val[0]


def real_versions(base_path: Path) -> ModelVersions:
    return ModelVersions("recommender", Servable, Target(str(base_path), LATEST), options=ONCE)


def test_a_model_copied_piece_by_piece_is_served_once_it_is_whole(tmp_path: Path, models: dict[str, Path]):
    publish(models["i1"], tmp_path, 1)
    versions = real_versions(tmp_path)
    settle(versions)
    files = sorted(path.relative_to(models["i2"]) for path in models["i2"].rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name != "saved_model.pb")  # The worst order: the main file first.
    for file in files:
        assert recommends(versions) == b"i1"
        (tmp_path / "2" / file).parent.mkdir(parents=True, exist_ok=True)
        whole = (models["i2"] / file).read_bytes()
        for part in (whole[: len(whole) // 2], whole):
            (tmp_path / "2" / file).write_bytes(part)
            settle(versions)
    assert recommends(versions) == b"i2"
    assert states(versions) == {2: State.AVAILABLE, 1: State.END}
    versions.close()


def test_a_model_file_cut_off_is_reported(tmp_path: Path, models: dict[str, Path]):
    truncate(publish(models["i1"], tmp_path, 1))
    versions = real_versions(tmp_path)
    settle(versions)
    assert "Can't parse" in error_of(versions, 1).message
    shutil.copy(models["i1"] / "saved_model.pb", tmp_path / "1" / "saved_model.pb")
    settle(versions)
    assert recommends(versions) == b"i1"
    versions.close()


def test_missing_variables_are_reported(tmp_path: Path, models: dict[str, Path]):
    shutil.rmtree(publish(models["i1"], tmp_path, 1) / "variables")
    versions = real_versions(tmp_path)
    settle(versions)
    assert "variables" in error_of(versions, 1).message
    shutil.copytree(models["i1"] / "variables", tmp_path / "1" / "variables")
    settle(versions)
    assert recommends(versions) == b"i1"
    versions.close()


def test_a_model_that_fails_its_own_warm_up_is_not_served(tmp_path: Path, models: dict[str, Path]):
    publish(models["i1"], tmp_path, 1)
    versions = real_versions(tmp_path)
    settle(versions)
    write_warm_up_request(publish(models["i2"], tmp_path, 2), "no_such", [b""])
    settle(versions)
    assert states(versions) == {2: State.END, 1: State.AVAILABLE}
    assert 'Serving signature key "no_such" not found.' in error_of(versions, 2).message
    assert recommends(versions) == b"i1"
    versions.close()
