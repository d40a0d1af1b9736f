"""A family's search space as KerasTuner's `HyperParameters`, and KerasTuner's values as settings.

KerasTuner's choices know neither None nor lists and take booleans for numbers, so the values of every `Choice` travel
as JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kinds
from pydantic import BaseModel

from modules.models.registry import create_recommender
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.settings import flatten_settings


def search_space(family: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    """Returns what a search of a family may try; the defaults are the settings as they are configured now.

    A configured value outside of its declared range widens the range.

    Args:
      family: name in the registry.
      settings: settings of the family as configured, nested.
      fixed: those of them that the search must not touch, nested.

    Raises:
      ValueError: if there is no such family, nothing to tune, or a configured value from which a search cannot start.
      pydantic.ValidationError: if the settings do not fit the family's config.
    """
    config = create_recommender(family, settings).config
    if not config.search_space:
        raise ValueError(f"there is nothing to tune: the family {family!r} declares no search space")
    pinned = flatten_settings(fixed)
    free = {
        path: dimension
        for path, dimension in config.search_space.items()
        if not any(f"{path}.".startswith(f"{pin}.") for pin in pinned)
    }
    if not free:
        raise ValueError(
            f"there is nothing to tune: model.settings fixes all that the family {family!r} lets a search try, "
            f"{sorted(config.search_space)}"
        )
    space = keras_tuner.HyperParameters()
    for path, dimension in free.items():
        _declare(space, path, dimension, _configured_value(config, path))
    return space


def read_settings(hyperparameters: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Returns the values of hyper-parameters as settings by dotted path."""
    choices = {dimension.name for dimension in hyperparameters.space if isinstance(dimension, kinds.Choice)}
    return {path: json.loads(value) if path in choices else value for path, value in hyperparameters.values.items()}


def _declare(space: keras_tuner.HyperParameters, path: str, dimension: Dimension, default: Any) -> None:
    if isinstance(dimension, Choice):
        texts = dict.fromkeys(json.dumps(value) for value in (*dimension.values, default))
        space.Choice(path, list(texts), default=json.dumps(default))
        return
    if default is None or (dimension.logarithmic and default <= 0):
        expected = "a number above zero" if dimension.logarithmic else "a number"
        raise ValueError(f"{path}: a search has to start from {expected}; received {default!r}")
    declare = space.Float if isinstance(dimension, FloatRange) else space.Int
    declare(
        path,
        min_value=min(dimension.low, default),
        max_value=max(dimension.high, default),
        sampling="log" if dimension.logarithmic else "linear",
        default=default,
    )


def _configured_value(config: BaseModel, path: str) -> Any:
    """Returns the value at a dotted path; below a nested model's `settings`, of that family's config."""
    value: Any = config
    for part in path.split("."):
        owner = value
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
        if part == "settings" and isinstance(family := getattr(owner, "family", None), str):
            value = create_recommender(family, value).config
    return value
