"""`marquee recommend`, `rank` and `similar`: a real server process on a tiny model, asked as people ask it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from tests.free_ports import free_ports
from tests.serving import saved_models
from tests.serving.certificates import Authority, KeyPair
from tests.serving.misbehaving_servers import HttpServer, RawServer
from tests.serving.saved_models import CATALOGUE, export_recommender, publish

SEEN = ("i3", "i0")
TABLES = {
    "interactions.tsv": "user_id\titem_id\trating\tdevice\ttimestamp\n"
    + "".join(f"u1\t{item_id}\t4\ttv\t{1_500_000_000 + second}\n" for second, item_id in enumerate(SEEN)),
    "items.tsv": "item_id\ttitle\trelease_year\tgenres\n"
    + "".join(f"{item_id}\tFilm {item_id}\t2001\tDrama|War\n" for item_id in (*CATALOGUE, "new")),
    "users.tsv": "user_id\tage\tgender\toccupation\nu1\t24\tM\twriter\n",
}


CONFIG = """
model_config_list {{
  config {{
    name: "recommender" base_path: "{base_path}" model_platform: "tensorflow"
    model_version_policy {{ specific {{ versions: 3 versions: 4 }} }}
    version_labels {{ key: "stable" value: 3 }}
    version_labels {{ key: "canary" value: 4 }}
  }}
}}
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Options of a configuration whose server has been started, but need not answer yet.

    Version 3 is stable, and recommends i0 first; version 4, the latest, is the canary and recommends i5 first.
    """
    folder = tmp_path_factory.mktemp("serving_cli")
    for name, text in TABLES.items():
        (folder / name).write_text(text, encoding="utf-8")
    base_path = folder / "workspace" / "serving" / "recommender"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_models, "TOP_K", len(CATALOGUE) - len(SEEN))
        for version, first in ((3, "i0"), (4, "i5")):
            publish(export_recommender(folder / f"model{version}", first=first), base_path, version)
    config = base_path.with_name("models.config")
    config.write_text(CONFIG.format(base_path=base_path), encoding="utf-8")
    ports = free_ports(2)
    settings = {
        "workspace": folder / "workspace",
        "data.directory": folder,
        "serving.port": ports[0],
        "serving.rest_port": ports[1],
    }
    options = [
        "--config",
        "synthetic",
        *(word for item in settings.items() for word in ("--set", "=".join(map(str, item)))),
    ]
    command = [sys.executable, "-m", "pipeline.serving.server", f"--port={ports[0]}", f"--rest_api_port={ports[1]}"]
    command += [
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        "--stop_on_end_of_input",
    ]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield options
    finally:
        server.terminate()
        server.wait(timeout=60)
        assert server.stdin is not None
        server.stdin.close()


def _invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})


def test_recommend_waits_for_a_server_that_was_started_just_now(options: list[str]) -> None:
    result = _invoke("recommend", "--user", "u1", "--wait", "120", *options)
    assert result.exit_code == 0, result.output
    headline, columns, *rows = result.stdout.splitlines()
    assert headline == "For user u1 (age 24, gender M, occupation writer; 2 titles seen)"
    assert columns.split() == ["score", "title", "release", "year", "genres"]
    assert len(rows) == 10
    expected = [item_id for item_id in CATALOGUE if item_id not in SEEN]
    for position, (row, item_id) in enumerate(zip(rows, expected, strict=True), start=1):
        pattern = rf"{position} +-{CATALOGUE.index(item_id)}\.000 +Film {item_id} +2001 +Drama, War"
        assert re.fullmatch(pattern, row.strip())


def _ask(*arguments: str) -> dict[str, Any]:
    result = _invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_answers_as_json_and_says_which_version_did(options: list[str]) -> None:
    about = {"release_year": "2001", "genres": "Drama, War"}
    assert _ask("recommend", "--user", "u1", "--count", "2", *options) == {
        "model": "recommender",
        "model_version": 3,
        "user": "u1",
        "items": [
            {"item_id": "i1", "score": -1.0, "title": "Film i1", **about},
            {"item_id": "i2", "score": -2.0, "title": "Film i2", **about},
        ],
    }


@pytest.mark.parametrize(
    ("choice", "version"),
    [
        ([], 3),
        (["--label", "stable"], 3),
        (["--label", "canary"], 4),
        (["--label", ""], 4),
        (["--model-version", "3"], 3),
        (["--model-version", "4"], 4),
    ],
)
def test_asks_the_stable_version_unless_told_otherwise(choice: list[str], version: int, options: list[str]) -> None:
    first = {3: "i0", 4: "i5"}[version]
    answer = _ask("similar", "--item", "i9", "--count", "1", *choice, *options)
    assert (answer["model_version"], answer["items"][0]["item_id"]) == (version, first)
    over_rest = _ask("similar", "--item", "i9", "--count", "1", *choice, "--rest", *options)
    assert over_rest["items"] == answer["items"]
    assert over_rest["model_version"] == (version if "--model-version" in choice else None)


def test_without_labels_the_latest_version_is_asked(options: list[str], tmp_path: Path) -> None:
    arguments = ("similar", "--item", "i9", "--count", "1", *options, "--set", f"workspace={tmp_path}")
    assert _ask(*arguments)["model_version"] == 4


def test_a_broken_release_configuration_is_named(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "models.config").write_text("model_config_list {", encoding="utf-8")
    result = _invoke("similar", "--item", "i9", *options, "--set", f"workspace={tmp_path}")
    assert result.exit_code == 1
    assert "models.config is no ModelServerConfig" in result.output


def test_puts_titles_into_order(options: list[str]) -> None:
    result = _invoke("rank", "--user", "u1", "--items", "i4, i2,i0", *options)
    assert result.exit_code == 0, result.output
    headline, _, *rows = result.stdout.splitlines()
    assert headline == "In order for user u1 (age 24, gender M, occupation writer; 2 titles seen)"
    assert [row.split()[:4] for row in rows] == [
        ["1", "1.000", "Film", "i0"],
        ["2", "-2.000", "Film", "i2"],
        ["3", "-4.000", "Film", "i4"],
    ]
    assert [
        item["item_id"] for item in _ask("rank", "--user", "u1", "--items", "i4,i2", "--rest", *options)["items"]
    ] == [
        "i2",
        "i4",
    ]


def test_a_title_that_the_model_does_not_know_comes_last(options: list[str]) -> None:
    assert "unknown" in _invoke("rank", "--user", "u1", "--items", "new,i2", *options).output
    items = _ask("rank", "--user", "u1", "--items", "new,i2", *options)["items"]
    assert [(item["item_id"], item["score"]) for item in items] == [("i2", -2.0), ("new", None)]


def test_a_request_of_the_past_knows_only_what_was_seen_before(options: list[str]) -> None:
    answer = _ask("recommend", "--user", "u1", "--timestamp", "1500000001", "--count", "1", *options)
    assert [item["item_id"] for item in answer["items"]] == ["i0"]


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
        (["similar", "--item", "i0", "--rest", "--address", "a:b"], "address: received 'a:b'; expected host:port"),
        (["recommend", "--user", "u1"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["similar", "--item", "i0"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["recommend", "--user", "u2"], "no row of user 'u2'"),
        (["similar", "--item", "i99"], "no title 'i99'"),
        (["rank", "--user", "u1", "--items", "i1"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["rank", "--user", "u1", "--items", "i1,i98,i99"], "no title 'i98', 'i99'"),
        (["rank", "--user", "u1", "--items", ","], "candidates: received []; expected at least one item id"),
        (["similar", "--item", "i0", "--rest"], "UNAVAILABLE: no server answers at this address; is it running?"),
        (["similar", "--item", "i0", "--label", "a", "--model-version", "3"], "exclude each other"),
    ],
)
def test_without_a_server_or_a_known_id_there_is_one_sentence(
    arguments: list[str], message: str, options: list[str]
) -> None:
    with socket.socket() as unheard:  # Bound, so that nobody else takes the port, but not listening.
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        result = _invoke(arguments[0], "--wait", "0", "--address", address, *arguments[1:], *options)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--timeout", "inf"),
        ("--timeout", "1e300"),
        ("--timeout", "0"),
        ("--model-version", str(2**63)),
        ("--model-version", "-1"),
    ],
)
@pytest.mark.parametrize(
    "command", [["recommend", "--user=u1"], ["rank", "--user=u1", "--items=i1"], ["similar", "--item=i0"]]
)
def test_a_number_out_of_range_is_refused_by_the_options_name(
    command: list[str], option: str, value: str, options: list[str]
) -> None:
    result = _invoke(*command, option, value, *options)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_a_deadline_that_is_no_number_is_refused(options: list[str]) -> None:
    result = _invoke("similar", "--item=i0", "--timeout=nan", "--address=127.0.0.1:1", *options)
    assert isinstance(result.exception, SystemExit)  # From the option or from the client: no traceback.
    assert re.search(r"'--timeout'|timeout_seconds: received nan", result.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "--user", "u1", "--items", ""], "candidates: received []; expected at least one item id"),
        (
            ["rank", "--user", "u1", "--items", "i1", "--timestamp", str(2**63)],
            f"timestamp: received {2**63}; expected a 64-bit integer",
        ),
        (
            ["recommend", "--user", "u1", "--timestamp", str(2**63)],
            f"timestamp: received {2**63}; expected a 64-bit integer",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_before_a_server_is_waited_for(
    arguments: list[str], message: str, options: list[str]
) -> None:
    with RawServer() as server:
        result = _invoke(*arguments, "--wait", "5", "--address", server.address, *options)
        assert server.connections == 0
    assert result.exit_code == 1
    assert result.output == f"marquee: {message}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, KeyPair]:
    return {name: authority.issue(name) for name in ("server", "client")}


@pytest.fixture(scope="module")
def encrypted_address(
    authority: Authority, pairs: dict[str, KeyPair], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server of the recommender that talks to who has a certificate only, by an ssl_config_file."""
    tmp_path = tmp_path_factory.mktemp("encrypted")
    publish(export_recommender(tmp_path / "model", first="i0"), tmp_path / "recommender", 3)
    texts = {
        "server_key": pairs["server"].key,
        "server_cert": pairs["server"].certificate,
        "custom_ca": authority.certificate,
    }
    lines = [f"{name}: {json.dumps(path.read_text(encoding='utf-8'))}" for name, path in texts.items()]
    config = tmp_path / "ssl.config"
    config.write_text("\n".join([*lines, "client_verify: true"]), encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.serving.server", "--port=0", "--stop_on_end_of_input"]
    command += [f"--model_base_path={tmp_path / 'recommender'}", "--model_name=recommender"]
    command += [f"--ssl_config_file={config}"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60.0
        while not (match := re.search(r"listening on \S+:(\d+) \(gRPC\)", log.read_text(errors="replace"))):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield f"127.0.0.1:{match[1]}"
    finally:
        server.terminate()
        server.wait(timeout=60)
        assert server.stdin is not None
        server.stdin.close()


@pytest.mark.parametrize(
    "command", [["recommend", "--user", "u1"], ["rank", "--user", "u1", "--items", "i1"], ["similar", "--item", "i9"]]
)
def test_an_encrypted_server_is_asked_with_certificates(
    command: list[str],
    encrypted_address: str,
    authority: Authority,
    pairs: dict[str, KeyPair],
    options: list[str],
) -> None:
    about = [*command, "--address", encrypted_address, "--label", "", *options]
    trust = ["--tls-ca", str(authority.certificate)]
    identity = ["--tls-cert", str(pairs["client"].certificate), "--tls-key", str(pairs["client"].key)]
    assert _ask(*about, *trust, *identity)["model_version"] == 3
    for too_little in ([], trust, identity):
        result = _invoke(*about, *too_little, "--wait", "0", "--timeout", "2")
        assert result.exit_code == 1
        assert f"marquee: {encrypted_address}: UNAVAILABLE" in result.output


def test_an_encrypted_server_may_be_asked_over_rest(
    authority: Authority, pairs: dict[str, KeyPair], options: list[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pairs["server"].certificate, pairs["server"].key)
    content = {"outputs": {"item_ids": [["i1"]], "scores": [[1.0]]}}
    with HttpServer(lambda path, body: (200, content), context) as server:
        about = ("similar", "--item", "i9", "--rest", "--wait", "0", "--address", server.address, *options)
        answer = _ask(*about, "--tls-ca", str(authority.certificate))
    assert [item["item_id"] for item in answer["items"]] == ["i1"]


@pytest.mark.parametrize("rest", [[], ["--rest"]])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--tls-cert"], "--tls-cert and --tls-key go together"),
        (["--tls-key"], "--tls-cert and --tls-key go together"),
        (["--tls-ca"], "garbage.pem holds no PEM certificate"),
        (["--tls-cert", "--tls-key"], "garbage.pem and {folder}/garbage.pem are no PEM certificate and its key"),
    ],
)
def test_certificates_that_cannot_be_used_are_named(
    given: list[str], message: str, rest: list[str], options: list[str], tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage", encoding="utf-8")
    words = [word for option in given for word in (option, str(garbage))]
    result = _invoke("similar", "--item", "i0", "--wait", "0", *words, *rest, *options)
    assert result.exit_code == 1
    assert message.format(folder=tmp_path) in result.output
    assert result.output.count("\n") == 1


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
