"""What the Evaluator found, read from its `verdict.json`, what could not be computed included."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from pipeline.gate_line import GateLine
from pipeline.slice_names import OVERALL


class Estimate(BaseModel):
    """A metric on a slice. What is None is not there, or undefined."""

    value: float | None = None
    """The candidate's."""
    lower: float | None = None
    """Lower end of its 95 % interval."""
    upper: float | None = None
    """Upper end."""
    baseline: float | None = None
    """The last blessed model's."""
    change: float | None = None
    """The candidate's less the baseline's."""
    change_lower: float | None = None
    """Lower end of the paired 95 % interval of the change."""
    change_upper: float | None = None
    """Upper end."""

    @field_validator("*", mode="before")
    @classmethod
    def _leave_out_undefined(cls, value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, if there is one."""
        return None if self.lower is None or self.upper is None else (self.lower, self.upper)

    @property
    def change_interval(self) -> tuple[float, float] | None:
        """The paired 95 % interval of the change, if there is one."""
        lower, upper = self.change_lower, self.change_upper
        return None if lower is None or upper is None else (lower, upper)

    @property
    def certain_change(self) -> int:
        """The sign of the change if its interval leaves zero out; otherwise 0."""
        if self.change_interval is None:
            return 0
        lower, upper = self.change_interval
        return (lower > 0) - (upper < 0)


class Verdict(BaseModel):
    """All estimates, those that are undefined included, and what the gate makes of them."""

    slices: dict[str, dict[str, Estimate]] = {}
    """Estimates by slice and metric; overall comes first."""
    example_counts: dict[str, int] = {}
    """Events by slice."""
    user_counts: dict[str, int] = {}
    """Users by slice."""
    gate: list[GateLine] = []
    """The gate's table."""
    failures: list[str] = []
    """Why the model is not blessed, in sentences."""

    @property
    def overall(self) -> dict[str, Estimate]:
        """The estimates over all test events."""
        return self.slices.get(OVERALL, {})


def read_verdict(path: Path) -> Verdict:
    """Reads a verdict; it is empty if there is no such file."""
    return Verdict.model_validate(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Verdict()
