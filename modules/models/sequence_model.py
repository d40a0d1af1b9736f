"""What deep sequence models share: events and queries as vectors, tied item vectors, the loss at every position.

An event is its title's vector plus those of its feedback and of the time since the event before. A query is what is
known when somebody comes back: profile, context, calendar and how recently they were here. An encoder (attention in
`modules.models.transformer`, recurrence in `modules.models.gru`) turns the query and the events strictly before it
into a vector u(x), and

    score(x, i) = u(x) . v(i) / sqrt(d) + b(i) + w . log popularity(i)

with the very item vectors v that events are made of. Training reads whole user sequences (`modules.sequences`), one
query per instant, and minimises the mean of

    L(x, y) = -score(x, y) + log sum_{i in C(x, y)} exp score(x, i)

over all interactions. The candidates C are those that serving would rank for that interaction: the titles not yet
seen, or, when y itself was seen before, the seen ones. With large catalogues C is a sample, corrected for its
probability (Bengio & Senécal, 2008).

References:
  Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (loss at every position, tied vectors).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from pydantic import Field

from modules import preprocessing, sequences
from modules.catalogue import Catalogue
from modules.features import HISTORY_ITEM_IDS
from modules.model_inputs import ModelInputs
from modules.models import item_side
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.base_model import RowsOfWeight, TrainedModel, item_rows
from modules.models.encoders import FeatureEncoder, embedding
from modules.models.gradient_descent import GradientDescentConfig, fit_with_early_stopping
from modules.models.layer_norm import LayerNorm
from modules.models.retrieval_loss import RetrievalLossConfig
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.models.vector_scorer import VectorScorer
from modules.training_data import TRAIN, TrainingData

_EXCLUDED_LOGIT = -1e9
_STEP_BUCKETS = 24
_SESSION_SECONDS = (600.0, 3_600.0, 86_400.0)


class SequenceModelConfig(GradientDescentConfig, RetrievalLossConfig):
    """Settings of every sequence model. `batch_size` counts interactions, about, not users."""

    batch_size: int = Field(default=1024, ge=2)
    """Interactions per step, about."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak of AdamW's learning rate, reached after a short warm-up and followed by a cosine decay."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's decoupled weight decay."""
    max_epochs: int = Field(default=16, ge=1)
    """Passes over the training split at most; also the length of the learning-rate schedule."""
    patience: int = Field(default=6, ge=1)
    """Passes without a better full-catalogue NDCG@10 on validation after which training stops."""
    weight_average: float = Field(default=0.98, ge=0, lt=1)
    """Momentum of an exponential moving average of the weights, which is what is validated and kept. 0: no average."""
    dimension: int = Field(default=64, ge=2)
    """Length d of all vectors."""
    dropout: float = Field(default=0.25, ge=0, lt=1)
    """Dropout rate."""
    chunk_length: int = Field(default=128, ge=1)
    """Interactions of a user that are learned from in one row; longer sequences are cut, with context before each."""
    item_id_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of titles whose id is hidden in a training step, which teaches the model what to make of new titles."""
    popularity_windows_days: tuple[float, ...] = (3, 14, 60)
    """Besides all-time popularity, a title's bias depends on its popularity in the last so many days."""
    sampled_candidates: int | None = Field(default=None, ge=1)
    """Candidates drawn per step for the softmax, in proportion to popularity. Unset: the whole catalogue."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": FloatRange(1e-3, 1e-2, logarithmic=True),
        "weight_decay": FloatRange(0.01, 0.3, logarithmic=True),
        "dropout": FloatRange(0.1, 0.5),
        "batch_size": Choice((512, 1024, 2048)),
    }


@dataclasses.dataclass(frozen=True)
class SequenceTokens:
    """Vectors of events and queries, and what may see what.

    Attributes:
      events: float32 `[rows, E, d]`.
      queries: float32 `[rows, Q, d]`.
      event_starts: int32 `[rows, E]`; an event sees those at positions `[start - window, start)`.
      query_starts: int32 `[rows, Q]`; likewise; 0 or less: no history.
      event_log_gaps: log(1 + seconds) from one event (second axis) to another (last), float32 `[rows, E, E]`, or None.
      query_log_gaps: log(1 + seconds) from event to query, float32 `[rows, Q, E]`, or None.
    """

    events: tf.Tensor
    queries: tf.Tensor
    event_starts: tf.Tensor
    query_starts: tf.Tensor
    event_log_gaps: tf.Tensor | None
    query_log_gaps: tf.Tensor | None


def visible(starts: tf.Tensor, num_events: tf.Tensor, window: int) -> tf.Tensor:
    """Returns which events are seen from where: bool `[rows, from, num_events]` for starts int32 `[rows, from]`."""
    positions = tf.range(num_events)[tf.newaxis, tf.newaxis]
    ends = starts[..., tf.newaxis]
    return (positions < ends) & (positions >= ends - window)


class SequenceModel(tfrs.Model, abc.ABC):
    """Item vectors, tokens and loss; subclasses add the encoder.

    Args:
      config: the model's settings.
      inputs: the model's features.
      catalogue: the titles.
      counts: training interactions per vocabulary id, of all time and in windows, `[item_vocabulary_size, windows]`.
      window: number of events that a query sees.
    """

    family: ClassVar[str]
    """Name in `modules.models.registry`."""

    def __init__(
        self,
        config: SequenceModelConfig,
        inputs: ModelInputs,
        catalogue: Catalogue,
        counts: np.ndarray,
        window: int,
    ):
        super().__init__()
        self._config, self._inputs, self._window = config, inputs, window
        self._item_features = item_side.features_by_vocabulary_id(catalogue, inputs)
        self._popularity = tf.constant(item_side.standardised_log(counts), tf.float32)
        self._log_probability = tf.constant(item_side.log_sampling_probability(counts[:, 0]), tf.float32)
        # Padding and the id that all unknown titles share are no candidates.
        known = np.zeros(inputs.item_vocabulary_size, bool)
        known[1:-1] = True
        self._known = tf.constant(known)
        self._item_encoder = FeatureEncoder(inputs.item, config.dimension, name="item_features")
        self._query_encoder = FeatureEncoder(inputs.query, config.dimension, name="query_features")
        self._popularity_weights = tf.keras.layers.Dense(1, use_bias=False, name="popularity_bias")
        self._event_norm = LayerNorm(name="event_norm")
        self._query_norm = LayerNorm(name="query_norm")
        self._dropout = tf.keras.layers.Dropout(config.dropout)
        if inputs.use_item_ids:
            self._item_ids = embedding(inputs.item_vocabulary_size, config.dimension, "item_ids")
            self._item_biases = embedding(inputs.item_vocabulary_size, 1, "item_biases")
        if inputs.history_feedback:
            self._feedback = embedding(inputs.history_feedback_size, config.dimension, "event_feedback")
        if inputs.use_time_buckets:
            self._steps = embedding(_STEP_BUCKETS, config.dimension, "event_steps")
        if inputs.use_continuous_time:
            self._session = tf.keras.layers.Dense(config.dimension, use_bias=False, name="session")

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """See `TrainedModel`."""
        rows = [*self._item_encoder.rows_of_weights(), *self._query_encoder.rows_of_weights()]
        if self._inputs.use_item_ids:
            titles = item_rows(self._inputs.item_vocabulary_size, self._config.item_id_dropout)
            rows += [(self._item_ids.embeddings, titles), (self._item_biases.embeddings, titles)]
        return rows

    @abc.abstractmethod
    def encode(self, tokens: SequenceTokens, training: bool) -> tf.Tensor:
        """Returns a vector for each query: float32 `[rows, Q, d]`."""

    def items(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the vectors, float32 `[batch, d]`, and biases, float32 `[batch]`, of titles by vocabulary id."""
        vectors = self._item_encoder(features)
        vectors = tf.broadcast_to(vectors, [tf.shape(ids)[0], tf.shape(vectors)[1]])
        biases = self._popularity_weights(tf.gather(self._popularity, ids))
        if self._inputs.use_item_ids:
            known_ids = ids
            if training and self._config.item_id_dropout:
                known_ids = item_side.hide_some_ids(
                    ids, self._config.item_id_dropout, self._inputs.item_vocabulary_size
                )
            vectors += self._item_ids(known_ids)
            biases += self._item_biases(known_ids)
        return vectors, biases[:, 0]

    def all_items(self, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `items` of every vocabulary id."""
        return self.items(
            tf.range(self._inputs.item_vocabulary_size, dtype=tf.int64), self._item_features, training=training
        )

    def history_vectors(self) -> tf.Tensor:
        """Returns what a history's titles enter as, by their id: float32 `[item_vocabulary_size, d]`."""
        return self.all_items(training=False)[0]

    def scores(self, queries: tf.Tensor, vectors: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """Returns the score of each title for each query: float32 `[N, items]`."""
        return tf.matmul(queries, vectors, transpose_b=True) * (2.0 / self._config.dimension**0.5) + biases

    def event_vectors(
        self, items: tf.Tensor, feedback: tf.Tensor | None, log_steps: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """Returns the vectors of events, float32 `[rows, E, d]`, from those of their titles."""
        vectors = items
        if self._inputs.history_feedback and feedback is not None:
            vectors += self._feedback(feedback)
        if self._inputs.use_time_buckets:
            # Buckets of a whole unit of log(1 + seconds), the first for what has no event before it.
            buckets = tf.clip_by_value(tf.cast(tf.floor(log_steps), tf.int64) + 1, 0, _STEP_BUCKETS - 1)
            vectors += self._steps(buckets)
        return self._dropout(self._event_norm(vectors), training=training)

    def query_vectors(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the vectors of queries before they look back: float32 `[N, d]` (`[1, d]` without features)."""
        return self._query_encoder(features)

    def finish_queries(
        self, vectors: tf.Tensor, query_starts: tf.Tensor, query_log_gaps: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Adds what the recent past tells of the present session, then normalises: float32 `[rows, Q, d]`."""
        if self._inputs.use_continuous_time and query_log_gaps is not None:
            seen = visible(query_starts, tf.shape(query_log_gaps)[2], self._window)
            counts = [
                tf.reduce_sum(tf.cast(seen & (query_log_gaps <= np.log1p(seconds)), tf.float32), axis=2)
                for seconds in _SESSION_SECONDS
            ]
            vectors += self._session(tf.math.log1p(tf.stack(counts, axis=-1)))
        return self._dropout(self._query_norm(vectors), training=training)

    def compute_loss(self, batch: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the mean loss over the targets of a batch of `modules.sequences.sequence_batches`."""
        vectors, biases = self.all_items(training)
        tokens = self._training_tokens(batch, vectors, training)
        places = tf.stack([batch[sequences.QUERY_ROWS], batch[sequences.QUERY_POSITIONS]], axis=1)
        queries = tf.gather_nd(self.encode(tokens, training), places)
        targets, query_of_target = batch[sequences.TARGET_ITEM_IDS], batch[sequences.TARGET_QUERIES]
        if not self._sampled:
            candidates = tf.range(self._inputs.item_vocabulary_size, dtype=tf.int64)
            logits = self.scores(queries, vectors, biases)
        else:
            candidates = tf.random.categorical(self._log_probability[tf.newaxis], self._config.sampled_candidates)[0]
            logits = self.scores(queries, tf.gather(vectors, candidates), tf.gather(biases, candidates))
            draws = tf.math.log(tf.cast(self._config.sampled_candidates, tf.float32))
            logits -= tf.gather(self._log_probability, candidates) + draws
        correction = self._config.popularity_correction * self._log_probability
        logits += tf.gather(correction, candidates)
        usable = tf.gather(self._known, candidates)
        first_seen = self._first_seen(batch)
        seen_before = (
            tf.gather(first_seen, batch[sequences.QUERY_ROWS]) < batch[sequences.QUERY_INSTANTS][:, tf.newaxis]
        )
        repeats = tf.gather_nd(seen_before, tf.stack([query_of_target, targets], axis=1))
        if self._sampled:
            seen_before = tf.gather(seen_before, candidates, axis=1)
        new_total = tf.reduce_logsumexp(tf.where(usable & ~seen_before, logits, _EXCLUDED_LOGIT), axis=1)
        seen_total = tf.cond(
            tf.reduce_any(repeats),
            lambda: tf.reduce_logsumexp(tf.where(usable & seen_before, logits, _EXCLUDED_LOGIT), axis=1),
            lambda: tf.zeros_like(new_total),
        )
        if not self._sampled:
            own = tf.gather_nd(logits, tf.stack([query_of_target, targets], axis=1))
        else:
            own_vectors, own_biases = tf.gather(vectors, targets), tf.gather(biases, targets)
            own_queries = tf.gather(queries, query_of_target)
            own = tf.reduce_sum(own_queries * own_vectors, axis=1) * (2.0 / self._config.dimension**0.5) + own_biases
            own += tf.gather(correction, targets)
        total = tf.where(repeats, tf.gather(seen_total, query_of_target), tf.gather(new_total, query_of_target))
        # A sample need not hold the target itself, whose own term keeps the loss positive.
        total = tf.maximum(total, own) + tf.math.softplus(-tf.abs(total - own)) if self._sampled else total
        # Interactions with titles outside of the vocabulary teach nothing.
        counted = weights = tf.cast(tf.gather(self._known, targets), tf.float32)
        if sequences.TARGET_WEIGHTS in batch:
            weights *= batch[sequences.TARGET_WEIGHTS]
        return tf.math.divide_no_nan(tf.reduce_sum(weights * (total - own)), tf.reduce_sum(counted))

    @property
    def _sampled(self) -> bool:
        return self._config.sampled_candidates is not None

    def _training_tokens(self, batch: Mapping[str, tf.Tensor], vectors: tf.Tensor, training: bool) -> SequenceTokens:
        ids, starts = batch[sequences.EVENT_ITEM_IDS], batch[sequences.QUERY_STARTS]
        events = self.event_vectors(
            tf.gather(vectors, ids), batch[sequences.EVENT_FEEDBACK], batch[sequences.EVENT_LOG_STEPS], training
        )
        event_gaps = query_gaps = None
        if self._inputs.use_gaps:
            seconds = batch[sequences.EVENT_SECONDS]
            event_gaps = _log_gaps(seconds, seconds)
            query_gaps = _log_gaps(batch[sequences.QUERY_SECONDS], seconds)
        places = tf.stack([batch[sequences.QUERY_ROWS], batch[sequences.QUERY_POSITIONS]], axis=1)
        asked = self.query_vectors(batch)
        asked = tf.broadcast_to(asked, [tf.shape(places)[0], self._config.dimension])
        shape = tf.concat([tf.shape(starts, out_type=tf.int64), [self._config.dimension]], axis=0)
        queries = self.finish_queries(tf.scatter_nd(places, asked, shape), starts, query_gaps, training)
        return SequenceTokens(events, queries, batch[sequences.EVENT_STARTS], starts, event_gaps, query_gaps)

    def _first_seen(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the instant at which the user of each row first took each title: int32 `[rows, vocabulary]`."""
        rows = tf.shape(batch[sequences.EVENT_ITEM_IDS])[0]
        never = tf.fill([rows, self._inputs.item_vocabulary_size], tf.int32.max)
        places = tf.stack([batch[sequences.SEEN_ROWS], batch[sequences.SEEN_ITEM_IDS]], axis=1)
        return tf.tensor_scatter_nd_min(never, places, batch[sequences.SEEN_INSTANTS])


def _log_gaps(later: tf.Tensor, earlier: tf.Tensor) -> tf.Tensor:
    seconds = tf.maximum(later[:, :, tf.newaxis] - earlier[:, tf.newaxis], 0)
    return tf.math.log1p(tf.cast(seconds, tf.float32))


class SequenceScorer(VectorScorer):
    """A fitted model; see `VectorScorer`."""

    model: SequenceModel

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns the sequence model."""
        return {"model": (self.model.family, self.model)}

    def query_vectors(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[batch, d]`."""
        ids, steps = query[HISTORY_ITEM_IDS], query[preprocessing.HISTORY_LOG_STEPS]
        feedback = query[self._inputs.history_feedback] if self._inputs.history_feedback else None
        events = self.model.event_vectors(gather_rows(self._history_vectors, ids), feedback, steps, training=False)
        # A step of 0 says that an event belongs to the instant of the one before it, unless no time is known at all.
        positions = tf.range(tf.shape(ids)[1])[tf.newaxis]
        begins = (steps != 0.0) | (steps[:, :1] == 0.0)
        length = tf.shape(ids)[1]
        earlier = tf.linalg.band_part(tf.ones([length, length], tf.bool), -1, 0)
        event_starts = tf.reduce_max(tf.where(begins[:, tf.newaxis] & earlier, positions[:, tf.newaxis], 0), axis=2)
        query_starts = tf.reduce_sum(tf.cast(ids > 0, tf.int32), axis=1, keepdims=True)
        event_gaps = query_gaps = None
        if self._inputs.use_gaps:
            query_gaps = query[preprocessing.HISTORY_LOG_GAPS][:, tf.newaxis]
            seconds = tf.cumsum(tf.math.expm1(tf.maximum(steps, 0.0)), axis=1)
            event_gaps = tf.math.log1p(tf.maximum(seconds[:, :, tf.newaxis] - seconds[:, tf.newaxis], 0.0))
        asked = self.model.query_vectors(query)
        asked = tf.broadcast_to(asked, [tf.shape(ids)[0], tf.shape(events)[2]])[:, tf.newaxis]
        queries = self.model.finish_queries(asked, query_starts, query_gaps, training=False)
        tokens = SequenceTokens(events, queries, event_starts, query_starts, event_gaps, query_gaps)
        return self.model.encode(tokens, training=False)[:, 0]


class SequenceRecommender(Recommender):
    """Fits a sequence model by gradient descent on whole user sequences."""

    config: SequenceModelConfig
    model_class: ClassVar[type[SequenceModel]]

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Trains on all positions of all sequences; stops on full-catalogue NDCG@10 of the validation split."""
        tf.keras.utils.set_random_seed(context.seed)
        inputs, config = context.inputs, self.config
        counts = item_side.windowed_counts(data, inputs.item_vocabulary_size, config.popularity_windows_days)
        window = data.length_of(HISTORY_ITEM_IDS)
        log = sequences.read_sequences(data, TRAIN, [feature.name for feature in inputs.query], inputs.feedback)
        batches = sequences.sequence_batches(log, window, config.chunk_length, config.batch_size, context.seed)
        model = self.model_class(config, inputs, catalogue, counts, window)
        # One forward pass creates the variables, which the scorer copies.
        model.compute_loss(sequences.make_batch(log, log.chunks(window, config.chunk_length)[:1], window))
        scorer = SequenceScorer(model, catalogue, inputs)
        steps = -(-log.num_targets // config.batch_size)
        report = fit_with_early_stopping(
            model, scorer, config, data, catalogue, context, log.num_targets, batches=batches, steps=steps
        )
        return scorer, report
