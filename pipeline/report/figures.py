"""The charts of the evaluation: the main metric by slice, and over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pipeline.pages.charts import Figure, dots, horizontal, mark, whiskers
from pipeline.report.metric_table import first_week
from pipeline.verdict import Estimate

_CANDIDATE = "this model"
_BASELINE = "last blessed"


@dataclasses.dataclass(frozen=True)
class _Point:
    """A dot without whiskers."""

    value: float | None
    lower: None = None
    upper: None = None


def slices_figure(estimates: Mapping[str, Estimate], metric: str) -> Figure:
    """Returns a dot with its interval for each slice, beside the baseline's hollow one."""
    names = list(estimates)
    traces = []
    known = [name for name in names if estimates[name].baseline is not None]
    if known:
        points = [_Point(estimates[name].baseline) for name in known]
        traces.append(dots(mark("simple", is_open=True), _BASELINE, points, known))
    traces.append(dots(mark("accent"), _CANDIDATE, list(estimates.values()), names))
    figure = horizontal(traces, names, metric)
    figure["layout"]["xaxis"]["range"] = _room(list(estimates.values()))
    return figure


def weeks_figure(estimates: Mapping[str, Estimate], metric: str) -> Figure:
    """Returns a line over whole weeks since the training cut, with intervals, beside the baseline's."""
    weeks = [first_week(label) for label in estimates]
    traces = [_line(_CANDIDATE, mark("accent"), weeks, [estimate.value for estimate in estimates.values()])]
    traces[0]["error_y"] = whiskers(list(estimates.values()))
    if any(estimate.baseline is not None for estimate in estimates.values()):
        baseline = [estimate.baseline for estimate in estimates.values()]
        traces.insert(0, _line(_BASELINE, mark("simple", is_open=True), weeks, baseline))
    layout: Figure = {
        "height": 320,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 88},
        "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "y": -0.3},
        "xaxis": {
            "title": {"text": "whole weeks since the training cut"},
            "zeroline": False,
            "tickvals": weeks,
            "ticktext": list(estimates),
        },
        "yaxis": {"title": {"text": metric}, "automargin": True, "rangemode": "tozero"},
    }
    return {"data": traces, "layout": layout}


def _line(name: str, meta: dict[str, object], weeks: list[int], values: list[float | None]) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "meta": meta,
        "x": weeks,
        "y": values,
        "hovertemplate": "week %{x}: %{y:.4f}<extra></extra>",
    }


def _room(estimates: list[Estimate]) -> list[float]:
    """Returns the ends of an axis that shows all values, and their intervals unless those would dwarf them.

    Of a slice with two or three users next to nothing is known, and its interval is wider than all the rest.
    """
    values = [value for one in estimates for value in (one.value, one.baseline) if value is not None]
    ends = [end for one in estimates for end in (one.lower, one.upper) if end is not None]
    lowest, highest = min(values), max(values)
    spread = (highest - lowest) or abs(highest) or 1.0
    low, high = max(min([lowest, *ends]), lowest - spread / 2), min(max([highest, *ends]), highest + spread / 2)
    return [low - spread / 20, high + spread / 20]
