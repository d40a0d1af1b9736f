"""`make_release`: one release from its plan to its record, while no other one is made."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Literal

from pipeline.serving.errors import ServingError
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.model_config_file import labels_of, read_config
from pipeline.serving.release.move import Tell, move_labels
from pipeline.serving.release.plans import Plan
from pipeline.serving.release.record import CANARY, Move, RunEvidence, append_moves
from pipeline.serving.release.shadow_report import ShadowReport


def make_release(
    folder: ServingFolder,
    plan: Plan,
    server: LiveServer | None,
    *,
    action: Literal["release", "rollback"],
    who: str,
    note: str = "",
    timeout_seconds: float = 120.0,
    find_evidence: Callable[[], Mapping[int, RunEvidence]] = dict,
    compare: Callable[[LiveServer], ShadowReport] | None = None,
    tell: Tell = lambda step: None,
) -> list[Move]:
    """Moves labels and records it.

    Args:
      folder: the serving folder.
      plan: which labels move where.
      server: the server that serves from the folder; None if none runs.
      action: what it is called in the record.
      who: whose doing it is.
      note: why.
      timeout_seconds: time for loading a version.
      find_evidence: returns what is known of the versions' runs.
      compare: compares canary and stable before anything moves; what speaks against the canary is a refusal.
      tell: is told of each step.

    Returns:
      The moves as recorded, dropped labels among them; none if all labels were there already, which the server was
      told again.

    Raises:
      ReleaseError: if it was not made, or if it was and could not be recorded, as the message says.
      OSError: if the folder cannot be locked or written.
    """
    with folder.exclusive():
        labels = labels_of(read_config(folder.config), folder.model_name)
        targets = plan(labels)
        shadow = None
        if compare is not None:
            if server is None:
                raise ReleaseError("comparing canary and stable needs a server that answers")
            if not set(targets.values()) <= {labels.get(CANARY)}:
                raise ReleaseError(
                    f"only the canary, version {labels.get(CANARY)}, can be compared; "
                    f"received version {', '.join(map(str, sorted(targets.values())))}"
                )
            shadow = _compare(server, compare, labels[CANARY])
        changed: dict[str, int | None] = {
            label: version for label, version in targets.items() if labels.get(label) != version
        }
        evidence = find_evidence() if changed else {}
        dropped = move_labels(folder, targets, server, timeout_seconds=timeout_seconds, tell=tell)
        moves = [
            Move(
                when=datetime.datetime.now(datetime.timezone.utc),
                who=who,
                action=action if version is not None else "drop",
                model=folder.model_name,
                label=label,
                from_version=labels.get(label),
                to_version=version,
                note=note,
                address=None if server is None else server.address,
                state="offline" if server is None else "confirmed",
                run=None if version is None else evidence.get(version),
                shadow=None if version is None else shadow,
            )
            for label, version in (changed | dict.fromkeys(dropped)).items()
        ]
        if moves:
            try:
                append_moves(folder.record, moves)
            except OSError as error:
                lost = ", ".join(f"{move.label}: {move.from_version} → {move.to_version}" for move in moves)
                raise ReleaseError(f"the labels have moved, but {folder.record} lacks {lost}: {error}") from error
        return moves


def _compare(server: LiveServer, compare: Callable[[LiveServer], ShadowReport], version: int) -> ShadowReport:
    """Compares; returns the report if the canary was this version and nothing speaks against it."""
    try:
        report = compare(server)
    except (ServingError, OSError, ValueError) as error:
        raise ReleaseError(f"{error}. Nothing has changed") from error
    if report.canary.version != version:
        raise ReleaseError(
            f"the server answers for {CANARY!r} with version {report.canary.version}, not {version}. "
            "Nothing has changed"
        )
    if report.refusals:
        raise ReleaseError("; ".join(report.refusals) + ". Nothing has changed")
    return report
