r"""Paired comparison of models over the users of one test set: intervals and tests from a bootstrap over users.

A metric is the mean over events, and events of one user resemble each other, so what is resampled is whole users. One
resample gives each user $u$ a multiplicity $w_u$ (multinomial, summing to the number of users $U$), the same for all
models and tasks, which makes every difference a paired one:

$$ \hat\theta^*_m = \frac{\sum_u w_u s_{mu}}{\sum_u w_u n_{mu}} $$

with $s_{mu}$ the sum of the metric over the user's events under model $m$ and $n_{mu}$ the number of these events.
Intervals are percentiles of $\hat\theta^*$. The test of a difference compares it with its bootstrap standard error on
the normal scale, since the percentiles of a few thousand resamples cannot resolve the small probabilities that are left
of the level when many pairs are corrected for.

References:
  Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6, 13 and 15.
  Field & Welsh, Bootstrapping clustered data, JRSS B 69(3), 2007.
  Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 1979.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_CHUNK_CELLS = 4_000_000
"""Multiplicities held in memory at once."""

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scores:
    """What each model earned from each user in one metric.

    Attributes:
      models: names.
      sums: float64 `[models, users]`, the metric summed over the user's events.
      counts: float64 `[models, users]`, the events; 0 where a user has none.
    """

    models: tuple[str, ...]
    sums: Floats
    counts: Floats

    def __post_init__(self) -> None:
        """Refuses shapes that do not fit each other."""
        if not self.sums.shape == self.counts.shape == (len(self.models), self.sums.shape[-1]):
            raise ValueError(
                f"sums and counts must both be [{len(self.models)} models, users]; "
                f"received {self.sums.shape} and {self.counts.shape}"
            )

    @property
    def means(self) -> Floats:
        """The metric of each model, `[models]`."""
        return self.sums.sum(axis=1) / self.counts.sum(axis=1)

    def averaged(self, groups: Mapping[str, Sequence[str]]) -> Scores:
        """Returns the means over groups of models, e.g. the seeds of one model, user by user.

        Args:
          groups: for each new name, the models to average.
        """
        rows = [[self.models.index(name) for name in names] for names in groups.values()]
        return Scores(
            tuple(groups),
            np.stack([self.sums[row].mean(axis=0) for row in rows]),
            np.stack([self.counts[row].mean(axis=0) for row in rows]),
        )


def bootstrap_means(scores: Sequence[Scores], replicates: int, seed: int) -> list[Floats]:
    """Returns every model's metric under each resample of the users.

    Args:
      scores: any number of metrics and tasks, whose users are the same, in the same order.
      replicates: number of resamples.
      seed: the same seed gives the same resamples.

    Returns:
      For each of the scores float64 `[replicates, models]`; row r is of the same resample in all of them. NaN where a
      resample has no event.

    Raises:
      ValueError: if the users differ in number.
    """
    users = {score.sums.shape[1] for score in scores}
    if len(users) != 1:
        raise ValueError(f"all scores must be of the same users; received {sorted(users)} users")
    chunks = [
        [_weighted_means(score, weights) for score in scores]
        for weights in _multiplicities(users.pop(), replicates, seed)
    ]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _weighted_means(score: Scores, weights: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ score.sums.T) / (weights @ score.counts.T)


def _multiplicities(users: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yields `[rows, users]`: how often each user is drawn in each of the resamples."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_CELLS // users)
    for start in range(0, replicates, rows):
        drawn = generator.multinomial(users, np.full(users, 1.0 / users), size=min(rows, replicates - start))
        yield drawn.astype(np.float64)


def percentile_interval(values: Floats, level: float) -> tuple[float, float]:
    """Returns the central interval that covers 1 - `level` of a statistic's resamples."""
    lower, upper = np.nanquantile(values, [level / 2, 1 - level / 2])
    return float(lower), float(upper)


def two_sided_p(difference: float, resamples: Floats) -> float:
    """Returns the probability of so large a difference, were there none; see the module for the test.

    Args:
      difference: the estimate.
      resamples: its resamples, `[replicates]`.
    """
    error = float(np.nanstd(resamples, ddof=1))
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return math.erfc(abs(difference) / error / math.sqrt(2.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number: rejecting those below a level errs at most that often at all."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted.tolist()


def kendall_tau(first: Floats, second: Floats) -> Floats:
    r"""Returns the agreement of two orders of the same models, row by row: Kendall's $\tau_a$.

    Args:
      first: `[rows, models]`.
      second: `[rows, models]`.

    Returns:
      `[rows]`, 1 for the same order and -1 for the reverse; a tie counts as neither agreeing nor disagreeing.
    """
    low, high = np.triu_indices(first.shape[1], k=1)
    agreement = np.sign(first[:, low] - first[:, high]) * np.sign(second[:, low] - second[:, high])
    return agreement.mean(axis=1)
