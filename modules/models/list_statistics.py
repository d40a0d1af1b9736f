r"""What `evaluate` says of a list of recommendations beyond whether it holds the true title.

With $L$ the titles of a list's first `LIST_LENGTH` places, $H$ those that the user had before, $n_i$ the training
interactions of title $i$ out of $n$ with the $N$ titles of the catalogue, and $G_i$ its genres:

| output | of one example | source |
| --- | --- | --- |
| `list_rows` | catalogue rows of $L$, int64 `[batch, LIST_LENGTH]`, -1 where the list has ended | |
| `list_novelty` | mean of $-\log_2 \frac{n_i + 1}{n + N}$ over $L$: bits of surprise | Zhou et al.; Vargas & Castells |
| `list_popularity`, `history_popularity` | mean of $n_i / n$ over $L$ and over $H$ | Abdollahpouri et al. |
| `list_genre_diversity` | mean Jaccard distance of $G_i$ and $G_j$ over pairs of $L$ | Ziegler et al. |
| `genre_divergence` | $KL(p \Vert \tilde q) = \sum_g p(g) \ln \frac{p(g)}{(1 - \alpha) q(g) + \alpha p(g)}$ | Steck |

where $p$ is the distribution of genres in $H$, $q$ that in $L$, each title sharing one unit among its genres, and
$\alpha = 0.01$ keeps the divergence finite. One added to each count lets titles that training never saw be surprising,
not infinitely so. Titles without genres say nothing about them and are left out of the last two, not taken for titles
unlike all others. All but the first are float32 `[batch, 1]`, NaN where there is nothing to average.

References:
  Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 107(10), 2010.
  Vargas & Castells, Rank and relevance in novelty and diversity metrics for recommender systems, RecSys 2011.
  Abdollahpouri et al., The connection between popularity bias, calibration, and fairness in recommendation,
  RecSys 2020.
  Ziegler et al., Improving recommendation lists through topic diversification, WWW 2005.
  Steck, Calibrated recommendations, RecSys 2018.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

LIST_LENGTH = 10
"""Places of a list that are looked at: what somebody sees at a glance."""
GENRE_SMOOTHING = 0.01
"""Steck's alpha."""


class ListStatistics(tf.Module):
    """Computes the outputs in the graph.

    Args:
      item_counts: training interactions of each title, int64 `[num_items]`, in the order of the catalogue.
      genre_ids: transformed genres of each title, int64 `[num_items, most genres]`, 0 where it has no more; None if
        titles have none, and nothing is to be said of genres.
    """

    def __init__(self, item_counts: NDArray[np.int64], genre_ids: NDArray[np.int64] | None):
        super().__init__()
        total = item_counts.sum()
        surprise = -np.log2((item_counts + 1) / (total + len(item_counts)))
        popularity = item_counts / max(total, 1)
        self._numbers = tf.constant(np.stack([surprise, popularity], axis=1), tf.float32)
        self._genres = None if genre_ids is None else tf.constant(_multi_hot(genre_ids), tf.float32)

    def compute(self, rows: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the outputs by name.

        Args:
          rows: catalogue rows of the lists, the best first, `[batch, any]`; `num_items` where a list has ended.
          seen: bool `[batch, num_items]`, the titles that the user had before.
        """
        rows = rows[:, :LIST_LENGTH]
        filled = rows < self._numbers.shape[0]
        places = tf.where(filled, rows, 0)
        history = tf.cast(seen, tf.float32)
        numbers = tf.gather(self._numbers, places)
        of_history = _ratio(tf.matmul(history, self._numbers[:, 1:]), tf.reduce_sum(history, axis=1, keepdims=True))
        result = {
            "list_rows": tf.cast(tf.where(filled, rows, -1), tf.int64),
            "list_novelty": _mean(numbers[:, :, 0], filled),
            "list_popularity": _mean(numbers[:, :, 1], filled),
            "history_popularity": of_history,
        }
        if self._genres is not None:
            genres = tf.gather(self._genres, places) * tf.cast(filled, tf.float32)[:, :, tf.newaxis]
            result["list_genre_diversity"] = _mean_distance(genres)
            shares = _ratio(self._genres, tf.reduce_sum(self._genres, axis=1, keepdims=True))
            shares = tf.where(tf.math.is_nan(shares), 0.0, shares)
            listed = tf.reduce_sum(tf.gather(shares, places) * tf.cast(filled, tf.float32)[:, :, tf.newaxis], axis=1)
            result["genre_divergence"] = _divergence(_normalised(tf.matmul(history, shares)), _normalised(listed))
        return result


def _multi_hot(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns `[titles, genres]`, 1 where a title has a genre; id 0 is none."""
    result = np.zeros((len(ids), int(ids.max(initial=1)) + 1), np.float32)
    result[np.arange(len(ids))[:, np.newaxis], ids] = 1.0
    return result[:, 1:]


def _mean_distance(genres: tf.Tensor) -> tf.Tensor:
    """Returns the mean Jaccard distance of the pairs of titles with genres, `[batch, 1]`, of `[batch, K, G]`."""
    shared = tf.matmul(genres, genres, transpose_b=True)
    sizes = tf.reduce_sum(genres, axis=2)
    either = sizes[:, :, tf.newaxis] + sizes[:, tf.newaxis, :] - shared
    with_genres = sizes > 0
    pairs = with_genres[:, :, tf.newaxis] & with_genres[:, tf.newaxis, :]
    pairs &= ~tf.eye(tf.shape(genres)[1], dtype=tf.bool)
    distances = 1.0 - tf.math.divide_no_nan(shared, either)
    flat = [tf.shape(genres)[0], -1]
    return _mean(tf.reshape(distances, flat), tf.reshape(pairs, flat))


def _divergence(wanted: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
    """Returns the smoothed divergence of distributions `[batch, G]`, `[batch, 1]`; NaN where one of them is."""
    smoothed = (1.0 - GENRE_SMOOTHING) * given + GENRE_SMOOTHING * wanted
    divergence = tf.reduce_sum(tf.math.xlogy(wanted, tf.math.divide_no_nan(wanted, smoothed)), axis=1, keepdims=True)
    undefined = tf.reduce_any(tf.math.is_nan(wanted + given), axis=1, keepdims=True)
    return tf.where(undefined, float("nan"), divergence)


def _normalised(weights: tf.Tensor) -> tf.Tensor:
    return _ratio(weights, tf.reduce_sum(weights, axis=1, keepdims=True))


def _mean(values: tf.Tensor, counted: tf.Tensor) -> tf.Tensor:
    """Returns the means over the last axis of those that count, `[batch, 1]`; NaN if none does."""
    weights = tf.cast(counted, tf.float32)
    return _ratio(
        tf.reduce_sum(tf.where(counted, values, 0.0), axis=1, keepdims=True),
        tf.reduce_sum(weights, axis=1, keepdims=True),
    )


def _ratio(sums: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    return tf.where(counts > 0, sums / tf.where(counts > 0, counts, 1.0), float("nan"))
