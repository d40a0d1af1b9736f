"""The charts of the evaluation: the main metric by slice, and over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pipeline.pages.charts import Figure, dots, horizontal, mark, whiskers
from pipeline.report.verdict import Estimate

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
    return horizontal(traces, names, metric)


def weeks_figure(estimates: Mapping[int, Estimate], metric: str) -> Figure:
    """Returns a line over whole weeks since the training cut, with intervals, beside the baseline's."""
    weeks = list(estimates)
    traces: list[Figure] = [_line(_CANDIDATE, mark("accent"), weeks, [estimates[week].value for week in weeks])]
    traces[0]["error_y"] = whiskers(list(estimates.values()))
    if any(estimate.baseline is not None for estimate in estimates.values()):
        baseline = [estimates[week].baseline for week in weeks]
        traces.insert(0, _line(_BASELINE, mark("simple", is_open=True), weeks, baseline))
    layout = {
        "height": 320,
        "margin": {"l": 56, "r": 16, "t": 8, "b": 88},
        "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "y": -0.3},
        "xaxis": {"title": {"text": "whole weeks since the training cut"}, "tickformat": "d", "zeroline": False},
        "yaxis": {"title": {"text": metric}, "automargin": True, "rangemode": "tozero"},
    }
    if len(weeks) <= 8:
        layout["xaxis"]["tickvals"] = weeks
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
