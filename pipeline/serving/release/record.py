"""The record of releases: one JSON object a line, appended and never changed."""

from __future__ import annotations

import datetime
import getpass
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.gate_line import GateLine
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.shadow_report import ShadowReport

STABLE = "stable"
CANARY = "canary"


class RunEvidence(BaseModel):
    """What is known of the run that pushed a version."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    run_id: str
    """The run in ML Metadata."""
    metrics: dict[str, float]
    """Its test metrics over all events."""
    blessed: bool | None
    """Whether the model passed the gate; None if it was not evaluated."""
    gate: list[GateLine]
    """The gate's table."""


class Move(BaseModel):
    """One label that was moved."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    when: datetime.datetime
    """UTC."""
    who: str
    """`user@host`, or what was given for it."""
    action: Literal["release", "rollback", "drop"]
    """A rollback takes the last release back. A drop takes away a label whose version can no longer be served."""
    model: str
    """Name of the model."""
    label: str
    """The label."""
    from_version: int | None
    """Where it was; None if it is new."""
    to_version: int | None
    """Where it is now; None if it was dropped."""
    note: str = ""
    """Why."""
    address: str | None
    """The server that serves so, as `host:port`; None if only its file was written."""
    state: Literal["confirmed", "offline"]
    """`confirmed`: the server answered for the label with the version. `offline`: no server was asked."""
    run: RunEvidence | None = None
    """The run that pushed the version; None if ML Metadata has none."""
    shadow: ShadowReport | None = None
    """How canary and stable compared before the move, if they were."""


def who_am_i() -> str:
    """Returns `user@host` of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # A container whose user has no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def append_moves(path: Path, moves: Sequence[Move]) -> None:
    """Appends moves and waits until they are on the disk. The caller holds the lock on releases.

    What an interrupted append has left at the end of the file is cut off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with open(path, "a+b") as file:
        file.seek(0)
        text = file.read()
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
        file.write(b"".join(move.model_dump_json().encode("utf-8") + b"\n" for move in moves))
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_moves(path: Path) -> list[Move]:
    """Returns all moves, the earliest first; none if there is no record. A line cut off at the end is left out.

    Raises:
      ReleaseError: naming the file and line that is no move.
    """
    if not path.is_file():
        return []
    moves = []
    *lines, _ = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            moves.append(Move.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"]))
            raise ReleaseError(
                f"{path}, line {number}: {f'{field}: ' if field else ''}{problem['msg']}; received {line[:80]!r}"
            ) from error
    return moves


def previous_version(moves: Sequence[Move], label: str, current: int | None) -> int | None:
    """Returns the version that a label was at before its last release; None if the record knows of none.

    A rollback takes a release back, so that the next one goes further back, and not to what was rolled back from.

    Args:
      moves: the record, the earliest first.
      label: the label.
      current: where it is now. If that is not where the record has it, somebody moved it by other means, and it was
        before where the record has it.
    """
    stack: list[int] = []
    for move in moves:
        if move.label != label or move.to_version is None:
            continue
        if move.action == "rollback":
            while stack and stack[-1] != move.to_version:
                stack.pop()
            stack = stack or [move.to_version]
            continue
        if move.from_version is not None and stack[-1:] != [move.from_version]:  # It was moved by other means.
            stack.append(move.from_version)
        stack.append(move.to_version)
    while stack and stack[-1] == current:
        stack.pop()
    return stack[-1] if stack else None
