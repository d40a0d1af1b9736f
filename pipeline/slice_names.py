"""Names of slices, e.g. `age_band=25-34, gender=F`.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from collections.abc import Mapping

OVERALL = "overall"
"""The slice of all test events."""


def slice_name(features: Mapping[str, object]) -> str:
    """Returns the name of the slice of these features' values; they stand in alphabetical order."""
    return ", ".join(f"{feature}={features[feature]}" for feature in sorted(features)) or OVERALL


def split_slice(name: str) -> dict[str, str]:
    """Returns the features and values of a slice, from its name; none for overall."""
    if name == OVERALL:
        return {}
    parts: list[str] = []
    for part in name.split(", "):
        if "=" in part or not parts:
            parts.append(part)
        else:  # A comma within a value.
            parts[-1] += f", {part}"
    return {feature: value for feature, _, value in (part.partition("=") for part in parts)}
