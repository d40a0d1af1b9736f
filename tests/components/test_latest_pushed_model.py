"""The model to beat, taken from the serving folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from pipeline.components.latest_pushed_model import LatestPushedModelExecutor, has_model


def _push(folder: Path, version: str, *, complete: bool = True) -> None:
    (folder / version / "variables").mkdir(parents=True)
    (folder / version / "variables" / "variables.index").write_text(version)
    if complete:
        (folder / version / "saved_model.pb").write_text(version)


def _run(folder: Path, output: Path) -> standard_artifacts.Model:
    model = standard_artifacts.Model()
    model.uri = str(output)
    LatestPushedModelExecutor().Do({}, {"model": [model]}, {"serving_directory": str(folder)})
    return model


@pytest.mark.parametrize("exists", [False, True])
def test_before_the_first_push_there_is_none(tmp_path, exists):
    folder = tmp_path / "serving"
    if exists:
        folder.mkdir()
    model = _run(folder, tmp_path / "output")
    assert not has_model(model)
    assert model.get_string_custom_property("version") == ""
    assert Path(model.uri).is_dir()


def test_the_latest_whole_version_is_copied(tmp_path):
    folder = tmp_path / "serving"
    for version in ("9", "10", "notes", ".pushing-11"):
        _push(folder, version)
    _push(folder, "12", complete=False)
    model = _run(folder, tmp_path / "output")
    assert model.get_string_custom_property("version") == "10"
    assert has_model(model)
    copied = Path(model.uri, "Format-Serving")
    files = {str(path.relative_to(copied)): path.read_text() for path in copied.rglob("*") if path.is_file()}
    assert files == {"saved_model.pb": "10", "variables/variables.index": "10"}
