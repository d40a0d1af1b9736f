from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.model_config_file import (
    labels_of,
    log_prefix_of,
    plain_config,
    read_config,
    with_labels,
    with_versions,
    write_config,
)

TEXT = """
model_config_list {
  config { name: "other" base_path: "/other" model_platform: "tensorflow" version_labels { key: "x" value: 9 } }
  config {
    name: "recommender" base_path: "/elsewhere/été" model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
    version_labels { key: "stable" value: 1 }
    logging_config {
      log_collector_config { type: "tfrecord" filename_prefix: "/logs/r" }
      sampling_config { sampling_rate: 0.5 }
    }
  }
}
"""


def parse(text: str) -> model_server_config_pb2.ModelServerConfig:
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def test_only_the_policy_and_the_labels_of_the_model_change(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(TEXT, encoding="utf-8")
    changed = with_versions(read_config(path), "recommender", Path("/unused"), [3, 1, 3], {"stable": 1, "canary": 3})
    write_config(path, changed)
    expected = parse(
        TEXT.replace("latest { num_versions: 2 }", "specific { versions: 1 versions: 3 }").replace(
            'version_labels { key: "stable" value: 1 }',
            'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 3 }',
        )
    )
    assert read_config(path) == expected
    assert labels_of(read_config(path), "recommender") == {"stable": 1, "canary": 3}
    assert log_prefix_of(read_config(path), "recommender") == "/logs/r"
    assert log_prefix_of(read_config(path), "other") is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["models.config"]


def test_a_model_that_is_not_there_is_added_with_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_config(tmp_path / "models.config")
    (model,) = with_versions(config, "new", Path("serving/new"), [4], {"canary": 4}).model_config_list.config
    assert model.base_path == str(tmp_path / "serving" / "new")
    assert (model.name, model.model_platform) == ("new", "tensorflow")
    assert list(model.model_version_policy.specific.versions) == [4]
    assert plain_config("new", Path("serving/new")).model_config_list.config[0].base_path == model.base_path


def test_labels_can_be_replaced_alone() -> None:
    changed = with_labels(parse(TEXT), "recommender", {"canary": 2})
    assert labels_of(changed, "recommender") == {"canary": 2}
    assert labels_of(changed, "other") == {"x": 9}
    assert changed.model_config_list.config[1].model_version_policy.latest.num_versions == 2
    assert with_labels(parse(TEXT), "unknown", {"canary": 2}) == parse(TEXT)


def test_a_file_that_does_not_parse_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("model_config_list {\n  config { nme: 'x' }\n}\n")
    with pytest.raises(ReleaseError, match=r"models.config is no ModelServerConfig in text format: 2:12"):
        read_config(path)
    path.write_text("custom_model_config { }")
    with pytest.raises(ReleaseError, match="expected a model_config_list"):
        read_config(path)
