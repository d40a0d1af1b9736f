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
from modules.training_data import TrainingData


class RecommenderConfig(BaseModel):
    """Base of the families' settings: unknown fields are refused, every field is documented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


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
    """

    inputs: ModelInputs
    seed: int
    log_directory: str
    report_progress: Callable[[str], None]


class Scorer(tf.Module, abc.ABC):
    """Scores the catalogue. All variables and tables it uses must be attributes, so that it can be exported."""

    @abc.abstractmethod
    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Scores every item for every query.

        Args:
          query: transformed query features, each `[batch, ...]`; see `modules.preprocessing`.

        Returns:
          float32 `[batch, num_items]`, in the catalogue's order; higher is better. A row must depend on its own query
          only.
        """

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
