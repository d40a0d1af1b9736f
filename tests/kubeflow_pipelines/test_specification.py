"""What may be said of a compiled specification at submission."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config_files import ConfigError
from pipeline.kubeflow.specification import parameter_values, pipeline_name, read_specification, write_with_image


def _specification() -> dict[str, Any]:
    parameters = {
        "folder": {"parameterType": "STRING", "defaultValue": "gs://data"},
        "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 6},
        "rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.5},
        "fast": {"parameterType": "BOOLEAN", "defaultValue": False},
        "needed": {"parameterType": "STRING"},
    }
    return {
        "pipelineInfo": {"name": "movies"},
        "root": {"inputDefinitions": {"parameters": parameters}},
        "deploymentSpec": {"executors": {"a": {"container": {"image": "old", "args": ["x"]}}, "b": {"importer": {}}}},
    }


def test_what_is_given_wins_over_the_defaults():
    given = ["needed=a=b", "epochs=3", "rate=2", "fast=true", "folder=7"]
    values = parameter_values(_specification(), given)
    assert values == {"folder": "7", "epochs": 3, "rate": 2.0, "fast": True, "needed": "a=b"}
    assert isinstance(values["rate"], float)
    assert parameter_values(_specification(), ["needed="]) == {
        "folder": "gs://data",
        "epochs": 6,
        "rate": 0.5,
        "fast": False,
        "needed": "",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["needed=x", "epoch=3"],
            "received 'epoch=3'; expected name=value with a name of epochs, fast, folder, needed",
        ),
        (["needed=x", "epochs"], "received 'epochs'; expected name=value"),
        (["needed=x", "epochs=3.5"], "--parameter epochs: received '3.5'; expected a whole number"),
        (["needed=x", "epochs=true"], "--parameter epochs: received 'true'; expected a whole number"),
        (["needed=x", "epochs="], "--parameter epochs: received ''; expected a whole number"),
        (["needed=x", "fast=1"], "--parameter fast: received '1'; expected true or false"),
        (["epochs=3"], "no value for needed, which has no default"),
    ],
)
def test_what_does_not_fit_is_refused(given: list[str], message: str):
    with pytest.raises(ConfigError) as error:
        parameter_values(_specification(), given)
    assert message in str(error.value)


def test_the_image_is_that_of_the_submission(tmp_path: Path):
    path = tmp_path / "movies.yaml"
    write_with_image(_specification(), "new:2", path)
    written = read_specification(path)
    assert pipeline_name(written) == "movies"
    assert written["deploymentSpec"]["executors"] == {
        "a": {"container": {"image": "new:2", "args": ["x"]}},
        "b": {"importer": {}},
    }
    write_with_image(_specification(), None, path)
    assert read_specification(path) == _specification()


@pytest.mark.parametrize("content", ["", "[1]", "a: b", "a: [", yaml.safe_dump({"pipelineInfo": {}})])
def test_other_files_are_refused(content: str, tmp_path: Path):
    path = tmp_path / "other.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"other\.yaml: (is no specification of a pipeline|cannot be read)"):
        read_specification(path)
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        read_specification(tmp_path / "missing.yaml")
