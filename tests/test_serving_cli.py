"""`marquee serve`, `recommend` and `similar`: a real server process on a tiny model, asked as people ask it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.serving import saved_models
from tests.serving.saved_models import CATALOGUE, export_recommender, publish

SEEN = ("i3", "i0")
TABLES = {
    "interactions.tsv": "user_id\titem_id\trating\tdevice\ttimestamp\n"
    + "".join(f"u1\t{item_id}\t4\ttv\t{1_500_000_000 + second}\n" for second, item_id in enumerate(SEEN)),
    "items.tsv": "item_id\ttitle\trelease_year\tgenres\n"
    + "".join(f"{item_id}\tFilm {item_id}\t2001\tDrama|War\n" for item_id in CATALOGUE),
    "users.tsv": "user_id\tage\tgender\toccupation\nu1\t24\tM\twriter\n",
}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of a configuration whose server has been started, but need not answer yet."""
    folder = tmp_path_factory.mktemp("serving_cli")
    for name, text in TABLES.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_models, "TOP_K", len(CATALOGUE) - len(SEEN))
        publish(export_recommender(folder / "model"), folder / "workspace" / "serving" / "recommender", 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assignments = (f"workspace={folder / 'workspace'}", f"data.directory={folder}", f"serving.port={port}")
    options = ["--config", "synthetic", *(word for assignment in assignments for word in ("--set", assignment))]
    command = [sys.executable, "-m", "pipeline.cli", "serve", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield options
    finally:
        server.terminate()
        output, _ = server.communicate(timeout=60)
    assert output == f"serving recommender version 3 on 127.0.0.1:{port}\n"
    assert server.returncode == 0


def _invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})


def test_recommend_waits_for_a_server_that_was_started_just_now(options: list[str]) -> None:
    result = _invoke("recommend", "--user", "u1", *options)
    assert result.exit_code == 0, result.output
    headline, columns, *rows = result.stdout.splitlines()
    assert headline == "For user u1 (age 24, gender M, occupation writer; 2 titles seen)"
    assert columns.split() == ["score", "title", "release", "year", "genres"]
    assert len(rows) == 10
    expected = [item_id for item_id in CATALOGUE if item_id not in SEEN]
    for position, (row, item_id) in enumerate(zip(rows, expected, strict=True), start=1):
        pattern = rf"{position} +-{CATALOGUE.index(item_id)}\.000 +Film {item_id} +2001 +Drama, War"
        assert re.fullmatch(pattern, row.strip())


def test_answers_as_json(options: list[str]) -> None:
    result = _invoke("recommend", "--user", "u1", "--count", "2", "--json", *options)
    assert result.exit_code == 0, result.output
    about = {"release_year": "2001", "genres": "Drama, War"}
    assert json.loads(result.stdout) == [
        {"item_id": "i1", "score": -1.0, "title": "Film i1", **about},
        {"item_id": "i2", "score": -2.0, "title": "Film i2", **about},
    ]


def test_a_request_of_the_past_knows_only_what_was_seen_before(options: list[str]) -> None:
    result = _invoke("recommend", "--user", "u1", "--timestamp", "1500000001", "--count", "1", "--json", *options)
    assert [row["item_id"] for row in json.loads(result.stdout)] == ["i0"]


def test_similar_titles_leave_out_the_title_itself(options: list[str]) -> None:
    result = _invoke("similar", "--item", "i0", "--count", "3", *options)
    assert result.exit_code == 0, result.output
    headline, _, *rows = result.stdout.splitlines()
    assert headline == "Because you watched Film i0"
    assert [re.findall(r"Film \w+", row) for row in rows] == [["Film i1"], ["Film i2"], ["Film i3"]]


def test_a_deadline_that_passes_is_named(options: list[str]) -> None:
    with socket.socket() as mute:  # Takes connections and never says a word.
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        arguments = ("--wait", "0", "--timeout", "0.25", "--address", address)
        result = _invoke("similar", "--item", "i0", *arguments, *options)
    assert result.exit_code == 1
    assert result.output == f"marquee: {address}: DEADLINE_EXCEEDED: no answer within 0.25 s\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--user", "u1"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["similar", "--item", "i0"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["recommend", "--user", "u2"], "no row of user 'u2'"),
        (["similar", "--item", "i99"], "no title 'i99'"),
    ],
)
def test_without_a_server_or_a_known_id_there_is_one_sentence(
    arguments: list[str], message: str, options: list[str]
) -> None:
    with socket.socket() as unheard:  # Bound, so that nobody else takes the port, but not listening.
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        result = _invoke(*arguments, "--wait", "0", "--address", address, *options)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_waiting_ends_with_the_ordinary_error(options: list[str]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        result = _invoke("similar", "--item", "i0", "--wait", "0.5", "--address", address, *options)
    assert result.exit_code == 1
    assert f"{address}: UNAVAILABLE" in result.output


def test_a_server_without_the_model_says_so(options: list[str]) -> None:
    assert _invoke("similar", "--item", "i0", *options).exit_code == 0, "the server must be up"
    result = _invoke("similar", "--item", "i0", "--wait", "0", *options, "--set", "serving.model_name=books")
    assert result.exit_code == 1
    assert "NOT_FOUND" in result.output
