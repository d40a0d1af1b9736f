"""Early stopping on a model whose every pass is known beforehand, and the validation metric against NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from modules.models.gradient_descent import GradientDescentConfig, fit_with_early_stopping
from modules.models.registry import create_recommender
from modules.models.validation import Validator

BATCH_SIZE = 480


class ScriptedModel(tf.keras.Model):
    """Takes over prepared scores in each pass instead of learning any.

    Args:
      script: scores of the catalogue after each pass, `[passes, num_items]`.
      losses: loss of each pass.
      steps: steps of a pass.
    """

    def __init__(self, script, losses, steps):
        super().__init__()
        self._script, self._losses, self._steps = tf.constant(script, tf.float32), tf.constant(losses), steps
        self.scores = tf.Variable(tf.zeros(len(script[0])), name="scores")
        self._step = tf.Variable(0, trainable=False, name="step")

    def compute_loss(self, batch, training):
        assert training
        current = (self._step.assign_add(1) - 1) // self._steps
        self.scores.assign(self._script[current])
        # A gradient of zero: the optimizer leaves the order of the scores alone.
        return self._losses[current] + 0.0 * tf.reduce_sum(self.scores)


class ScriptedScorer:
    """Shows everyone the scores that the model had at the last refresh."""

    def __init__(self, model):
        self._model, self.scores = model, tf.Variable(model.scores)

    def refresh(self):
        self.scores.assign(self._model.scores)

    def trained_models(self):
        return {}

    def score_catalogue(self, query):
        return tf.repeat(self.scores[tf.newaxis], tf.shape(query["user_id"])[0], axis=0)


def _numpy_ndcg(world, scores):
    """Mean NDCG@10 over the validation split of scores by raw id; new titles count as misses."""
    known = {row["item_id"][0] for row in world.rows["train"]}
    gains = []
    for row in world.rows["eval"]:
        target, seen = row["item_id"][0], row.get("seen_item_ids", [])
        others = np.array([score for item_id, score in scores.items() if item_id not in set(seen) & known])
        rank = 1 + (others > scores[target]).sum() + ((others == scores[target]).sum() - 1) / 2
        gains.append(1 / math.log2(1 + rank) if rank <= 10 and target in known else 0.0)
    return float(np.mean(gains))


def _by_title(world, scores):
    return {item_id.decode(): float(score) for item_id, score in zip(world.catalogue.item_ids, scores, strict=True)}


@pytest.fixture(scope="module")
def script(world):
    """Noise, noise, the popularity of the validation split, noise: the third pass is by far the best."""
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(6, world.catalogue.size)).astype(np.float32)
    targets = [row["item_id"][0].encode() for row in world.rows["eval"]]
    rows[2] = [targets.count(item_id) for item_id in world.catalogue.item_ids]
    return rows


def _fit(world, script, losses=None, **settings):
    config = GradientDescentConfig(weight_decay=0, batch_size=BATCH_SIZE, **settings)
    num_examples = len(world.rows["train"])
    lines: list[str] = []
    model = ScriptedModel(script, losses or [1.0] * len(script), num_examples // BATCH_SIZE)
    scorer = ScriptedScorer(model)
    context = world.fit_context()
    object.__setattr__(context, "report_progress", lines.append)
    report = fit_with_early_stopping(model, scorer, config, world.data, world.catalogue, context, num_examples)
    return model, scorer, report, lines


def test_stops_after_patience_and_keeps_the_weights_of_the_best_pass(world, script):
    model, scorer, report, lines = _fit(world, script, max_epochs=6, patience=2)
    assert report.best_epoch == 3
    assert [epoch.epoch for epoch in report.epochs] == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(model.scores, script[2])
    np.testing.assert_array_equal(scorer.scores, script[2])
    for epoch, scores in zip(report.epochs, script, strict=False):
        expected = _numpy_ndcg(world, _by_title(world, scores))
        assert epoch.metrics["validation_ndcg@10"] == pytest.approx(expected, abs=1e-6)
        assert epoch.metrics["loss"] == 1.0
    assert len(lines) == 5 and lines[2].startswith("epoch 3/6: loss 1.0000, validation NDCG@10 ")


def test_the_last_pass_may_be_the_best_and_an_equal_one_is_no_better(world, script):
    model, _, report, _ = _fit(world, script, max_epochs=3, patience=1 + 1)
    assert (report.best_epoch, len(report.epochs)) == (3, 3)
    np.testing.assert_array_equal(model.scores, script[2])
    _, _, report, _ = _fit(world, script[[2, 2, 2, 2]], max_epochs=4, patience=1)
    assert (report.best_epoch, len(report.epochs)) == (1, 2)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_error(world, script, loss):
    with pytest.raises(ValueError, match=r"diverged in epoch 2: the loss is (nan|inf); try a lower learning rate"):
        _fit(world, script, losses=[1.0, loss, 1.0, 1.0, 1.0, 1.0])


def test_a_split_of_less_than_a_batch_is_an_error(world):
    recommender = create_recommender("two_tower", {"dimension": 4, "batch_size": 100_000})
    with pytest.raises(ValueError, match=r"train split holds 1920 examples.*received model.settings.batch_size 100000"):
        recommender.fit(world.data, world.catalogue, world.fit_context())


def test_seen_titles_are_no_candidates_when_validating(world, script):
    model = ScriptedModel(script, [1.0], 1)
    scorer = ScriptedScorer(model)
    vocabulary_size = world.fit_context().inputs.item_vocabulary_size
    validator = Validator(scorer, world.data, world.catalogue, vocabulary_size)
    for scores in script[1:4]:
        scorer.scores.assign(scores)
        assert validator.ndcg() == pytest.approx(_numpy_ndcg(world, _by_title(world, scores)), abs=1e-6)
