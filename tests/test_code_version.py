"""The fingerprint of the code that runs inside components."""

from pathlib import Path

import pytest

from pipeline import code_version


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.py").write_text("A = 1")
    (tmp_path / "features.py").write_text("B = 1")
    monkeypatch.setattr(code_version, "MODULES", tmp_path)
    return tmp_path


def test_it_changes_with_the_content_of_what_is_named(modules: Path) -> None:
    before = code_version.code_version("models")
    (modules / "features.py").write_text("B = 2")
    assert code_version.code_version("models") == before
    (modules / "models" / "a.py").write_text("A = 2")
    changed = code_version.code_version("models")
    assert changed != before
    (modules / "models" / "b.py").write_text("")
    assert code_version.code_version("models") != changed


def test_it_does_not_change_with_time_or_order(modules: Path) -> None:
    before = code_version.code_version("models", "features.py")
    (modules / "models" / "a.py").touch()
    assert code_version.code_version("features.py", "models") == before


def test_what_does_not_exist_is_named(modules: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        code_version.code_version("gone.py")
