"""Settings of a family as nested mappings, as configurations have them, and by dotted path, as searches name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WARM_START_LEARNING_RATE_FACTOR = 0.5
"""Factor on the peak learning rate of a fit that begins with an earlier model's weights, unless another is said."""


def merge_settings(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested settings field by field; later layers win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = merged.get(name)
            if isinstance(below, Mapping) and isinstance(value, Mapping):
                value = merge_settings(below, value)
            merged[name] = value
    return merged


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings by dotted path, e.g. `{"retrieval.settings.dimension": 8}`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update({f"{name}.{path}": leaf for path, leaf in flatten_settings(value).items()})
        else:
            flat[name] = value
    return flat


def nest_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by dotted path as nested ones: the inverse of `flatten_settings`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        for part in reversed(path.split(".")):
            value = {part: value}
        nested = merge_settings(nested, value)
    return nested
