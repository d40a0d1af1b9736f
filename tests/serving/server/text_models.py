"""Models that are text, for tests of what happens to versions over time: loading one takes next to no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from pipeline.serving.errors import StatusError


class TextModel:
    """A loaded version: the text of its file."""

    def __init__(self, path: str):
        text = (Path(path) / "saved_model.pb").read_text()
        if text.startswith("broken"):
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"{text} cannot be parsed")
        self.text = text
        self.is_closed = False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class BlockingLoader:
    """Loads text models, each when it is allowed to."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.paths: list[str] = []

    def __call__(self, path: str) -> TextModel:
        self.paths.append(path)
        self.started.release()
        assert self.allowed.acquire(timeout=30)
        return TextModel(path)


def write_version(base_path: Path, folder: str | int, text: str = "good") -> Path:
    """Writes a version, or writes it again; its main file is there whole or not at all."""
    path = base_path / str(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "new").write_text(text)
    (path / "new").rename(path / "saved_model.pb")
    return path


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
