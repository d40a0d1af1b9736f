"""The servers' configuration for a cluster, made from that of a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.cluster_config import app
from pipeline.serving.release.model_config_file import plain_config, read_config, with_versions, write_config

BASE_PATH = "gs://bucket/recommender"


def convert(source: Path, output: Path, *options: str):
    return CliRunner().invoke(app, [str(source), "--base-path", BASE_PATH, "--output", str(output), *options])


def test_versions_and_labels_stay_and_the_place_changes(tmp_path: Path):
    config = model_server_config_pb2.ModelServerConfig()
    config = with_versions(config, "recommender", tmp_path, [11, 12], {"stable": 11, "canary": 12})
    config.model_config_list.config[0].logging_config.log_collector_config.filename_prefix = str(tmp_path)
    config.model_config_list.config.add(name="other", base_path="/other")
    write_config(tmp_path / "models.config", config)
    result = convert(tmp_path / "models.config", tmp_path / "cluster.config")
    assert result.exit_code == 0, result.output
    assert "canary = 12, stable = 11" in result.output
    (model,) = read_config(tmp_path / "cluster.config").model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("recommender", BASE_PATH, "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [11, 12]
    assert dict(model.version_labels) == {"stable": 11, "canary": 12}
    assert not model.HasField("logging_config")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, (), "there is no such file"),
        ("model_config_list { config { nme: 'x' } }", (), "is no ModelServerConfig"),
        ("", (), "expected a model 'recommender'; received none"),
        (None, ("--model-name", "x"), "there is no such file"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str | None, options: tuple[str, ...], message: str):
    source = tmp_path / "models.config"
    if text is not None:
        source.write_text(text)
    result = convert(source, tmp_path / "cluster.config", *options)
    assert result.exit_code == 1
    assert f"{source}" in result.stderr
    assert message in result.stderr
    assert not (tmp_path / "cluster.config").exists()


def test_before_the_first_release_there_is_nothing_to_take_to_a_cluster(tmp_path: Path):
    write_config(tmp_path / "models.config", plain_config("recommender", tmp_path))
    result = convert(tmp_path / "models.config", tmp_path / "cluster.config")
    assert result.exit_code == 1
    assert "has no version_labels" in result.stderr
