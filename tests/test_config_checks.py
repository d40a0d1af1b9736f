"""Whether a configuration fits its schema."""

import re
from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.config import CONFIG_DIRECTORY, load_config
from pipeline.config_checks import check_against_schema, read_schema
from pipeline.config_files import ConfigError


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIRECTORY.glob("*.yaml")))
def test_shipped_configurations_fit_their_schemas(name: str):
    check_against_schema(load_config(name))


def test_everything_that_exists_may_be_sliced_by():
    check_against_schema(
        load_config(
            "movielens-100k",
            [
                "evaluation.bands={age: [18], release_year: [1990]}",
                "evaluation.slices=[[user_id], [zip_code, release_year_band], [hour, user_activity, title_popularity]]",
                "evaluation.genre_feature=genres",
                "evaluation.gate.rules=[{metric: ndcg@10, minimum: 0, slice: {age_band: 18+, gender: F}}]",
            ],
        )
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "evaluation.bands={gender: [1]}",
            "evaluation.bands: received 'gender'; expected one of the numeric columns ['age', 'release_year']",
        ),
        ("evaluation.bands={timestamp: [1]}", "evaluation.bands: received 'timestamp'; expected one of the numeric"),
        ("evaluation.bands={rating: [3]}", "evaluation.bands: received 'rating'; expected one of the numeric columns"),
        (
            "evaluation.genre_feature=occupation",
            "evaluation.genre_feature: received 'occupation'; expected one of the item columns tagged 'multi_hot', "
            "['genres']",
        ),
        ("evaluation.slices=[[age], [gender, sex]]", "evaluation.slices.1: received 'sex'; expected one of ['age', "),
        ("evaluation.slices=[[release_year_band]]", "evaluation.slices.0: received 'release_year_band'; expected one"),
        (
            "evaluation.gate.rules=[{metric: ndcg@10, minimum: 0, slice: {device: tv}}]",
            "evaluation.gate.rules.0.slice: received 'device'; expected one of ['age', 'age_band', ",
        ),
        (
            "data.like_threshold=null data.feedback=null",
            "data.feedback: received None, of which the history is None; "
            "expected the history that the schema describes, 'history_rating'",
        ),
    ],
)
def test_what_the_schema_does_not_have_is_refused(overrides: str, message: str):
    with pytest.raises(ConfigError) as error:
        check_against_schema(load_config("movielens-100k", re.split(r" (?=data\.)", overrides)))

    assert str(error.value).startswith(message)


def test_a_column_may_not_have_the_name_of_a_bands_slice(tmp_path: Path):
    path = tmp_path / "schema.pbtxt"
    text = load_config("movielens-100k").read_schema_text()
    path.write_text(text.replace('name: "zip_code"', 'name: "age_band"'), encoding="utf-8")

    with pytest.raises(ConfigError, match=r"evaluation\.bands: the slice 'age_band' of the bands of 'age' has"):
        check_against_schema(load_config("movielens-100k", [f"schema_file={path}"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature {", "is not a TFMD schema in text format"),
        (
            'feature { name: "x" type: INT annotation { tag: "usr" } }',
            r"cannot be used: feature 'x' has unknown tags \['usr'\]",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_of_its_field(text: str, message: str, tmp_path: Path):
    path = tmp_path / "mine.pbtxt"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=rf"^schema_file: .*mine\.pbtxt .*{message}"):
        read_schema(load_config("movielens-100k", [f"schema_file={path}"]))
    assert isinstance(read_schema(load_config("movielens-100k")), schema_pb2.Schema)
