"""Which labels a command moves where."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.record import CANARY, STABLE, previous_version, read_moves

Plan = Callable[[Mapping[str, int]], dict[str, int]]
"""From the labels as they are to the versions of those that move. Raises ReleaseError if it cannot be."""


def plan_canary(folder: ServingFolder, version: int | None) -> Plan:
    """Plans to make a version, by default the latest pushed, the canary."""
    return functools.partial(_canary, folder, version)


def plan_stable(version: int | None) -> Plan:
    """Plans to make a version, by default the canary's, stable. The canary stays where it is."""
    return functools.partial(_stable, version)


def plan_rollback(folder: ServingFolder) -> Plan:
    """Plans to put stable back to before its last release; a canary on the version left goes with it."""
    return functools.partial(_rollback, folder)


def _canary(folder: ServingFolder, version: int | None, labels: Mapping[str, int]) -> dict[str, int]:
    if version is None:
        pushed = folder.pushed_versions()
        if not pushed:
            raise ReleaseError(f"no version has been pushed to {folder.versions}; `marquee run` pushes one")
        version = pushed[0]
    return {CANARY: version}


def _stable(version: int | None, labels: Mapping[str, int]) -> dict[str, int]:
    if version is None:
        if CANARY not in labels:
            raise ReleaseError(
                "no version is the canary; make one by `marquee release canary`, or name a version by --version"
            )
        version = labels[CANARY]
    return {STABLE: version}


def _rollback(folder: ServingFolder, labels: Mapping[str, int]) -> dict[str, int]:
    current = labels.get(STABLE)
    moves = [move for move in read_moves(folder.record) if move.model == folder.model_name]
    earlier = previous_version(moves, STABLE, current)
    if earlier is None:
        now = "no version is stable" if current is None else f"version {current} is the first that was stable"
        raise ReleaseError(f"there is nothing to roll back to: {now}, as {folder.record} has it")
    if earlier not in folder.pushed_versions():
        raise ReleaseError(
            f"cannot roll back to version {earlier}: its model is gone from {folder.versions}; "
            "`marquee release stable --version …` takes another"
        )
    targets = {STABLE: earlier}
    if current is not None and labels.get(CANARY) == current:
        targets[CANARY] = earlier
    return targets
