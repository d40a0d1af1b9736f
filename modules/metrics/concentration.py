r"""How much of the catalogue is recommended at all, and how unequally: coverage and Gini, with replicates.

With $x_i$ the number of times that title $i$ of $N$ is recommended, $x_{(1)} \le \dots \le x_{(N)}$,

$$ coverage = \frac{|\{i: x_i > 0\}|}{N}, \qquad gini = \frac{\sum_i (2i - N - 1)\, x_{(i)}}{(N - 1) \sum_i x_i} $$

Gini is 0 if all titles are recommended equally often, and 1 if it is one title alone.

Neither is a mean: both depend on how many lists there are. And neither is at ease with resampling. A resample repeats
some users and leaves out others (under Poisson weights 37 % of the groups), so its lists cover fewer titles, and less
equally, than the sample does: a title that one group alone is recommended is in 63 % of the replicates. The mean of the
replicates is thus off, and their percentiles might not even hold the estimate. Only their spread around their own mean
is used, for an interval around the estimate: of what another sample of *as many users* would have given, not of what
all users there might ever be would give, which covers more.

References:
  Ge, Delgado-Battenfeld & Jannach, Beyond accuracy: evaluating recommender systems by coverage and serendipity,
  RecSys 2010.
  Shani & Gunawardana, Evaluating recommendation systems, Recommender Systems Handbook, 2011 (Gini).
  Efron & Tibshirani, An introduction to the bootstrap, 1993, chapter 10 (bias).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from modules.metrics.user_sums import ratios

CONCENTRATION_MEASURES = ("coverage", "gini")

_CHUNK = 1 << 21
"""Counts of titles under resampling that are held at a time."""

Floats = NDArray[np.float64]


def measure_concentration(counts: sparse.csr_matrix, catalogue_size: int, weights: Floats) -> tuple[Floats, Floats]:
    """Returns coverage and Gini, `[2]`, and their replicates, `[B, 2]`; NaN where nothing is recommended.

    Args:
      counts: how often each title is recommended to each group, `[titles, G]`; titles that never are may be missing.
      catalogue_size: titles in the catalogue.
      weights: how often each group counts in each replicate, `[B, G]`.
    """
    estimate = _concentration(np.asarray(counts.sum(axis=1)), catalogue_size)[0]
    step = max(_CHUNK // max(counts.shape[0], 1), 1)
    replicates = [
        _concentration(counts @ weights[start : start + step].T, catalogue_size)
        for start in range(0, len(weights), step)
    ]
    return estimate, np.concatenate([np.zeros((0, len(CONCENTRATION_MEASURES))), *replicates])


def _concentration(counts: Floats, catalogue_size: int) -> Floats:
    """Returns coverage and Gini of each column of `[titles, b]`, as `[b, 2]`."""
    counts = np.sort(counts.T, axis=1)
    total = counts.sum(axis=1)
    places = np.arange(catalogue_size - counts.shape[1] + 1, catalogue_size + 1)
    spread = counts @ (2.0 * places - catalogue_size - 1)
    covered = np.where(total > 0, (counts > 0).sum(axis=1) / catalogue_size, np.nan)
    return np.stack([covered, ratios(spread, (catalogue_size - 1) * total)], axis=1)
