"""CatalogueExampleGen, run on Beam."""

import pytest

from pipeline.components.catalogue_example_gen import CatalogueExampleGen
from pipeline.components.source_storage import DataQualityError
from tests.components.example_gen_runs import (
    make_data,
    read_rejected,
    read_split,
    run_example_gen,
    to_dict,
    write_tsv,
)

HEADER = ["item", "year", "genres"]


def test_items_are_written_once_and_in_order(tmp_path):
    rows: list[list] = [
        ["b", 1990, "Drama"],
        ["a", "", "Drama||War"],
        ["c", 2000, ""],
        ["a", 1, "x"],
        ["", 2, "y"],
        ["b", 3],
    ]
    write_tsv(tmp_path / "items.tsv", HEADER, rows)
    data = make_data(tmp_path, max_rejected_share=0.5)
    artifact = run_example_gen(CatalogueExampleGen(data, str(tmp_path / "rejected")), tmp_path / "out")
    assert [to_dict(example) for example in read_split(artifact.uri, "catalogue")] == [
        {"item_id": [b"a"], "genres": [b"Drama", b"War"]},
        {"item_id": [b"b"], "year": [1990], "genres": [b"Drama"]},
        {"item_id": [b"c"], "year": [2000]},
    ]
    assert artifact.split_names == '["catalogue"]'
    names = ("items_rows", "items_rejected", "num_examples_catalogue")
    assert [artifact.get_int_custom_property(name) for name in names] == [6, 3, 3]
    assert read_rejected(tmp_path / "rejected" / "items.jsonl") == [
        (5, f"item_id: second row of 'a'; the first is {tmp_path}/items.tsv:3", "a\t1\tx"),
        (6, "item_id: is empty", "\t2\ty"),
        (7, "has 2 fields; the header has 3", "b\t3"),
    ]


def test_a_catalogue_without_items_fails(tmp_path):
    write_tsv(tmp_path / "items.tsv", HEADER, [])
    with pytest.raises(DataQualityError, match="the catalogue has no item; the files hold no rows"):
        run_example_gen(CatalogueExampleGen(make_data(tmp_path), str(tmp_path / "rejected")), tmp_path / "out")
