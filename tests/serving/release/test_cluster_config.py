"""The servers' configuration for a cluster, made from that of a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.cluster_config import app
from pipeline.serving.release.model_config_file import plain_config, read_config, with_versions, write_config

BASE_PATH = "gs://bucket/recommender"


def release(folder: Path, labels: Mapping[str, int]) -> None:
    empty = model_server_config_pb2.ModelServerConfig()
    write_config(
        folder / "models.config", with_versions(empty, "recommender", folder / "recommender", labels.values(), labels)
    )


def convert(folder: Path, *options: str):
    source, output = str(folder / "models.config"), str(folder / "cluster.config")
    return CliRunner().invoke(app, [source, "--base-path", BASE_PATH, "--output", output, *options])


def written(folder: Path) -> tuple[list[int], dict[str, int]]:
    (model,) = read_config(folder / "cluster.config").model_config_list.config
    return list(model.model_version_policy.specific.versions), dict(model.version_labels)


def test_versions_and_labels_stay_and_the_place_changes(tmp_path: Path):
    release(tmp_path, {"stable": 11, "canary": 12})
    config = read_config(tmp_path / "models.config")
    config.model_config_list.config[0].logging_config.log_collector_config.filename_prefix = str(tmp_path)
    config.model_config_list.config.add(name="other", base_path="/other")
    write_config(tmp_path / "models.config", config)
    result = convert(tmp_path)
    assert result.exit_code == 0, result.output
    assert "versions 11, 12; labels canary = 12, stable = 11" in result.output
    (model,) = read_config(tmp_path / "cluster.config").model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("recommender", BASE_PATH, "tensorflow")
    assert written(tmp_path) == ([11, 12], {"stable": 11, "canary": 12})
    assert not model.HasField("logging_config")


def test_no_label_moves_before_its_version_is_loaded(tmp_path: Path):
    release(tmp_path, {"stable": 11, "canary": 12})
    convert(tmp_path)
    release(tmp_path, {"stable": 11, "canary": 13})
    assert "No label has moved yet" in convert(tmp_path).output
    assert written(tmp_path) == ([11, 12, 13], {"stable": 11, "canary": 12})
    assert "No label" not in convert(tmp_path).output
    assert written(tmp_path) == ([11, 13], {"stable": 11, "canary": 13})


def test_what_is_loaded_already_moves_at_once(tmp_path: Path):
    release(tmp_path, {"stable": 11, "canary": 12})
    convert(tmp_path)
    release(tmp_path, {"stable": 12, "canary": 12})
    assert "No label" not in convert(tmp_path).output
    assert written(tmp_path) == ([12], {"stable": 12, "canary": 12})


def test_a_new_label_waits_for_nothing(tmp_path: Path):
    release(tmp_path, {"stable": 11})
    convert(tmp_path)
    release(tmp_path, {"stable": 11, "canary": 12})
    assert "No label" not in convert(tmp_path).output
    assert written(tmp_path) == ([11, 12], {"stable": 11, "canary": 12})


def test_where_no_server_runs_there_is_one_step(tmp_path: Path):
    release(tmp_path, {"stable": 1})
    convert(tmp_path)
    release(tmp_path, {"stable": 2})
    assert convert(tmp_path, "--first").exit_code == 0
    assert written(tmp_path) == ([2], {"stable": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file"),
        ("model_config_list { config { nme: 'x' } }", "is no ModelServerConfig"),
        ("", "expected a model 'recommender'; received none"),
        ("model_config_list { config { name: 'x' } }", "expected a model 'recommender'; received x"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str | None, message: str):
    if text is not None:
        (tmp_path / "models.config").write_text(text)
    result = convert(tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / 'models.config'}" in result.stderr
    assert message in result.stderr
    assert not (tmp_path / "cluster.config").exists()


def test_before_the_first_release_there_is_nothing_to_take_to_a_cluster(tmp_path: Path):
    write_config(tmp_path / "models.config", plain_config("recommender", tmp_path))
    result = convert(tmp_path)
    assert result.exit_code == 1
    assert "expected 'stable', see `marquee release`; got none" in result.stderr
