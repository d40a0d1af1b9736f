"""The in-batch softmax against NumPy, and what its correction is for: to undo the popularity of the negatives."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from modules.models.retrieval_loss import in_batch_softmax_loss

VOCABULARY = 6


@st.composite
def batches(draw):
    size = draw(st.integers(1, 6))
    numbers = st.floats(-4, 4, width=32)
    logits = draw(st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=size, max_size=size))
    targets = draw(st.lists(st.integers(1, VOCABULARY - 1), min_size=size, max_size=size))
    seen = draw(st.lists(st.lists(st.integers(1, VOCABULARY - 1), max_size=4), min_size=size, max_size=size))
    log_q = draw(st.lists(st.floats(-6, 0, width=32), min_size=size, max_size=size))
    batch = np.array(logits, np.float32), np.array(targets), seen, np.array(log_q, np.float32)
    return batch, draw(st.sampled_from([0.25, 1.0, 2.0])), draw(st.sampled_from([0.0, 0.5, 1.0]))


def _loss(logits, targets, seen, log_q, temperature=1.0, popularity_correction=0.0, vocabulary=VOCABULARY):
    return in_batch_softmax_loss(
        tf.constant(logits, tf.float32),
        tf.constant(targets, tf.int64),
        tf.constant(log_q, tf.float32),
        tf.ragged.constant(seen, tf.int64, ragged_rank=1).to_sparse(),
        vocabulary,
        temperature,
        popularity_correction,
    )


def _numpy_loss(logits, targets, seen, log_q, temperature, popularity_correction):
    losses = []
    for query, target in enumerate(targets):
        corrected = logits[query].astype(np.float64) / temperature - log_q + popularity_correction * log_q
        negatives = [
            value
            for value, title in zip(corrected, targets, strict=True)
            if title != target and title not in seen[query]
        ]
        own = corrected[query]
        losses.append(-own + np.logaddexp.reduce([own, *negatives]))
    return np.mean(losses)


@given(batches())
def test_equals_numpy(case):
    (logits, targets, seen, log_q), temperature, correction = case
    expected = _numpy_loss(logits, targets, seen, log_q, temperature, correction)
    assert float(_loss(logits, targets, seen, log_q, temperature, correction)) == pytest.approx(expected, abs=1e-4)


def test_titles_that_repeat_or_were_seen_are_no_negatives():
    logits, log_q = np.zeros((3, 3)), np.zeros(3)
    nothing: list[list[int]] = [[], [], []]
    assert float(_loss(logits, [1, 2, 3], nothing, log_q)) == pytest.approx(math.log(3))
    assert float(_loss(logits, [1, 1, 1], nothing, log_q)) == pytest.approx(0)
    assert float(_loss(logits, [1, 2, 3], [[2, 3], [1, 3], [1, 2]], log_q)) == pytest.approx(0)
    assert float(_loss(logits, [1, 2, 3], [[2], [], []], log_q)) == pytest.approx((math.log(2) + 2 * math.log(3)) / 3)
    # Own titles stay, even when somebody takes them again.
    assert float(_loss(logits, [1, 2, 3], [[1], [2], [3]], log_q)) == pytest.approx(math.log(3))


def test_seen_titles_get_no_gradient():
    logits = tf.Variable(tf.zeros([2, 2]))
    with tf.GradientTape() as tape:
        loss = in_batch_softmax_loss(
            logits,
            tf.constant([1, 2], tf.int64),
            tf.zeros(2),
            tf.sparse.from_dense(tf.constant([[2], [0]], tf.int64)),
            3,
        )
    np.testing.assert_allclose(tape.gradient(loss, logits), [[0.0, 0.0], [0.25, -0.25]], atol=1e-7)


def _learn(correction):
    """Fits a free score of each title in each of two contexts to samples; returns true and learned probabilities."""
    items, batch = 200, 256
    generator = np.random.default_rng(0)
    popularity = 1.2 * generator.normal(size=items)
    truth = tf.nn.softmax(popularity + 1.0 * generator.normal(size=(2, items)), axis=1).numpy()
    log_q = correction * np.log(truth.mean(axis=0))
    scores = tf.Variable(tf.zeros([2, items]))
    optimizer = tf.keras.optimizers.legacy.Adam(0.06)
    nothing = tf.sparse.from_dense(tf.zeros([batch, 1], tf.int64))

    @tf.function
    def step(contexts, targets):
        with tf.GradientTape() as tape:
            logits = tf.gather(tf.gather(scores, contexts), targets, axis=1)
            log_probability = tf.gather(tf.constant(log_q, tf.float32), targets)
            loss = in_batch_softmax_loss(logits, targets, log_probability, nothing, items)
        optimizer.apply_gradients([(tape.gradient(loss, scores), scores)])

    for number in range(400):
        if number == 300:
            optimizer.learning_rate.assign(0.005)
        contexts = generator.integers(2, size=batch)
        draws = [generator.choice(items, size=batch, p=row) for row in truth]
        step(tf.constant(contexts), tf.constant(np.where(contexts == 0, *draws)))
    return truth, tf.nn.softmax(scores, axis=1).numpy()


def test_scores_learn_the_true_probabilities_only_with_the_right_sign_of_the_correction():
    distance = {}
    for correction in (1, 0, -1):
        truth, learned = _learn(correction)
        distance[correction] = np.abs(truth - learned).sum(axis=1).mean() / 2
    assert distance[1] < 0.1
    assert distance[0] > 0.25 and distance[-1] > 0.5
