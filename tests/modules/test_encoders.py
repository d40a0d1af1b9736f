"""Encoders: the sum of features against NumPy, and what a summary of a history must not depend on."""

import numpy as np
import pytest
import tensorflow as tf

from modules.model_inputs import Form, ModelInput
from modules.models.encoders import FeatureEncoder, HistoryAttention

DIMENSION = 4
INPUTS = (
    ModelInput("hour", Form.ID, 24),
    ModelInput("genres", Form.ID_BAG, 6),
    ModelInput("age", Form.NUMBER),
    ModelInput("day", Form.NUMBER),
)
BATCH = {
    "hour": np.array([0, 23, 7]),
    "genres": np.array([[1, 5, 0], [0, 0, 0], [2, 3, 4]]),
    "age": np.array([0.5, -1.0, 0.0], np.float32),
    "day": np.array([1.0, 0.0, 0.25], np.float32),
}


def test_features_are_summed_and_bags_scaled_by_the_root_of_their_size():
    tf.keras.utils.set_random_seed(1)
    encoder = FeatureEncoder(INPUTS, DIMENSION, "encoder")
    encoder({name: tf.constant(value) for name, value in BATCH.items()})
    for weight in encoder.weights:
        weight.assign(tf.random.normal(weight.shape))
    actual = encoder({name: tf.constant(value) for name, value in BATCH.items()})
    table = next(weight.numpy() for weight in encoder.weights if weight.shape == (24 + 6, DIMENSION))
    hours, genres = table[:24], table[24:]
    numbers = next(weight.numpy() for weight in encoder.weights if weight.shape == (2, DIMENSION))
    bias = next(weight.numpy() for weight in encoder.weights if weight.shape == (DIMENSION,))
    assert len(encoder.weights) == 3
    expected = [
        bias + hours[0] + (genres[1] + genres[5]) / np.sqrt(2) + np.array([0.5, 1.0]) @ numbers,
        bias + hours[23] + np.array([-1.0, 0.0]) @ numbers,
        bias + hours[7] + (genres[2] + genres[3] + genres[4]) / np.sqrt(3) + np.array([0.0, 0.25]) @ numbers,
    ]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def attention():
    """Summarises with weights as they might be after training."""
    tf.keras.utils.set_random_seed(2)
    layer = HistoryAttention(
        DIMENSION, 2, feedback_size=5, use_gap_buckets=True, use_gap_decay=True, dropout=0.5, name="history"
    )
    history = _history()
    layer(**history)
    for weight in layer.weights:
        weight.assign(tf.random.normal(weight.shape))
    return layer


def _history(**changes):
    generator = np.random.default_rng(3)
    present = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    arrays = {
        "query": generator.normal(size=(4, DIMENSION)),
        "items": generator.normal(size=(4, 5, DIMENSION)),
        "present": present,
        "feedback": generator.integers(1, 5, size=(4, 5)),
        "log_gaps": generator.uniform(1, 18, size=(4, 5)),
    }
    arrays.update(changes)
    types = {"present": tf.bool, "feedback": tf.int64}
    return {name: tf.constant(value, types.get(name, tf.float32)) for name, value in arrays.items()} | {
        "training": False
    }


def test_padding_does_not_matter(attention):
    history = _history()
    padding = ~history["present"].numpy()
    items, feedback, log_gaps = (history[name].numpy().copy() for name in ("items", "feedback", "log_gaps"))
    items[padding], feedback[padding], log_gaps[padding] = 77.0, 0, 20.0
    changed = attention(**_history(items=items, feedback=feedback, log_gaps=log_gaps))
    np.testing.assert_allclose(changed, attention(**history), atol=1e-5)
    cut = {name: history[name].numpy()[:1, :3] for name in ("items", "present", "feedback", "log_gaps")}
    shorter = attention(**_history(query=history["query"].numpy()[:1], **cut))
    np.testing.assert_allclose(shorter[0], changed[0], atol=1e-5)


def test_empty_histories_give_one_constant(attention):
    summary = attention(**_history()).numpy()
    assert np.isfinite(summary).all()
    np.testing.assert_allclose(summary[1], summary[3], atol=1e-6)


@pytest.mark.parametrize("name", ["query", "items", "feedback", "log_gaps"])
def test_whatever_is_told_of_the_events_matters(attention, name):
    history = _history()
    changed = history[name].numpy().copy()
    changed[2] = np.flip(changed[2])
    before, after = attention(**history).numpy(), attention(**_history(**{name: changed})).numpy()
    assert np.abs(before[2] - after[2]).max() > 1e-3
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)


def test_the_order_of_events_matters(attention):
    history = _history()
    items = history["items"].numpy().copy()
    items[2] = items[2][::-1]
    assert np.abs(attention(**_history(items=items)).numpy()[2] - attention(**history).numpy()[2]).max() > 1e-3
