"""What is said at submission, in the Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from pipeline.components.recommender_trainer import RecommenderTrainerExecutor, with_parameters

CONFIG: dict[str, Any] = {
    "model": {"family": "two_tower", "settings": {"dimension": 8}},
    "feature_groups": ["ids", "user"],
}


def test_parameters_win_over_the_configuration_and_leave_it_as_it_was():
    found = with_parameters(CONFIG, {"max_epochs": 3, "feature_groups": "ids, item"})
    assert found["model"] == {"family": "two_tower", "settings": {"dimension": 8, "max_epochs": 3}}
    assert found["feature_groups"] == ["ids", "item"]
    assert CONFIG["model"]["settings"] == {"dimension": 8}


def test_without_parameters_nothing_changes():
    assert with_parameters(CONFIG, {"max_epochs": None}) == CONFIG


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_epochs": 0}, "max_epochs: received 0; expected a whole number from 1 on"),
        ({"feature_groups": "ids,users"}, "feature_groups: received 'ids,users'; expected some of ids, user, item"),
        ({"feature_groups": " "}, "feature_groups: received ' '; expected some of"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        with_parameters(CONFIG, parameters)


@pytest.mark.parametrize("folder", ["Format-Serving", "", None])
def test_the_base_model_is_found_in_an_artifact_or_a_pushed_version(tmp_path: Path, folder: str | None):
    model, examples, run = standard_artifacts.Model(), standard_artifacts.Examples(), standard_artifacts.ModelRun()
    output, catalogue = standard_artifacts.Model(), standard_artifacts.Examples()
    for artifact, name in ((model, "base"), (examples, "data"), (catalogue, "items"), (run, "run"), (output, "new")):
        artifact.uri = str(tmp_path / name)
    examples.split_names, catalogue.split_names = '["train", "eval"]', '["items"]'
    (tmp_path / "base").mkdir()
    if folder is not None:
        (tmp_path / "base" / folder).mkdir(exist_ok=True)
        (tmp_path / "base" / folder / "saved_model.pb").touch()
    fn_args = RecommenderTrainerExecutor()._GetFnArgs(
        {"examples": [examples], "base_model": [model], "catalogue": [catalogue]},
        {"model": [output], "model_run": [run]},
        {"custom_config": "{}", "train_args": "{}", "eval_args": "{}"},
    )
    assert fn_args.base_model == (None if folder is None else str(tmp_path / "base" / folder))
