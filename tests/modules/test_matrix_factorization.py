"""Factors and fold-in against least squares on the explicitly weighted design."""

import numpy as np
import pytest
import tensorflow as tf

from modules.interaction_log import read_interaction_log
from modules.models.item_bag import ItemBag
from modules.models.matrix_factorization import (
    MatrixFactorization,
    MatrixFactorizationConfig,
    fit_item_vectors,
    solve_rows,
)
from tests.modules.small_world import query_of

CONFIG = MatrixFactorizationConfig(dimension=4, sweeps=3, unobserved_weight=0.4, regularisation=0.02)


def solve_explicitly(weights, columns, config):
    """One vector by least squares: a row for each event, each pair and each component to be kept small."""
    known = columns.any(axis=1)
    scale = (weights.sum() + config.unobserved_weight * known.sum()) ** config.frequency_exponent
    design = np.concatenate(
        [
            np.sqrt(weights)[:, None] * columns,
            np.sqrt(config.unobserved_weight) * columns,
            np.sqrt(config.regularisation * scale) * np.eye(columns.shape[1]),
        ]
    )
    wanted = np.concatenate([np.sqrt(weights), np.zeros(len(columns) + columns.shape[1])])
    return np.linalg.lstsq(design, wanted, rcond=None)[0]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_each_row_solves_its_weighted_least_squares(exponent):
    generator = np.random.default_rng(1)
    config = CONFIG.model_copy(update={"frequency_exponent": exponent})
    taken = generator.random((12, 9)) < 0.4
    taken[5] = False
    columns = generator.normal(size=(9, 4))
    columns[3] = 0
    solved = solve_rows(np.argwhere(taken), columns, 12, config)
    for row in range(12):
        expected = solve_explicitly(taken[row].astype(float), columns, config) if taken[row].any() else np.zeros(4)
        np.testing.assert_allclose(solved[row], expected, atol=1e-9)


def objective(taken, users, titles, config):
    scores = users @ titles.T
    loss = ((1 - scores[taken]) ** 2).sum() + config.unobserved_weight * (scores**2).sum()
    for axis, vectors, others in ((1, users, titles), (0, titles, users)):
        scale = (taken.sum(axis=axis) + config.unobserved_weight * len(others)) ** config.frequency_exponent
        loss += config.regularisation * (scale * (vectors**2).sum(axis=1)).sum()
    return loss


def test_sweeps_lower_the_objective_and_keep_unknown_titles_at_zero(world):
    log = read_interaction_log(world.data, ["train"])
    size = world.fit_context().inputs.item_vocabulary_size
    users = np.unique(log.user_keys, return_inverse=True)[1]
    taken = np.zeros((users.max() + 1, size), bool)
    taken[users, log.item_ids] = True
    taken = taken[:, 1:-1]
    losses = []
    for sweeps in (1, 2, 8):
        config = CONFIG.model_copy(update={"sweeps": sweeps})
        vectors = fit_item_vectors(log, size, config, seed=3)
        assert not vectors[[0, -1]].any() and vectors[1:-1].any(axis=1).all()
        titles = vectors[1:-1]
        best_users = np.stack([solve_explicitly(row.astype(float), titles, config) for row in taken])
        losses.append(objective(taken, best_users, titles, config))
    assert losses[0] > losses[1] > losses[2]
    np.testing.assert_array_equal(fit_item_vectors(log, size, config, seed=3), vectors)


@pytest.mark.parametrize("fold_in", ["least_squares", "mean"])
def test_strangers_are_folded_in_from_their_history(world, fold_in):
    config = CONFIG.model_copy(update={"fold_in": fold_in, "popularity_prior": 0.0})
    context = world.fit_context()
    scorer, _ = MatrixFactorization(config).fit(world.data, world.catalogue, context)
    log = read_interaction_log(world.data, ["train"])
    vectors = fit_item_vectors(log, context.inputs.item_vocabulary_size, config, context.seed)
    rows = [{}, *(query_of(row) for row in world.rows["test"][:40])]
    queries = world.transform_rows(rows)
    bags = tf.sparse.to_dense(ItemBag(config, context)(queries)).numpy().astype(float)
    if fold_in == "mean":
        users = bags @ vectors / np.maximum(bags.sum(axis=1, keepdims=True), 1e-9)
    else:
        users = np.stack([solve_explicitly(bag, vectors, config) for bag in bags])
    assert not users[0].any() and np.abs(users).max() > 0.1
    known = world.catalogue.vocabulary_ids < len(vectors) - 1
    titles = vectors[world.catalogue.vocabulary_ids[known]]
    np.testing.assert_allclose(scorer.score_catalogue(queries).numpy()[:, known], users @ titles.T, atol=1e-4)
    unit = titles / np.linalg.norm(titles, axis=1, keepdims=True)
    similar = scorer.score_similar(tf.constant(np.flatnonzero(known), tf.int64)).numpy()[:, known]
    np.testing.assert_allclose(similar, unit @ unit.T, atol=1e-5)
