"""What is said at submission, in the Trainer."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.components.recommender_trainer import with_parameters

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
