r"""What a policy would have earned, from a log of what another one showed: terms of an impression, estimates of sums.

Notation: a list $\ell = 1..n$ was shown to a user in a context $x_\ell$; its slot $k$ held the title $a_{\ell k}$ with
the logged probability $p_{\ell k} = P_0(a_{\ell k} \text{ at } k \mid x_\ell)$ and earned $r_{\ell k}$, 0 if it was not
taken. The policy judged shows its list $L(x)$ of $K$ titles, always the same: its probability of a title at $k$ is 0 or
1, so an impression has the weight

$$ w_{\ell k} = [L(x_\ell)_k = a_{\ell k}] \, / \, p_{\ell k} $$

**The value** is the same for all estimators: the reward per list, summed over its positions, that is expected when each
list shows $L(x)$. It is comparable to the mean reward per list that is measured online. Positions that the log never
shows count for nothing. $N_k$ is the number of impressions at position $k$, sums run over them.

Bandit view: each position is a bandit of its own, with one round for each impression there.

| estimate | equation | unbiased if |
| --- | --- | --- |
| `ips` | $\sum_k N_k^{-1} \sum w r$ | the log covers the policy: $p > 0$ for all that $L$ shows |
| `clipped_ips` | $\sum_k N_k^{-1} \sum \min(w, M)\, r$ | no: too low by what is cut off |
| `snips` | `ips` $/\, \bar w$, $\bar w = K^{-1} \sum_k N_k^{-1} \sum w$ | no, but consistent |
| `dm` | $\sum_k N_k^{-1} \sum q(L_k, k)$ | the reward model $q$ is right |
| `dr` | $\sum_k N_k^{-1} \sum (q(L_k, k) + w\,(r - q(a, k)))$ | the propensities *or* $q$ are right |

after Horvitz & Thompson (1952) and Schnabel et al. (2016), Bottou et al. (2013), Swaminathan & Joachims (2015) and,
the last two, Dudík et al. (2011).

Ranking view: whole lists, whose number is that of impressions at position 1, $n = N_1$: each list logs its first slot.

| estimate | equation | unbiased if |
| --- | --- | --- |
| `iips` | $n^{-1} \sum_k \sum w r$: the item-position model | a reward depends on title and position alone |
| `pbm` | $n^{-1} \sum_k \sum v r$: the position-based model | a reward is $\theta_k$ times something of the title |

with $v = \theta_{\text{rank of } a \text{ in } L} \, / \, \sum_j \theta_j P_0(a \text{ at } j)$, 0 if $a$ is not in $L$
(both Li et al. 2018). `iips` equals `ips` where every list has all its slots; a slot that a list lacks counts as no
reward here, and is left out there. `pbm` needs the probabilities of a title at all positions, and the examination
$\theta$ that the model's reward model found. Its weights are smaller: where a title was shown does not matter.

**Diagnostics.** With full coverage $E[w] = 1$ at each position, so the mean weight $\bar w$ must be about 1: if it is
not, the log never shows some of what the policy would. For `pbm` it is $n^{-1} \sum_k \sum \theta_k v \,/\, \sum_j
\theta_j$ that must be. The effective sample size is Kish's, $(\sum w)^2 / \sum w^2$.

References:
  Bottou et al., Counterfactual reasoning and learning systems, JMLR 14, 2013 (clipping).
  Dudík, Langford & Li, Doubly robust policy evaluation and learning, ICML 2011.
  Horvitz & Thompson, A generalization of sampling without replacement from a finite universe, JASA 47, 1952.
  Kish, Survey sampling, 1965.
  Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, Offline evaluation of ranking policies with click models, KDD
  2018.
  Schnabel, Swaminathan, Singh, Chandak & Joachims, Recommendations as treatments, ICML 2016.
  Swaminathan & Joachims, The self-normalized estimator for counterfactual learning, NeurIPS 2015.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ESTIMATORS = ("ips", "clipped_ips", "snips", "dm", "dr", "iips", "pbm")

TERMS = (
    "count",
    "weight",
    "squared_weight",
    "reward",
    "clipped_reward",
    "predicted",
    "doubly_robust",
    "pbm_weight",
    "pbm_squared_weight",
    "pbm_reward",
)
"""What is summed over the impressions at a position, in this order."""


class Impression(NamedTuple):
    """One title that was shown.

    Attributes:
      item_id: the title.
      position: where it was shown, from 1.
      reward: what it earned, 0 if it was not taken.
      propensities: float64: the probability of what was shown, `[1]`; or those of the title at positions 1.., `[P]`.
      has_all_positions: which of the two. `pbm` needs those of all positions that are judged.
    """

    item_id: bytes
    position: int
    reward: float
    propensities: Floats
    has_all_positions: bool


class PolicyList(NamedTuple):
    """What the policy judged shows instead, and what its reward model expects; NaN where there is none.

    Attributes:
      item_ids: the list, at least K bytes objects; b"" where it ends early.
      examination: theta of positions 1.., float64, at least `[K]`.
      estimates: expected reward of each title of the list if it is examined, float64, at least `[K]`.
      logged_estimate: the same of the title that was shown.
    """

    item_ids: NDArray[np.object_]
    examination: Floats
    estimates: Floats
    logged_estimate: float


def impression_terms(shown: Impression, policy: PolicyList, positions: int, clip: float) -> Floats:
    """Returns what an impression at one of the first `positions` adds to the sums: float64 `[len(TERMS)]`.

    Args:
      shown: the impression.
      policy: the list of the policy judged.
      positions: length K of the lists that are judged.
      clip: largest weight M of `clipped_ips`.
    """
    at = shown.position - 1
    listed = [bytes(item_id) for item_id in policy.item_ids[:positions]]
    propensity = shown.propensities[at if shown.has_all_positions else 0]
    matches = at < len(listed) and listed[at] == shown.item_id
    weight = 1.0 / propensity if matches else 0.0
    predicted = policy.examination[at] * policy.estimates[at]
    residual = shown.reward - policy.examination[at] * policy.logged_estimate
    pbm_weight, share = np.nan, np.nan
    if shown.has_all_positions and len(shown.propensities) >= positions:
        examination = policy.examination[:positions]
        exposure = float(examination @ shown.propensities[: len(examination)])
        rank = listed.index(shown.item_id) if shown.item_id in listed else len(examination)
        pbm_weight = 0.0 * exposure  # NaN without an examination.
        if rank < len(examination) and exposure > 0:
            pbm_weight = examination[rank] / exposure
        share = policy.examination[at] * pbm_weight / examination.sum()
    return np.array(
        [
            1.0,
            weight,
            weight**2,
            weight * shown.reward,
            min(weight, clip) * shown.reward,
            predicted,
            predicted + weight * residual,
            share,
            share**2,
            pbm_weight * shown.reward,
        ]
    )


class PolicyEstimates(NamedTuple):
    """What follows from the sums; each `[...]`, but for `values`.

    Attributes:
      values: in the order of `ESTIMATORS`, float64 `[..., 7]`; not refused yet.
      effective_sample_size: Kish's, of the impressions with a weight.
      mean_weight: mean over positions of the mean weight there.
      pbm_effective_sample_size: the same of the weights of `pbm`.
      pbm_mean_weight: the same.
    """

    values: Floats
    effective_sample_size: Floats
    mean_weight: Floats
    pbm_effective_sample_size: Floats
    pbm_mean_weight: Floats


def estimate_policy(sums: Floats) -> PolicyEstimates:
    """Returns the estimates of sums of `impression_terms` over impressions.

    Args:
      sums: float64 `[..., K, len(TERMS)]`, by position from 1; those that the log never shows may be left out at the
        end.
    """
    by_name = dict(zip(TERMS, np.moveaxis(sums, -1, 0), strict=True))
    counts = by_name["count"]
    means = {name: _divide(values, counts) for name, values in by_name.items()}
    lists = counts[..., 0]
    mean_weight = means["weight"].mean(axis=-1)
    ips = means["reward"].sum(axis=-1)
    values = {
        "ips": ips,
        "clipped_ips": means["clipped_reward"].sum(axis=-1),
        "snips": _divide(ips, mean_weight),
        "dm": means["predicted"].sum(axis=-1),
        "dr": means["doubly_robust"].sum(axis=-1),
        "iips": _divide(by_name["reward"].sum(axis=-1), lists),
        "pbm": _divide(by_name["pbm_reward"].sum(axis=-1), lists),
    }
    return PolicyEstimates(
        np.stack([values[name] for name in ESTIMATORS], axis=-1),
        _effective_sample_size(by_name["weight"], by_name["squared_weight"]),
        mean_weight,
        _effective_sample_size(by_name["pbm_weight"], by_name["pbm_squared_weight"]),
        _divide(by_name["pbm_weight"].sum(axis=-1), lists),
    )


def _effective_sample_size(weights: Floats, squares: Floats) -> Floats:
    total, squared = weights.sum(axis=-1), squares.sum(axis=-1)
    return np.where(squared == 0, 0.0, _divide(total**2, squared))


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Returns the quotient, NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=np.asarray(denominator) != 0
    )
