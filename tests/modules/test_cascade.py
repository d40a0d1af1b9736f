"""The cascade: its order against NumPy, the fit of its weights, and the settings of its stages."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from modules.models.cascade import CascadeScorer, fit_blend
from modules.models.registry import create_recommender
from tests.modules.small_world import query_of

pytestmark = pytest.mark.slow

SETTINGS = {
    "candidates": 7,
    "retrieval": {"family": "item_knn", "settings": {"neighbours": 10}},
    "ranker": {
        "family": "ranker",
        "settings": {"objective": "watch", "dimension": 4, "negatives": 4, "max_epochs": 1, "batch_size": 128},
    },
}


@pytest.fixture(scope="module")
def context(world):
    return dataclasses.replace(world.fit_context(), like_threshold=4.0)


@pytest.fixture(scope="module")
def scorer(world, context):
    fitted, report = create_recommender("cascade", SETTINGS).fit(world.data, world.catalogue, context)
    assert [set(epoch.metrics) for epoch in report.epochs] == [{"ranker_loss", "ranker_validation_watch_loss"}]
    return fitted


def _seen_rows(world, row):
    seen = {name.encode() for key in ("history_item_ids", "seen_item_ids") for name in row.get(key, [])}
    return np.isin(world.catalogue.item_ids, list(seen))


def test_the_best_unseen_titles_are_blended_and_all_others_stay_in_order_below(world, scorer):
    item_ids = [item_id.decode() for item_id in world.catalogue.item_ids]
    rows = [query_of(row) for row in world.rows["test"][:12]]
    rows += [{"history_item_ids": item_ids[:3]}, {"seen_item_ids": item_ids[:-6]}, {"seen_item_ids": item_ids}]
    query = world.transform_rows(rows)
    scorer.set_weights(0.8, 0.3)
    scores, retrieved = scorer.score_catalogue(query).numpy(), scorer.retrieval.score_catalogue(query).numpy()
    every = tf.repeat(tf.range(world.catalogue.size, dtype=tf.int64)[tf.newaxis], len(rows), axis=0)
    judged = scorer.ranker.score_candidates(query, every).numpy()
    like = scorer.predict_feedback(query, every).like_probability.numpy().astype(np.float64)
    assert np.isfinite(scores).all()
    for number, row in enumerate(rows):
        seen = _seen_rows(world, row)
        # Titles that training never saw have no id of their own, and are never taken for seen.
        seen &= world.catalogue.vocabulary_ids < world.catalogue.vocabulary_ids.max()
        unseen = np.flatnonzero(~seen)
        best = unseen[np.argsort(-retrieved[number, unseen], kind="stable")][:7]
        rest = np.setdiff1d(np.arange(len(item_ids)), best)
        own = retrieved[number, unseen].astype(np.float64)
        log_probability = retrieved[number, best] - own.max() - np.log(np.exp(own - own.max()).sum())
        logit = np.log(like[number, best]) - np.log1p(-like[number, best])
        expected = log_probability + 0.8 * judged[number, best] + 0.3 * logit
        np.testing.assert_allclose(scores[number, best], expected, rtol=1e-4, atol=1e-4)
        assert scores[number, rest].max() == pytest.approx(expected.min() - 1, abs=1e-4)
        drop = scores[number, rest].max() - scores[number, rest]
        np.testing.assert_allclose(drop, retrieved[number, rest].max() - retrieved[number, rest], atol=1e-4)


def test_blend_weights_maximise_the_likelihood():
    generator = np.random.default_rng(4)
    evidence = generator.normal(size=(20_000, 6, 3))
    logits = evidence @ np.array([1.0, 0.7, -0.4])
    noise = generator.gumbel(size=logits.shape)
    targets = np.argmax(logits + noise, axis=1)
    assert fit_blend(evidence, targets, (None, None)) == pytest.approx((0.7, -0.4), abs=0.05)
    score, like = fit_blend(evidence, targets, (None, 0.5))
    assert like == 0.5 and score == pytest.approx(0.7, abs=0.15)
    assert fit_blend(evidence, targets, (0.1, 0.2)) == (0.1, 0.2)
    assert fit_blend(evidence[:0], targets[:0], (None, None)) == (1.0, 0.0)
    constant = np.concatenate([evidence[..., :2], np.zeros_like(evidence[..., :1])], axis=-1)
    assert fit_blend(constant, targets, (None, None))[1] == 0.0


def test_weights_are_fitted_once_unless_given(world, context, scorer):
    recommender = create_recommender("cascade", {**SETTINGS, "score_weight": 0.25, "like_weight": 2.0})
    given, report = recommender.fit(world.data, world.catalogue, context)
    assert given.weights == (0.25, 2.0)
    given.set_weights(0.5, 1.5)
    final = recommender.refit(world.data, world.catalogue, context, given, report)
    assert isinstance(final, CascadeScorer) and final.weights == (0.5, 1.5)
    query = world.transform_rows([query_of(world.rows["test"][0])])
    rows = tf.constant([[1, 2]], tf.int64)
    told, expected = final.predict_feedback(query, rows), final.ranker.predict_feedback(query, rows)
    assert told is not None and expected is not None
    np.testing.assert_array_equal(told.feedback, expected.feedback)
    similar = tf.constant([3], tf.int64)
    np.testing.assert_array_equal(final.score_similar(similar), final.retrieval.score_similar(similar))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retrieval": {"family": "two_tower", "settings": {"dropout": 1.5}}}, r"retrieval[\s\S]*settings\.dropout"),
        ({"ranker": {"family": "ranker", "settings": {"depth": 3}}}, r"ranker[\s\S]*settings\.depth: received 3"),
        ({"ranker": {"family": "forest"}}, r"ranker[\s\S]*received 'forest'; expected one of"),
        ({"candidates": 0}, "candidates"),
    ],
)
def test_settings_of_stages_are_checked_beforehand(settings, message):
    with pytest.raises(ValidationError, match=message):
        create_recommender("cascade", settings)
