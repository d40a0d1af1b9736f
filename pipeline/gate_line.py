"""One line of the gate's table: a rule, and whether a model satisfies it. The Evaluator writes it, reports read it."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class GateLine(BaseModel):
    """What a rule asks for, what the evaluation says, and what follows."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    rule: str
    """What is asked for, in words."""
    slice: str
    """Name of the slice."""
    metric: str
    """Name of the metric."""
    value: float | None
    """The metric, or its change against the last blessed model, whichever the rule is about; None if undefined."""
    lower: float | None
    """Lower end of its 95 % interval."""
    upper: float | None
    """Upper end."""
    bound: str
    """Which of `value`, `lower` and `upper` is compared."""
    needed: float
    """With what."""
    passed: bool | None = None
    """Whether the rule is satisfied; None if it could not be judged and need not be."""
    reason: str = ""
    """Why it is not satisfied or was not judged, or what it lacked, in words."""

    @field_validator("value", "lower", "upper", mode="before")
    @classmethod
    def _leave_out_undefined(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value
