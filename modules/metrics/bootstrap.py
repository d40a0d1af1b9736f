r"""Poisson bootstrap over users: confidence intervals for any function of sums over dependent events.

Events of one user resemble each other, so what is resampled is whole users. In replicate $b$ every user $u$ counts
$w_{bu} \sim Poisson(1)$ times, drawn from the user's group and $b$ alone: so it needs neither a second pass nor to know
how many users there are, and is the same for every model, metric and slice. A metric is a function of sums over users,
and its replicates are that function of the reweighted sums:

$$ \hat\theta = f\Big(\sum_u s_u\Big), \qquad \hat\theta_b = f\Big(\sum_u w_{bu} s_u\Big) $$

Users are dealt into a bounded number of groups by a hash of their id (`user_sums.user_group`), and a group's users
share their weights. So memory grows neither with the users nor with the replicates: $w$ is applied to the groups' sums.

The interval is Student's, $\hat\theta \pm t_{.975,\,\nu} \sqrt{K/(K-1)}\, sd_b(\hat\theta_b)$. With few users, or
some who make up most of the events, the spread of the replicates is itself uncertain and on average too small. From the
events $n_g$ of each group follow the effective number of groups, $K = (\sum_g n_g)^2 / \sum_g n_g^2$, and
Satterthwaite's degrees of freedom of a variance to which each group adds in proportion to $n_g^2$, as it does where a
user's events are alike: $\nu = (\sum_g n_g^2)^2 / \sum_g n_g^4$.

References:
  Hanley & MacGibbon, Creating non-parametric bootstrap samples using Poisson frequencies, Computer Methods and Programs
  in Biomedicine 83(1), 2006.
  Chamandy et al., Estimating uncertainty for massive data streams, Google technical report, 2012.
  Field & Welsh, Bootstrapping clustered data, JRSS B 69(3), 2007.
  Carter, Schnepel & Steigerwald, Asymptotic behavior of a t-test robust to cluster heterogeneity, Review of Economics
  and Statistics 99(4), 2017 (the effective number of clusters).
  Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 2(6), 1946.
  Imbens & Kolesár, Robust standard errors in small samples, Review of Economics and Statistics 98(4), 2016.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

REPLICATES = 1000
"""Number of replicates B; the interval's ends are then known to about 2 % of its width."""
USER_GROUPS = 1000
"""Most groups that users are dealt into: what is kept for each slice does not grow with the number of users."""

_SEED = 20_211

Floats = NDArray[np.float64]


def poisson_weights(group_ids: NDArray[np.int64]) -> Floats:
    """Returns how often each group of users counts in each replicate, float64 `[B, G]`.

    Args:
      group_ids: groups, `[G]`, from 0 to `USER_GROUPS` - 1; equal ids have equal weights in every evaluation.
    """
    return _weights_of_all_groups()[:, group_ids]


def effective_number(sizes: NDArray[np.floating]) -> float:
    """Returns of how many equally large groups the variance is that these groups have; NaN if all are empty.

    Args:
      sizes: what each group counts for, `[G]`, at least 0.
    """
    squares = float(np.square(sizes, dtype=np.float64).sum())
    return float(np.sum(sizes, dtype=np.float64)) ** 2 / squares if squares else float("nan")


def degrees_of_freedom(sizes: NDArray[np.floating]) -> int:
    """Returns Student's degrees of freedom for groups of these sizes: 0 if no interval can be had, else 2 or more.

    None can be had of fewer than three groups, or where one makes up so much that they vary like fewer than two.

    Args:
      sizes: events of each group, `[G]`, at least 0.
    """
    squares = np.square(sizes, dtype=np.float64)
    groups = int(np.count_nonzero(squares))
    if groups < 3 or effective_number(sizes) < 2:
        return 0
    return min(max(int(squares.sum() ** 2 / np.square(squares).sum()), 2), groups - 1)


def standard_errors(replicates: Floats, effective_groups: float) -> Floats:
    """Returns the standard error of each statistic, float64 `[M]`, to be used with Student's t.

    Args:
      replicates: float64 `[B, M]`. Where a statistic is undefined (NaN), since no user that it is about was drawn, the
        replicate is left out.
      effective_groups: effective number K of groups, above 1.
    """
    defined = ~np.isnan(replicates)
    counts = defined.sum(axis=0)
    values = np.where(defined, replicates, 0.0)
    means = values.sum(axis=0) / np.maximum(counts, 1)
    squares = (np.square(values - means) * defined).sum(axis=0)
    spread = np.sqrt(np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=counts > 1))
    return spread * np.sqrt(effective_groups / (effective_groups - 1))


@functools.lru_cache(maxsize=1)
def _weights_of_all_groups() -> Floats:
    generator = np.random.Generator(np.random.PCG64(_SEED))
    weights = generator.poisson(1.0, (REPLICATES, USER_GROUPS)).astype(np.float64)
    weights.setflags(write=False)
    return weights
