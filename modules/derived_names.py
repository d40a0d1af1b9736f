"""Names of what is derived from raw columns: transformed features and slices. No raw column may take one of them."""

from __future__ import annotations

from collections.abc import Iterable

HOUR = "hour"
WEEKDAY = "weekday"
DAY = "day"
LOG_GAP = "log_gap"
HISTORY_LOG_GAPS = "history_log_gaps"
HISTORY_LOG_STEPS = "history_log_steps"
LOG_SEEN_COUNT = "log_seen_count"
USER_ACTIVITY = "user_activity"
TITLE_POPULARITY = "title_popularity"
WEEKS_SINCE_TRAINING = "weeks_since_training"
USER_KEY = "user_key"

CYCLES = {HOUR: 24, WEEKDAY: 7}
"""Periods of the parts of the calendar that come with a sine and a cosine."""
SLICES = (USER_ACTIVITY, TITLE_POPULARITY, HOUR, WEEKS_SINCE_TRAINING)
"""Derived slices that are always there; those over bands depend on the configuration."""


def bucket_name(name: str) -> str:
    """Returns the name of the quantile bucket of a continuous feature."""
    return f"{name}_bucket"


def missing_name(name: str) -> str:
    """Returns the name of the flag that is 1 where a continuous feature has no value."""
    return f"{name}_missing"


def band_name(column: str) -> str:
    """Returns the name of the derived slice over bands of a numeric column."""
    return f"{column}_band"


def derived_names(continuous: Iterable[str], feedback: Iterable[str], feedback_histories: Iterable[str]) -> set[str]:
    """Returns every name that is derived whatever the configuration.

    Args:
      continuous: names of the continuous columns.
      feedback: names of the columns that hold feedback.
      feedback_histories: names of the history columns that hold feedback.
    """
    numbers = (LOG_GAP, LOG_SEEN_COUNT)
    names = {USER_KEY, *CYCLES, DAY, HISTORY_LOG_GAPS, HISTORY_LOG_STEPS, *SLICES, *numbers}
    names |= {f"{part}_{wave}" for part in CYCLES for wave in ("sin", "cos")}
    for name in (*continuous, *numbers):
        names |= {missing_name(name), bucket_name(name)}
    return names | {bucket_name(name) for name in (*feedback, *feedback_histories)}
