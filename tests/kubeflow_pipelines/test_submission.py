"""`marquee submit`, `watch` and `schedule`, with kfp's own client, against a server that speaks the API."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.config import load_config
from pipeline.config_files import ConfigError
from pipeline.kubeflow import connection, run_watch
from pipeline.kubeflow.schedules import normalise_cron
from tests.kubeflow_pipelines.cluster import Answer, Cluster, serve, step

pytest.importorskip("kfp")

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.compiler import compile_pipeline

IMAGE = "registry.example/marquee:1.0"
SETTINGS = ("workspace=gs://bucket/marquee", "data.directory=gs://bucket/data")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.delenv(connection.TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(run_watch.watch, "__defaults__", (0.0,))
    with serve(Cluster()) as served:
        yield served


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "recommender.yaml"
    compile_pipeline(load_config("synthetic", SETTINGS), path, IMAGE)
    return path


def _marquee(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _message(specification: dict[str, Any]) -> pipeline_spec_pb2.PipelineSpec:
    return json_format.ParseDict(specification, pipeline_spec_pb2.PipelineSpec())


def _fails(*arguments: Any) -> str:
    result = _marquee(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


def test_the_configuration_is_compiled_and_started_with_its_defaults(cluster: Cluster, spec: Path):
    overrides = [part for one in SETTINGS for part in ("--set", one)]
    result = _marquee(
        "submit", "--config", "synthetic", *overrides, "--image", IMAGE, "--host", cluster.url, "-p", "max_epochs=3"
    )
    assert result.exit_code == 0, result.output
    assert result.output == f"Submitted: run-1\n{cluster.url}/#/runs/details/run-1\n"
    (run,) = cluster.posted("runs")
    expected = next(iter(yaml.safe_load_all(spec.read_text())))
    assert _message(run["pipeline_spec"]) == _message(expected)
    # Not left to what the server makes of the specification: every parameter goes along.
    defaults = {name: one["defaultValue"] for name, one in expected["root"]["inputDefinitions"]["parameters"].items()}
    assert run["runtime_config"]["parameters"] == {**defaults, "max_epochs": 3}
    assert run["display_name"].startswith("synthetic 20")
    assert [one["display_name"] for one in cluster.experiments.values()] == ["synthetic"]
    assert run["experiment_id"] == "experiment-1"


def test_a_compiled_file_is_started_with_another_image_in_an_experiment_that_there_is(cluster: Cluster, spec: Path):
    for image in ("registry.example/marquee:2.0", None):
        result = _marquee(
            "submit", "--spec", spec, "--host", cluster.url, "--experiment", "mine", "--name", "nightly",
            *(["--image", image] if image else []),
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    assert len(cluster.posted("experiments")) == 1
    first, second = cluster.posted("runs")
    images = [
        {one["container"]["image"] for one in run["pipeline_spec"]["deploymentSpec"]["executors"].values()}
        for run in (first, second)
    ]
    assert images == [{"registry.example/marquee:2.0"}, {IMAGE}]
    assert first["display_name"] == "nightly"


@pytest.mark.parametrize(("given", "environment"), [(True, None), (False, "let-me-in"), (True, "stale")])
def test_the_token_comes_from_a_file_or_the_environment(
    cluster: Cluster, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool, environment: str | None
):
    cluster.token = "let-me-in"
    file = tmp_path / "token"
    file.write_text("let-me-in\n")
    if environment:
        monkeypatch.setenv(connection.TOKEN_VARIABLE, environment)
    options = ["--token-file", file] if given else []
    result = _marquee("submit", "--spec", spec, "--host", cluster.url, *options)
    assert result.exit_code == 0, result.output
    assert "let-me-in" not in result.output


def test_a_pod_is_known_by_its_own_token(cluster: Cluster, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cluster.token = "of-the-pod"
    (tmp_path / "token").write_text("of-the-pod")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert _marquee("submit", "--spec", spec, "--host", cluster.url).exit_code == 0


def test_the_namespace_goes_along(cluster: Cluster, spec: Path):
    result = _marquee("submit", "--spec", spec, "--host", cluster.url, "--namespace", "team-a")
    assert result.exit_code == 0, result.output
    assert cluster.posted("experiments")[0]["namespace"] == "team-a"


def test_a_run_is_followed_to_its_end(cluster: Cluster, spec: Path):
    cluster.states = ["PENDING", "RUNNING", "SUCCEEDED"]
    cluster.steps = [
        [],
        [step("Transform", "RUNNING", start="2026-01-02T03:05:00Z"), step("InteractionExampleGen", "SUCCEEDED")],
        [step("InteractionExampleGen", "SUCCEEDED"), step("Transform", "SUCCEEDED"), step("Transform-driver", "X")],
    ]
    result = _marquee("submit", "--spec", spec, "--host", cluster.url, "--name", "nightly", "--watch")
    assert result.exit_code == 0, result.output
    assert [line.split(maxsplit=1) for line in result.output.splitlines()[2:]] == [
        ["PENDING", "run nightly"],
        ["SUCCEEDED", "InteractionExampleGen"],
        ["RUNNING", "Transform"],
        ["RUNNING", "run nightly"],
        ["SUCCEEDED", "Transform"],
        ["SUCCEEDED", "run nightly"],
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_fails_says_which_step_did_and_why(cluster: Cluster, spec: Path, state: str):
    cluster.runs["run-1"] = {"run_id": "run-1", "display_name": "nightly"}
    cluster.states, cluster.steps = [state], [[step("AnomalyGate", "FAILED", "the data does not match the schema")]]
    result = _marquee("watch", "run-1", "--host", cluster.url)
    assert result.exit_code == 1
    assert "FAILED     AnomalyGate: the data does not match the schema" in result.output
    assert f"{state:<10} run nightly" in result.output
    once = _marquee("watch", "run-1", "--host", cluster.url, "--once")
    assert once.exit_code == 1
    assert "AnomalyGate: the data does not match the schema" in once.output


def test_a_cluster_that_is_away_for_a_moment_is_asked_again(cluster: Cluster):
    cluster.runs["run-1"] = {"run_id": "run-1", "display_name": "nightly"}
    troubles = iter([(503, "text/plain", b"upstream is away"), (502, "text/html", b"<html>bad gateway</html>")])

    def intercept(method: str, path: str) -> Answer | None:
        return next(troubles, None) if path.endswith("run-1") else None

    cluster.intercept = intercept
    result = _marquee("watch", "run-1", "--host", cluster.url)
    assert result.exit_code == 0, result.output
    assert "answers 503 upstream is away; trying again" in result.output
    assert "answers 502" in result.output


def test_what_does_not_fit_is_refused_before_anything_is_sent(cluster: Cluster, spec: Path):
    assert "expected name=value with a name of data_directory, feature_groups, max_epochs" in _fails(
        "submit", "--spec", spec, "--host", cluster.url, "-p", "epochs=3"
    )
    assert "cannot be read" in _fails("submit", "--spec", spec / "none", "--host", cluster.url)
    assert "received '25' for the hour in '0 25 * * *'" in _fails(
        "schedule", "create", "nightly", "--cron", "0 25 * * *", "--spec", spec, "--host", cluster.url
    )
    assert cluster.requests == []
    assert "Give the URL of its API with --host, or set kubeflow.host" in _fails("submit", "--spec", spec)
    assert "received 'kubeflow'; expected a URL" in _fails("submit", "--spec", spec, "--host", "kubeflow")


def _always(status: int, body: bytes, kind: str = "application/json") -> Any:
    return lambda method, path: (status, kind, body)


@pytest.mark.parametrize(
    ("intercept", "message"),
    [
        (_always(401, b'{"message": "token expired"}'), "does not know who asks (401 token expired): give a valid one"),
        (_always(403, b"RBAC: access denied"), "refuses (403 RBAC: access denied)"),
        (_always(404, b"404 page not found", "text/plain"), "expected the API of Kubeflow Pipelines 2"),
        (_always(500, b'{"error": "database"}'), "answers 500 database"),
        (_always(200, b"<html><form>Log in</form></html>", "text/html"), "is it a login page, so that a token is miss"),
        (_always(200, b'"ok"'), "does not answer as Kubeflow Pipelines does: received '\"ok\"'; expected JSON"),
        (
            lambda method, path: (200, "application/json", b"{}") if method == "POST" else None,
            "knows no id of the experiment 'synthetic'",
        ),
    ],
)
def test_refusals_and_nonsense_are_told_in_plain_words(cluster: Cluster, spec: Path, intercept: Any, message: str):
    cluster.intercept = intercept
    assert message in _fails("submit", "--spec", spec, "--host", cluster.url)


def test_a_run_that_does_not_exist(cluster: Cluster):
    assert "has no such thing (404 not found)" in _fails("watch", "run-9", "--host", cluster.url)


def test_an_unusable_token_file(cluster: Cluster, spec: Path, tmp_path: Path):
    options = ("submit", "--spec", spec, "--host", cluster.url, "--token-file")
    assert "cannot read" in _fails(*options, tmp_path / "none")
    (tmp_path / "empty").write_text("\n")
    assert "is empty; expected a token" in _fails(*options, tmp_path / "empty")


def test_nobody_there(spec: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"cannot reach {address}" in _fails("submit", "--spec", spec, "--host", address)


def test_a_server_that_never_answers(spec: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "READ_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "does not finish its answer within 1 s" in _fails("submit", "--spec", spec, "--host", address)


def test_a_server_without_tls(cluster: Cluster, spec: Path):
    host = cluster.url.replace("http://", "https://")
    assert "no secure connection" in _fails("submit", "--spec", spec, "--host", host)


def _schedule(cluster: Cluster, spec: Path, name: str, cron: str, *options: Any) -> Result:
    return _marquee("schedule", "create", name, "--cron", cron, "--spec", spec, "--host", cluster.url, *options)


def test_a_schedule_is_made_replaced_paused_resumed_and_deleted(cluster: Cluster, spec: Path):
    options = ("-p", "max_epochs=2", "--start", "2026-12-01", "--end", "2027-01-01T12:00:00", "--max-concurrency", "2")
    made = _schedule(cluster, spec, "nightly", "0 3 * * *", *options)
    assert made.exit_code == 0, made.output
    assert made.output == "Scheduled: nightly (0 0 3 * * *), recurring_run-1\n"
    (sent,) = cluster.posted("recurringruns")
    assert sent["trigger"]["cron_schedule"] == {
        "cron": "0 0 3 * * *",
        "start_time": "2026-12-01T00:00:00+00:00",
        "end_time": "2027-01-01T12:00:00+00:00",
    }
    assert (sent["mode"], sent["no_catchup"], int(sent["max_concurrency"])) == ("ENABLE", True, 2)
    assert sent["runtime_config"]["parameters"]["max_epochs"] == 2
    assert sent["runtime_config"]["parameters"]["data_directory"] == "gs://bucket/data"
    assert _message(sent["pipeline_spec"]) == _message(next(iter(yaml.safe_load_all(spec.read_text()))))

    assert _schedule(cluster, spec, "weekly", "0 4 * * 1", "--catch-up").exit_code == 0
    replaced = _schedule(cluster, spec, "nightly", "30 3 * * *")
    assert "It replaces recurring_run-1 (0 0 3 * * *)" in replaced.output
    methods = [method for method, path, _ in cluster.requests if "recurringruns" in path]
    assert methods[-2:] == ["POST", "DELETE"], "there must be no moment without the schedule"
    host = ("--host", cluster.url)

    def listed() -> list[tuple[str, str, bool]]:
        document = json.loads(_marquee("schedule", "list", "--json", *host).output)
        return [(one["name"], one["cron"], one["enabled"]) for one in document]

    assert listed() == [("nightly", "0 30 3 * * *", True), ("weekly", "0 0 4 * * 1", True)]
    assert _marquee("schedule", "pause", "nightly", *host).output == "Paused: nightly (0 30 3 * * *)\n"
    assert listed()[0][2] is False
    assert "paused" in _marquee("schedule", "list", *host).output
    assert _marquee("schedule", "resume", "nightly", *host).output == "Resumed: nightly (0 30 3 * * *)\n"
    assert listed()[0][2] is True
    assert _marquee("schedule", "delete", "nightly", *host).exit_code == 0
    assert [name for name, *_ in listed()] == ["weekly"]
    assert "0 schedules are named 'nightly'; there are: weekly" in _fails("schedule", "pause", "nightly", *host)


def test_all_pages_of_schedules_are_read(cluster: Cluster):
    cluster.schedules = {
        str(number): {"recurring_run_id": str(number), "display_name": f"s{number:03}", "status": "ENABLED"}
        for number in range(250)
    }
    document = json.loads(_marquee("schedule", "list", "--json", "--host", cluster.url).output)
    assert [one["name"] for one in document] == [f"s{number:03}" for number in range(250)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("15 0 3 * * ?", "15 0 3 * * ?"),
        ("*/10 8-18/2 1,15 JAN-mar mon", "0 */10 8-18/2 1,15 JAN-mar mon"),
    ],
)
def test_cron_expressions_are_understood(given: str, expected: str):
    assert normalise_cron(given) == expected


@pytest.mark.parametrize(
    "expression", ["", "daily", "* * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 7",
                   "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "-1 * * * *", "1.5 * * * *"]
)  # fmt: skip
def test_cron_expressions_that_cannot_be_meant_are_refused(expression: str):
    with pytest.raises(ConfigError, match=r"--cron: received .*; expected"):
        normalise_cron(expression)


def test_the_servers_answers_have_the_shapes_of_the_api(cluster: Cluster, spec: Path):
    cluster.steps = [[step("Transform", "FAILED", "why")]]
    _marquee("submit", "--spec", spec, "--host", cluster.url)
    _schedule(cluster, spec, "nightly", "0 3 * * *")
    answers = {
        "V2beta1Run": cluster.answer("GET", "/apis/v2beta1/runs/run-1", {}, None),
        "V2beta1Experiment": cluster.experiments["experiment-1"],
        "V2beta1RecurringRun": cluster.schedules["recurring_run-1"],
        "V2beta1PipelineTaskDetail": cluster.steps[0][0],
    }
    for name, document in answers.items():
        known = getattr(kfp_server_api, name).attribute_map.values()
        assert document.keys() <= set(known), name


def test_interrupting_leaves_the_run_going(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    cluster.runs["run-1"] = {"run_id": "run-1", "display_name": "nightly"}
    cluster.states = ["RUNNING"]
    asked = threading.Event()

    def interrupt(seconds: float) -> None:
        asked.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(run_watch.time, "sleep", interrupt)
    result = _marquee("watch", "run-1", "--host", cluster.url)
    assert asked.is_set()
    assert result.exit_code == 130
    assert f"The run goes on; `marquee watch run-1 --host {cluster.url}` follows it again." in result.output
    assert all(method == "GET" for method, _, _ in cluster.requests)
