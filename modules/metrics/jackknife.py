"""Delete-a-group jackknife: confidence intervals for ratios over dependent events."""

from __future__ import annotations

import numpy as np

GROUPS = 100
"""Most groups that users are dealt into. More groups make the interval's own width steadier, fewer cost less."""


def jackknife_standard_errors(replicates: np.ndarray) -> np.ndarray:
    r"""Returns the standard error of each statistic from its leave-one-group-out replicates.

    $$ \widehat{se}(\hat\theta) = \sqrt{\frac{G-1}{G} \sum_{g=1}^{G} (\hat\theta_{(-g)} - \bar\theta)^2},
       \qquad \bar\theta = \frac1G \sum_g \hat\theta_{(-g)} $$

    Events of one user resemble each other, so whole users have to be left out: leaving out single events, as TFMA's
    own jackknife does, treats dependent events as independent ones and gives intervals that are far too narrow.

    Args:
      replicates: float64 `[G, M]`, G >= 2; row g holds the M statistics computed without group g.

    Returns:
      float64 `[M]`. Student's t with G - 1 degrees of freedom turns it into an interval.

    References:
      Wolter, Introduction to Variance Estimation, 2nd ed., 2007, chapter 4.
      Kott, The delete-a-group jackknife, Journal of Official Statistics 17(4), 2001.
    """
    groups = replicates.shape[0]
    deviations = replicates - replicates.mean(axis=0)
    return np.sqrt((groups - 1) / groups * np.square(deviations).sum(axis=0))
