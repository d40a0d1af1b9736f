"""The catalogue's rows against the raw titles."""

import numpy as np
import pytest
import tensorflow as tf

from modules.catalogue import Catalogue, read_catalogue
from tests.modules.small_world import NEW_TITLES, TEXT_TOKENS


def test_titles_come_in_order_of_their_raw_id_with_their_features(world):
    raw_ids = sorted(title["item_id"][0] for title in world.titles)
    assert [item_id.decode() for item_id in world.catalogue.item_ids] == raw_ids
    assert world.catalogue.size == len(raw_ids)
    assert set(world.catalogue.features) == {
        *("title", "genres", "release_year", "release_year_missing", "release_year_bucket")
    }
    assert world.catalogue.features["title"].shape == (len(raw_ids), TEXT_TOKENS)
    transformed = world.transformed["train"]
    by_item = {row["item_id"][0]: number for number, row in enumerate(world.rows["train"])}
    for row, item_id in enumerate(raw_ids):
        if item_id in by_item:
            assert world.catalogue.vocabulary_ids[row] == transformed["item_id"][by_item[item_id]]
            for name, values in world.catalogue.features.items():
                np.testing.assert_allclose(values[row], transformed[name][by_item[item_id]], rtol=1e-6)


def test_new_titles_share_the_last_id_and_have_features_of_their_own(world):
    size = world.transform.vocabulary_size_by_name("item_id") + 2
    raw_ids = [item_id.decode() for item_id in world.catalogue.item_ids]
    for new in NEW_TITLES:
        row = raw_ids.index(new)
        assert world.catalogue.vocabulary_ids[row] == size - 1
        assert world.catalogue.features["genres"][row, 0] > 0
        assert world.catalogue.features["release_year_missing"][row] == 1
    rows = world.catalogue.row_of_vocabulary_id(size)
    assert rows[0] == rows[-1] == -1
    assert (world.catalogue.vocabulary_ids[rows[1:-1]] == np.arange(1, size - 1)).all()


def test_ids_without_a_title_of_their_own_have_no_row():
    catalogue = Catalogue(np.array([b"a", b"b", b"c", b"d"]), np.array([3, 5, 1, 5]), {})
    assert catalogue.row_of_vocabulary_id(6).tolist() == [-1, 2, -1, 0, -1, -1]


def test_a_catalogue_that_is_not_there_is_named(world, tmp_path):
    with pytest.raises(ValueError, match=r"no catalogue file matches .*/nowhere/\*"):
        read_catalogue(str(tmp_path / "nowhere" / "*"), world.columns, world.transform)
    with tf.io.TFRecordWriter(str(tmp_path / "empty.gz"), "GZIP"):
        pass
    with pytest.raises(ValueError, match=r"empty.gz' hold no item"):
        read_catalogue(str(tmp_path / "empty.gz"), world.columns, world.transform)
