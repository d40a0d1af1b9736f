"""AtomicPusher: all of a blessed model or nothing, under a version that is always the newest."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from pipeline.components.pusher import AtomicPusherExecutor

FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets.extra/warmup": b"requests"}


def push(
    base_directory: str, folder: Path, model_blessed: int | None = 1, infra_blessed: int | None = 1
) -> types.Artifact:
    """Runs the executor on a model of a few files; returns the artifact `pushed_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = standard_artifacts.Model()
    model.uri = str(folder / "model")
    for name, content in FILES.items():
        file = Path(model.uri, "Format-Serving", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    inputs: dict[str, list[types.Artifact]] = {"model": [model]}
    blessings = {
        "model_blessing": (standard_artifacts.ModelBlessing, model_blessed),
        "infra_blessing": (standard_artifacts.InfraBlessing, infra_blessed),
    }
    for key, (artifact_type, blessed) in blessings.items():
        if blessed is not None:
            inputs[key] = [artifact_type()]
            inputs[key][0].set_int_custom_property("blessed", blessed)
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(folder / "pushed")
    destination = tfx.proto.PushDestination(
        filesystem=tfx.proto.PushDestination.Filesystem(base_directory=base_directory)
    )
    parameters = {"push_destination": proto_utils.proto_to_json(destination)}
    AtomicPusherExecutor().Do(inputs, {"pushed_model": [pushed]}, parameters)
    return pushed


def files_of(folder: str | Path) -> dict[str, bytes]:
    files = (file for file in Path(folder).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_pushes_a_blessed_model(tmp_path: Path):
    base_directory = tmp_path / "serving" / "films"
    before = int(time.time())
    pushed = push(str(base_directory), tmp_path)

    (version,) = os.listdir(base_directory)
    assert before <= int(version) <= time.time()
    assert files_of(base_directory / version) == files_of(pushed.uri) == FILES
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_destination") == str(base_directory / version)
    assert pushed.get_string_custom_property("pushed_version") == version


@pytest.mark.parametrize(("model_blessed", "infra_blessed"), [(0, 1), (1, 0), (0, None), (None, 0)])
def test_never_pushes_what_is_not_blessed(tmp_path: Path, model_blessed: int | None, infra_blessed: int | None):
    base_directory = tmp_path / "serving"
    pushed = push(str(base_directory), tmp_path, model_blessed, infra_blessed)

    assert not base_directory.exists()
    assert pushed.get_int_custom_property("pushed") == 0
    assert not pushed.has_custom_property("pushed_version")
    assert not os.path.exists(pushed.uri)


def test_a_new_version_is_always_the_latest(tmp_path: Path):
    (tmp_path / "serving" / "99999999999").mkdir(parents=True)
    versions = [
        push(str(tmp_path / "serving"), tmp_path).get_string_custom_property("pushed_version") for _ in range(2)
    ]
    assert versions == ["100000000000", "100000000001"]


def test_pushes_within_one_second_do_not_collide(tmp_path: Path):
    pushes = [push(str(tmp_path / "serving"), tmp_path / str(number)) for number in range(3)]
    versions = [int(pushed.get_string_custom_property("pushed_version")) for pushed in pushes]
    assert versions == sorted(set(versions))
    assert sorted(os.listdir(tmp_path / "serving")) == [str(version) for version in versions]


class Killed(BaseException):
    """Ends a push as a signal would: nothing catches it."""


@pytest.mark.parametrize("survived", range(7))
def test_a_killed_push_leaves_no_version_and_the_next_one_tidies_up(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A push writes three files to the archive and three to the staging folder, then renames: it may die at each step.
    steps = iter(range(survived))
    copy = fileio.copy

    def copy_or_die(*arguments: str, **options: bool) -> None:
        if next(steps, None) is None:
            raise Killed
        copy(*arguments, **options)

    def die(*arguments: str) -> None:
        raise Killed

    base_directory = tmp_path / "serving"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(fileio, "copy", copy_or_die)
        patch.setattr(fileio, "rename", die)
        push(str(base_directory), tmp_path / "killed")
    assert not any(name.isdecimal() for name in os.listdir(base_directory))
    assert len(os.listdir(base_directory)) == (survived >= 3)

    pushed = push(str(base_directory), tmp_path / "next")
    assert os.listdir(base_directory) == [pushed.get_string_custom_property("pushed_version")]
    assert files_of(pushed.get_string_custom_property("pushed_destination")) == FILES


def test_on_an_object_store_the_model_file_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A local folder stands for the bucket: what is tested is the order of the copies.
    bucket = str(tmp_path / "bucket")
    copied: list[str] = []
    copy = fileio.copy

    def copy_and_note(source: str, destination: str, **options: bool) -> None:
        copy(source, destination, **options)
        copied.append(destination)

    monkeypatch.setattr("pipeline.components.pusher._OBJECT_STORES", (bucket,))
    monkeypatch.setattr(fileio, "copy", copy_and_note)
    pushed = push(bucket, tmp_path)

    destination = pushed.get_string_custom_property("pushed_destination")
    assert files_of(destination) == FILES
    assert copied[-1] == os.path.join(destination, "saved_model.pb")
    assert os.listdir(bucket) == [os.path.basename(destination)]
