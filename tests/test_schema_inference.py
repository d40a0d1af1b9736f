"""Proposed schemas: types, domains and guessed tags; and the command that writes them."""

import csv
import random
import re

import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow_data_validation as tfdv
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2
from typer.testing import CliRunner

from modules.features import ColumnTable, Role, parse_schema, sub_schema
from pipeline.column_profile import profile_tables
from pipeline.components.anomaly_wording import describe_anomalies
from pipeline.components.source_storage import DataQualityError
from pipeline.config import load_config
from pipeline.data_config import DataConfig
from pipeline.schema_cli import schema_app
from pipeline.schema_inference import propose_schema, render_proposal, to_schema

WORDS = ["Dark", "Blue", "River", "Return", "of", "the", "Last", "Summer", "Night", "Code"]
GENRES = ["Action", "Comedy", "Drama", "Film-Noir", "Children's"]
FIRST_DAY = 880_000_000


def write_rows(path, header, rows, delimiter="\t"):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([header, *rows])


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """Tables with MovieLens-100K's columns, and as varied."""
    folder, choice = tmp_path_factory.mktemp("movies"), random.Random(1)
    users = [
        (
            u,
            choice.randint(7, 73),
            choice.choice("FM"),
            choice.choice(["artist", "writer", "none"]),
            f"{choice.randrange(99999):05}",
        )
        for u in range(60)
    ]
    users[3] = (3, 30, "F", "none", "V0R2M")
    items = [
        (
            i,
            " ".join(choice.sample(WORDS, choice.randint(1, 4))) + f" {i}" * (i % 3 > 0),
            choice.randint(1922, 1998) if i else "",
            "|".join(choice.sample(GENRES, choice.randint(1, 3))),
        )
        for i in range(80)
    ]
    log = [(choice.randrange(60), choice.randrange(80), choice.randint(1, 5), FIRST_DAY + 60 * n) for n in range(1500)]
    write_rows(folder / "users.tsv", ["user_id", "age", "gender", "occupation", "zip_code"], users)
    write_rows(folder / "items.tsv", ["item_id", "title", "release_year", "genres"], items)
    write_rows(folder / "interactions.tsv", ["user_id", "item_id", "rating", "timestamp"], log)
    return folder


def propose(data: DataConfig, most_rows: int = 10_000):
    tables = profile_tables(data, most_rows)
    guesses = propose_schema(data, tables)
    text = render_proposal("mine", guesses, tables)
    schema = parse_schema(text)
    assert schema == to_schema(guesses)
    return text, {feature.name: feature for feature in schema.feature}, schema


def test_tags_and_types_of_a_movielens_like_set_are_the_curated_ones(movies):
    config = load_config("movielens-100k", [f"data.directory={movies}"])
    text, features, schema = propose(config.data)
    curated = parse_schema(config.read_schema_text())

    assert {name: (feature.type, sorted(feature.annotation.tag)) for name, feature in features.items()} == {
        feature.name: (feature.type, sorted(feature.annotation.tag)) for feature in curated.feature
    }
    assert {c.name: c.multivalent for c in ColumnTable.from_schema(schema).columns} == {
        c.name: c.multivalent for c in ColumnTable.from_schema(curated).columns
    }
    domains = {domain.name: list(domain.value) for domain in schema.string_domain}
    assert domains == {"gender": ["F", "M"], "occupation": ["artist", "none", "writer"], "genres": sorted(GENRES)}
    assert (features["rating"].float_domain.min, features["rating"].float_domain.max) == (1.0, 5.0)
    assert features["timestamp"].int_domain.min < FIRST_DAY
    assert features["history_rating"].value_count.max == features["history_item_ids"].value_count.max == 50
    assert features["seen_item_ids"].value_count.max == 0
    assert features["user_id"].presence.min_fraction == 1.0
    assert features["age"].presence.min_fraction == 0.99
    assert 0.8 < features["release_year"].presence.min_fraction < 79 / 80
    for feature in schema.feature:  # each feature stands under the reason of its guess
        before, _, _ = text.partition(f'feature {{\n  name: "{feature.name}"\n')
        assert before.splitlines()[-1].startswith(f"# {' + '.join(feature.annotation.tag)}: ")
    assert "review me" in text.splitlines()[0]
    assert "#   interactions: all 1,500 rows" in text


@pytest.fixture
def logged(tmp_path):
    """Interactions with context and logging columns in Parquet, a catalogue in CSV, no users."""
    rows = 200
    pa.parquet.write_table(
        pa.table(
            {
                "user_id": pa.array(range(rows)),
                "item_id": pa.array([f"i{n % 7}" for n in range(rows)]),
                "timestamp": pa.array([(FIRST_DAY + n) * 1000 for n in range(rows)]),
                "watched": pa.array([float(n) for n in range(rows)]),
                "propensity": pa.array([(n + 1) / 1000 for n in range(rows)]),
                "position": pa.array([n % 20 for n in range(rows)]),
                "list_position": pa.array(["top", "bottom"] * (rows // 2)),
                "device": pa.array(["tv", "phone", None, "web"] * (rows // 4)),
                "sensors": pa.array([[0.5] * (n % 3) for n in range(rows)]),
                "tags": pa.array([[f"t{n}", "x"] for n in range(rows)]),
                "nothing": pa.nulls(rows, pa.string()),
            }
        ),
        tmp_path / "log.parquet",
    )
    write_rows(tmp_path / "items.csv", ["id", "position"], [(f"i{n}", n) for n in range(7)], ",")
    names = ["watched", "propensity", "position", "list_position", "device", "sensors", "tags", "nothing"]
    return DataConfig.model_validate(
        {
            "directory": str(tmp_path),
            "interactions": {
                "pattern": "*.parquet",
                "format": "parquet",
                "columns": {name: name for name in ["user_id", "item_id", "timestamp", *names]},
            },
            "items": {
                "pattern": "*.csv",
                "format": "csv",
                "columns": {"item_id": "id", "shelf_position": {"source": "position", "type": "int"}},
            },
            "feedback": "watched",
            "timestamp_unit": "milliseconds",
            "history_length": 5,
        }
    )


def test_logging_and_context_columns(logged):
    _, features, schema = propose(logged)

    assert {name: list(feature.annotation.tag) for name, feature in features.items()} == {
        "user_id": ["user_id"],
        "item_id": ["item_id"],
        "timestamp": ["timestamp"],
        "watched": ["label"],
        "propensity": ["propensity"],
        "position": ["position"],
        "list_position": ["context", "categorical"],
        "device": ["context", "categorical"],
        "sensors": ["context"],
        "tags": ["context", "multi_hot"],
        "nothing": ["context"],
        "shelf_position": ["item", "continuous"],
        "history_item_ids": ["history", "item_id"],
        "history_timestamps": ["history", "timestamp"],
        "history_watched": ["history", "label"],
        "seen_item_ids": ["seen"],
    }
    assert features["user_id"].type == schema_pb2.BYTES
    assert features["timestamp"].int_domain.min <= FIRST_DAY < features["timestamp"].int_domain.max
    assert features["watched"].float_domain.max > 199
    assert (features["propensity"].float_domain.min, features["propensity"].float_domain.max) == (0.0, 1.0)
    assert features["position"].int_domain.min == 0
    assert not features["position"].int_domain.HasField("max")
    assert features["device"].presence.min_fraction == 0.67
    assert features["nothing"].presence.min_fraction == 0.0
    assert features["sensors"].type == schema_pb2.FLOAT
    assert features["tags"].domain == ""
    assert features["tags"].value_count.max == 4
    assert features["history_watched"].value_count.max == 5
    assert [domain.name for domain in schema.string_domain] == ["list_position", "device"]


def test_malformed_rows_do_not_count_and_the_cap_is_told(movies, tmp_path):
    rows = [("u", "i", 4, FIRST_DAY), ("", "i", 99, FIRST_DAY), ("u", "i", 98, 5), ("u", "i", "ok", FIRST_DAY)]
    write_rows(
        tmp_path / "interactions.tsv", ["user_id", "item_id", "rating", "timestamp"], [*rows, ("u", "i", 97, FIRST_DAY)]
    )
    for name in ("users.tsv", "items.tsv"):
        (tmp_path / name).write_bytes((movies / name).read_bytes())
    config = load_config("movielens-100k", [f"data.directory={tmp_path}"])

    text, features, _ = propose(config.data, most_rows=4)

    assert "#   interactions: the first 4 rows, 3 of them malformed" in text
    assert features["rating"].float_domain.max == 4.0
    write_rows(tmp_path / "interactions.tsv", ["user_id", "item_id", "rating", "timestamp"], rows[1:])
    with pytest.raises(DataQualityError, match="interactions: none of the 3 rows read is well-formed"):
        profile_tables(config.data, 100)


CELLS = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "words": st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6),
}


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_data_are_clean_under_the_schema_proposed_for_them(tmp_path_factory, data):
    """Whatever the columns hold, TensorFlow Data Validation finds no anomaly in what the schema was proposed from."""
    count = data.draw(st.integers(1, 30))
    columns = {
        name: data.draw(st.lists(st.none() | cells, min_size=count, max_size=count), name)
        for name, cells in {**CELLS, "lists": st.lists(st.sampled_from(WORDS), max_size=3)}.items()
    }
    types = {"integers": pa.int64(), "floats": pa.float32(), "words": pa.string(), "lists": pa.list_(pa.string())}
    list_types = {
        "lists": types["lists"],
        **{name: pa.list_(types.get(name, pa.string())) for name in (*CELLS, "item_id")},
    }
    folder = tmp_path_factory.mktemp("table")
    arrays = {name: pa.array(cells, types[name]) for name, cells in columns.items()}
    pa.parquet.write_table(pa.table({"item_id": [str(n) for n in range(count)], **arrays}), folder / "items.parquet")
    keys = {name: pa.array([FIRST_DAY]) for name in ("user_id", "item_id", "timestamp")}
    pa.parquet.write_table(pa.table(keys), folder / "log.parquet")
    config = DataConfig.model_validate(
        {
            "directory": str(folder),
            "interactions": {"pattern": "log.parquet", "format": "parquet", "columns": {name: name for name in keys}},
            "items": {
                "pattern": "items.parquet",
                "format": "parquet",
                "columns": {name: name for name in ("item_id", *columns)},
            },
        }
    )
    _, _, schema = propose(config)
    lists = {
        name: [cell if isinstance(cell, list) else [cell] for cell in cells]
        for name, cells in {**columns, "item_id": [str(n) for n in range(count)]}.items()
    }
    # An example lacks the features that have no value, and a column is there if any example has it.
    present = {
        name: pa.array([None if cell in ([], [""], [None]) else cell for cell in cells], list_types[name])
        for name, cells in lists.items()
        if any(cell not in ([], [""], [None]) for cell in cells)
    }
    batch = pa.RecordBatch.from_arrays(list(present.values()), list(present))
    statistics = stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())
    anomalies = tfdv.validate_statistics(statistics, sub_schema(schema, lists))

    assert describe_anomalies("items", {"all": anomalies}) == []
    roles = {column.role for column in ColumnTable.from_schema(schema).columns if column.name in columns}
    assert roles == {Role.ITEM}


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(schema_app, ["infer", *map(str, arguments)])


def test_the_command_writes_a_proposal_once(movies, tmp_path):
    output = tmp_path / "new" / "schema.pbtxt"
    arguments = ["--config", "movielens-100k", "--set", f"data.directory={movies}", "--output", output]

    first = run(*arguments)
    assert first.exit_code == 0, first.output
    assert f"Wrote {output}. Review it" in first.output
    assert "user + categorical: few values: 2 distinct of 60 values." in first.output
    written = output.read_text()
    ColumnTable.from_schema(parse_schema(written))
    assert list(output.parent.iterdir()) == [output]

    second = run(*arguments, "--max-rows", 30)
    assert second.exit_code == 1
    assert f"{output} exists; give another --output, or --force" in second.output
    assert output.read_text() == written

    third = run(*arguments, "--max-rows", 30, "--force")
    assert third.exit_code == 0, third.output
    assert "Only the first 30 rows of interactions were read" in third.output
    assert "the first 30 rows" in output.read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.directory=/nowhere"], "interactions.pattern: no file matches"),
        (
            ["data.interactions.columns.rating=stars"],
            "interactions.columns maps ['stars'], which the file does not have",
        ),
        (["data.history_length=none"], "data.history_length: received 'none'; expected: "),
    ],
)
def test_the_command_fails_clearly_and_writes_nothing(overrides, message, movies, tmp_path):
    overrides = [f"data.directory={movies}", *overrides]
    output = tmp_path / "schema.pbtxt"

    result = run("--config", "movielens-100k", "--output", output, *(part for o in overrides for part in ("--set", o)))

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_commands_help_has_an_example_of_every_option():
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", run("--help").output).split())

    for option in (
        "--config movielens-100k",
        "--output schemas/mine",
        "--set model.family=popularity",
        "--max-rows 50000",
        "--force",
    ):
        assert option in text
