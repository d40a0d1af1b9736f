"""Matrix factorisation of implicit feedback by alternating least squares; users are folded in when they ask.

    min over U, V:  sum over events (u, i): (1 - U_u . V_i)^2  +  unobserved_weight * sum over all (u, i): (U_u . V_i)^2
                  + regularisation * (sum over u: s_u |U_u|^2 + sum over i: s_i |V_i|^2)

    s_u = (n_u + unobserved_weight * num_items) ** frequency_exponent, and s_i likewise with the number of users

where n_u titles were taken by u. With V fixed each U_u is the solution of a small linear system, and vice versa. Most
who ask are unknown to training, so no user vector is kept: the same system is solved in the graph for the titles of
the query, whose events are weighed as `modules.models.item_bag` says. Where interactions are weighed by their
propensities, the term of an event is multiplied by its weight when titles are solved for. Users are not: they are
solved for as they will be when they ask.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008; the regularisation scaled
by frequency is that of Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation
Benchmarks", RecSys 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules.catalogue import Catalogue
from modules.interaction_log import InteractionLog, read_interaction_log
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.item_bag import CatalogueColumns, ItemBag, ItemBagConfig
from modules.models.item_side import cosines, inverse_lengths
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.training_data import TRAIN, TrainingData


class MatrixFactorizationConfig(ItemBagConfig):
    """Settings of `MatrixFactorization`."""

    dimension: int = Field(default=32, ge=1)
    """Length of the vectors."""
    sweeps: int = Field(default=8, ge=1)
    """Times that all users and then all titles are solved for."""
    unobserved_weight: float = Field(default=3.0, gt=0)
    """Weight of the zero that each pair of user and title stands for, against 1 for an event."""
    regularisation: float = Field(default=0.003, gt=0)
    """Weight of the squared norm of the vectors, before scaling."""
    frequency_exponent: float = Field(default=1.0, ge=0, le=1)
    """How far regularisation grows with the number of events of a user or title. 0: it does not."""
    fold_in: Literal["least_squares", "mean"] = "least_squares"
    """How a user's vector comes from the history: the solution of the system above, or the weighted mean of the
    vectors of its titles, which costs less."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        **ItemBagConfig.search_space,
        "dimension": Choice((16, 32, 64, 128)),
        "unobserved_weight": FloatRange(0.03, 10.0, logarithmic=True),
        "regularisation": FloatRange(0.0003, 0.1, logarithmic=True),
        "fold_in": Choice(("least_squares", "mean")),
    }


class MatrixFactorizationScorer(Scorer):
    """score(i) = u . V_i, with u folded in from the bag of the query.

    Args:
      item_vectors: by vocabulary id, `[item_vocabulary_size, dimension]`; zero where training knew no event.
      config: the settings of the fit.
      bag: turns queries into bags.
      columns: the catalogue's order.
    """

    def __init__(
        self, item_vectors: np.ndarray, config: MatrixFactorizationConfig, bag: ItemBag, columns: CatalogueColumns
    ):
        super().__init__()
        self._config = config
        self._bag = bag
        self._columns = columns
        self._vectors = tf.Variable(item_vectors, trainable=False, dtype=tf.float32)
        self._catalogue_vectors = tf.Variable(columns.take(item_vectors, axis=0), trainable=False, dtype=tf.float32)
        self._inverse_lengths = tf.Variable(inverse_lengths(self._catalogue_vectors), trainable=False)
        self._unobserved = tf.constant(config.unobserved_weight * item_vectors.T @ item_vectors, tf.float32)
        self._unobserved_count = config.unobserved_weight * _count_known(item_vectors)

    def fold_in(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the users' vectors, float32 `[batch, dimension]`; zero where the bag is empty."""
        bag = self._bag(query)
        total = tf.sparse.sparse_dense_matmul(bag, self._vectors)
        weight = tf.sparse.reduce_sum(bag, axis=1)[:, tf.newaxis]
        if self._config.fold_in == "mean":
            return tf.math.divide_no_nan(total, weight)
        vectors = gather_rows(self._vectors, _padded(bag, tf.cast(bag.indices[:, 1], tf.int64)))
        weighted = vectors * _padded(bag, bag.values)[:, :, tf.newaxis]
        observed = tf.matmul(weighted, vectors, transpose_a=True)
        scale = tf.pow(weight + self._unobserved_count, self._config.frequency_exponent)
        ridge = (self._config.regularisation * scale)[:, :, tf.newaxis] * tf.eye(self._config.dimension)
        return tf.linalg.solve(observed + self._unobserved + ridge, total[:, :, tf.newaxis])[:, :, 0]

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the products of the folded-in vector and the titles': float32 `[batch, num_items]`."""
        return self._columns.finish(tf.matmul(self.fold_in(query), self._catalogue_vectors, transpose_b=True))

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the cosines between the titles' vectors: float32 `[batch, num_items]`."""
        return self._columns.finish(cosines(rows, self._catalogue_vectors, self._inverse_lengths))


class MatrixFactorization(Recommender):
    """Alternates between users and titles."""

    config_class = MatrixFactorizationConfig
    config: MatrixFactorizationConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Fits the vectors on the training split.

        Raises:
          ValueError: if the feature group `ids` is switched off.
        """
        bag, size = ItemBag(self.config, context), context.inputs.item_vocabulary_size
        log = read_interaction_log(data, [TRAIN])
        vectors = fit_item_vectors(log, size, self.config, context.seed)
        columns = CatalogueColumns(catalogue, log, self.config, size)
        return MatrixFactorizationScorer(vectors, self.config, bag, columns), FitReport()


def fit_item_vectors(
    log: InteractionLog, vocabulary_size: int, config: MatrixFactorizationConfig, seed: int
) -> np.ndarray:
    """Returns the vectors by vocabulary id: float64 `[vocabulary_size, dimension]`, zero without a known event."""
    known = log.of_known_items(vocabulary_size)
    users = np.unique(known.user_keys, return_inverse=True)[1]
    pairs, place = np.unique(np.stack([users, known.item_ids], axis=1), axis=0, return_inverse=True)
    title_order = np.argsort(pairs[:, 1], kind="stable")
    by_title = pairs[title_order][:, ::-1]
    weights = None
    if known.weights is not None:
        weights = np.zeros(len(pairs))
        np.maximum.at(weights, place.reshape(-1), known.weights)
        weights = weights[title_order]
    num_users = users.max(initial=-1) + 1
    vectors = np.zeros((vocabulary_size, config.dimension))
    titles = np.unique(pairs[:, 1])
    noise = np.random.default_rng(seed).normal(size=(len(titles), config.dimension))
    vectors[titles] = 0.1 / np.sqrt(config.dimension) * noise
    for _ in range(config.sweeps):
        user_vectors = solve_rows(pairs, vectors, num_users, config)
        vectors = solve_rows(by_title, user_vectors, vocabulary_size, config, weights)
    return vectors


def solve_rows(
    pairs: np.ndarray,
    columns: np.ndarray,
    num_rows: int,
    config: MatrixFactorizationConfig,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Solves one side while the other one is fixed.

    Args:
      pairs: row and column of each event, int64 `[events, 2]`, in order of the row, no pair twice.
      columns: vectors of the fixed side, float64 `[num_columns, dimension]`.
      num_rows: size of the side to solve for.
      config: weights of the objective.
      weights: of the events, float64 `[events]`; None if all count alike.

    Returns:
      float64 `[num_rows, dimension]`; zero for rows without an event.
    """
    unobserved = config.unobserved_weight * columns.T @ columns
    unobserved_count = config.unobserved_weight * _count_known(columns)
    solved = np.zeros((num_rows, columns.shape[1]))
    rows, starts = np.unique(pairs[:, 0], return_index=True)
    all_weights = [None] * len(rows) if weights is None else np.split(weights, starts[1:])
    for row, events, own_weights in zip(rows, np.split(pairs[:, 1], starts[1:]), all_weights, strict=True):
        taken = columns[events]
        weighted = taken if own_weights is None else taken * own_weights[:, np.newaxis]
        ridge = config.regularisation * (len(events) + unobserved_count) ** config.frequency_exponent
        system = weighted.T @ taken + unobserved + ridge * np.eye(columns.shape[1])
        solved[row] = np.linalg.solve(system, weighted.sum(axis=0))
    return solved


def _count_known(vectors: np.ndarray) -> int:
    return int(vectors.any(axis=1).sum())


def _padded(bag: tf.SparseTensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the values of a bag's entries side by side: `[batch, most entries]`, 0-padded."""
    return tf.RaggedTensor.from_value_rowids(values, bag.indices[:, 0], bag.dense_shape[0], validate=False).to_tensor()
