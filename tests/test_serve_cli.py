"""`marquee serve`: which models it serves, and what it offers."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import serve_cli
from pipeline.serve_cli import keep_logging
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.model_config_file import labels_of, read_config
from tests.serving.saved_models import export_recommender, publish


def application() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)  # Or the only command would need no name.
    serve_cli.register(app)
    return app


def test_logging_is_kept_in_the_models_config(tmp_path: Path):
    folder = ServingFolder(tmp_path, "films")
    keep_logging(folder, 0.25)
    (model,) = read_config(folder.config).model_config_list.config
    assert (model.name, model.base_path) == ("films", str(tmp_path / "films"))
    assert model.logging_config.sampling_config.sampling_rate == 0.25
    assert model.logging_config.log_collector_config.filename_prefix == str(tmp_path / "requests")

    keep_logging(folder, 0.0)
    (model,) = read_config(folder.config).model_config_list.config
    assert not model.HasField("logging_config")


def test_logging_changes_nothing_else(tmp_path: Path):
    folder = ServingFolder(tmp_path, "films")
    folder.config.write_text(
        'model_config_list { config { name: "other" base_path: "/other" } config { name: "films" base_path: "/films" '
        'model_version_policy { specific { versions: 3 } } version_labels { key: "stable" value: 3 } } }'
    )
    before = read_config(folder.config)
    keep_logging(folder, 1.0)
    changed = read_config(folder.config)
    assert changed.model_config_list.config[1].HasField("logging_config")
    assert not changed.model_config_list.config[0].HasField("logging_config")
    changed.model_config_list.config[1].ClearField("logging_config")
    assert changed == before
    assert labels_of(changed, "films") == {"stable": 3}


def test_logging_needs_the_model(tmp_path: Path):
    folder = ServingFolder(tmp_path, "films")
    folder.config.write_text('model_config_list { config { name: "other" base_path: "/other" } }')
    with pytest.raises(ReleaseError, match=r"models\.config has no model 'films'"):
        keep_logging(folder, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "--no-rest"], "--metrics are shown on the REST port; leave --no-rest out"),
        (["--port", "8501"], "--rest_api_port must differ from --port; both are 8501"),
        (["--model-config", __file__, "--log-requests", "1"], "--log-requests is kept in models.config; set logging_"),
        (["--tls", __file__], "test_serve_cli.py, line 1"),
    ],
)
def test_errors_are_one_sentence(options: list[str], message: str, tmp_path: Path):
    result = CliRunner().invoke(application(), ["serve", "--set", f"workspace={tmp_path}", *options])
    assert result.exit_code == 1
    (sentence,) = (line for line in result.output.splitlines() if not line.startswith("waiting for the first model"))
    assert sentence.startswith("marquee: ")
    assert message in sentence


def test_a_workspace_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(application(), ["serve", "--set", f"workspace={tmp_path / 'file'}"])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.output.startswith("marquee: [Errno 20] Not a directory")
    assert "--tls-ca" in CliRunner().invoke(application(), ["serve", "--help"], env={"COLUMNS": "200"}).output


@pytest.mark.slow
def test_the_command_serves_logs_and_stops(tmp_path: Path):
    publish(export_recommender(tmp_path / "model"), tmp_path / "serving" / "recommender", 7)
    program = "from tests.test_serve_cli import application; application()()"
    arguments = [
        "serve",
        "--set",
        f"workspace={tmp_path}",
        "--port=0",
        "--rest-port=0",
        "--metrics",
        "--log-requests=1",
    ]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"serving recommender version 7 on \S+ \(gRPC\) and (\S+) \(REST\)\n", line)
        assert match is not None, line
        connection = http.client.HTTPConnection(match[1], timeout=60)
        connection.request("POST", "/v1/models/recommender:predict", b'{"instances": [{"b64": ""}]}')
        assert b'"item_ids": ["i0", "i1"' in connection.getresponse().read()
        connection.request("GET", "/monitoring/prometheus/metrics")
        assert b'request_count{model_name="recommender",status="OK"} 1' in connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    (log,) = (tmp_path / "serving").glob("requests-*")
    assert log.stat().st_size > 0
