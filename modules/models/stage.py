"""A model within a model: its family and settings, checked like those of a model of its own."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from modules.models.registry import create_recommender


class StageConfig(BaseModel):
    """A model that is a part of another one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    family: str
    """Name in `modules.models.registry`."""
    settings: dict[str, Any] = Field(default={})
    """Fields of that family's own config."""

    @pydantic.model_validator(mode="after")
    def _create(self) -> StageConfig:
        try:
            create_recommender(self.family, self.settings)
        except pydantic.ValidationError as error:
            problems = "; ".join(
                f"settings.{'.'.join(map(str, problem['loc']))}: received {problem['input']!r}; "
                f"expected: {problem['msg']}"
                for problem in error.errors()
            )
            raise ValueError(problems) from error
        return self
