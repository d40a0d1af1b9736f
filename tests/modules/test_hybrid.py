"""The hybrid: a weighted sum of its members, with weights that pay on validation."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from modules.features import HISTORY_ITEM_IDS
from modules.models.hybrid import HybridScorer
from modules.models.registry import create_recommender
from modules.models.validation import Validator

pytestmark = pytest.mark.slow

SETTINGS = {"members": [{"family": "popularity"}, {"family": "markov"}, {"family": "ease"}], "candidates": 30}


@pytest.fixture(scope="module")
def fitted(world):
    return create_recommender("hybrid", SETTINGS).fit(world.data, world.catalogue, world.fit_context())


def test_scores_are_the_weighted_sum_of_the_standardised_scores_of_the_members(world, fitted):
    scorer, _ = fitted
    query = world.transformed["eval"]
    length = (query[HISTORY_ITEM_IDS].numpy() > 0).sum(axis=1)
    share = np.minimum(np.log1p(length), 4) / 4
    expected = 0
    for member, (constant, slope) in zip(scorer.members, scorer.weights, strict=True):
        scores = member.score_catalogue(query).numpy().astype(np.float64)
        deviation = np.maximum(scores.std(axis=1, keepdims=True), 1e-9)
        standard = (scores - scores.mean(axis=1, keepdims=True)) / deviation
        expected = expected + (constant + slope * share)[:, np.newaxis] * standard
    np.testing.assert_allclose(scorer.score_catalogue(query), expected, rtol=1e-3, atol=1e-3)


def test_together_they_beat_each_alone_on_validation(world, fitted):
    scorer, _ = fitted
    size = world.fit_context().inputs.item_vocabulary_size

    def ndcg(candidate):
        return Validator(candidate, world.data, world.catalogue, size).ndcg()

    assert ndcg(scorer) > max(ndcg(member) for member in scorer.members)


def test_members_of_one_family_differ_by_seed(world):
    member = {"family": "two_tower", "settings": {"dimension": 4, "hidden_units": 4, "max_epochs": 1}}
    scorer, _ = create_recommender("hybrid", {"members": [member, member]}).fit(
        world.data, world.catalogue, world.fit_context()
    )
    query = world.transformed["eval"]
    first, second = (part.score_catalogue(query).numpy() for part in scorer.members)
    assert np.abs(first - second).max() > 1e-3


def test_a_final_fit_keeps_the_weights_and_fits_every_member_again(world, fitted):
    scorer, report = fitted
    recommender = create_recommender("hybrid", SETTINGS)
    final = recommender.refit(world.data, world.catalogue, world.fit_context(), scorer, report)
    assert isinstance(final, HybridScorer)
    np.testing.assert_array_equal(final.weights, scorer.weights)
    query = world.transformed["eval"]
    for before, after in zip(scorer.members, final.members, strict=True):
        assert np.abs(before.score_catalogue(query) - after.score_catalogue(query)).max() > 0
    with pytest.raises(TypeError, match="HybridScorer"):
        recommender.refit(world.data, world.catalogue, world.fit_context(), scorer.members[0], report)


def test_feedback_is_what_the_first_member_that_knows_of_it_says(world, fitted):
    scorer, _ = fitted
    rows = tf.zeros([3, 1], tf.int64)
    examples = world.transformed["eval"]
    query = {name: value[:3] for name, value in examples.items() if not isinstance(value, tf.SparseTensor)}
    assert scorer.predict_feedback(query, rows) is None
    context = dataclasses.replace(world.fit_context(), like_threshold=4.0)
    ranker = create_recommender("ranker", {"dimension": 4, "cross_rank": 2, "hidden_units": 4, "max_epochs": 1})
    member, report = ranker.fit(world.data, world.catalogue, context)
    joined = HybridScorer([*scorer.members, member], np.ones((4, 2)), [*scorer.reports, report])
    expected, actual = member.predict_feedback(query, rows), joined.predict_feedback(query, rows)
    assert expected is not None and actual is not None
    np.testing.assert_array_equal(actual.like_probability, expected.like_probability)


def test_members_are_checked_before_anything_runs():
    with pytest.raises(ValidationError, match=r"(?s)members\.0.*settings\.dropout: received 2\.0"):
        create_recommender("hybrid", {"members": [{"family": "two_tower", "settings": {"dropout": 2.0}}]})
    with pytest.raises(ValidationError, match="forest"):
        create_recommender("hybrid", {"members": [{"family": "forest"}]})
    with pytest.raises(ValidationError, match="members"):
        create_recommender("hybrid", {"members": []})
