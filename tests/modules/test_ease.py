"""EASE against an independent solution: one ridge regression for each title."""

import numpy as np
import tensorflow as tf

from modules.models.item_bag import ItemBag, ItemBagConfig
from modules.models.registry import create_recommender
from tests.modules.small_world import query_of

REGULARISATION = 7.5


def regress_each_title(world):
    """Weights by vocabulary id, `[from, to]`: title by title, least squares on all other titles."""
    train = world.transformed["train"]
    size = world.fit_context().inputs.item_vocabulary_size
    users = np.unique(train["user_key"].numpy(), return_inverse=True)[1]
    taken = np.zeros((users.max() + 1, size))
    taken[users, train["item_id"].numpy()] = 1
    weights = np.zeros((size, size))
    for target in range(1, size - 1):
        others = [title for title in range(1, size - 1) if title != target]
        design = np.concatenate([taken[:, others], np.sqrt(REGULARISATION) * np.eye(len(others))])
        wanted = np.concatenate([taken[:, target], np.zeros(len(others))])
        weights[others, target] = np.linalg.lstsq(design, wanted, rcond=None)[0]
    return weights


def test_scores_equal_those_of_one_regression_for_each_title(world):
    settings = {"regularisation": REGULARISATION, "popularity_prior": 0.0}
    scorer, report = create_recommender("ease", settings).fit(world.data, world.catalogue, world.fit_context())
    assert report.best_epoch == 0 and not report.epochs
    weights = regress_each_title(world)
    assert np.abs(weights).max() > 0.05
    known = world.catalogue.vocabulary_ids < len(weights) - 1
    ids = world.catalogue.vocabulary_ids[known]
    queries = world.transform_rows([query_of(row) for row in world.rows["test"][:60]])
    bags = tf.sparse.to_dense(ItemBag(ItemBagConfig(), world.fit_context())(queries)).numpy()
    assert (bags > 0).sum() > 200
    np.testing.assert_allclose(scorer.score_catalogue(queries).numpy()[:, known], bags @ weights[:, ids], atol=1e-4)
    rows = np.flatnonzero(known)[:8]
    similar = scorer.score_similar(tf.constant(rows, tf.int64)).numpy()[:, known]
    np.testing.assert_allclose(similar, weights[np.ix_(world.catalogue.vocabulary_ids[rows], ids)], atol=1e-4)
