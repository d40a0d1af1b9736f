"""Two towers: that they learn what popularity cannot know, and that they work without any feature group."""

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from modules.models.registry import create_recommender
from modules.models.validation import Validator
from tests.modules.small_world import GROUPS, query_of


def _validation_ndcg(world, family, settings, groups=GROUPS):
    context = world.fit_context(groups)
    scorer, report = create_recommender(family, settings).fit(world.data, world.catalogue, context)
    return Validator(scorer, world.data, world.catalogue, context.inputs.item_vocabulary_size).ndcg(), scorer, report


def test_beats_popularity_and_is_left_at_its_best_pass(world):
    popularity, _, _ = _validation_ndcg(world, "popularity", {})
    settings = {"dimension": 16, "batch_size": 128, "max_epochs": 8, "patience": 8, "learning_rate": 0.01}
    ndcg, _, report = _validation_ndcg(world, "two_tower", settings)
    best = max(report.epochs, key=lambda epoch: epoch.metrics["validation_ndcg@10"])
    assert report.best_epoch == best.epoch
    assert ndcg == pytest.approx(best.metrics["validation_ndcg@10"], abs=1e-6)
    assert report.epochs[-1].metrics["loss"] < report.epochs[0].metrics["loss"]
    assert ndcg > 1.15 * popularity


def test_works_without_any_feature_group(world):
    settings = {"dimension": 4, "hidden_units": 4, "batch_size": 480, "max_epochs": 1}
    ndcg, scorer, _ = _validation_ndcg(world, "two_tower", settings, groups=())
    assert 0 <= ndcg < 1
    rows = [query_of(row) for row in world.rows["test"][:8]]
    scores = scorer.score_catalogue(world.transform_rows(rows)).numpy()
    assert scores.shape == (8, world.catalogue.size) and np.isfinite(scores).all()
    assert scorer.score_similar(tf.constant([0, 5], tf.int64)).shape == (2, world.catalogue.size)
    # Without ids and features nothing tells titles apart.
    np.testing.assert_allclose(scores, np.repeat(scores[:, :1], world.catalogue.size, axis=1), rtol=1e-6, atol=1e-10)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"received 'forest'; expected one of .*'two_tower'"):
        create_recommender("forest", {})
    with pytest.raises(ValidationError, match="dropout"):
        create_recommender("two_tower", {"dropout": 1.0})
    with pytest.raises(ValidationError, match="dimensions"):
        create_recommender("two_tower", {"dimensions": 8})
