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
      The moves as recorded; none if all labels were there already, which the server was told again.

    Raises:
      ReleaseError: if it was not made.
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
            shadow = _compare(server, compare)
        move_labels(folder, targets, server, timeout_seconds=timeout_seconds, tell=tell)
        changed = {label: version for label, version in targets.items() if labels.get(label) != version}
        evidence = find_evidence() if changed else {}
        moves = [
            Move(
                when=datetime.datetime.now(datetime.timezone.utc),
                who=who,
                action=action,
                model=folder.model_name,
                label=label,
                from_version=labels.get(label),
                to_version=version,
                note=note,
                address=None if server is None else server.address,
                state="offline" if server is None else "confirmed",
                run=evidence.get(version),
                shadow=shadow,
            )
            for label, version in changed.items()
        ]
        if moves:
            append_moves(folder.record, moves)
        return moves


def _compare(server: LiveServer, compare: Callable[[LiveServer], ShadowReport]) -> ShadowReport:
    try:
        report = compare(server)
    except ServingError as error:
        raise ReleaseError(f"{error}. Nothing has changed") from error
    if report.refusals:
        raise ReleaseError("; ".join(report.refusals) + ". Nothing has changed")
    return report
