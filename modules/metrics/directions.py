"""Which metrics are better the lower they are."""

from __future__ import annotations

LOWER_IS_BETTER = (
    "rank_log_loss",
    "rank_calibration_error",
    "rank_feedback_rmse",
    "gini",
    "popularity_lift",
    "genre_calibration",
)
"""Names without their cut-offs."""


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better, whatever its cut-off."""
    return metric.partition("@")[0] in LOWER_IS_BETTER
