"""`marquee release`, `rollback` and `skew`, as people call them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from pipeline import release_cli, skew_cli
from pipeline.serving.messages import example_pb2, predict_pb2
from pipeline.serving.record_files import frame
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.model_config_file import labels_of, read_config, write_config
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from pipeline.serving.tensors import make_tensor, string_array
from tests.serving.certificates import Authority
from tests.serving.saved_models import export_recommender, publish
from tests.serving.skew_world import log_requests, make_world, write_workspace

app = typer.Typer()
release_cli.register(app)
skew_cli.register(app)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [export_recommender(folder / first, first=first) for first in ("i0", "i9")]


@pytest.fixture
def workspace(tmp_path: Path, models: list[Path]) -> Path:
    for version, model in enumerate(models, start=11):
        publish(model, tmp_path / "serving" / "recommender", version)
    return tmp_path


@pytest.fixture
def address(workspace: Path) -> Iterator[str]:
    """A server that serves as the file says, from when the test has written it."""
    options = ServerOptions(
        port=0,
        model_config_file=str(workspace / "serving" / "models.config"),
        allow_version_labels_for_unavailable_models=True,
    )
    assert invoke(workspace, "release", "stable", "--version", "11", "--offline").exit_code == 0
    assert invoke(workspace, "release", "canary", "--offline").exit_code == 0
    config_file = workspace / "serving" / "models.config"
    config = read_config(config_file)
    logging_config = config.model_config_list.config[0].logging_config
    logging_config.log_collector_config.filename_prefix = str(workspace / "serving" / "requests")
    logging_config.sampling_config.sampling_rate = 1.0
    write_config(config_file, config)
    with ModelServer(options) as server, LiveServer(server.address, "recommender") as live:
        for version in (11, 12):
            live.wait_until_available(version, 20, {})
        yield server.address


def invoke(workspace: Path, *arguments: str, terminal: bool = False) -> Result:
    options = ("--config", "synthetic", "--set", f"workspace={workspace}")
    kind = {"TERM": "xterm", "FORCE_COLOR": "1"} if terminal else {"TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "200", **kind})


def labels(workspace: Path) -> dict[str, int]:
    return labels_of(read_config(workspace / "serving" / "models.config"), "recommender")


def ask(address: str, count: int) -> None:
    with LiveServer(address, "recommender") as live:
        for number in range(count):
            example = example_pb2.Example()
            example.features.feature["history_item_ids"].bytes_list.value.append(f"i{number % 10 + 2}".encode())
            example.features.feature["timestamp"].int64_list.value.append(number)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "recommender"
            request.inputs["examples"].CopyFrom(make_tensor(string_array([example.SerializeToString()])))
            live.predict(request)


def test_a_canary_becomes_stable_after_a_comparison_and_is_rolled_back(workspace: Path, address: str) -> None:
    server = ("--address", address)
    ask(address, 30)
    time.sleep(0.5)
    result = invoke(
        workspace, "release", "stable", "--shadow", "--max-slowdown", "100", "--min-overlap", "0.99", *server
    )
    assert result.exit_code == 1
    assert "30 logged requests, sent to both" in result.stdout
    assert "marquee: the lists overlap by" in result.stderr
    assert result.stderr.endswith("Nothing has changed\n")
    result = invoke(
        workspace, "release", "stable", "--shadow", "--max-slowdown", "100", "--note", "better", "--by", "me", *server
    )
    assert result.exit_code == 0, result.output
    assert "version 12 is available; moving 'stable'" in result.stdout
    assert labels(workspace) == {"stable": 12, "canary": 12}
    result = invoke(workspace, "rollback", *server)
    assert result.exit_code == 0, result.output
    assert labels(workspace) == {"stable": 11, "canary": 11}
    assert "logging_config" in (workspace / "serving" / "models.config").read_text()

    result = invoke(workspace, "release", "status", "--json", *server)
    assert result.exit_code == 0, result.output
    overview = json.loads(result.stdout)
    assert overview["server"] == "answers"
    assert overview["labels"] == overview["served_labels"] == {"stable": 11, "canary": 11}
    states = {entry["version"]: (entry["labels"], entry["state"]) for entry in overview["versions"]}
    assert states[11] == (["canary", "stable"], "AVAILABLE")
    assert states[12][0] == []
    moved = overview["history"][2]
    assert (moved["who"], moved["note"], moved["label"], moved["to_version"]) == ("me", "better", "stable", 12)
    assert moved["shadow"]["requests"] == 30
    assert [entry["action"] for entry in overview["history"]] == ["release"] * 3 + ["rollback"] * 2

    result = invoke(workspace, "release", "status", *server)
    assert result.exit_code == 0, result.output
    assert f"recommender on {address}: answers" in result.stdout
    assert result.stdout.count("rollback") == 2


def test_a_comparison_moves_nothing_and_its_exit_code_tells_what_came_of_it(workspace: Path, address: str) -> None:
    ask(address, 20)
    time.sleep(0.5)
    before = (workspace / "serving" / "models.config").read_bytes()
    arguments = ("release", "shadow", "--requests", "10", "--address", address, "--json", "--max-slowdown")
    good = invoke(workspace, *arguments, "100")
    bad = invoke(workspace, *arguments, "100", "--min-overlap", "1")
    assert (good.exit_code, bad.exit_code) == (0, release_cli.SPOKEN_AGAINST) == (0, 3)
    assert json.loads(good.stdout)["requests"] == 10
    assert json.loads(good.stdout)["refusals"] == []
    assert json.loads(good.stdout)["notes"] == ["latency is not judged: both answered 10 requests; it takes 50"]
    assert "the lists overlap by" in json.loads(bad.stdout)["refusals"][0]
    assert (workspace / "serving" / "models.config").read_bytes() == before


def test_the_first_release_says_what_becomes_of_a_server_that_was_started_otherwise(workspace: Path) -> None:
    options = ServerOptions(
        port=0, model_name="recommender", model_base_path=str(workspace / "serving" / "recommender")
    )
    with ModelServer(options) as server, LiveServer(server.address, "recommender") as live:
        live.wait_until_available(12, 20, {})
        result = invoke(workspace, "release", "stable", "--version", "11", "--address", server.address)
        assert result.exit_code == 0, result.output
        assert "the server's whole configuration is replaced, whatever it was started with" in result.stdout
    for command in ("canary", "stable"):
        text = " ".join(CliRunner().invoke(app, ["release", command, "--help"]).stdout.replace("│", " ").split())
        assert "a server that was started otherwise then serves this model only" in text


def test_a_server_that_encrypts_is_reached_by_its_authority(workspace: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server")
    ssl_config = tmp_path / "ssl.config"
    ssl_config.write_text(
        f"server_key: {json.dumps(pair.key.read_text())}\nserver_cert: {json.dumps(pair.certificate.read_text())}"
    )
    config_file = workspace / "serving" / "models.config"
    assert invoke(workspace, "release", "stable", "--version", "11", "--offline").exit_code == 0
    options = ServerOptions(
        port=0,
        model_config_file=str(config_file),
        allow_version_labels_for_unavailable_models=True,
        ssl_config_file=str(ssl_config),
    )
    with ModelServer(options) as server:
        arguments = ("release", "canary", "--version", "12", "--address", server.address)
        refused = invoke(workspace, *arguments)
        assert refused.exit_code == 1
        assert "Nothing has changed" in refused.stderr
        result = invoke(workspace, *arguments, "--tls-ca", str(authority.certificate))
        assert result.exit_code == 0, result.output
    assert labels(workspace) == {"stable": 11, "canary": 12}


def test_files_that_cannot_be_read_or_written_are_told_in_a_sentence(workspace: Path, address: str) -> None:
    record = workspace / "serving" / "requests-20260101T000000Z-1.tfrecord"
    record.write_bytes(frame(b"nothing of the kind"))
    for arguments in (["release", "shadow"], ["release", "stable", "--shadow"]):
        result = invoke(workspace, *arguments, "--address", address, "--logs", str(record))
        assert result.exit_code == 1
        assert f"marquee: {record}: record 1 is no PredictionLog" in result.stderr
        assert isinstance(result.exception, SystemExit)
    lock = workspace / "serving" / ".release.lock"
    lock.unlink()
    lock.mkdir()
    for arguments in (["release", "canary", "--offline"], ["rollback", "--offline"]):
        result = invoke(workspace, *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("marquee: [Errno 21] Is a directory")
        assert isinstance(result.exception, SystemExit)


def test_without_a_server_a_release_says_what_can_be_done(workspace: Path) -> None:
    result = invoke(workspace, "release", "canary", "--address", "127.0.0.1:1")
    assert result.exit_code == 1
    assert (
        "Nothing has changed. Start one by `marquee serve`, or give --offline to write the file only" in result.stderr
    )
    assert not (workspace / "serving" / "models.config").exists()
    result = invoke(workspace, "release", "canary", "--offline")
    assert result.exit_code == 0, result.output
    assert labels(workspace) == {"canary": 12}
    result = invoke(workspace, "release", "canary", "--offline")
    assert "The labels are there already; nothing was recorded." in result.stdout
    result = invoke(workspace, "release", "status", "--address", "127.0.0.1:1")
    assert result.exit_code == 0, result.output
    assert "no server answers" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rollback", "--offline"], "there is nothing to roll back to: no version is stable"),
        (["release", "stable", "--offline"], "no version is the canary; make one by `marquee release canary`"),
        (["release", "canary", "--version", "99", "--offline"], "pushed versions: 12, 11"),
        (["release", "stable", "--shadow", "--offline"], "--shadow needs a server that answers"),
        (["release", "canary", "--offline", "--address", "x:1"], "received --address x:1 as well"),
        (["release", "shadow"], "no requests are logged: the model 'recommender' has no logging_config"),
        (["release", "shadow", "--logs", "none-*"], "none-* holds no logged request for recommendations"),
        (["skew"], "no requests are logged"),
        (["skew", "--logs", "none-*"], "no run yet"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(workspace: Path, arguments: list[str], message: str) -> None:
    result = invoke(workspace, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("marquee: ")
    assert message in result.stderr
    assert not (workspace / "serving" / "models.config").exists()


def test_skew_is_measured_in_logged_requests_and_told_by_the_exit_code(tmp_path: Path) -> None:
    world = make_world()
    write_workspace(tmp_path, world.training)
    same = log_requests(tmp_path / "same", [[request] for request in world.requests(1, 200)])
    result = invoke(tmp_path, "skew", "--logs", same)
    assert result.exit_code == 0, result.output
    assert "moved" not in result.stdout
    older = world.requests(1, 200, lambda user, context: user.update(age=user["age"] + 25))
    moved = log_requests(tmp_path / "moved", [[request] for request in older])
    result = invoke(tmp_path, "skew", "--logs", moved, "--json")
    assert result.exit_code == skew_cli.SKEW_FOUND
    features = json.loads(result.stdout)["features"]
    assert [feature["feature"] for feature in features if feature["moved"]] == ["age"]
    # A terminal gets nothing but the JSON either.
    result = invoke(tmp_path, "skew", "--logs", moved, "--json", terminal=True)
    assert json.loads(result.stdout)["features"] == features
    record = tmp_path / "no-log.tfrecord"
    record.write_bytes(frame(b"nothing of the kind"))
    result = invoke(tmp_path, "skew", "--logs", str(record))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"marquee: {record}: record 1 is no PredictionLog")
    result = invoke(tmp_path, "skew", "--logs", moved, "--max-jensen-shannon", "1")
    assert result.exit_code == 0, result.output
