"""The autoencoder: its losses against NumPy, what it learns, and what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modules.models.autoencoder import kl_divergence, multinomial_loss
from modules.models.registry import create_recommender
from modules.models.validation import Validator
from tests.modules.small_world import GROUPS, query_of

pytestmark = pytest.mark.slow

SETTINGS = {"dimension": 8, "hidden_units": 16, "batch_size": 128, "max_epochs": 5, "learning_rate": 0.01}


@given(st.integers(0, 2**32 - 1))
def test_losses_equal_numpy(seed):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(3, 6)).astype(np.float32) * 3
    targets = generator.integers(0, 3, size=(3, 6)).astype(np.float32)
    targets[:, 0] = 0
    seen = [generator.choice(np.arange(1, 6), size=generator.integers(0, 5), replace=False) for _ in range(3)]
    sparse = tf.RaggedTensor.from_row_lengths(np.concatenate(seen).astype(np.int64), [len(ids) for ids in seen])
    for known, given_seen in ((sparse.to_sparse(), seen), (None, [[], [], []])):
        expected = []
        for row in range(3):
            possible = [i for i in range(1, 6) if targets[row, i] or i not in given_seen[row]]
            normaliser = np.log(np.exp(logits[row, possible].astype(np.float64)).sum()) if possible else 0.0
            expected.append(sum(targets[row, i] * (normaliser - logits[row, i]) for i in possible))
        actual = multinomial_loss(tf.constant(logits), tf.constant(targets), known)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    mean, log_variance = generator.normal(size=(2, 3, 4)).astype(np.float32)
    terms = [0.5 * (np.exp(v) + m**2 - 1 - v) for m, v in zip(mean.ravel(), log_variance.ravel(), strict=True)]
    divergence = kl_divergence(tf.constant(mean), tf.constant(log_variance))
    np.testing.assert_allclose(divergence, np.reshape(terms, (3, 4)).sum(axis=1), rtol=1e-4, atol=1e-5)


def test_kl_divergence_is_zero_for_the_prior_alone():
    zero = tf.zeros([1, 3])
    assert float(kl_divergence(zero, zero)[0]) == 0
    assert float(kl_divergence(zero + 0.1, zero)[0]) > 0 and float(kl_divergence(zero, zero - 0.5)[0]) > 0


@pytest.mark.parametrize("settings", [{}, {"variational": True}, {"target": "bag"}])
def test_learns_and_never_ranks_new_titles_above_known_ones(world, settings):
    context = world.fit_context()
    recommender = create_recommender("autoencoder", {**SETTINGS, **settings})
    scorer, report = recommender.fit(world.data, world.catalogue, context)
    assert report.epochs[-1].metrics["loss"] < report.epochs[0].metrics["loss"]
    ndcg = Validator(scorer, world.data, world.catalogue, context.inputs.item_vocabulary_size).ndcg()
    best = report.epochs[report.best_epoch - 1].metrics["validation_ndcg@10"]
    assert ndcg == pytest.approx(best, abs=1e-6)
    if not settings:
        popularity, _ = create_recommender("popularity", {}).fit(world.data, world.catalogue, context)
        size = context.inputs.item_vocabulary_size
        assert ndcg > Validator(popularity, world.data, world.catalogue, size).ndcg()
    scores = scorer.score_catalogue(world.transform_rows([query_of(row) for row in world.rows["test"][:8]])).numpy()
    new = world.catalogue.vocabulary_ids == context.inputs.item_vocabulary_size - 1
    assert new.sum() == 2 and (scores[:, new].max(axis=1) < scores[:, ~new].min(axis=1)).all()


def test_settings_are_checked(world):
    without_ids = world.fit_context([group for group in GROUPS if group != "ids"])
    with pytest.raises(ValueError, match=r"features.groups: received groups without 'ids'"):
        create_recommender("autoencoder", SETTINGS).fit(world.data, world.catalogue, without_ids)
    with pytest.raises(ValidationError, match="target"):
        create_recommender("autoencoder", {"target": "previous"})
