"""The ranker: cross layers, title statistics and calibration against NumPy; what its heads learn."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given
from hypothesis import strategies as st

from modules.models.calibration import fit_logistic_calibration
from modules.models.registry import create_recommender
from modules.models.title_statistics import TitleStatistics
from tests.modules.small_world import query_of

SETTINGS = {"dimension": 8, "cross_rank": 4, "hidden_units": 16, "negatives": 8, "batch_size": 128, "max_epochs": 4}
DAY = 86_400
LIKE = 4.0


@pytest.fixture(scope="module")
def context(world):
    return dataclasses.replace(world.fit_context(), like_threshold=LIKE)


@pytest.fixture(scope="module")
def fitted(world, context):
    return create_recommender("ranker", SETTINGS).fit(world.data, world.catalogue, context)


def test_cross_layers_of_low_rank_equal_numpy():
    generator = np.random.default_rng(0)
    first, current = generator.normal(size=(2, 3, 5, 6)).astype(np.float32)
    layer = tfrs.layers.dcn.Cross(projection_dim=2)
    layer(tf.constant(first), tf.constant(current))
    weights = {weight.shape.as_list().__str__(): generator.normal(size=weight.shape) for weight in layer.weights}
    for weight in layer.weights:
        weight.assign(weights[str(weight.shape.as_list())])
    u, v, bias = (weights[str(shape)] for shape in ([6, 2], [2, 6], [6]))
    expected = first * (current @ u @ v + bias) + current
    np.testing.assert_allclose(layer(tf.constant(first), tf.constant(current)), expected, rtol=1e-4, atol=1e-4)


@st.composite
def logs(draw):
    events = draw(st.integers(1, 30))
    column = lambda values: np.array(draw(st.lists(values, min_size=events, max_size=events)))  # noqa: E731
    ids, days, feedback = column(st.integers(1, 4)), column(st.integers(0, 12)), column(st.integers(1, 5))
    return ids, 1_000_000 + days * DAY, feedback.astype(np.float32), draw(st.integers(-3, 20))


@given(logs())
def test_title_statistics_count_only_what_was_before(log):
    ids, times, feedback, day = log
    statistics = TitleStatistics(ids, times, 6, (3.0,), feedback, LIKE)
    now = 1_000_000 + day * DAY
    actual = statistics.before(tf.range(6, dtype=tf.int64), tf.fill([6], tf.constant(now, tf.int64))).numpy()
    end = min(now, times.max() + 1)
    deviation = float(feedback.std()) or 1.0
    likes = (feedback >= LIKE).astype(float)
    for title in range(6):
        expected = []
        past = times < end
        for since in (-np.inf, max(end - 3 * DAY, times.min())):
            window = past & (times >= since)
            expected.append(np.log(((window & (ids == title)).sum() + 1) / (window.sum() + 6) * 6))
        own = past & (ids == title)
        expected.append(np.log1p(own.sum()) / 5)
        for values in ((feedback - feedback.mean()) / deviation, likes - likes.mean()):
            expected.append(values[own].sum() / (own.sum() + 5))
        np.testing.assert_allclose(actual[title], expected, rtol=1e-4, atol=1e-4)


def test_calibration_finds_slope_and_intercept_and_never_reverses():
    generator = np.random.default_rng(1)
    logits = generator.normal(size=50_000) * 2
    labels = (generator.uniform(size=len(logits)) < 1 / (1 + np.exp(-(0.5 * logits - 0.7)))).astype(float)
    assert fit_logistic_calibration(logits, labels) == pytest.approx((0.5, -0.7), abs=0.05)
    assert fit_logistic_calibration(logits, 1 - labels) == (1.0, 0.0)
    assert fit_logistic_calibration(logits, np.ones_like(labels)) == (1.0, 0.0)
    assert fit_logistic_calibration(logits[:0], labels[:0]) == (1.0, 0.0)


def test_candidates_score_as_in_the_catalogue_and_feedback_is_in_range(world, fitted):
    scorer, report = fitted
    assert report.epochs[-1].metrics["loss"] < report.epochs[0].metrics["loss"]
    query = world.transform_rows([query_of(row) for row in world.rows["test"][:6]])
    rows = tf.constant(np.random.default_rng(2).integers(0, world.catalogue.size, size=(6, 9)))
    everything = scorer.score_catalogue(query).numpy()
    chosen = scorer.score_candidates(query, rows).numpy()
    np.testing.assert_allclose(chosen, np.take_along_axis(everything, rows.numpy(), axis=1), atol=1e-5)
    predicted = scorer.predict_feedback(query, rows)
    assert predicted.like_probability.shape == predicted.feedback.shape == (6, 9)
    assert ((predicted.like_probability > 0) & (predicted.like_probability < 1)).numpy().all()
    assert np.isfinite(predicted.feedback).all()


def test_likes_are_calibrated_and_kept_by_a_refit(world, context):
    recommender = create_recommender("ranker", {**SETTINGS, "objective": "like"})
    scorer, report = recommender.fit(world.data, world.catalogue, context)
    assert set(report.epochs[0].metrics) == {"loss", "validation_like_loss"}
    validation = world.transformed["eval"]
    rows = world.catalogue.row_of_vocabulary_id(context.inputs.item_vocabulary_size)[validation["item_id"].numpy()]
    known = rows >= 0
    predicted = scorer.predict_feedback(validation, tf.constant(np.maximum(rows, 0))[:, tf.newaxis])
    assert predicted is not None
    probability = predicted.like_probability.numpy()[known, 0]
    liked = validation["rating"].numpy()[known] >= LIKE
    assert probability.mean() == pytest.approx(liked.mean(), abs=1e-3)  # What a fitted intercept ensures.
    loss = -np.log(np.where(liked, probability, 1 - probability)).mean()
    share = liked.mean()
    assert loss <= -(share * np.log(share) + (1 - share) * np.log(1 - share)) + 1e-6
    scores = scorer.score_candidates(validation, tf.constant(np.maximum(rows, 0))[:, tf.newaxis]).numpy()[known, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), probability, rtol=1e-4, atol=1e-6)
    final = recommender.refit(world.data, world.catalogue, context, scorer, report)
    assert final.calibration == scorer.calibration != (1.0, 0.0)


def test_without_feedback_only_watching_is_learned(world):
    context = dataclasses.replace(world.fit_context(), like_threshold=None)
    scorer, _ = create_recommender("ranker", {**SETTINGS, "max_epochs": 1}).fit(world.data, world.catalogue, context)
    query = world.transform_rows([query_of(row) for row in world.rows["test"][:2]])
    assert scorer.predict_feedback(query, tf.constant([[0], [1]], tf.int64)) is None
    with pytest.raises(ValueError, match=r"model.settings.objective: received 'like'.*expected 'watch'"):
        create_recommender("ranker", {**SETTINGS, "objective": "like"}).fit(world.data, world.catalogue, context)


def test_works_without_any_feature_group(world):
    context = dataclasses.replace(world.fit_context(groups=()), like_threshold=LIKE)
    scorer, _ = create_recommender("ranker", {**SETTINGS, "max_epochs": 1}).fit(world.data, world.catalogue, context)
    scores = scorer.score_catalogue(world.transform_rows([query_of(row) for row in world.rows["test"][:4]])).numpy()
    # Without ids and features nothing tells titles apart.
    np.testing.assert_allclose(scores, np.repeat(scores[:, :1], world.catalogue.size, axis=1), atol=1e-5)
