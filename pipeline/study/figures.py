"""The charts of a study's page, as Plotly's own JSON. Colours are left to the page, which knows light from dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pipeline.pages.charts import Figure, dots, horizontal, mark
from pipeline.study.config import Kind
from pipeline.study.results import ModelResult, StudyResults, TaskResult

_KINDS: tuple[tuple[Kind, str], ...] = (("simple", "simple"), ("deep", "deep"), ("combined", "combined"))
_MARKS = {"simple": mark("simple"), "deep": mark("accent"), "combined": mark("accent", is_open=True)}


def score_figure(results: StudyResults, task: TaskResult) -> Figure:
    """Returns one dot with its interval for each model, the best on top."""
    names = list(task.scores)
    labels = _labels(results, names)
    models = {model.name: model for model in results.models}
    traces = []
    for kind, title in _KINDS:
        chosen = [name for name in names if models[name].kind == kind]
        if chosen:
            estimates = [task.scores[name][task.headline_metric] for name in chosen]
            traces.append(dots(_MARKS[kind], title, estimates, [labels[name] for name in chosen]))
    return horizontal(traces, [labels[name] for name in names], task.headline_metric)


def ladder_figure(results: StudyResults, task: TaskResult) -> Figure:
    """Returns what each step changes for each family, with the paired interval."""
    titles = {model.family: model.title for model in results.models}
    kinds = {model.family: model.kind for model in results.models}
    steps = {step.name: step for step in results.steps}
    traces = []
    ladder = [step.name for step in results.steps if step.instead_of is None]
    labels = {}
    for rung in task.rungs:
        step, below = steps[rung.step], steps[rung.compared_with]
        adjacent = (below.name, step.name) in itertools.pairwise(ladder)
        if step.instead_of is not None:
            told = f"{step.title} instead of {below.adds or below.title}"
        else:
            told = f"+ {step.adds}" if adjacent and step.adds else f"{step.title} over {below.title}"
        labels[rung.first] = f"{titles[rung.family]}: {told}"
    for kind, title in _KINDS:
        chosen = [rung for rung in task.rungs if kinds[rung.family] == kind]
        if chosen:
            traces.append(dots(_MARKS[kind], title, chosen, [labels[rung.first] for rung in chosen]))
    figure = horizontal(traces, list(labels.values()), f"change of {task.headline_metric}")
    figure["layout"]["xaxis"].update(zeroline=True, rangemode="normal")
    return figure


def cost_figure(
    results: StudyResults,
    task: TaskResult,
    cost: Literal["fit_seconds", "peak_memory_mebibytes"],
    cost_title: str,
) -> Figure:
    """Returns what each family's richest model costs and what it reaches."""
    traces = []
    costs_of_all: list[float] = []
    for kind, title in _KINDS:
        chosen = [
            model
            for model in results.models
            if model.kind == kind and model.top and model.name in task.scores and getattr(model, cost) is not None
        ]
        if chosen:
            # Costs have no zero on a logarithmic axis: what is too quick to measure stands at its left end.
            costs = [max(getattr(model, cost), 0.1) for model in chosen]
            costs_of_all += costs
            values = [task.scores[model.name][task.headline_metric].value for model in chosen]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": title,
                    "meta": _MARKS[kind],
                    "x": costs,
                    "y": values,
                    "text": [model.title for model in chosen],
                    "textposition": "top center",
                    "cliponaxis": False,
                    "hovertemplate": "%{text}: %{x:,.1f}, %{y:.4f}<extra></extra>",
                }
            )
    layout = {
        "height": 360,
        "margin": {"l": 56, "r": 32, "t": 16, "b": 88},
        "legend": {"orientation": "h", "y": -0.3},
        "xaxis": {"title": {"text": f"{cost_title} (logarithmic)"}, "type": "log", **_ticks(costs_of_all)},
        "yaxis": {"title": {"text": task.headline_metric}, "tickformat": ".2f", "automargin": True},
    }
    return {"data": traces, "layout": layout}


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    """Returns the ticks of a logarithmic axis, written out: 1, 2 and 5 of each power of ten, around the values."""
    if not values:
        return {}
    powers = range(math.floor(math.log10(min(values))) - 1, math.ceil(math.log10(max(values))) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def _labels(results: StudyResults, names: Iterable[str]) -> dict[str, str]:
    models: dict[str, ModelResult] = {model.name: model for model in results.models}
    steps = {step.name: step.title for step in results.steps}
    alone = {model.family for model in results.models} - {model.family for model in results.models if not model.top}
    return {
        name: models[name].title
        if models[name].family in alone
        else f"{models[name].title}: {steps[models[name].step]}"
        for name in names
    }
