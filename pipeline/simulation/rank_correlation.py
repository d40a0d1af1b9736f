r"""Agreement of two orders of the same models, with intervals over models and worlds.

Spearman's correlation is Pearson's of the mid-ranks; Kendall's $\tau_b$ is, over all pairs,
$\sum s^x s^y / \sqrt{\sum (s^x)^2 \sum (s^y)^2}$ with $s$ the sign of a pair's difference. A model whose figure is
undefined in a world takes no part in it.

Intervals resample models and worlds, each as a whole (the "pigeonhole" bootstrap of two crossed factors): the models of
a resample are the same in all worlds and for all figures, so that differences between figures are paired.

References:
  Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33(3), 1945.
  Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 1(2), 2007.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Correlation = Callable[[Floats, Floats], Floats]

FEWEST_MODELS = 4
"""Below this many models an order says nothing."""


def spearman(first: Floats, second: Floats) -> Floats:
    """Returns Spearman's correlation, row by row.

    Args:
      first: `[rows, models]`; NaN where undefined.
      second: `[rows, models]`.

    Returns:
      `[rows]`; NaN with fewer than two models or where all are equal.
    """
    valid = np.isfinite(first) & np.isfinite(second)
    x, y = _centred_ranks(first, valid), _centred_ranks(second, valid)
    return _ratio((x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1))


def kendall(first: Floats, second: Floats) -> Floats:
    """Returns Kendall's tau-b, row by row; see `spearman`."""
    valid = np.isfinite(first) & np.isfinite(second)
    low, high = np.triu_indices(first.shape[1], k=1)
    both = valid[:, low] & valid[:, high]
    x, y = (
        np.where(both, np.sign(np.where(valid, values, 0.0)[:, low] - np.where(valid, values, 0.0)[:, high]), 0.0)
        for values in (first, second)
    )
    return _ratio((x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1))


@dataclasses.dataclass(frozen=True)
class Resamples:
    """Resamples of models and worlds.

    Attributes:
      models: `[replicates, models]`, indices.
      worlds: `[replicates, worlds]`, how often each world is drawn.
    """

    models: NDArray[np.int64]
    worlds: Floats

    @classmethod
    def draw(cls, models: int, worlds: int, replicates: int, seed: int) -> Resamples:
        """Draws them; the same arguments give the same."""
        generator = np.random.default_rng(seed)
        drawn = generator.integers(models, size=(replicates, models))
        return cls(drawn, generator.multinomial(worlds, np.full(worlds, 1 / worlds), size=replicates).astype(float))

    def correlations(self, correlation: Correlation, first: Floats, second: Floats) -> Floats:
        """Returns the mean correlation over the worlds of each resample, `[replicates]`.

        Args:
          correlation: `spearman` or `kendall`.
          first: `[worlds, models]`, NaN where undefined.
          second: `[worlds, models]`.
        """
        by_world = np.stack(
            [correlation(x[self.models], y[self.models]) for x, y in zip(first, second, strict=True)], axis=1
        )
        known = np.isfinite(by_world)
        weights = self.worlds * known
        return _divide((weights * np.where(known, by_world, 0.0)).sum(axis=1), weights.sum(axis=1))


def by_world(correlation: Correlation, first: Floats, second: Floats) -> Floats:
    """Returns the correlation in each world, `[worlds]`; NaN with fewer than `FEWEST_MODELS` models.

    Args:
      correlation: `spearman` or `kendall`.
      first: `[worlds, models]`, NaN where undefined.
      second: `[worlds, models]`.
    """
    models = (np.isfinite(first) & np.isfinite(second)).sum(axis=1)
    return np.where(models >= FEWEST_MODELS, correlation(first, second), np.nan)


def _centred_ranks(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Mid-ranks among the valid of each row, minus their mean; 0 for the others."""
    others = valid[:, np.newaxis, :]
    below = (values[:, np.newaxis, :] < values[:, :, np.newaxis]) & others
    equal = (values[:, np.newaxis, :] == values[:, :, np.newaxis]) & others
    ranks = below.sum(axis=2) + 0.5 * equal.sum(axis=2)
    means = _divide((ranks * valid).sum(axis=1), valid.sum(axis=1).astype(float))
    return np.where(valid, ranks - np.nan_to_num(means)[:, np.newaxis], 0.0)


def _ratio(products: Floats, first_squares: Floats, second_squares: Floats) -> Floats:
    return np.clip(_divide(products, np.sqrt(first_squares * second_squares)), -1.0, 1.0)


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
