from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import pytest

from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.record import Move, append_moves, previous_version, read_moves, who_am_i


def make_move(
    from_version: int | None,
    to_version: int | None,
    action: Literal["release", "rollback", "drop"] = "release",
    label: str = "stable",
) -> Move:
    return Move(
        when=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
        who="me@here",
        action=action,
        model="recommender",
        label=label,
        from_version=from_version,
        to_version=to_version,
        address=None,
        state="offline",
    )


def test_moves_are_read_as_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "releases.jsonl"
    assert read_moves(path) == []
    first, second, third = make_move(None, 1), make_move(1, 2), make_move(2, 1, "rollback")
    append_moves(path, [first])
    append_moves(path, [second, third])
    assert read_moves(path) == [first, second, third]
    assert '"when":"2026-01-01T00:00:00Z"' in path.read_text().splitlines()[0]


def test_a_line_cut_off_by_a_crash_is_left_out_and_the_next_append_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "releases.jsonl"
    append_moves(path, [make_move(None, 1), make_move(1, 2)])
    path.write_bytes(path.read_bytes()[:-20])
    assert read_moves(path) == [make_move(None, 1)]
    append_moves(path, [make_move(1, 3)])
    assert read_moves(path) == [make_move(None, 1), make_move(1, 3)]


def test_a_line_that_is_no_move_is_named(tmp_path: Path) -> None:
    path = tmp_path / "releases.jsonl"
    append_moves(path, [make_move(None, 1)])
    with path.open("a") as file:
        file.write('{"when": "today"}\n')
    with pytest.raises(ReleaseError, match=r"releases.jsonl, line 2: when: .*received b'{\"when\": \"today\"}'"):
        read_moves(path)


@pytest.mark.parametrize(
    ("moves", "current", "expected"),
    [
        ([], None, None),
        ([], 5, None),
        ([make_move(None, 5)], 5, None),
        ([make_move(None, 7), make_move(7, 5)], 5, 7),
        ([make_move(3, 5)], 5, 3),
        ([make_move(None, 1), make_move(1, 2), make_move(2, 3), make_move(3, 2, "rollback")], 2, 1),
        ([make_move(None, 1), make_move(1, 2), make_move(2, 1, "rollback"), make_move(1, 3)], 3, 1),
        ([make_move(None, 1), make_move(None, 9, label="canary"), make_move(1, 2)], 2, 1),
        # Moved by other means since, or the record of the last move was lost.
        ([make_move(None, 1), make_move(1, 2)], 4, 2),
        ([make_move(None, 1), make_move(1, 2), make_move(2, 1, "rollback")], 1, None),
        ([make_move(None, 1), make_move(1, 2), make_move(5, 6)], 6, 5),
        ([make_move(None, 1), make_move(1, 2), make_move(5, 6), make_move(6, 5, "rollback")], 5, 2),
        ([make_move(None, 1), make_move(1, None, "drop"), make_move(None, 2)], 2, 1),
    ],
)
def test_a_rollback_goes_to_before_the_last_release_that_stands(
    moves: list[Move], current: int | None, expected: int | None
) -> None:
    assert previous_version(moves, "stable", current) == expected


def test_who_moves_is_a_user_at_a_host() -> None:
    user, _, host = who_am_i().partition("@")
    assert user
    assert host
