"""How the model was fitted: its learning curves and its settings, from the Trainer's `training.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.pages.charts import Figure, mark


def learning_figures(training: Mapping[str, Any]) -> dict[str, Figure]:
    """Returns one chart for each number told of the epochs, by name; none for models without epochs.

    Args:
      training: the Trainer's report.
    """
    epochs = training.get("epochs", [])
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch if name != "epoch"))
    return {name: _curve(name, epochs, training.get("best_epoch")) for name in names}


def describe_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns settings by dotted path as text; members of a list one by one."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += [(f"{name}.{path}", told) for path, told in describe_settings(value)]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            members = [describe_settings(item) if isinstance(item, Mapping) else [("", str(item))] for item in value]
            for number, member in enumerate(members):
                found += [(f"{name}.{number}.{path}".rstrip("."), told) for path, told in member]
        else:
            found.append((name, f"{value:g}" if isinstance(value, float) else str(value)))
    return found


def describe_start(start: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the weights that the fit began with: none where it was not asked to continue a model.

    Args:
      start: `start` of the Trainer's report.
    """
    if not start.get("base_model"):
        return []
    if start["kind"] == "cold":
        begun = f"Cold start, though there is a base model, {start['base_model']}."
    else:
        begun = f"Warm start from {start['base_model']}, at {start['learning_rate_factor']:g} times the learning rate."
    told = [f"{path}: {model['told']}." for path, model in start.get("models", {}).items()]
    return [begun, *([f"Reason: {start['reason']}."] if start.get("reason") else []), *told]


def _curve(name: str, epochs: list[Mapping[str, Any]], kept: int | None) -> Figure:
    """A line over the epochs; the epoch that was kept is marked."""
    told = [epoch for epoch in epochs if name in epoch]
    numbers = [epoch["epoch"] for epoch in told]
    traces: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "meta": mark("accent", is_open=True),
            "name": name,
            "x": numbers,
            "y": [epoch[name] for epoch in told],
            "hovertemplate": "epoch %{x}: %{y:.4f}<extra></extra>",
        }
    ]
    best = [epoch for epoch in told if epoch["epoch"] == kept]
    if best:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "meta": mark("accent"),
                "name": "kept",
                "x": [kept],
                "y": [best[0][name]],
                "hoverinfo": "skip",
            }
        )
    layout = {
        "height": 260,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
        "showlegend": False,
        "xaxis": {
            "title": {"text": "epoch"},
            "tickformat": "d",
            "zeroline": False,
            "dtick": max(1, len(numbers) // 8),
            "range": [0.5, max(numbers) + 0.5],
        },
        "yaxis": {"title": {"text": name}, "automargin": True, "zeroline": False},
    }
    return {"data": traces, "layout": layout}
