"""PipelineConfig: what it refuses and how it says so, overrides, and the shipped configurations."""

import datetime
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.config import CONFIG_DIRECTORY, PipelineConfig, load_config
from pipeline.config_files import ConfigError
from pipeline.data_config import ColumnConfig

KEYS = {"user_id": "u", "item_id": "i", "timestamp": "t"}


def minimal(**data) -> dict:
    """Returns the smallest document; `data` wins over fields of its data section."""
    tables = {
        "directory": "data/x",
        "interactions": {"pattern": "log-*.csv", "format": "csv", "columns": {**KEYS, "stars": "s"}},
        "items": {"pattern": "items.tsv", "format": "tsv", "columns": {"item_id": "id"}},
    }
    return {"name": "x", "workspace": "runs/x", "schema_file": "x.pbtxt", "data": {**tables, **data}}


def load(tmp_path, document, *overrides) -> PipelineConfig:
    path = tmp_path / "mine.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_config(path, overrides)


def refusal(tmp_path, document, *overrides) -> str:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, document, *overrides)
    return str(error.value)


def table(**columns) -> dict:
    return {"pattern": "x.csv", "format": "csv", "columns": columns}


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIRECTORY.glob("*.yaml")))
def test_shipped_configurations_load(name):
    config = load_config(name)

    assert config.name == name
    assert config == load_config(CONFIG_DIRECTORY / f"{name}.yaml")
    assert "tag:" in config.read_schema_text()
    assert config.evaluation.gate.rules and config.evaluation.gate.protected


def test_a_minimal_document_gets_the_documented_defaults(tmp_path):
    config = load(tmp_path, minimal())

    assert config.data.users is None
    assert config.data.interactions.columns["user_id"] == ColumnConfig(source="u")
    assert (config.data.interactions.field_delimiter, config.data.items.field_delimiter) == (",", "\t")
    assert config.data.history_length == 50
    assert (config.data.splits.train, config.data.splits.validation) == (0.8, 0.1)
    assert config.features.groups == ("ids", "user", "item", "context", "time_buckets", "continuous_time")
    assert config.artifact_root == "runs/x/artifacts"
    assert config.metadata_path == "runs/x/metadata.sqlite"
    assert config.log_directory == "runs/x/logs"
    assert config.rejected_rows_directory == "runs/x/rejected"
    assert config.serving_directory == "runs/x/serving/recommender"


def test_every_field_is_documented():
    def sections(model, seen):
        seen.add(model)
        for field in model.model_fields.values():
            for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                    sections(part, seen)
        return seen

    structure = {"data", "features", "model", "tuner", "evaluation", "serving"}
    found = sections(PipelineConfig, set())
    undocumented = {
        f"{model.__name__}.{name}"
        for model in found
        for name, field in model.model_fields.items()
        if not field.description and not (model is PipelineConfig and name in structure)
    }

    assert len(found) >= 9
    assert undocumented == set()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"modle": {}}, "modle: no such field; received {}"),
        ({"data": None}, "data: received None; expected: "),
        ({"workspace": None}, "workspace: received None; expected: Input should be a valid string"),
        ({"name": "My Run"}, "name: received 'My Run'; expected: String should match pattern"),
        ({"serving": {"port": "8500"}}, "serving.port: received '8500'; expected: Input should be a valid integer"),
        ({"serving": {"port": True}}, "serving.port: received True; expected: Input should be a valid integer"),
        ({"serving": {"port": 65536}}, "serving.port: received 65536; expected: Input should be less than or equal to"),
        ({"serving": {"model_name": "a/b"}}, "serving.model_name: received 'a/b'; expected: String should match"),
        (
            {"serving": {"validation_timeout_seconds": 0}},
            "serving.validation_timeout_seconds: received 0; expected: Input should be greater than 0",
        ),
        (
            {"features": {"groups": ["ids", "colour"]}},
            "features.groups.1: received 'colour'; expected: Input should be 'ids', 'user', 'item'",
        ),
        ({"features": {"quantile_buckets": 1}}, "features.quantile_buckets: received 1; expected: "),
        (
            {"features": {"transform_statistics": "yes"}},
            "features.transform_statistics: received 'yes'; expected: Input should be a valid boolean",
        ),
        ({"evaluation": {"top_k": []}}, "evaluation.top_k: received []; expected: Tuple should have at least 1 item"),
        *(
            (
                {"evaluation": {"bands": {"age": boundaries}}},
                "evaluation.bands: the boundaries of 'age' must be one or more finite numbers, each above the one "
                "before; "
                f"received {received}",
            )
            for boundaries, received in (
                ([], "[]"),
                ([18, 25, 25], "[18.0, 25.0, 25.0]"),
                ([25, 18], "[25.0, 18.0]"),
                ([18, float("inf")], "[18.0, inf]"),
                ([float("nan")], "[nan]"),
            )
        ),
        ({"evaluation": {"top_k": [0]}}, "evaluation.top_k.0: received 0; expected: Input should be greater than"),
        (
            {"evaluation": {"gate": {"rules": [{"metric": "ndcg@10"}]}}},
            "evaluation.gate.rules.0: a rule needs one or more of `minimum`, `maximum`, `minimum_change` and "
            "`maximum_change`; received none",
        ),
        ({"model": {"seed": 1.5}}, "model.seed: received 1.5; expected: "),
        (
            {"data": minimal(directory=7)["data"]},
            "data.directory: received 7; expected: Input should be a valid string",
        ),
        (
            {"data": minimal(interactions=table(user_id="u", item_id="i"))["data"]},
            "data: interactions.columns must map 'timestamp'; received only ['item_id', 'user_id']",
        ),
        (
            {"data": minimal(items=table(title="t"))["data"]},
            "data: items.columns must map 'item_id'; received only ['title']",
        ),
        (
            {"data": minimal(users=table(age="a"))["data"]},
            "data: users.columns must map 'user_id'; received only ['age']",
        ),
        (
            {"data": minimal(feedback="rating")["data"]},
            "data: feedback must name one of interactions.columns ['stars']; received 'rating'",
        ),
        (
            {"data": minimal(feedback="timestamp")["data"]},
            "data: feedback must name one of interactions.columns ['stars']; received 'timestamp'",
        ),
        (
            {"data": minimal(items=table(item_id="i", stars="s"))["data"]},
            "data: items.columns must use names that neither another table nor the history uses; received ['stars']",
        ),
        (
            {"data": minimal(users=table(user_id="u", history_stars="h", seen_item_ids="s"), feedback="stars")["data"]},
            "data: users.columns must use names that neither another table nor the history uses; "
            "received ['history_stars', 'seen_item_ids']",
        ),
        (
            {"data": minimal(splits={"train": 0.8, "validation": 0.2})["data"]},
            "data.splits: train and validation must be above 0 and leave a share for the test split; "
            "received 0.8 + 0.2",
        ),
        ({"data": minimal(splits={"train": 1.2})["data"]}, "data.splits.train: received 1.2; expected: "),
        (
            {"data": minimal(earliest=datetime.date(2100, 1, 1))["data"]},
            "data: earliest must be a day before latest; received 2100-01-01 and 2100-01-01",
        ),
        (
            {"data": minimal(earliest=datetime.date(1970, 1, 1))["data"]},
            "data.earliest: received '1970-01-01'; expected: Input should be greater than or equal to 1970-01-02",
        ),
        ({"data": minimal(latest="someday")["data"]}, "data.latest: received 'someday'; expected: "),
        ({"data": minimal(history_length=0)["data"]}, "data.history_length: received 0; expected: "),
        ({"data": minimal(timestamp_unit="days")["data"]}, "data.timestamp_unit: received 'days'; expected: "),
        (
            {"data": minimal(items={**table(item_id="i"), "format": "json"})["data"]},
            "data.items.format: received 'json'; expected: Input should be 'csv', 'tsv', 'parquet' or 'tfrecord'",
        ),
        (
            {"data": minimal(items={**table(item_id="i"), "delimiter": ";;"})["data"]},
            "data.items.delimiter: received ';;'; expected: String should have at most 1 character",
        ),
        (
            {"data": minimal(items=table(item_id={"source": "i", "type": "integer"}))["data"]},
            "data.items.columns.item_id.type: received 'integer'; expected: Input should be 'int', 'float' or 'string'",
        ),
        (
            {"data": minimal(items=table(item_id="i", tags={"source": "t", "separator": ""}))["data"]},
            "data.items.columns.tags.separator: received ''; expected: String should have at least 1 character",
        ),
        (
            {"data": minimal(items=table(item_id={"type": "string"}))["data"]},
            "data.items.columns.item_id.source: required, but not given",
        ),
    ],
)
def test_a_bad_field_is_refused_with_its_path(change, line, tmp_path):
    message = refusal(tmp_path, {**minimal(), **change})

    assert message.startswith(f"{tmp_path / 'mine.yaml'} cannot be used:\n  ")
    assert any(found.strip().startswith(line) for found in message.splitlines()), message


def test_all_bad_fields_are_named_at_once(tmp_path):
    document = {**minimal(), "name": "X", "modle": 1, "serving": {"port": -1}}
    del document["schema_file"]

    lines = refusal(tmp_path, document).splitlines()[1:]

    assert [line.split(":")[0].strip() for line in lines] == ["name", "schema_file", "serving.port", "modle"]
    assert lines[1] == "  schema_file: required, but not given"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a mapping of fields; received NoneType"),
        ("- a", "must hold a mapping of fields; received list"),
        ("a: [", "is not a YAML file: while parsing"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(text, message, tmp_path):
    assert f"{tmp_path / 'mine.yaml'} {message}" in refusal(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"name: \xff")

    with pytest.raises(ConfigError, match="is not a YAML file: 'utf-8' codec"):
        load_config(tmp_path / "mine.yaml")


def test_an_unknown_name_lists_those_shipped():
    with pytest.raises(ConfigError, match=r"no configuration 'movielens': .* \(movielens-100k, simulated, synthetic\)"):
        load_config("movielens")


def test_overrides_win_over_the_file_and_make_sections(tmp_path):
    document = {**minimal(), "model": {"seed": 3}}
    config = load(
        tmp_path,
        document,
        "model.seed=4",
        "model.settings.learning_rate=1e-3",
        "model.settings.layers=[64, 32]",
        "data.splits.train=0.7",
        "data.latest=2020-02-03",
        "data.interactions.columns.device=app",
        "evaluation.slices=[[gender], [gender, age_band]]",
        "workspace=a=b",
    )

    assert config.model.seed == 4
    assert config.model.settings == {"learning_rate": 0.001, "layers": [64, 32]}
    assert config.data.splits.train == 0.7
    assert config.data.latest == datetime.date(2020, 2, 3)
    assert config.data.interactions.columns["device"].source == "app"
    assert config.evaluation.slices == (("gender",), ("gender", "age_band"))
    assert config.workspace == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.seed", "an override must look like field.subfield=value; received 'model.seed'"),
        ("=3", "an override must look like field.subfield=value; received '=3'"),
        ("name.first=x", "name is not a section; received the override 'name.first=x'"),
        ("model.seed=[", "model.seed: the value '[' is not valid YAML"),
        ("model.sed=3", "model.sed: no such field; received 3"),
        ("model.seed=three", "model.seed: received 'three'; expected: Input should be a valid integer"),
    ],
)
def test_a_bad_override_is_refused(override, message, tmp_path):
    assert message in refusal(tmp_path, minimal(), override)


@given(st.floats(min_value=0.0, max_value=1.0), st.floats(min_value=0.0, max_value=1.0))
def test_splits_leave_something_for_each_of_three(train, validation):
    overrides = [f"data.splits.train={train!r}", f"data.splits.validation={validation!r}"]
    if train > 0 and train + validation > train and train + validation < 1:
        splits = load_config("movielens-100k", overrides).data.splits
        assert (splits.train, splits.validation) == (train, validation)
    else:
        with pytest.raises(ConfigError, match=r"data\.splits: train and validation must be above 0"):
            load_config("movielens-100k", overrides)


def test_the_schema_is_found_here_or_in_the_package(tmp_path, monkeypatch):
    config = load(tmp_path, {**minimal(), "schema_file": "movielens-100k/schema.pbtxt"})
    monkeypatch.chdir(tmp_path)
    shipped = config.read_schema_text()
    (tmp_path / "movielens-100k").mkdir()
    (tmp_path / "movielens-100k" / "schema.pbtxt").write_text("# mine")

    assert "MovieLens" in shipped
    assert config.read_schema_text() == "# mine"
    with pytest.raises(ConfigError, match=r"schema_file: no such file 'x\.pbtxt', neither here nor in the package's"):
        load(tmp_path, minimal()).read_schema_text()


def test_nothing_mutates(tmp_path):
    config = load(tmp_path, minimal())

    with pytest.raises(ValueError, match="frozen"):
        setattr(config.model, "seed", 4)  # noqa: B010


def test_importing_it_imports_no_tensorflow():
    program = "import sys, pipeline.config; sys.exit(bool({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
