"""The names of off-policy estimates and their diagnostics, and why there may be none; see `modules.metrics.off_policy`.

Importing this module imports neither TensorFlow nor TFX, so that reports can tell of estimates quickly.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import numpy as np

from modules.metrics.off_policy_estimators import ESTIMATORS

POLICY_VALUE_NAMES = tuple(f"policy_value_{name}" for name in ESTIMATORS)
EFFECTIVE_SAMPLE_SIZE = "policy_effective_sample_size"
MEAN_WEIGHT = "policy_mean_weight"
MAX_WEIGHT = "policy_max_weight"
PBM_EFFECTIVE_SAMPLE_SIZE = "policy_pbm_effective_sample_size"
PBM_MEAN_WEIGHT = "policy_pbm_mean_weight"
IMPRESSION_COUNT = "policy_impressions"
REFUSAL = "off_policy_refusal"
PBM_REFUSAL = "off_policy_pbm_refusal"
DIAGNOSTIC_NAMES = (
    EFFECTIVE_SAMPLE_SIZE,
    MEAN_WEIGHT,
    MAX_WEIGHT,
    PBM_EFFECTIVE_SAMPLE_SIZE,
    PBM_MEAN_WEIGHT,
    IMPRESSION_COUNT,
    REFUSAL,
    PBM_REFUSAL,
)


class Refusal(enum.IntEnum):
    """Why estimates are NaN."""

    NONE = 0
    """They are not."""
    TOO_FEW = 1
    """Too few effective impressions of what the policy shows."""
    NO_SUPPORT = 2
    """The policy shows what the log never shows."""
    NOT_LOGGED = 3
    """The log has no impressions at some position; for `pbm`, it has no probabilities of a title at all positions, or
    the model no examination."""


def explain_refusal(metrics: Mapping[str, float], estimator: str = "ips") -> str | None:
    """Returns in words why a model has no value of an estimator, or None if it has.

    Args:
      metrics: the metrics of a model on a slice, by name.
      estimator: of `off_policy_estimators.ESTIMATORS`.

    Raises:
      ValueError: for an unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {list(ESTIMATORS)}; received {estimator!r}")
    is_pbm = estimator == "pbm"
    code = metrics.get(PBM_REFUSAL if is_pbm else REFUSAL)
    if code is None or np.isnan(code):
        return "the log holds no impressions"
    size = metrics[PBM_EFFECTIVE_SAMPLE_SIZE if is_pbm else EFFECTIVE_SAMPLE_SIZE]
    mean = metrics[PBM_MEAN_WEIGHT if is_pbm else MEAN_WEIGHT]
    if code == Refusal.TOO_FEW:
        return (
            f"of {metrics[IMPRESSION_COUNT]:,.0f} impressions, those that the model would have shown too count like "
            f"{size:,.0f}: fewer than evaluation.policy.least_effective_sample_size, or those of too few users"
        )
    if code == Refusal.NO_SUPPORT:
        return (
            f"the mean weight of the impressions is {mean:.3g}, and certainly not 1, which it would be if the log "
            f"showed all that the model shows: {'less' if mean < 1 else 'more'} than its propensities say"
        )
    if code == Refusal.NOT_LOGGED:
        return (
            "it needs the propensities of a title at every position (data.propensity with a separator) and the model's "
            "examination of positions"
            if is_pbm
            else "the log holds no impressions at some position"
        )
    if np.isnan(metrics[f"policy_value_{estimator}"]):
        return "the model was exported without a reward model"
    return None
