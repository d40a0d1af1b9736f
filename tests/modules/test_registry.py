"""Settings of recommenders are read as strictly as the rest of the configuration."""

import pytest
from pydantic import ValidationError

from modules.models.registry import create_recommender


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": "64"}, "dimension\n  Input should be a valid integer"),
        ({"dimension": 64.5}, "dimension\n  Input should be a valid integer"),
        ({"dropout": True}, "dropout\n  Input should be a valid number"),
        ({"learning_rate": "1e-3"}, "learning_rate\n  Input should be a valid number"),
    ],
)
def test_settings_are_not_converted(settings: dict, message: str):
    with pytest.raises(ValidationError) as error:
        create_recommender("two_tower", settings)

    assert message in str(error.value)


def test_whole_numbers_do_for_any_number():
    config = create_recommender("two_tower", {"dimension": 8, "temperature": 2}).config

    assert config.model_dump().items() >= {"dimension": 8, "temperature": 2.0}.items()
