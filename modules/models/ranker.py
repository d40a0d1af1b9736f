"""Ranker: a deep & cross network that judges pairs of a query and a title on several tasks at once.

| head | what | loss |
| --- | --- | --- |
| watch | log P(the title is taken next), up to a constant of the query | sampled softmax over unseen titles |
| like | logit of P(feedback >= `like_threshold`), given that it is taken | cross-entropy |
| feedback | expected feedback | squared error of the standardised feedback |

Its cost grows with the number of candidates, so it serves `rank` requests and the second stage of a cascade; it can
order a small catalogue as a whole. After Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for
Web-scale Learning to Rank Systems" (WWW 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from pydantic import Field

from modules import ranking
from modules.catalogue import Catalogue
from modules.derived_names import bucket_name
from modules.features import HISTORY_ITEM_IDS, ITEM_ID, SEEN_ITEM_IDS, TIMESTAMP, history_feature_name
from modules.model_inputs import ModelInputs
from modules.models.base import FeedbackPrediction, FitContext, FitReport, Recommender, Scorer
from modules.models.base_model import RowsOfWeight, TrainedModel
from modules.models.calibration import fit_logistic_calibration
from modules.models.gradient_descent import GradientDescentConfig, ValidationMetric, fit_with_early_stopping
from modules.models.item_side import cosines, features_by_vocabulary_id, inverse_lengths
from modules.models.pair_network import PairNetwork, QueryReader, QueryState, TitleReader
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.models.title_statistics import TitleStatistics, read_title_statistics
from modules.training_data import TRAIN, VALIDATION, TrainingData, weighted_mean

_EXCLUDED_LOGIT = -1e9
_SAMPLING_EXPONENT = 0.75
_VALIDATION_BATCH_SIZE = 512
_VALIDATION_NEGATIVES = 100
_WATCH, _LIKE, _FEEDBACK = 0, 1, 2


class RankerConfig(GradientDescentConfig):
    """Settings of `Ranker`."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": FloatRange(5e-4, 1e-2, logarithmic=True),
        "weight_decay": FloatRange(0.0, 0.3),
        "dimension": Choice((16, 32, 64)),
        "dropout": FloatRange(0.0, 0.5),
        "feedback_loss_weight": FloatRange(0.1, 3.0, logarithmic=True),
    }

    max_epochs: int = Field(default=5, ge=1)
    """Passes over the training split at most; also the length of the learning-rate schedule."""
    objective: Literal["watch", "like"] | None = None
    """What scores mean, and what early stopping watches: the logit of taking a title next, or that of liking it. Unset:
    liking, where the data have feedback to learn it from."""
    dimension: int = Field(default=32, ge=2)
    """Length of the vectors of queries and titles."""
    opinions: int = Field(default=4, ge=1)
    """Ways to weigh past titles by the feedback they got."""
    cross_layers: int = Field(default=2, ge=0)
    """Cross layers."""
    cross_rank: int = Field(default=32, ge=1)
    """Rank of the cross layers' matrices."""
    hidden_units: int = Field(default=64, ge=1)
    """Width of the hidden layer behind the cross layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout rate on the query's features, its history and the hidden layer."""
    item_id_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of titles whose id is hidden in a training step, which teaches the model what to make of new titles."""
    negatives: int = Field(default=32, ge=1)
    """Titles sampled for each batch that the watch head tells from those taken."""
    feedback_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the losses of the like and the feedback head, each, against that of the watch head."""
    popularity_windows_days: tuple[float, ...] = (3, 14, 60)
    """Besides all-time popularity, the model sees that of the last so many days."""


class RankerModel(tfrs.Model):
    """The pair network with its losses.

    Args:
      config: the model's settings.
      inputs: the model's features.
      catalogue: the titles.
      statistics: what is known of titles before any time.
      event_counts: training events per vocabulary id, `[item_vocabulary_size]`.
      label: name of the feedback in examples, or None to learn to watch only.
      like_threshold: feedback from which on an event counts as liked.
    """

    def __init__(
        self,
        config: RankerConfig,
        inputs: ModelInputs,
        catalogue: Catalogue,
        statistics: TitleStatistics,
        event_counts: np.ndarray,
        label: str | None,
        like_threshold: float | None,
    ):
        super().__init__()
        self._config, self._inputs = config, inputs
        self._label, self._like_threshold, self._statistics = label, like_threshold, statistics
        sampling = np.maximum(event_counts, 0.5) ** _SAMPLING_EXPONENT
        sampling[0] = 1e-9  # Padding is no title.
        self._log_sampling_probability = tf.constant(np.log(sampling / sampling.sum()), tf.float32)
        self._title_features = features_by_vocabulary_id(catalogue, inputs)
        self.title_reader = TitleReader(inputs, config.dimension, config.item_id_dropout)
        self.query_reader = QueryReader(inputs, config.dimension, config.opinions, config.dropout)
        self.pair_network = PairNetwork(
            config.cross_layers, config.cross_rank, config.hidden_units, config.dropout, 3 if label else 1
        )

    def compute_loss(self, features: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the weighted sum of the tasks' mean losses over a batch of transformed examples."""
        negatives = tf.random.categorical(self._log_sampling_probability[tf.newaxis], self._config.negatives)[0]
        watch, *others = self.task_losses(features, negatives, self._log_sampling_probability, training)
        feedback_loss = sum(weighted_mean(loss, features) for loss in others)
        return weighted_mean(watch, features) + self._config.feedback_loss_weight * feedback_loss

    def task_losses(
        self, features: Mapping[str, tf.Tensor], negatives: tf.Tensor, log_probability: tf.Tensor, training: bool
    ) -> list[tf.Tensor]:
        """Returns the loss of each example on each task, float32 `[batch]` each.

        Args:
          features: transformed examples.
          negatives: vocabulary ids that the targets are told from, int64 `[negatives]`.
          log_probability: log of the probability that a title is sampled, float32 `[item_vocabulary_size]`.
          training: whether dropout applies.
        """
        targets = features[ITEM_ID]
        candidates = tf.concat(
            [targets[:, tf.newaxis], tf.repeat(negatives[tf.newaxis], tf.shape(targets)[0], axis=0)], axis=1
        )
        heads = self._judge(features, candidates, training)
        excluded = tf.equal(negatives[tf.newaxis], targets[:, tf.newaxis]) | self._was_seen(features, negatives)
        corrected = heads[..., _WATCH] - tf.gather(log_probability, candidates)
        excluded = tf.pad(excluded, [[0, 0], [1, 0]])
        logits = tf.where(excluded, _EXCLUDED_LOGIT, corrected)
        losses = [tf.reduce_logsumexp(logits, axis=1) - logits[:, 0]]
        if self._label:
            feedback = features[self._label]
            liked = tf.cast(feedback >= self._like_threshold, tf.float32)
            standardised = (feedback - self._statistics.feedback_mean) / self._statistics.feedback_deviation
            losses.append(tf.nn.sigmoid_cross_entropy_with_logits(liked, heads[:, 0, _LIKE]))
            losses.append(tf.square(standardised - heads[:, 0, _FEEDBACK]))
        return losses

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """See `TrainedModel`."""
        return [*self.title_reader.rows_of_weights(), *self.query_reader.rows_of_weights()]

    def title_vectors(self) -> tf.Tensor:
        """Returns the vectors of titles by vocabulary id: float32 `[item_vocabulary_size, dimension]`."""
        ids = tf.range(self._inputs.item_vocabulary_size, dtype=tf.int64)
        return self.title_reader(ids, self._title_features, training=False)

    def visible(self, statistics: tf.Tensor) -> tf.Tensor:
        """Returns the statistics that the model may see: none where titles must not be told apart by id."""
        return statistics if self._inputs.use_item_ids else statistics[..., :0]

    def _judge(self, features: Mapping[str, tf.Tensor], candidates: tf.Tensor, training: bool) -> tf.Tensor:
        history = features[HISTORY_ITEM_IDS]
        # Each title of the batch is read once, however often it occurs.
        ids, positions = tf.unique(tf.concat([tf.reshape(candidates, [-1]), tf.reshape(history, [-1])], axis=0))
        side = {name: tf.gather(values, ids) for name, values in self._title_features.items()}
        vectors = self.title_reader(ids, side, training=training)
        candidate_positions, history_positions = tf.split(positions, [tf.size(candidates), tf.size(history)])
        watched = tf.gather(vectors, tf.reshape(history_positions, tf.shape(history)))
        titles = tf.gather(vectors, tf.reshape(candidate_positions, tf.shape(candidates)))
        times = tf.broadcast_to(features[TIMESTAMP][:, tf.newaxis], tf.shape(candidates))
        statistics = self.visible(self._statistics.before(candidates, times))
        state = self.query_reader(features, watched, training=training)
        return self.pair_network(state, titles, statistics, training=training)

    def _was_seen(self, features: Mapping[str, tf.Tensor], ids: tf.Tensor) -> tf.Tensor:
        """Returns bool `[batch, ids]`: serving never offers these, so they are no negatives either."""
        seen: tf.SparseTensor = features[SEEN_ITEM_IDS]
        return tf.gather(ranking.ids_mask(seen, self._inputs.item_vocabulary_size), ids, axis=1)


class RankerScorer(Scorer):
    """A fitted ranker with the titles read once.

    Args:
      model: the fitted model.
      catalogue: the titles to score.
      statistics: what is known of titles at the end of training.
      objective: what scores mean.
      learns_feedback: whether the model has heads for likes and feedback.
    """

    def __init__(
        self,
        model: RankerModel,
        catalogue: Catalogue,
        statistics: TitleStatistics,
        objective: Literal["watch", "like"],
        learns_feedback: bool,
    ):
        super().__init__()
        self._model, self._objective, self._learns_feedback = model, objective, learns_feedback
        self._feedback_scale = (statistics.feedback_mean, statistics.feedback_deviation)
        self._catalogue_ids = tf.constant(catalogue.vocabulary_ids, tf.int64)
        self._catalogue_features = {name: tf.constant(values) for name, values in catalogue.features.items()}
        self._statistics = tf.gather(model.visible(statistics.latest()), self._catalogue_ids)
        self._history_vectors = tf.Variable(model.title_vectors(), trainable=False, name="history_vectors")
        self._title_vectors = tf.Variable(self._read_catalogue(), trainable=False, name="title_vectors")
        self._inverse_lengths = tf.Variable(inverse_lengths(self._title_vectors), trainable=False)
        # Slope and intercept of the like head's logistic calibration.
        self._calibration = tf.Variable([1.0, 0.0], trainable=False, name="calibration")

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns the pair network."""
        return {"_model": ("ranker", self._model)}

    def refresh(self) -> None:
        """Recomputes the titles' vectors after the model's weights changed."""
        self._history_vectors.assign(self._model.title_vectors())
        self._title_vectors.assign(self._read_catalogue())
        self._inverse_lengths.assign(inverse_lengths(self._title_vectors))

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the objective's logits: float32 `[batch, num_items]`."""
        everything = self._title_vectors[tf.newaxis], self._statistics[tf.newaxis]

        def score(state: tuple[tf.Tensor, ...]) -> tf.Tensor:
            alone = QueryState(*(value[tf.newaxis] for value in state))
            return self._objective_logits(self._model.pair_network(alone, *everything, training=False))[0]

        # Query by query: all pairs of a large batch would not fit into memory.
        return tf.map_fn(score, tuple(self._read(query)), fn_output_signature=tf.float32)

    def score_candidates(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Returns the objective's logits of these rows only: float32 `[batch, candidates]`."""
        return self._objective_logits(self._judge(query, rows))

    def predict_feedback(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> FeedbackPrediction | None:
        """Returns calibrated probabilities of a liking and expected feedback; None without feedback in training."""
        if not self._learns_feedback:
            return None
        heads = self._judge(query, rows)
        mean, deviation = self._feedback_scale
        return FeedbackPrediction(tf.sigmoid(self._like_logits(heads)), mean + deviation * heads[..., _FEEDBACK])

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the cosine of the titles' vectors: float32 `[batch, num_items]`."""
        return cosines(rows, self._title_vectors, self._inverse_lengths)

    def raw_like_logits(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Returns the like head's logits before calibration: float32 `[batch, candidates]`."""
        return self._judge(query, rows)[..., _LIKE]

    @property
    def calibration(self) -> tuple[float, float]:
        """Slope and intercept of the like head's logistic calibration."""
        slope, intercept = self._calibration.numpy().tolist()
        return slope, intercept

    def calibrate(self, slope: float, intercept: float) -> None:
        """Replaces the calibration of the like head."""
        self._calibration.assign([slope, intercept])

    def _judge(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        titles, statistics = gather_rows(self._title_vectors, rows), tf.gather(self._statistics, rows)
        return self._model.pair_network(self._read(query), titles, statistics, training=False)

    def _read(self, query: Mapping[str, tf.Tensor]) -> QueryState:
        history = gather_rows(self._history_vectors, query[HISTORY_ITEM_IDS])
        return self._model.query_reader(query, history, training=False)

    def _objective_logits(self, heads: tf.Tensor) -> tf.Tensor:
        return heads[..., _WATCH] if self._objective == "watch" else self._like_logits(heads)

    def _like_logits(self, heads: tf.Tensor) -> tf.Tensor:
        return self._calibration[0] * heads[..., _LIKE] + self._calibration[1]

    def _read_catalogue(self) -> tf.Tensor:
        return self._model.title_reader(self._catalogue_ids, self._catalogue_features, training=False)


class Ranker(Recommender):
    """Fits the pair network by gradient descent."""

    config_class = RankerConfig
    config: RankerConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Trains until the objective's loss stops to fall on the validation split, where likes are then calibrated.

        Raises:
          ValueError: if likes are the objective but the data have no feedback.
        """
        tf.keras.utils.set_random_seed(context.seed)
        label = find_label(data, context)
        objective = self.config.objective or ("watch" if label is None else "like")
        if label is None and objective == "like":
            raise ValueError(
                "model.settings.objective: received 'like', but there is no feedback to learn it from; expected 'watch'"
            )
        statistics, counts = read_title_statistics(
            data,
            context.inputs.item_vocabulary_size,
            self.config.popularity_windows_days,
            label,
            context.like_threshold,
        )
        model = RankerModel(self.config, context.inputs, catalogue, statistics, counts, label, context.like_threshold)
        # One forward pass creates the variables, which the scorer copies.
        for batch in data.batches(TRAIN, 2).take(1):
            model.compute_loss(batch)
        scorer = RankerScorer(model, catalogue, statistics, objective, label is not None)
        report = fit_with_early_stopping(
            model,
            scorer,
            self.config,
            data,
            catalogue,
            context,
            int(counts.sum()),
            _validation_loss(model, objective, data, catalogue, context.inputs.item_vocabulary_size),
        )
        if label is not None and context.epochs is None:
            scorer.calibrate(*_calibration(scorer, data, catalogue, context, label))
        return scorer, report

    def refit(
        self, data: TrainingData, catalogue: Catalogue, context: FitContext, scorer: Scorer, report: FitReport
    ) -> Scorer:
        """Fits again on training and validation data; keeps the calibration, which needs data that were not fitted."""
        final = super().refit(data, catalogue, context, scorer, report)
        if isinstance(final, RankerScorer) and isinstance(scorer, RankerScorer):
            final.calibrate(*scorer.calibration)
        return final


def find_label(data: TrainingData, context: FitContext) -> str | None:
    """Returns the name of the feedback in transformed examples, or None where likes cannot be learned."""
    if context.like_threshold is None:
        return None
    past = context.inputs.history_feedback
    return next((name for name in data.feature_spec if bucket_name(history_feature_name(name)) == past), None)


def _validation_loss(
    model: RankerModel, objective: str, data: TrainingData, catalogue: Catalogue, vocabulary_size: int
) -> ValidationMetric:
    """Returns the objective's mean loss on the validation split; the watch head's is that against fixed titles."""
    known = np.flatnonzero(catalogue.row_of_vocabulary_id(vocabulary_size) >= 0)
    chosen = np.random.default_rng(0).choice(known, min(_VALIDATION_NEGATIVES, len(known)), replace=False)
    batches = data.batches(VALIDATION, _VALIDATION_BATCH_SIZE)
    task = _WATCH if objective == "watch" else _LIKE

    @tf.function(input_signature=[batches.element_spec], autograph=False)
    def losses(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        negatives = tf.constant(chosen, tf.int64)
        return model.task_losses(batch, negatives, tf.zeros(vocabulary_size), training=False)[task]

    def mean_loss() -> float:
        return float(np.concatenate([losses(batch).numpy() for batch in batches]).mean())

    return ValidationMetric(f"{objective} loss", mean_loss, higher_is_better=False)


def _calibration(
    scorer: RankerScorer, data: TrainingData, catalogue: Catalogue, context: FitContext, label: str
) -> tuple[float, float]:
    """Fits the like head's calibration on the validation events whose title can be told."""
    rows_by_id = catalogue.row_of_vocabulary_id(context.inputs.item_vocabulary_size)
    logits, labels = [], []
    for batch in data.batches(VALIDATION, _VALIDATION_BATCH_SIZE):
        rows = rows_by_id[batch[ITEM_ID].numpy()]
        raw = scorer.raw_like_logits(batch, tf.constant(np.maximum(rows, 0))[:, tf.newaxis]).numpy()[:, 0]
        logits.append(raw[rows >= 0])
        labels.append(batch[label].numpy()[rows >= 0] >= (context.like_threshold or 0.0))
    return fit_logistic_calibration(np.concatenate(logits), np.concatenate(labels).astype(np.float64))
