"""Hybrid: several models in one graph, whose scores are added with learned weights.

    score(x, i) = sum_m (a_m + b_m h(x)) z_m(x, i),    h(x) = min(log(1 + length of the history), 4) / 4

where z_m are the scores of model m: centred for models whose scores are logits, otherwise standardised over the
catalogue, query by query. The weights depend on how much is known of the user, since models that count titles have
little to say to the newcomer. They maximise the likelihood of the titles taken in the validation split, on which no
member was trained; candidates are the unseen titles that the members like best.

Stacking, after Wolpert, "Stacked Generalization" (Neural Networks 5, 1992); that linear and deep models complement each
other is the experience of Cheng et al., "Wide & Deep Learning for Recommender Systems" (DLRS 2016).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules import ranking
from modules.catalogue import Catalogue
from modules.features import HISTORY_ITEM_IDS, ITEM_ID, SEEN_ITEM_IDS, TIMESTAMP
from modules.models.base import FeedbackPrediction, FitContext, FitReport, Recommender, RecommenderConfig, Scorer
from modules.models.base_model import TrainedModel
from modules.models.log_linear import fit_log_linear
from modules.models.registry import create_recommender
from modules.models.search_space import Dimension, IntRange
from modules.models.stage import StageConfig
from modules.training_data import VALIDATION, TrainingData

_BATCH_SIZE = 512
_FULL_LOG_LENGTH = 4.0
_RIDGE = 1e-3


class HybridConfig(RecommenderConfig):
    """Settings of `Hybrid`."""

    members: tuple[StageConfig, ...] = Field(
        default=(
            StageConfig(family="transformer"),
            StageConfig(family="ease"),
            StageConfig(family="item_knn"),
            StageConfig(family="markov"),
        ),
        min_length=1,
    )
    """The models. Several of one family differ by their seed, which grows by one from member to member."""
    candidates: int = Field(default=300, ge=2)
    """Titles per validation event that the weights are fitted on."""
    weight_events: int = Field(default=10_000, ge=1)
    """Validation events that the weights are fitted on, at most: the latest ones."""

    search_space: ClassVar[Mapping[str, Dimension]] = {"candidates": IntRange(50, 1000, logarithmic=True)}


class HybridScorer(Scorer):
    """The members and their weights.

    Args:
      members: fitted models.
      weights: constant and history-dependent weight of each, float `[members, 2]`.
      reports: the members' learning curves.
    """

    def __init__(self, members: Sequence[Scorer], weights: np.ndarray, reports: Sequence[FitReport]):
        super().__init__()
        self.members = list(members)
        self.weights = np.asarray(weights)
        self.reports = tuple(reports)
        self._weights = tf.constant(weights, tf.float32)

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the weighted sum: float32 `[batch, num_items]`."""
        weights = self._weights[:, 0] + history_share(query)[:, tf.newaxis] * self._weights[:, 1]
        return tf.add_n(
            [weights[:, number, tf.newaxis] * scores for number, scores in enumerate(self.member_scores(query))]
        )

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns those of the members."""
        return {
            f"members/{number}/{path}": model
            for number, member in enumerate(self.members)
            for path, model in member.trained_models().items()
        }

    def member_scores(self, query: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """Returns z of every member, float32 `[batch, num_items]` each."""
        return [_comparable(member.score_catalogue(query), member.scores_are_logits) for member in self.members]

    def predict_feedback(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> FeedbackPrediction | None:
        """Returns what the first member that knows of feedback predicts."""
        predictions = (member.predict_feedback(query, rows) for member in self.members)
        return next((prediction for prediction in predictions if prediction is not None), None)

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the mean of the members' standardised likenesses: float32 `[batch, num_items]`."""
        return tf.add_n([_comparable(member.score_similar(rows), False) for member in self.members]) / len(self.members)


def history_share(query: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns h, from 0 without a history to 1: float32 `[batch]`."""
    length = tf.reduce_sum(tf.cast(query[HISTORY_ITEM_IDS] > 0, tf.float32), axis=1)
    return tf.minimum(tf.math.log1p(length), _FULL_LOG_LENGTH) / _FULL_LOG_LENGTH


def _comparable(scores: tf.Tensor, are_logits: bool) -> tf.Tensor:
    centred = scores - tf.reduce_mean(scores, axis=1, keepdims=True)
    if are_logits:
        return centred
    return centred / tf.maximum(tf.math.reduce_std(centred, axis=1, keepdims=True), 1e-9)


class Hybrid(Recommender):
    """Fits all members, then their weights."""

    config_class = HybridConfig
    config: HybridConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Fits the members one after the other on the training split, and the weights on the validation split."""
        members, reports = [], []
        for number, member in enumerate(self.config.members):
            context.report_progress(f"member {number + 1} of {len(self.config.members)}: {member.family}")
            recommender = create_recommender(member.family, member.settings)
            scorer, report = recommender.fit(data, catalogue, self._context(context, number))
            members.append(scorer)
            reports.append(report)
        start = np.zeros((len(members), 2))
        start[:, 0] = 1.0 / len(members)
        weights = self._fit_weights(HybridScorer(members, start, reports), data, catalogue, context)
        told = ", ".join(
            f"{member.family} {constant:+.2f} {slope:+.2f} h"
            for member, (constant, slope) in zip(self.config.members, weights.tolist(), strict=True)
        )
        context.report_progress(f"weights: {told}")
        return HybridScorer(members, weights, reports), FitReport()

    def refit(
        self, data: TrainingData, catalogue: Catalogue, context: FitContext, scorer: Scorer, report: FitReport
    ) -> Scorer:
        """Fits the members again on training and validation data; keeps the weights.

        Raises:
          TypeError: if the scorer is not one that `fit` returned.
        """
        if not isinstance(scorer, HybridScorer):
            raise TypeError(f"scorer: received {type(scorer).__name__}; expected the HybridScorer that fit returned")
        members = [
            create_recommender(member.family, member.settings).refit(
                data, catalogue, self._context(context, number), scorer.members[number], scorer.reports[number]
            )
            for number, member in enumerate(self.config.members)
        ]
        return HybridScorer(members, scorer.weights, scorer.reports)

    def _context(self, context: FitContext, number: int) -> FitContext:
        return dataclasses.replace(
            context,
            seed=context.seed + number,
            log_directory=f"{context.log_directory}/member_{number}",
            base_model=context.base_model and context.base_model.below(f"members/{number}"),
        )

    def _fit_weights(
        self, scorer: HybridScorer, data: TrainingData, catalogue: Catalogue, context: FitContext
    ) -> np.ndarray:
        """Returns the weights that make the validation split likeliest, float64 `[members, 2]`."""
        batches = data.batches(VALIDATION, _BATCH_SIZE)
        rows_by_id = tf.constant(catalogue.row_of_vocabulary_id(context.inputs.item_vocabulary_size))
        count = min(self.config.candidates, catalogue.size)

        @tf.function(input_signature=[batches.element_spec], autograph=False)
        def candidates(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            targets = tf.gather(rows_by_id, batch[ITEM_ID])
            seen = tf.RaggedTensor.from_sparse(batch[SEEN_ITEM_IDS])
            excluded = ranking.seen_rows_mask(seen, rows_by_id, catalogue.size)
            scores = tf.stack(scorer.member_scores(batch), axis=-1)
            liked = tf.where(excluded, -math.inf, tf.reduce_sum(scores, axis=-1))
            _, rows = tf.math.top_k(liked, count)
            # Events whose title is not among the candidates are left out: added for being taken, it would be the only
            # candidate that members dislike, and teach that dislike is a good sign.
            hit = tf.equal(tf.cast(rows, tf.int64), targets[:, tf.newaxis])
            usable = tf.reduce_any(hit, axis=1) & ~tf.gather(excluded, tf.maximum(targets, 0), batch_dims=1)
            places = tf.argmax(tf.cast(hit, tf.int32), axis=1)
            chosen = tf.gather(scores, rows, batch_dims=1)
            dependent = chosen * history_share(batch)[:, tf.newaxis, tf.newaxis]
            # Where fewer titles are unseen than asked for, seen ones fill up.
            filled = tf.gather(excluded, rows, batch_dims=1)[..., tf.newaxis]
            features = tf.concat([chosen, dependent], axis=-1)
            features = tf.where(filled, tf.constant(math.nan), features)
            return tuple(tf.boolean_mask(value, usable) for value in (features, places, batch[TIMESTAMP]))

        parts = [candidates(batch) for batch in batches]
        features, places, times = (
            np.concatenate([part.numpy() for part in column]) for column in zip(*parts, strict=True)
        )
        latest = np.argsort(-times, kind="stable")[: self.config.weight_events]
        size = len(scorer.members)
        start = np.concatenate([np.full(size, 1.0 / size), np.zeros(size)])
        if not len(latest):
            return start.reshape(2, size).T
        return fit_log_linear(features[latest], places[latest], start, _RIDGE).reshape(2, size).T
