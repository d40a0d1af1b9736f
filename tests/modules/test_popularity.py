"""Popularity against counts by plain Python."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.models.registry import create_recommender
from modules.training_data import TrainingData
from tests.modules.small_world import NEW_TITLES

DAY = 86_400


@pytest.mark.parametrize("window_days", [None, 1000.0, 7.0, 0.25])
def test_scores_are_the_counts_of_the_training_split(world, window_days):
    recommender = create_recommender("popularity", {"window_days": window_days})
    scorer, report = recommender.fit(world.data, world.catalogue, world.fit_context())
    assert report.best_epoch == 0 and not report.epochs
    last = max(row["timestamp"][0] for row in world.rows["train"])
    counts = collections.Counter(
        row["item_id"][0].encode()
        for row in world.rows["train"]
        if window_days is None or last - row["timestamp"][0] <= window_days * DAY
    )
    expected = [counts[item_id] for item_id in world.catalogue.item_ids]
    assert 0 < sum(expected) <= len(world.rows["train"])
    assert not any(counts[title.encode()] for title in NEW_TITLES)
    queries = world.transform_rows([{}, {"user_id": ["u0001"]}])
    np.testing.assert_array_equal(scorer.score_catalogue(queries), [expected] * 2)
    np.testing.assert_array_equal(scorer.score_similar(tf.constant([3, 0, 1], tf.int64)), [expected] * 3)


def test_titles_cut_off_the_vocabulary_do_not_inherit_one_anothers_events(world, tmp_path):
    """Ids 1 and 2 are known titles; the two others share id 3, on which most events are."""
    path = tmp_path / "train.gz"
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for item_id in [1, 1, 2, 3, 3, 3, 3]:
            example = tf.train.Example()
            for name, value in (("item_id", item_id), ("timestamp", 9)):
                example.features.feature[name].int64_list.value.append(value)
            writer.write(example.SerializeToString())
    number = tf.io.FixedLenFeature([], tf.int64)
    data = TrainingData({"train": [str(path)]}, {"item_id": number, "timestamp": number})
    catalogue = Catalogue(np.array([b"a", b"b", b"c", b"d"]), np.array([3, 1, 3, 2]), {})
    context = world.fit_context()
    context = dataclasses.replace(context, inputs=dataclasses.replace(context.inputs, item_vocabulary_size=4))
    scorer, _ = create_recommender("popularity", {}).fit(data, catalogue, context)
    assert scorer.score_catalogue({"user_id": tf.constant([1], tf.int64)}).numpy().tolist() == [[0, 2, 0, 1]]
