"""Charts as Plotly's own JSON. Colours are left to the page, which knows light from dark.

A trace's `meta` says how `charts.js` is to draw it: `colour`, the name of a variable of the style sheet, and `open`,
whether its marks are hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Figure = dict[str, Any]
_ROW_PIXELS = 26


class WithInterval(Protocol):
    """An estimate with its interval, if it has one."""

    @property
    def value(self) -> float | None:
        """The estimate."""

    @property
    def lower(self) -> float | None:
        """Lower end of the interval."""

    @property
    def upper(self) -> float | None:
        """Upper end of the interval."""


def mark(colour: str, is_open: bool = False) -> dict[str, Any]:
    """Returns the `meta` of a trace."""
    return {"colour": colour, "open": is_open}


def dots(meta: dict[str, Any], title: str, estimates: Sequence[WithInterval], labels: Sequence[str]) -> Figure:
    """Returns a trace of dots with horizontal whiskers, one a label."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": title,
        "meta": meta,
        "x": [estimate.value for estimate in estimates],
        "y": list(labels),
        "error_x": whiskers(estimates),
        "hovertemplate": "%{y}: %{x:.4f}<extra></extra>",
    }


def whiskers(estimates: Sequence[WithInterval]) -> Figure:
    """Returns the error bars of estimates; those without an interval have none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [_distance(estimate.upper, estimate.value) for estimate in estimates],
        "arrayminus": [_distance(estimate.value, estimate.lower) for estimate in estimates],
        "thickness": 1.5,
        "width": 0,
    }


def horizontal(traces: list[Figure], labels: list[str], axis_title: str) -> Figure:
    """Returns a figure of rows, the first label on top."""
    layout = {
        "height": (88 if len(traces) > 1 else 64) + _ROW_PIXELS * len(labels),
        "margin": {"l": 8, "r": 16, "t": 8, "b": 80 if len(traces) > 1 else 56},
        "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "xaxis": {"title": {"text": axis_title}, "zeroline": False},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": labels[::-1],
            "automargin": True,
            "range": [-0.6, len(labels) - 0.4],
        },
    }
    return {"data": traces, "layout": layout}


def _distance(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else high - low
