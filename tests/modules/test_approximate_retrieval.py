"""Approximate retrieval beside exact retrieval, on the same fitted model."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from modules.models import registry
from modules.models.approximate_retrieval import ApproximateRetrievalError, ScannRetrieval
from modules.models.vector_scorer import VectorScorer
from tests.modules.small_world import serialize

needs_scann = pytest.mark.skipif(importlib.util.find_spec("scann") is None, reason="ScaNN is not installed")


@pytest.fixture(scope="module")
def two_tower(world):
    recommender = registry.create_recommender("two_tower", {"max_epochs": 1})
    return recommender.fit(world.data, world.catalogue, world.fit_context())[0]


def test_augmented_vectors_give_the_scores_as_inner_products(world, two_tower):
    query = world.transform_rows(world.rows["eval"][:7])
    augmented = two_tower.augmented_query_vectors(two_tower.query_vectors(query))
    products = augmented.numpy() @ two_tower.augmented_item_vectors().numpy().T
    np.testing.assert_allclose(products, two_tower.score_catalogue(query), rtol=1e-4, atol=1e-5)


@needs_scann
def test_candidates_have_their_exact_scores_and_are_mostly_the_best(world, two_tower):
    query = world.transform_rows(world.rows["eval"][:7])
    exact = two_tower.score_catalogue(query).numpy()
    rows, scores = (value.numpy() for value in ScannRetrieval(two_tower, top_k=10).candidates(query))
    found = rows >= 0
    picked = np.take_along_axis(exact, np.maximum(rows, 0), axis=1)
    np.testing.assert_allclose(scores[found], picked[found], rtol=1e-4, atol=1e-5)
    assert np.isneginf(scores[~found]).all()
    best = np.argsort(-exact, axis=1)[:, :10]
    assert np.mean([np.isin(own, row).mean() for own, row in zip(best, rows, strict=True)]) > 0.9


class _Clustered(VectorScorer):
    """Vectors in narrow clusters, of which ScaNN looks into some only."""

    def __init__(self, num_items: int):
        tf.Module.__init__(self)
        random = np.random.default_rng(5)
        centres = random.standard_normal((40, 16))
        vectors = centres[random.integers(0, 40, num_items)] + 0.01 * random.standard_normal((num_items, 16))
        self.item_vectors = tf.Variable(vectors, dtype=tf.float32)
        self.item_biases = tf.Variable(tf.zeros(num_items))
        self.queries = tf.constant(centres, tf.float32)

    def query_vectors(self, query):
        return self.queries


@needs_scann
def test_no_candidate_is_found_twice_where_clusters_hold_too_few():
    rows, scores = (value.numpy() for value in ScannRetrieval(_Clustered(1682), top_k=100).candidates({}))
    assert (rows < 0).any()
    assert np.isneginf(scores[rows < 0]).all()
    for found in rows:
        assert len(set(found[found >= 0])) == (found >= 0).sum()


@needs_scann
def test_lists_of_an_approximate_model_hide_seen_titles_and_agree_with_the_exact_one(world):
    answers = {}
    for retrieval in ("exact", "scann"):
        directory = world.train(f"retrieval-{retrieval}", "two_tower", {"max_epochs": 1}, retrieval=retrieval)
        model = tf.saved_model.load(str(directory / "model"))
        examples = tf.constant([serialize(row) for row in world.rows["eval"][:20]])
        answers[retrieval] = {k: v.numpy() for k, v in model.signatures["serving_default"](examples=examples).items()}
    lists = zip(answers["scann"]["item_ids"].tolist(), answers["scann"]["scores"], strict=True)
    for row, (ids, scores) in zip(world.rows["eval"], lists, strict=False):
        assert not set(ids) & {title.encode() for title in row.get("seen_item_ids", [])}
        assert (np.diff(scores[np.isfinite(scores)]) <= 0).all()
    overlaps = [
        len(set(a) & set(b)) / len(a)
        for a, b in zip(answers["exact"]["item_ids"].tolist(), answers["scann"]["item_ids"].tolist(), strict=True)
    ]
    assert np.mean(overlaps) > 0.9


def test_a_family_without_vectors_is_refused(world):
    popularity = registry.create_recommender("popularity", {}).fit(world.data, world.catalogue, world.fit_context())[0]
    with pytest.raises(ApproximateRetrievalError, match=r"serving\.retrieval: received 'scann' for PopularityScorer"):
        ScannRetrieval(popularity, top_k=10)
