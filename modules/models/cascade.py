"""Cascade: a retrieval model scores the whole catalogue, a ranker judges the best few unseen titles again.

    best = the N unseen titles with the highest retrieval score r
    score(i) = log softmax_unseen(r)_i + w_score * s(i) + w_like * logit P(like | i)     for i among the best
    score(i) = min over the best - 1 - (max over the rest of r - r(i))                   for the rest

where s is the ranker's score and P(like) its prediction. The first line is a log-linear model of the title that is
taken next; unless given, its two weights maximise its likelihood on the validation split: there neither stage was
trained. All of it is one graph: one SavedModel answers one request. The two stages of Covington et al., "Deep Neural
Networks for YouTube Recommendations" (RecSys 2016).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules import ranking
from modules.catalogue import Catalogue
from modules.features import HISTORY_ITEM_IDS, ITEM_ID, SEEN_ITEM_IDS
from modules.models.base import (
    EpochReport,
    FeedbackPrediction,
    FitContext,
    FitReport,
    Recommender,
    RecommenderConfig,
    Scorer,
)
from modules.models.base_model import TrainedModel
from modules.models.log_linear import fit_log_linear
from modules.models.registry import create_recommender
from modules.models.search_space import Dimension, IntRange
from modules.models.stage import StageConfig
from modules.training_data import VALIDATION, TrainingData

_VALIDATION_BATCH_SIZE = 512
_EXCLUDED_LOGIT = -1e9
_RIDGE = 1e-4


class CascadeConfig(RecommenderConfig):
    """Settings of `Cascade`."""

    retrieval: StageConfig = StageConfig(family="two_tower")
    """The model that scores the whole catalogue."""
    ranker: StageConfig = StageConfig(family="ranker", settings={"objective": "watch"})
    """The model that judges the candidates."""
    candidates: int = Field(default=200, ge=1)
    """Number N of unseen titles that are judged again."""
    score_weight: float | None = None
    """Weight of the ranker's score. Unset: fitted on validation."""
    like_weight: float | None = None
    """Weight of the logit of liking, where the ranker predicts it. Unset: fitted on validation, which asks what is
    taken, not what is liked; raise it to favour titles that please."""

    search_space: ClassVar[Mapping[str, Dimension]] = {"candidates": IntRange(50, 1000, logarithmic=True)}


class CascadeScorer(Scorer):
    """Both stages and their blend.

    Args:
      retrieval: scores the catalogue.
      ranker: judges candidates.
      catalogue: the titles to score.
      vocabulary_size: number of item ids.
      candidates: number N of titles that are judged again.
      reports: learning curves of retrieval and ranker.
    """

    def __init__(
        self,
        retrieval: Scorer,
        ranker: Scorer,
        catalogue: Catalogue,
        vocabulary_size: int,
        candidates: int,
        reports: tuple[FitReport, FitReport],
    ):
        super().__init__()
        self.retrieval, self.ranker = retrieval, ranker
        self.retrieval_report, self.ranker_report = reports
        self._num_items, self._num_candidates = catalogue.size, min(candidates, catalogue.size)
        self._rows_by_id = tf.constant(catalogue.row_of_vocabulary_id(vocabulary_size))
        self._weights = tf.Variable([1.0, 0.0], trainable=False, name="blend_weights")

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the ranker's score and of the logit of liking."""
        score, like = self._weights.numpy().tolist()
        return score, like

    def set_weights(self, score: float, like: float) -> None:
        """Replaces the weights of the ranker's score and of the logit of liking."""
        self._weights.assign([score, like])

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the blend for the best N titles, and the retrieval's order below: float32 `[batch, num_items]`."""
        retrieved = self.retrieval.score_catalogue(query)
        rows, is_candidate, evidence = self.judge(query, retrieved)
        blended = evidence[..., 0] + tf.reduce_sum(evidence[..., 1:] * self._weights, axis=-1)
        chosen = ranking.rows_mask(tf.RaggedTensor.from_tensor(tf.where(is_candidate, rows, -1)), self._num_items)
        lowest = tf.reduce_min(tf.where(is_candidate, blended, tf.float32.max), axis=1, keepdims=True)
        lowest = tf.where(tf.reduce_any(is_candidate, axis=1, keepdims=True), lowest, 0.0)
        highest_rest = tf.reduce_max(tf.where(chosen, tf.float32.min, retrieved), axis=1, keepdims=True)
        below = lowest - 1.0 - (highest_rest - retrieved)
        batch = tf.broadcast_to(tf.range(tf.shape(rows)[0], dtype=tf.int64)[:, tf.newaxis], tf.shape(rows))
        indices = tf.boolean_mask(tf.stack([batch, rows], axis=-1), is_candidate)
        judged = tf.scatter_nd(indices, tf.boolean_mask(blended, is_candidate), tf.shape(retrieved, out_type=tf.int64))
        return tf.where(chosen, judged, below)

    def predict_feedback(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> FeedbackPrediction | None:
        """Returns what the ranker predicts."""
        return self.ranker.predict_feedback(query, rows)

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns those of both stages."""
        stages = {"retrieval": self.retrieval, "ranker": self.ranker}
        return {
            f"{name}/{path}": model for name, stage in stages.items() for path, model in stage.trained_models().items()
        }

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the retrieval's scores: float32 `[batch, num_items]`."""
        return self.retrieval.score_similar(rows)

    def judge(self, query: Mapping[str, tf.Tensor], retrieved: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Lets the ranker judge the best unseen titles.

        Args:
          query: transformed query features.
          retrieved: the retrieval's scores, float32 `[batch, num_items]`.

        Returns:
          Rows of the candidates, int64 `[batch, N]`; whether they are any (where fewer than N titles are unseen, the
          others fill up), bool `[batch, N]`; and of each the log probability that retrieval gives it, the ranker's
          score and the logit of liking, 0 when unknown: float32 `[batch, N, 3]`.
        """
        seen = self._seen(query)
        log_probability = tf.nn.log_softmax(tf.where(seen, _EXCLUDED_LOGIT, retrieved))
        best, rows = tf.math.top_k(tf.where(seen, -float("inf"), log_probability), self._num_candidates)
        rows, is_candidate = tf.cast(rows, tf.int64), tf.math.is_finite(best)
        feedback = self.ranker.predict_feedback(query, rows)
        like = tf.zeros_like(best)
        if feedback is not None:
            probability = tf.clip_by_value(feedback.like_probability, 1e-6, 1.0 - 1e-6)
            like = tf.math.log(probability) - tf.math.log1p(-probability)
        evidence = tf.stack([tf.where(is_candidate, best, 0.0), self.ranker.score_candidates(query, rows), like], -1)
        return rows, is_candidate, evidence

    def _seen(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns bool `[batch, num_items]`: the titles of the history and the seen list that can be told by id."""
        history = query[HISTORY_ITEM_IDS]
        lists = [tf.RaggedTensor.from_tensor(history)]
        if SEEN_ITEM_IDS in query:
            lists.append(tf.RaggedTensor.from_sparse(query[SEEN_ITEM_IDS]))
        ids = tf.concat(lists, axis=1)
        return ranking.seen_rows_mask(ids, self._rows_by_id, self._num_items)


class Cascade(Recommender):
    """Fits both stages, then their blend."""

    config_class = CascadeConfig
    config: CascadeConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Fits retrieval and ranker one after the other, and on the validation split the weights not given."""
        fitted = []
        for name, stage in (("retrieval", self.config.retrieval), ("ranker", self.config.ranker)):
            context.report_progress(f"{name}: {stage.family}")
            recommender = create_recommender(stage.family, stage.settings)
            fitted.append(recommender.fit(data, catalogue, self._context(context, name)))
        (retrieval, retrieval_report), (ranker, ranker_report) = fitted
        scorer = self._join(retrieval, ranker, catalogue, context, (retrieval_report, ranker_report))
        scorer.set_weights(*self._fit_weights(scorer, data, catalogue, context))
        context.report_progress("blend: weights of score and like {:.3f} and {:.3f}".format(*scorer.weights))
        curve = [
            EpochReport(number, {f"{name}_{key}": value for key, value in epoch.metrics.items()})
            for number, (name, epoch) in enumerate(
                [("retrieval", epoch) for epoch in retrieval_report.epochs]
                + [("ranker", epoch) for epoch in ranker_report.epochs],
                start=1,
            )
        ]
        return scorer, FitReport(tuple(curve), best_epoch=0)

    def refit(
        self, data: TrainingData, catalogue: Catalogue, context: FitContext, scorer: Scorer, report: FitReport
    ) -> Scorer:
        """Fits both stages again on training and validation data; keeps the weights of the blend.

        Raises:
          TypeError: if the scorer is not one that `fit` returned.
        """
        if not isinstance(scorer, CascadeScorer):
            raise TypeError(f"scorer: received {type(scorer).__name__}; expected the CascadeScorer that fit returned")
        stages = (
            ("retrieval", self.config.retrieval, scorer.retrieval, scorer.retrieval_report),
            ("ranker", self.config.ranker, scorer.ranker, scorer.ranker_report),
        )
        retrieval, ranker = (
            create_recommender(stage.family, stage.settings).refit(
                data, catalogue, self._context(context, name), part, part_report
            )
            for name, stage, part, part_report in stages
        )
        final = self._join(retrieval, ranker, catalogue, context, (scorer.retrieval_report, scorer.ranker_report))
        final.set_weights(*scorer.weights)
        return final

    def _context(self, context: FitContext, name: str) -> FitContext:
        return dataclasses.replace(context, base_model=context.base_model and context.base_model.below(name))

    def _join(
        self,
        retrieval: Scorer,
        ranker: Scorer,
        catalogue: Catalogue,
        context: FitContext,
        reports: tuple[FitReport, FitReport],
    ) -> CascadeScorer:
        size = context.inputs.item_vocabulary_size
        return CascadeScorer(retrieval, ranker, catalogue, size, self.config.candidates, reports)

    def _fit_weights(
        self, scorer: CascadeScorer, data: TrainingData, catalogue: Catalogue, context: FitContext
    ) -> tuple[float, float]:
        given = (self.config.score_weight, self.config.like_weight)
        if given[0] is not None and given[1] is not None:
            return given[0], given[1]
        evidence, targets = _validation_evidence(scorer, data, catalogue, context.inputs.item_vocabulary_size)
        score, like = fit_blend(evidence, targets, given)
        return score, like


def fit_blend(
    evidence: np.ndarray, targets: np.ndarray, given: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Maximises the likelihood of the titles taken: sum_n log softmax_i(e_0 + w_1 e_1 + w_2 e_2)_target.

    A slight ridge is there for evidence that is constant.

    Args:
      evidence: e, float `[events, candidates, 3]`; -inf in e_0 where there is no candidate.
      targets: index of the candidate that was taken, int `[events]`.
      given: weights that are not to be fitted, or None.

    Returns:
      w_1 and w_2; an unset weight without any event to fit it on is 1 for the score and 0 for the like.
    """
    weights = np.array([1.0 if given[0] is None else given[0], 0.0 if given[1] is None else given[1]])
    free = np.array([weight is None for weight in given])
    if len(targets) == 0 or not free.any():
        return float(weights[0]), float(weights[1])
    features = evidence[..., 1:].astype(np.float64)
    offset = evidence[..., 0] + features @ np.where(free, 0.0, weights)
    weights[free] = fit_log_linear(features[..., free], targets, np.zeros(free.sum()), _RIDGE, offset)
    return float(weights[0]), float(weights[1])


def _validation_evidence(
    scorer: CascadeScorer, data: TrainingData, catalogue: Catalogue, vocabulary_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns evidence and target of the validation events whose title is among the candidates; see `fit_blend`."""
    batches = data.batches(VALIDATION, _VALIDATION_BATCH_SIZE)
    rows_by_id = tf.constant(catalogue.row_of_vocabulary_id(vocabulary_size))

    @tf.function(input_signature=[batches.element_spec], autograph=False)
    def judge(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        rows, is_candidate, evidence = scorer.judge(batch, scorer.retrieval.score_catalogue(batch))
        base = tf.where(is_candidate, evidence[..., 0], _EXCLUDED_LOGIT)
        hit = tf.equal(rows, tf.gather(rows_by_id, batch[ITEM_ID])[:, tf.newaxis]) & is_candidate
        evidence = tf.concat([base[..., tf.newaxis], evidence[..., 1:]], axis=-1)
        found = tf.reduce_any(hit, axis=1)
        return tf.boolean_mask(evidence, found), tf.boolean_mask(tf.argmax(tf.cast(hit, tf.int32), axis=1), found)

    parts = [judge(batch) for batch in batches]
    evidence, targets = (np.concatenate([part.numpy() for part in column]) for column in zip(*parts, strict=True))
    return evidence, targets
