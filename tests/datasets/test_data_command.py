"""`marquee data ...` as a user types it."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from pipeline.datasets.cli import data_app
from pipeline.datasets.folder import damage
from pipeline.datasets.oracle import measure_ranking
from pipeline.datasets.synthetic import SyntheticWorld


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(data_app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def test_synthetic_writes_the_tables_and_says_what_is_reachable(tmp_path: Path) -> None:
    sizes = ["--users", "30", "--items", "40", "--interactions", "600", "--seed", "5"]
    exit_code, output = run("synthetic", "--directory", str(tmp_path / "data"), *sizes)
    assert exit_code == 0
    assert damage(tmp_path / "data") == []
    assert (tmp_path / "data/interactions.tsv").read_text().count("\n") == 601
    world = SyntheticWorld(users=30, items=40, interactions=600, seed=5)
    best = measure_ranking(world, world.log_probabilities, first_event=540)
    assert f"{best.ndcg:.4f} is the best" in output
    assert re.search(r"popularity reaches 0\.\d{4}\.", output)


def test_impossible_sizes_and_foreign_folders_are_errors_of_one_line(tmp_path: Path) -> None:
    exit_code, output = run("synthetic", "--directory", str(tmp_path / "data"), "--users", "2", "--items", "3")
    assert exit_code == 1
    assert "marquee: interactions must lie between users (2) and users x items (6)" in output
    assert not (tmp_path / "data").exists()

    (tmp_path / "notes.txt").write_text("mine")
    for command in ("synthetic", "movielens-100k"):
        exit_code, output = run(command, "--directory", str(tmp_path))
        assert exit_code == 1
        assert "notes.txt" in output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
