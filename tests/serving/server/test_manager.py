"""Models by name, version and label, and configurations that change while requests come in."""

from __future__ import annotations

import itertools
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import logging_config_pb2, model_pb2, model_server_config_pb2
from pipeline.serving.prediction_logs import read_prediction_logs
from pipeline.serving.server.manager import ModelManager
from pipeline.serving.server.request_log import RequestLogger
from pipeline.serving.server.servable import Servable
from pipeline.serving.server.versions import LoadOptions, State
from tests.serving.saved_models import export_arithmetic, publish
from tests.serving.server.text_models import BlockingLoader, TextModel, wait_until, write_version

ONCE = LoadOptions(max_num_load_retries=0)


def spec(name: str = "m", version: int | None = None, label: str | None = None) -> model_pb2.ModelSpec:
    request = model_pb2.ModelSpec(name=name)
    if version is not None:
        request.version.value = version
    if label is not None:
        request.version_label = label
    return request


def config(**models: Any) -> model_server_config_pb2.ModelServerConfig:
    """Returns a configuration of models by name: a base path, or fields of ModelConfig in text form."""
    result = model_server_config_pb2.ModelServerConfig()
    result.model_config_list.SetInParent()
    for name, fields in models.items():
        entry = result.model_config_list.config.add(name=name, model_platform="tensorflow")
        if isinstance(fields, Path):
            entry.base_path = str(fields)
        else:
            text_format.Merge(fields, entry)
    return result


def specific(base_path: Path, *versions: int, **labels: int) -> str:
    chosen = " ".join(f"versions: {version}" for version in versions)
    named = " ".join(f"version_labels {{ key: '{label}' value: {version} }}" for label, version in labels.items())
    return f"base_path: '{base_path}' model_version_policy {{ specific {{ {chosen} }} }} {named}"


class Managers:
    """Makes managers of text models, and closes them in the end."""

    def __init__(self) -> None:
        self.made: list[ModelManager] = []

    def __call__(self, first: model_server_config_pb2.ModelServerConfig, **arguments: Any) -> ModelManager:
        arguments = {"load": TextModel, "poll_seconds": 0.01, "options": ONCE, **arguments}
        manager = ModelManager(first, **arguments)
        self.made.append(manager)
        manager.start()
        return manager


@pytest.fixture
def start() -> Iterator[Managers]:
    managers = Managers()
    yield managers
    for manager in managers.made:
        manager.close()


def states(manager: ModelManager, name: str = "m") -> dict[int, State]:
    try:
        return {version: status.state for version, status in manager.statuses(spec(name)).items()}
    except StatusError:
        return {}


def available(manager: ModelManager, name: str = "m") -> list[int]:
    return sorted(version for version, state in states(manager, name).items() if state is State.AVAILABLE)


def served(manager: ModelManager, request: model_pb2.ModelSpec) -> int:
    with manager.acquire(request) as lease:
        return lease.version


def refuses(call: Callable[[], object], code: grpc.StatusCode, message: str) -> None:
    with pytest.raises(StatusError) as raised:
        call()
    assert (raised.value.code, raised.value.message) == (code, message)


# Requests.


def test_requests_choose_by_version_by_label_or_the_latest(tmp_path: Path, start: Managers):
    for version in (1, 2, 3):
        write_version(tmp_path, version, f"version {version}")
    manager = start(config(m=specific(tmp_path, 1, 2)))
    manager.wait_until_available(10)
    wait_until(lambda: available(manager) == [1, 2])
    manager.reload(config(m=specific(tmp_path, 1, 2, stable=1, canary=2)))
    assert served(manager, spec()) == 2
    assert served(manager, spec(version=1)) == 1
    assert served(manager, spec(label="stable")) == 1
    assert served(manager, spec(label="canary")) == 2
    with manager.acquire(spec(label="stable")) as lease:
        assert (lease.name, lease.version, lease.request_logger) == ("m", 1, None)
        assert lease.servable.text == "version 1"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_spec", "code", "message"),
    [
        (model_pb2.ModelSpec(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (spec("other"), "NOT_FOUND", "Servable not found for request: Latest(other)"),
        (spec("other", 3), "NOT_FOUND", "Servable not found for request: Specific(other, 3)"),
        (spec("m", 9), "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
        (spec("m", -1), "NOT_FOUND", "Servable not found for request: Specific(m, -1)"),
        (spec("m", label="beta"), "INVALID_ARGUMENT", "Unrecognized servable version label: beta"),
        (spec("other", label="beta"), "INVALID_ARGUMENT", "Unrecognized servable version label: beta"),
        (spec("m", label=""), "INVALID_ARGUMENT", "Unrecognized servable version label: "),
    ],
)
def test_requests_for_what_is_not_there_get_tensorflow_servings_errors(
    tmp_path: Path, start: Managers, request_spec: model_pb2.ModelSpec, code: str, message: str
):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path))
    manager.wait_until_available(10)
    refuses(lambda: manager.acquire(request_spec), grpc.StatusCode[code], message)


def test_before_a_first_configuration_there_are_no_labels(start: Managers):
    manager = start(model_server_config_pb2.ModelServerConfig())
    refuses(
        lambda: manager.acquire(spec(label="stable")),
        grpc.StatusCode.UNAVAILABLE,
        "Model labels does not init yet.stable",
    )
    refuses(lambda: manager.acquire(spec()), grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)")


def test_statuses_are_those_of_tensorflow_serving(tmp_path: Path, start: Managers):
    for version in (1, 2):
        write_version(tmp_path, version)
    manager = start(config(m=specific(tmp_path, 1, 2)))
    wait_until(lambda: available(manager) == [1, 2])
    assert list(manager.statuses(spec())) == [2, 1]
    assert list(manager.statuses(spec(version=1))) == [1]
    assert list(manager.statuses(spec(label="whatever"))) == [2, 1]
    not_found = grpc.StatusCode.NOT_FOUND
    refuses(lambda: manager.statuses(spec(version=5)), not_found, "Could not find version 5 of model m")
    refuses(lambda: manager.statuses(spec("x")), not_found, "Could not find any versions of model x")
    refuses(lambda: manager.statuses(spec("x", 5)), not_found, "Could not find version 5 of model x")
    refuses(lambda: manager.statuses(spec("")), not_found, "Could not find any versions of model ")
    manager.reload(config())
    wait_until(lambda: states(manager) == {2: State.END, 1: State.END})  # They stay known.


# Configurations that are refused.


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            "config { name: 'm' base_path: '/a' model_platform: 'tensorflow' } config { name: 'm' base_path: '/b' }",
            "Illegal to list model m multiple times in config list",
        ),
        (
            "config { name: 'm' model_platform: 'tensorflow' }",
            "Expected model m to have an absolute path or URI; got base_path()=",
        ),
        (
            "config { name: 'm' base_path: 'models/m' model_platform: 'tensorflow' }",
            "Expected model m to have an absolute path or URI; got base_path()=models/m",
        ),
        (
            "config { name: 'm' base_path: '/m' }",
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            "config { name: 'm' base_path: '/m' model_type: TENSORFLOW model_platform: 'tensorflow' }",
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            "config { name: 'm' base_path: '/m' model_type: OTHER }",
            "ModelServerConfig::model_type choice 2 not supported.",
        ),
        (
            "config { name: 'm' base_path: '/m' model_platform: 'pytorch' }",
            "Model m requests unsupported platform pytorch",
        ),
        (
            "config { name: 'm' base_path: '/m' model_platform: 'tensorflow' logging_config {} }",
            "No request-logger-creator provided.",
        ),
        (
            "config { name: 'old' base_path: '/old' model_platform: 'pytorch' }",
            "Illegal to change a model's platform. For model old platform was tensorflow and new platform requested "
            "is pytorch",
        ),
    ],
)
@pytest.mark.parametrize("load_labelled_first", [False, True])
def test_a_refused_configuration_changes_nothing(
    tmp_path: Path, start: Managers, models: str, message: str, load_labelled_first: bool
):
    write_version(tmp_path, 1)
    manager = start(config(old=tmp_path))
    manager.wait_until_available(10)
    new = text_format.Parse(f"model_config_list {{ {models} }}", model_server_config_pb2.ModelServerConfig())
    refuses(
        lambda: manager.reload(new, load_labelled_first=load_labelled_first),
        grpc.StatusCode.INVALID_ARGUMENT,
        message,
    )
    time.sleep(0.05)
    assert available(manager, "old") == [1]
    if "'old'" not in models:
        first = lambda: ModelManager(new, load=TextModel)  # type: ignore[arg-type, return-value] # noqa: E731
        refuses(first, grpc.StatusCode.INVALID_ARGUMENT, message)


def test_other_kinds_of_configuration_are_refused(tmp_path: Path, start: Managers):
    manager = start(config())
    message = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    custom = model_server_config_pb2.ModelServerConfig()
    custom.custom_model_config.SetInParent()
    for other in (custom, model_server_config_pb2.ModelServerConfig()):
        refuses(lambda other=other: manager.reload(other), grpc.StatusCode.INVALID_ARGUMENT, message)  # type: ignore[misc]
    refuses(
        lambda: ModelManager(custom, load=TextModel),  # type: ignore[arg-type, return-value]
        grpc.StatusCode.INVALID_ARGUMENT,
        "ModelServer does not yet support custom model config.",
    )


def test_the_deprecated_model_type_and_remote_base_paths_are_taken(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    first = text_format.Parse(
        f"model_config_list {{ config {{ name: 'm' base_path: 'file://{tmp_path}' model_type: TENSORFLOW }} }}",
        model_server_config_pb2.ModelServerConfig(),
    )
    manager = start(first, load=lambda path: TextModel(path.removeprefix("file://")))
    manager.wait_until_available(10)
    manager.reload(config(m=f"base_path: 'file://{tmp_path}'"))  # The same platform by the other field.
    assert available(manager) == [1]


# Labels.

_UNAVAILABLE = "Request to assign label to version {} of model m, which is not currently available for inference"


def test_labels_may_point_at_available_versions_only(tmp_path: Path, start: Managers):
    for version in (1, 2):
        write_version(tmp_path, version)
    failed = grpc.StatusCode.FAILED_PRECONDITION
    labelled = config(m=specific(tmp_path, 1, stable=1))
    refuses(lambda: ModelManager(labelled, load=TextModel), failed, _UNAVAILABLE.format(1))  # type: ignore[arg-type, return-value]
    manager = start(config(m=specific(tmp_path, 1)))
    manager.wait_until_available(10)
    manager.reload(labelled)
    refuses(lambda: manager.reload(config(m=specific(tmp_path, 2, stable=2))), failed, _UNAVAILABLE.format(2))
    time.sleep(0.05)
    assert available(manager) == [1]
    assert served(manager, spec(label="stable")) == 1
    # TensorFlow Serving's way takes two steps.
    manager.reload(config(m=specific(tmp_path, 1, 2, stable=1)))
    wait_until(lambda: available(manager) == [1, 2])
    manager.reload(config(m=specific(tmp_path, 2, stable=2)))
    assert served(manager, spec(label="stable")) == 2
    wait_until(lambda: available(manager) == [2])
    manager.reload(config(m=specific(tmp_path, 2)))
    refuses(
        lambda: manager.acquire(spec(label="stable")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: stable",
    )


def test_new_labels_of_unavailable_versions_can_be_allowed(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=specific(tmp_path, 1, stable=1)), allow_version_labels_for_unavailable_models=True)
    manager.wait_until_available(10)
    assert served(manager, spec(label="stable")) == 1
    manager.reload(config(m=specific(tmp_path, 1, stable=1, canary=2)))
    refuses(
        lambda: manager.acquire(spec(label="canary")),
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(m, 2)",
    )
    failed = grpc.StatusCode.FAILED_PRECONDITION
    refuses(lambda: manager.reload(config(m=specific(tmp_path, 1, stable=2))), failed, _UNAVAILABLE.format(2))
    assert served(manager, spec(label="stable")) == 1


def test_any_label_can_be_allowed(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(
        config(m=specific(tmp_path, 1, stable=1)), force_allow_any_version_labels_for_unavailable_models=True
    )
    manager.wait_until_available(10)
    manager.reload(config(m=specific(tmp_path, 1, stable=2)))
    refuses(
        lambda: manager.acquire(spec(label="stable")),
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(m, 2)",
    )


def test_one_step_can_bring_a_version_and_its_label(tmp_path: Path, start: Managers):
    for version in (1, 2):
        write_version(tmp_path / "m", version)
    write_version(tmp_path / "n", 7)
    write_version(tmp_path / "unlabelled", 3)
    manager = start(config(m=specific(tmp_path / "m", 1)))
    manager.wait_until_available(10)
    manager.reload(config(m=specific(tmp_path / "m", 1, stable=1)))
    new = config(
        m=specific(tmp_path / "m", 2, stable=2),
        n=specific(tmp_path / "n", 7, stable=7),
        unlabelled=tmp_path / "unlabelled",
    )
    manager.reload(new, load_labelled_first=True)
    assert served(manager, spec(label="stable")) == 2
    assert served(manager, spec("n", label="stable")) == 7
    assert served(manager, spec("unlabelled")) == 3
    wait_until(lambda: states(manager) == {2: State.AVAILABLE, 1: State.END})


@pytest.mark.parametrize("fault", ["missing", "broken", "incomplete"])
def test_one_step_whose_labelled_version_cannot_serve_changes_nothing(tmp_path: Path, start: Managers, fault: str):
    write_version(tmp_path, 1)
    options = LoadOptions(max_num_load_retries=5, load_retry_interval_seconds=3600)
    manager = start(config(m=specific(tmp_path, 1)), options=options)
    manager.wait_until_available(10)
    manager.reload(config(m=specific(tmp_path, 1, stable=1)))
    if fault == "broken":
        write_version(tmp_path, 2, "broken")
    if fault == "incomplete":
        (tmp_path / "2").mkdir()
    for _ in range(2):
        refuses(
            lambda: manager.reload(config(m=specific(tmp_path, 2, stable=2), n=tmp_path), load_labelled_first=True),
            grpc.StatusCode.FAILED_PRECONDITION,
            _UNAVAILABLE.format(2),
        )
        assert served(manager, spec(label="stable")) == 1
        wait_until(lambda: available(manager, "n") == [])
    assert available(manager) == [1]
    write_version(tmp_path, 2, "good")
    manager.reload(config(m=specific(tmp_path, 2, stable=2)), load_labelled_first=True)
    assert served(manager, spec(label="stable")) == 2


# Reloading.


def test_reloading_waits_for_models_that_are_new(tmp_path: Path, start: Managers):
    loader = BlockingLoader()
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1)
    manager = start(config(), load=loader)
    thread = threading.Thread(target=manager.reload, args=(config(m=tmp_path / "m", n=tmp_path / "n"),))
    thread.start()
    assert loader.started.acquire(timeout=10)
    loader.allowed.release()
    wait_until(lambda: len(loader.paths) == 2)
    assert thread.is_alive()
    loader.allowed.release()
    thread.join(10)
    assert not thread.is_alive()
    assert available(manager, "m") == available(manager, "n") == [1]
    # A new version of a known model is not waited for.
    write_version(tmp_path / "m", 2)
    manager.reload(config(m=tmp_path / "m", n=tmp_path / "n"))
    assert served(manager, spec()) == 1
    loader.allowed.release()
    wait_until(lambda: available(manager) == [2])


def test_a_new_model_that_does_not_load_is_told_of_and_stays_configured(tmp_path: Path, start: Managers):
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 3, "broken")
    write_version(tmp_path / "n", 4, "broken too")
    manager = start(config(m=tmp_path / "m"))
    manager.wait_until_available(10)
    with_both = config(m=tmp_path / "m", n="model_version_policy { all {} } base_path: '%s'" % (tmp_path / "n"))
    refuses(
        lambda: manager.reload(with_both),
        grpc.StatusCode.UNKNOWN,
        "1 model(s) did not become available: {{{name: n version: 4} due to error: INVALID_ARGUMENT: broken too "
        "cannot be parsed}, }",
    )
    assert available(manager) == [1]
    write_version(tmp_path / "n", 5)
    wait_until(lambda: served(manager, spec("n")) == 5 if available(manager, "n") else False)


def test_starting_tells_of_models_that_do_not_load(tmp_path: Path, start: Managers):
    write_version(tmp_path / "m", 1, "broken")
    write_version(tmp_path / "n", 1)
    manager = start(config(m=tmp_path / "m", n=tmp_path / "n"))
    refuses(
        lambda: manager.wait_until_available(10),
        grpc.StatusCode.UNKNOWN,
        "1 servable(s) did not become available: {{{name: m version: 1} due to error: INVALID_ARGUMENT: broken "
        "cannot be parsed}, }",
    )
    assert available(manager, "n") == [1]


def test_waiting_for_a_model_without_versions_can_end(tmp_path: Path, start: Managers):
    manager = start(config(), servable_state_waiter_timeout_seconds=0.05)
    message = "0 model(s) did not become available: {}"
    refuses(lambda: manager.reload(config(m=tmp_path)), grpc.StatusCode.UNKNOWN, message)
    write_version(tmp_path, 1)
    wait_until(lambda: available(manager) == [1])


@pytest.mark.parametrize("end", ["reload", "close"])
def test_waiting_for_a_model_without_versions_blocks_neither_another_reload_nor_the_end(
    tmp_path: Path, start: Managers, end: str
):
    manager = start(config())
    errors: list[StatusError] = []

    def wait() -> None:
        with pytest.raises(StatusError) as raised:
            manager.reload(config(m=tmp_path))
        errors.append(raised.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    if end == "reload":
        manager.reload(config())
    else:
        manager.close()
    thread.join(10)
    assert [(error.code, error.message) for error in errors] == [
        (grpc.StatusCode.ABORTED, "Another config removed m before it was available.")
        if end == "reload"
        else (grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
    ]


def test_removed_models_finish_their_requests_and_can_come_back(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path))
    manager.wait_until_available(10)
    with manager.acquire(spec()) as lease:
        manager.reload(config())
        wait_until(lambda: states(manager) == {1: State.UNLOADING})
        refuses(lambda: manager.acquire(spec()), grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(m)")
        assert not lease.servable.is_closed  # type: ignore[attr-defined]
    wait_until(lambda: states(manager) == {1: State.END})
    manager.reload(config(m=tmp_path))
    assert available(manager) == [1]


def test_a_model_may_come_back_before_anybody_noticed_that_it_was_gone(tmp_path: Path, start: Managers):
    write_version(tmp_path / "m", 1)
    write_version(tmp_path / "n", 1, "broken")
    manager = start(config(m=tmp_path / "m"))
    manager.wait_until_available(10)
    for _ in range(100):
        manager.reload(config())
        manager.reload(config(m=tmp_path / "m"))
        assert served(manager, spec()) == 1
    for _ in range(100):
        manager.reload(config())
        with pytest.raises(StatusError, match="broken cannot be parsed"):
            manager.reload(config(n=tmp_path / "n"))


def test_a_base_path_may_change(tmp_path: Path, start: Managers):
    write_version(tmp_path / "one", 1)
    for version in (1, 2):
        write_version(tmp_path / "two", version)
    manager = start(config(m=tmp_path / "one"))
    manager.wait_until_available(10)
    manager.reload(config(m=tmp_path / "two"))
    wait_until(lambda: available(manager) == [2])
    manager.reload(config(m=tmp_path / "one"))
    wait_until(lambda: available(manager) == [1])


def test_models_without_versions_are_refused_if_versions_must_always_be_present(tmp_path: Path, start: Managers):
    options = LoadOptions(0, servable_versions_always_present=True)
    manager = start(config(), options=options)
    (tmp_path / "m").mkdir()
    refuses(
        lambda: manager.reload(config(m=tmp_path / "m")),
        grpc.StatusCode.NOT_FOUND,
        f"Unable to find a numerical version path for servable m at: {tmp_path / 'm'}",
    )
    with pytest.raises(StatusError, match=f"Could not find base path {tmp_path}/n for servable n with error NOT_FOUND"):
        manager.reload(config(n=tmp_path / "n"))
    write_version(tmp_path / "m", 1)
    manager.reload(config(m=tmp_path / "m"))
    shutil.rmtree(tmp_path / "m" / "1")
    time.sleep(0.05)
    assert available(manager) == [1]


# The managing thread.


def test_one_models_trouble_is_not_anothers(tmp_path: Path, start: Managers, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path / "n", 1)
    manager = start(config(m=tmp_path / "m", n=tmp_path / "n"))
    wait_until(lambda: available(manager, "n") == [1])
    with manager.acquire(spec("n")):  # An endless request.
        write_version(tmp_path / "n", 2)
        wait_until(lambda: available(manager, "n") == [2])
        write_version(tmp_path / "m", 1)
        wait_until(lambda: available(manager, "m") == [1])
    assert sum("could not list the base path" in message for message in caplog.messages) == 1


def test_the_thread_survives_what_nobody_thought_of(
    tmp_path: Path, start: Managers, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path))
    manager.wait_until_available(10)
    with monkeypatch.context() as broken:
        broken.setattr("pipeline.serving.server.versions.find_versions", lambda *arguments: 1 / 0)
        wait_until(lambda: "managing the versions of a model failed" in caplog.text)
    write_version(tmp_path, 2)
    wait_until(lambda: available(manager) == [2])


def test_with_a_poll_time_of_zero_each_configuration_gets_one_look(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path), poll_seconds=0)
    manager.wait_until_available(10)
    write_version(tmp_path, 2)
    time.sleep(0.1)
    assert available(manager) == [1]
    manager.reload(config(m=tmp_path))
    wait_until(lambda: available(manager) == [2])
    with manager.acquire(spec(version=2)):
        manager.reload(config())
        wait_until(lambda: states(manager)[2] is State.UNLOADING)
    wait_until(lambda: states(manager)[2] is State.END)


def test_with_a_negative_poll_time_nothing_is_looked_at(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path), poll_seconds=-1)
    time.sleep(0.1)
    assert states(manager) == {}


def test_retries_happen_between_polls(tmp_path: Path, start: Managers):
    attempts = itertools.count(1)

    def load(path: str) -> TextModel:
        if next(attempts) < 3:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "not now")
        return TextModel(path)

    write_version(tmp_path, 1)
    options = LoadOptions(max_num_load_retries=2, load_retry_interval_seconds=0.02)
    manager = start(config(m=tmp_path), load=load, options=options, poll_seconds=0)
    manager.wait_until_available(10)
    assert available(manager) == [1]


def test_operators_read_what_was_loaded_and_unloaded(tmp_path: Path, start: Managers, caplog: pytest.LogCaptureFixture):
    write_version(tmp_path, 1)
    seen: list[tuple[str, int]] = []
    with caplog.at_level("INFO", logger="absl"):
        manager = start(config(m=tmp_path), on_available=lambda name, version: seen.append((name, version)))
        manager.wait_until_available(10)
        manager.close()
    assert seen == [("m", 1)]
    assert f"loaded version 1 of model m from {tmp_path}/1 in 0.0" in caplog.text
    assert "unloaded version 1 of model m" in caplog.messages


def test_acquiring_is_cheap(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path), poll_seconds=1)
    manager.wait_until_available(10)
    request = spec()
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(1000):
            with manager.acquire(request):
                pass
        best = min(best, time.perf_counter() - started)
    assert best / 1000 < 100e-6  # A few microseconds, on an idle machine.


def test_no_request_fails_while_versions_and_labels_move(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=specific(tmp_path, 1)), poll_seconds=0.001)
    manager.wait_until_available(10)
    manager.reload(config(m=specific(tmp_path, 1, stable=1)))
    stop = threading.Event()
    counts: dict[int, int] = {}
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        requests = itertools.cycle([spec(), spec(label="stable")])
        try:
            while not stop.is_set():
                with manager.acquire(next(requests)) as lease:
                    time.sleep(random.random() / 2000)
                    assert not lease.servable.is_closed  # type: ignore[attr-defined]
                counts[number] = counts.get(number, 0) + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 40):
        write_version(tmp_path, version)
        manager.reload(config(m=specific(tmp_path, version, stable=version)), load_labelled_first=True)
        assert served(manager, spec(label="stable")) == version
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(counts) == 4
    wait_until(lambda: available(manager) == [39] and set(states(manager).values()) == {State.AVAILABLE, State.END})


# Request logs.


def logged(base_path: Path, prefix: Path, rate: float = 1.0) -> str:
    return (
        f"base_path: '{base_path}' logging_config {{ log_collector_config {{ filename_prefix: '{prefix}' }} "
        f"sampling_config {{ sampling_rate: {rate} }} }}"
    )


def make_logger(name: str, logging_config: logging_config_pb2.LoggingConfig) -> RequestLogger:
    return RequestLogger.from_config(logging_config)


def test_a_model_with_a_logging_config_has_a_logger_as_long_as_it_says_so(tmp_path: Path, start: Managers):
    base_path, prefix = tmp_path / "m", tmp_path / "logs" / "requests"
    write_version(base_path, 1)
    manager = start(config(m=logged(base_path, prefix)), make_request_logger=make_logger)
    manager.wait_until_available(10)
    with manager.acquire(spec()) as lease:
        first = lease.request_logger
    assert isinstance(first, RequestLogger)
    manager.reload(config(m=logged(base_path, prefix)))
    with manager.acquire(spec()) as lease:
        assert lease.request_logger is first
        manager.reload(config(m=logged(base_path, prefix, rate=0.5)))
        with manager.acquire(spec()) as newer:
            assert newer.request_logger is not first
            assert newer.request_logger is not None
        log = logging_log("before")
        first.write(log)  # The request that has it may still write.
    wait_until(lambda: [log for log in read_prediction_logs(str(prefix) + "*")] == [log])
    manager.reload(config(m=base_path))
    with manager.acquire(spec()) as lease:
        assert lease.request_logger is None


def logging_log(name: str) -> Any:
    from pipeline.serving.messages import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.model_spec.name = name
    return log


def test_closing_completes_the_logs(tmp_path: Path, start: Managers):
    base_path, prefix = tmp_path / "m", tmp_path / "logs" / "requests"
    write_version(base_path, 1)
    manager = start(config(m=logged(base_path, prefix)), make_request_logger=make_logger)
    manager.wait_until_available(10)
    with manager.acquire(spec()) as lease:
        assert lease.request_logger is not None
        lease.request_logger.write(logging_log("m"))
    manager.close()
    (file,) = prefix.parent.iterdir()
    assert file.name.startswith("requests-")
    never_started = ModelManager(
        config(m=logged(base_path, prefix)),
        load=TextModel,  # type: ignore[arg-type]
        make_request_logger=make_logger,
    )
    never_started.close()


def test_a_logging_config_that_cannot_be_used_changes_nothing(tmp_path: Path, start: Managers):
    write_version(tmp_path, 1)
    manager = start(config(m=tmp_path), make_request_logger=make_logger)
    manager.wait_until_available(10)
    with pytest.raises(StatusError, match="sampling_rate") as raised:
        manager.reload(config(n=logged(tmp_path, tmp_path / "n"), m=logged(tmp_path, tmp_path / "logs", rate=7)))
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    with manager.acquire(spec()) as lease:
        assert lease.request_logger is None
    assert states(manager, "n") == {}


# A real model.


def test_real_models_are_served_side_by_side(tmp_path: Path):
    model = export_arithmetic(tmp_path / "model")
    for name in ("m", "n"):
        publish(model, tmp_path / name, 1)
    manager = ModelManager(config(m=tmp_path / "m", n=tmp_path / "n"), load=Servable, poll_seconds=0.02)
    manager.start()
    try:
        manager.wait_until_available(30)
        for name in ("m", "n"):
            with manager.acquire(spec(name)) as lease:
                assert set(lease.servable.signatures) >= {"serving_default", "echo"}
        publish(model, tmp_path / "m", 2)
        wait_until(lambda: available(manager) == [2])
    finally:
        manager.close()
    assert states(manager) == {2: State.END, 1: State.END}
