"""The contract every recommender fulfils, whether it is fitted by gradient descent or in closed form.

A family is a `Recommender` with a Pydantic config. It is fitted on `TrainingData` and yields a `Scorer`, a
`tf.Module` that scores the catalogue for a batch of transformed queries. Everything else (parsing, transforming,
masking of seen titles, top-K, the signatures) is shared and lives in `modules.models.export`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from modules.catalogue import Catalogue
from modules.model_inputs import ModelInputs
from modules.models.base_model import BaseModel as WarmStartModel
from modules.models.base_model import TrainedModel
from modules.models.search_space import Dimension
from modules.training_data import TrainingData


class RecommenderConfig(BaseModel):
    """Base of the families' settings: unknown fields are refused, every field is documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    search_space: ClassVar[Mapping[str, Dimension]] = {}
    """What `marquee tune` tries, by field; the other fields keep the values configured."""


@dataclasses.dataclass(frozen=True)
class EpochReport:
    """What is known after one pass over the training split.

    Attributes:
      epoch: 1-based number of the pass.
      metrics: e.g. `loss` and `validation_ndcg@10`.
    """

    epoch: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FitReport:
    """The learning curve of a fit.

    Attributes:
      epochs: one entry per pass; empty for closed-form models.
      best_epoch: the pass whose weights were kept, 1-based; 0 for closed-form models.
    """

    epochs: Sequence[EpochReport] = ()
    best_epoch: int = 0


@dataclasses.dataclass(frozen=True)
class FitContext:
    """What a fit may need besides the data.

    Attributes:
      inputs: the features that the model may use.
      seed: seed of every source of randomness.
      log_directory: where TensorBoard logs go.
      report_progress: is called with a line of text for the user after each pass.
      like_threshold: feedback from which on an interaction counts as liked, or None where the data have no feedback.
      epochs: number of passes that an earlier fit found best, to be made without looking at validation; None to find
        out.
      base_model: the model whose weights those trained by gradient descent begin with; None for random ones.
    """

    inputs: ModelInputs
    seed: int
    log_directory: str
    report_progress: Callable[[str], None]
    like_threshold: float | None = None
    epochs: int | None = None
    base_model: WarmStartModel | None = None


@dataclasses.dataclass(frozen=True)
class FeedbackPrediction:
    """What users are expected to make of titles.

    Attributes:
      like_probability: probability of a liking, float32 `[batch, candidates]`.
      feedback: expected feedback, on its own scale, float32 `[batch, candidates]`.
    """

    like_probability: tf.Tensor
    feedback: tf.Tensor


class Scorer(tf.Module, abc.ABC):
    """Scores the catalogue. All variables and tables it uses must be attributes, so that it can be exported."""

    scores_are_logits: ClassVar[bool] = False
    """Whether the softmax of a query's scores is the probability of what is taken next, as in models trained so."""

    @abc.abstractmethod
    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Scores every item for every query.

        Args:
          query: transformed query features, each `[batch, ...]`; see `modules.preprocessing`.

        Returns:
          float32 `[batch, num_items]`, in the catalogue's order; higher is better. A row must depend on its own query
          only.
        """

    def score_candidates(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Scores given items for every query; the same scores as those of `score_catalogue`.

        Families that can score a few items faster than all override this.

        Args:
          query: transformed query features, each `[batch, ...]`.
          rows: catalogue rows, int64 `[batch, candidates]`.

        Returns:
          float32 `[batch, candidates]`.
        """
        return tf.gather(self.score_catalogue(query), rows, batch_dims=1)

    def predict_feedback(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> FeedbackPrediction | None:
        """Predicts the feedback on given items, in families that learn it; None in all others.

        Args:
          query: transformed query features, each `[batch, ...]`.
          rows: catalogue rows, int64 `[batch, candidates]`.
        """
        return None

    def trained_models(self) -> Mapping[str, tuple[str, TrainedModel]]:
        """Returns family and model of what was trained by gradient descent, by path below this scorer.

        A later fit may continue them; see `modules.models.base_model`.
        """
        return {}

    @abc.abstractmethod
    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Scores every item by its likeness to given ones.

        Args:
          rows: catalogue rows, int64 `[batch]`.

        Returns:
          float32 `[batch, num_items]`; higher is more alike.
        """


class Recommender(abc.ABC):
    """One family of recommenders."""

    config_class: ClassVar[type[RecommenderConfig]]

    def __init__(self, config: RecommenderConfig):
        self.config = config

    @abc.abstractmethod
    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Fits the model on the training split; settings such as the number of passes are decided on validation."""

    def refit(
        self, data: TrainingData, catalogue: Catalogue, context: FitContext, scorer: Scorer, report: FitReport
    ) -> Scorer:
        """Fits again on training and validation data, with what was decided on validation in the first fit.

        Args:
          data: the transformed splits.
          catalogue: the titles to rank.
          context: as for the first fit.
          scorer: what the first fit returned.
          report: what the first fit reported.
        """
        final = dataclasses.replace(context, epochs=report.best_epoch or None)
        return self.fit(data.with_validation_in_training(), catalogue, final)[0]
