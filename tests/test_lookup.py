"""Looking users and titles up in the source tables."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from modules.features import parse_schema
from pipeline.config import load_config
from pipeline.data_config import DataConfig
from pipeline.lookup import UnknownUserError, find_titles, find_user
from pipeline.serving.requests import HistoryEvent
from tests.components.example_gen_runs import write_table

TABLES = {
    "interactions.tsv": "user_id\titem_id\trating\ttimestamp\n"
    "7\t20\t4\t880000200\n8\t10\t1\t880000050\n7\t10\t5\t880000100\n7\t30\tbad\t880000300\n",
    "items.tsv": "item_id\ttitle\trelease_year\tgenres\n10\tToy Story\t1995\tComedy|Children's\n20\tHeat\t\tAction\n",
    "users.tsv": "user_id\tage\tgender\toccupation\tzip_code\n7\t24\tM\twriter\t01234\n9\t\tF\tother\t9\n6\t\t\t\t\n",
}


@pytest.fixture
def data_and_schema(tmp_path: Path):
    for name, text in TABLES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = load_config("movielens-100k", [f"data.directory={tmp_path}"])
    return config.data, parse_schema(config.read_schema_text())


def test_a_user_comes_with_typed_columns_and_the_whole_history_in_order(data_and_schema) -> None:
    data, schema = data_and_schema
    user = find_user(data, schema, "7")
    assert user.columns == {"user_id": "7", "age": 24, "gender": "M", "occupation": "writer", "zip_code": "01234"}
    # The row whose rating does not parse is left out, as ingestion leaves it out.
    assert user.history == [HistoryEvent("10", 880000100, 5.0), HistoryEvent("20", 880000200, 4.0)]


def test_a_user_without_events_or_without_a_profile_is_known_still(data_and_schema) -> None:
    data, schema = data_and_schema
    assert find_user(data, schema, "9").columns == {
        "user_id": "9",
        "gender": "F",
        "occupation": "other",
        "zip_code": "9",
    }
    assert find_user(data, schema, "9").history == []
    assert find_user(data, schema, "6").columns == {"user_id": "6"}
    assert find_user(data, schema, "8").history == [HistoryEvent("10", 880000050, 1.0)]


def test_an_unknown_user_is_named(data_and_schema) -> None:
    data, schema = data_and_schema
    with pytest.raises(UnknownUserError, match=r"no row of user '70'.*users\.tsv or interactions\.tsv"):
        find_user(data, schema, "70")


def test_titles_are_found_with_their_columns_as_text(data_and_schema) -> None:
    data, schema = data_and_schema
    assert find_titles(data, schema, ["20", "10", "99"]) == {
        "10": {"title": "Toy Story", "release_year": "1995", "genres": "Comedy, Children's"},
        "20": {"title": "Heat", "genres": "Action"},
    }


def test_rows_count_as_ingestion_counts_them(tmp_path: Path) -> None:
    tables = {
        "interactions.tsv": "user_id\titem_id\trating\ttimestamp\n"
        "7\t20\t4\t880000200\n"
        "7\t10\t5\t880000200\n"
        "7\t20\t1\t880000200\n"  # Repeats the first: that one counts.
        "7\t99\t1\t880000200\n"  # The catalogue has no such title.
        "7\t100\t2\t880000200\n"
        "7\t30\t3\t880000100\n",
        "items.tsv": "item_id\ttitle\trelease_year\tgenres\n10\tHeat\tlate\t\n10\tToy Story\t1995\t\n10\tAgain\t1\t\n"
        "20\tHeat\t1995\t\n30\tUp\t2009\t\n100\tM\t1931\t\n",
        "users.tsv": "user_id\tage\tgender\toccupation\tzip_code\n7\tyoung\tM\t\t\n7\t24\tF\t\t\n7\t25\tM\t\t\n",
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = load_config("movielens-100k", [f"data.directory={tmp_path}"])
    schema = parse_schema(config.read_schema_text())

    user = find_user(config.data, schema, "7")

    assert user.columns == {"user_id": "7", "age": 24, "gender": "F"}
    assert user.history == [
        HistoryEvent("30", 880000100, 3.0),
        HistoryEvent("10", 880000200, 5.0),
        HistoryEvent("100", 880000200, 2.0),
        HistoryEvent("20", 880000200, 4.0),
    ]
    assert find_titles(config.data, schema, ["10"]) == {"10": {"title": "Toy Story", "release_year": "1995"}}


@pytest.mark.parametrize("suffix", [".parquet", ".tfrecord"])
def test_ids_of_any_format_and_several_values_are_found(suffix: str, tmp_path: Path) -> None:
    tables: dict[str, dict[str, list]] = {
        "interactions": {"user": ["u", "é"], "item": ["a", "a"], "time": [880000000, 880000001], "rating": [1.0, 2.0]},
        "items": {"item": ["a"], "title": ["Heat"]},
        "users": {"user": ["é"], "languages": [["fr", "de"]], "city": [["Metz"]]},
    }
    columns = {
        "interactions": {"user_id": "user", "item_id": "item", "timestamp": "time", "rating": "rating"},
        "items": {"item_id": "item", "title": "title"},
        "users": {"user_id": "user", "languages": "languages", "city": "city"},
    }
    for name, table in tables.items():
        if suffix == ".parquet":
            keys = ("user", "item")
            binary = {key: [cell.encode() for cell in cells] if key in keys else cells for key, cells in table.items()}
            pyarrow.parquet.write_table(pyarrow.table(binary), tmp_path / f"{name}{suffix}")
        else:
            write_table(tmp_path / f"{name}{suffix}", table, "|")
    data = DataConfig.model_validate(
        {
            "directory": str(tmp_path),
            "feedback": "rating",
            **{name: {"pattern": name + suffix, "format": suffix[1:], "columns": columns[name]} for name in columns},
        }
    )
    schema = parse_schema(
        load_config("movielens-100k").read_schema_text()
        + 'feature { name: "languages" type: BYTES annotation { tag: "user" tag: "multi_hot" } }'
    )

    user = find_user(data, schema, "é")

    assert user.columns == {"user_id": "é", "languages": ["fr", "de"], "city": "Metz"}
    assert user.history == [HistoryEvent("a", 880000001, 2.0)]
    assert find_titles(data, schema, ["a"]) == {"a": {"title": "Heat"}}
