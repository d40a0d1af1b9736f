"""What TFX's cache does not know: the code that runs inside its components."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

MODULES = Path(__file__).parent.parent / "modules"


def code_version(*relative_paths: str) -> str:
    """Returns a fingerprint of source files of `modules`: it changes with their content, and with nothing else.

    Handed to a component as part of its configuration, it makes a run after a change of code run again what the change
    concerns, instead of finding the old result in the cache.

    Args:
      relative_paths: files or folders, relative to `modules`; of folders, all Python files below.

    Raises:
      FileNotFoundError: if a path does not exist.
    """
    digest = hashlib.sha256()
    for path in sorted(_python_files(relative_paths)):
        digest.update(str(path.relative_to(MODULES)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _python_files(relative_paths: Iterable[str]) -> set[Path]:
    files: set[Path] = set()
    for relative in relative_paths:
        path = MODULES / relative
        if not path.exists():
            raise FileNotFoundError(f"no such source file: {path}")
        files.update(path.rglob("*.py") if path.is_dir() else [path])
    return files
