"""How ExampleGens over source tables are configured."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.catalogue_example_gen import CatalogueExampleGen
from pipeline.components.covering_pattern import covering_pattern
from pipeline.components.interaction_example_gen import InteractionExampleGen
from pipeline.components.table_example_gen import read_settings, table_directory
from pipeline.config_files import ConfigError
from pipeline.data_config import DataConfig
from tests.components.example_gen_runs import make_data

PART = st.text("ab.-*?", min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["interactions.tsv", "items.tsv", "users.tsv"], "*s.tsv"),
        (["log-*.parquet", "items.csv"], "*"),
        (["ml.inter", "ml.item", "ml.user"], "ml.*"),
        (["log/*.gz", "items/part-?.gz"], "*/*.gz"),
        (["items-[0-9].tsv", "items-[a-z].tsv"], "items-*.tsv"),
        (["items.tsv"], "items.tsv"),
    ],
)
def test_one_pattern_covers_all(patterns, expected):
    assert covering_pattern(patterns) == expected


@given(st.lists(PART, min_size=1, max_size=3), st.data())
def test_what_a_table_matches_the_covering_pattern_matches(patterns, data):
    letter = st.text("ab.-", max_size=2)
    names = ["".join({"*": data.draw(letter), "?": "a"}.get(c, c) for c in pattern) for pattern in patterns]
    assert all(fnmatch.fnmatchcase(name, covering_pattern(patterns)) for name in names)


def test_patterns_of_several_depths_cannot_be_fingerprinted(tmp_path):
    data = make_data(tmp_path)
    deeper = data.model_copy(update={"items": data.items.model_copy(update={"pattern": "items/*.tsv"})})
    with pytest.raises(ConfigError, match=r"folders of one depth; received .*'items/\*.tsv'"):
        InteractionExampleGen(deeper, "rejected")


def test_settings_survive_the_way_through_execution_properties(tmp_path):
    data = make_data(tmp_path, history_length=7, max_rejected_share=0.25)
    settings = read_settings(InteractionExampleGen(data, "rejected").exec_properties)
    assert DataConfig.model_validate(settings["data"]) == data
    assert settings["rejected_rows_directory"] == "rejected"


def test_the_catalogue_depends_on_the_items_only(tmp_path):
    data = make_data(tmp_path)
    properties = CatalogueExampleGen(data, "rejected").exec_properties
    assert properties == CatalogueExampleGen(data.model_copy(update={"history_length": 3}), "rejected").exec_properties
    assert "users" not in str(properties)


def test_an_open_span_is_resolved_to_the_latest(tmp_path):
    for span in (2, 10):
        (tmp_path / f"span-{span}").mkdir()
        (tmp_path / f"span-{span}" / "items.tsv").write_text("item\n")
    component = CatalogueExampleGen(make_data(tmp_path / "span-{SPAN}"), "rejected")
    assert table_directory(component.exec_properties, "items.tsv") == str(tmp_path / "span-10")
