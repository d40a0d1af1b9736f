r"""A small reward model of logged impressions: how likely a position is examined, and what a title earns if it is.

$$ q(x, a, k) = \theta_k \, \alpha_a, \qquad \theta_1 = 1 $$

the position-based model of clicks (Craswell et al., 2008), for any reward. It knows neither user nor context: it is
what the direct method and the doubly robust estimator rest on, and the latter forgives it (`off_policy_estimators`).

**Examination.** With weights $1/p$ all titles count alike at each position, whatever the log preferred there, so the
ratio of the weighted mean rewards of two positions is that of their examinations (as in Joachims et al., 2017, who show
titles at random instead):

$$ \theta_k = \rho_k / \rho_1, \qquad \rho_k = \sum_{i:\,k_i = k} r_i / p_i \Big/ \sum_{i:\,k_i = k} 1 / p_i $$

It need not fall from position to position. One below 0 counts as 0, and a position that was never shown has that of the
last one before it.

**Titles.** The mean reward per examination of a title, drawn towards that of all titles the more the less is known:

$$ \alpha_a = \frac{\sum_{i:\,a_i = a} r_i + \lambda \mu}{\sum_{i:\,a_i = a} \theta_{k_i} + \lambda}, \qquad
   \mu = \frac{\sum_i r_i}{\sum_i \theta_{k_i}}, \qquad \lambda = \sigma^2 / \tau^2 $$

with the variance $\sigma^2$ of a reward per examination and that of the titles' true means, $\tau^2$, by the method of
moments. Titles that were never shown have $\mu$.

References:
  Craswell, Zoeter, Taylor & Ramsey, An experimental comparison of click position-bias models, WSDM 2008.
  DerSimonian & Laird, Meta-analysis in clinical trials, Controlled Clinical Trials 7(3), 1986 (method of moments).
  Joachims, Swaminathan & Schnabel, Unbiased learning-to-rank with biased feedback, WSDM 2017.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from modules.features import ITEM_ID, ColumnTable, Role
from modules.training_data import IMPRESSIONS, TrainingData

EXAMINATION = "examination"
LOGGED_REWARD_ESTIMATE = "logged_reward_estimate"
TOP_K_REWARD_ESTIMATES = "top_k_reward_estimates"

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """A fitted model.

    Attributes:
      examination: theta of positions 1.., float64 `[K]`.
      attractiveness: alpha by vocabulary id, float64 `[item_vocabulary_size]`; the mean of all titles for ids without a
        title of their own.
    """

    examination: Floats
    attractiveness: Floats


def fit_reward_model(
    item_ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    rewards: NDArray[np.floating],
    propensities: NDArray[np.floating],
    vocabulary_size: int,
    num_positions: int,
) -> RewardModel:
    """Fits the model on impressions.

    Args:
      item_ids: vocabulary ids, `[n]`.
      positions: from 1, `[n]`; those behind `num_positions` count, too.
      rewards: 0 where a title was not taken, `[n]`.
      propensities: of what was shown where it was shown, in (0, 1], `[n]`.
      vocabulary_size: number of vocabulary ids; the first and the last are no title's own.
      num_positions: length K of the lists to know the examination of.

    Raises:
      ValueError: if there is no impression.
    """
    if not len(item_ids):
        raise ValueError("a reward model needs impressions; received none")
    rewards = np.asarray(rewards, np.float64)
    size = max(int(positions.max()), num_positions)
    examination = _examination(positions - 1, rewards, np.asarray(propensities, np.float64), size)
    known = np.flatnonzero((item_ids > 0) & (item_ids < vocabulary_size - 1))
    exposure = examination[positions - 1]
    total = exposure.sum()
    mean = float(rewards.sum() / total) if total else 0.0
    attractiveness = np.full(vocabulary_size, mean)
    titles, index = np.unique(item_ids[known], return_inverse=True)
    if len(titles):
        attractiveness[titles] = _shrunk_means(index, rewards[known], exposure[known], mean)
    return RewardModel(examination[:num_positions], attractiveness)


def read_reward_model(
    data: TrainingData, columns: ColumnTable, vocabulary_size: int, num_positions: int
) -> RewardModel | None:
    """Fits the model on the transformed split of impressions; None if the data have none.

    Args:
      data: the transformed splits.
      columns: roles of the raw columns.
      vocabulary_size: number of vocabulary ids of titles.
      num_positions: length K of the lists to know the examination of.
    """
    if IMPRESSIONS not in data.files:
        return None
    (label,), (propensity,) = columns.names(Role.LABEL)[:1], columns.names(Role.PROPENSITY)
    position = next(iter(columns.names(Role.POSITION)), None)
    values = data.read(IMPRESSIONS, [ITEM_ID, label, propensity, *([position] if position else [])])
    item_ids = values[ITEM_ID]
    positions = values[position] if position else np.ones_like(item_ids)
    return fit_reward_model(item_ids, positions, values[label], values[propensity], vocabulary_size, num_positions)


def _examination(places: NDArray[np.int64], rewards: Floats, propensities: Floats, size: int) -> Floats:
    earned = np.bincount(places, weights=rewards / propensities, minlength=size)
    shown = np.bincount(places, weights=1.0 / propensities, minlength=size)
    rates = np.divide(earned, shown, out=np.full(size, np.nan), where=shown > 0)
    if not rates[0] > 0:  # Nothing to compare with.
        return np.ones(size)
    examination = np.maximum(rates / rates[0], 0.0)
    latest = np.maximum.accumulate(np.where(np.isnan(rates), 0, np.arange(size)))
    return examination[latest]


def _shrunk_means(titles: NDArray[np.int64], rewards: Floats, exposure: Floats, mean: float) -> Floats:
    """Returns the titles' means, drawn towards that of all."""
    earned, examined = np.bincount(titles, weights=rewards), np.bincount(titles, weights=exposure)
    own = np.divide(earned, examined, out=np.full(len(earned), mean), where=examined > 0)
    freedom, total = len(rewards) - len(own), examined.sum()
    if freedom <= 0 or total <= 0:
        return np.full(len(own), mean)
    residuals = rewards - exposure * own[titles]
    variance = np.square(residuals).sum() / total * len(rewards) / freedom
    spread = (examined * np.square(own - mean)).sum() - variance * (len(own) - 1)
    between = spread / (total - np.square(examined).sum() / total) if len(own) > 1 else 0.0
    if between <= 0:
        return np.full(len(own), mean)
    shrinkage = variance / between
    return (earned + shrinkage * mean) / (examined + shrinkage) if shrinkage > 0 else own
