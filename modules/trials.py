"""The table of trials that a search for settings leaves beside its results; read without TensorFlow."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

TRIALS_FILE = "trials.json"
"""In the TunerResults artifact: a `Search`."""


class Trial(BaseModel):
    """One fit of a search."""

    number: int
    """In order of time; 0 is the fit with the settings as they were configured."""
    settings: dict[str, Any]
    """What was tried, by dotted field."""
    validation_ndcg: float | None
    """NDCG@10 over the full catalogue on the validation split; None if the fit failed."""
    seconds: float
    """Wall-clock seconds of the fit and its validation."""
    failure: str | None = None
    """Why the fit failed, if it did."""


class Search(BaseModel):
    """All trials of a family."""

    family: str
    """Name in the registry."""
    trials: list[Trial]
    """In order of time."""

    def ranked(self) -> list[Trial]:
        """Returns the trials, the best first; the earlier first among equals, the failed ones last."""
        return sorted(self.trials, key=lambda trial: (trial.validation_ndcg is None, -(trial.validation_ndcg or 0.0)))
