"""The charts of a simulation's page, as Plotly's own JSON; see `pipeline.pages.charts`."""

from __future__ import annotations

from pipeline.pages.charts import Figure, dots, horizontal, mark
from pipeline.simulation.results import MetricResult, SimulationResults, WorldResult

LOGGED, OFF_POLICY = mark("simple"), mark("accent")
_PLAIN, _WEIGHTED = mark("simple"), mark("accent", is_open=True)
_KINDS = (("off_policy", "off-policy estimates", OFF_POLICY), ("logged", "on the clicks as logged", LOGGED))


def correlation_figure(results: SimulationResults) -> Figure:
    """Returns the rank correlation of every figure with online value, with its interval."""
    known = [metric for metric in results.metrics if metric.spearman is not None]
    ordered = sorted(known, key=lambda metric: -metric.spearman.value)  # type: ignore[union-attr]
    traces = []
    for kind, title, meta in _KINDS:
        chosen = [metric for metric in ordered if metric.kind == kind]
        if chosen:
            estimates = [metric.spearman for metric in chosen if metric.spearman is not None]
            traces.append(dots(meta, title, estimates, [metric.name for metric in chosen]))
    figure = horizontal(traces, [metric.name for metric in ordered], "rank correlation with online value (Spearman)")
    figure["layout"]["xaxis"].update(range=[-1.05, 1.05], zeroline=True, tickvals=[-1, -0.5, 0, 0.5, 1])
    return figure


def scatter_figure(results: SimulationResults, metric: MetricResult, world: WorldResult) -> Figure:
    """Returns what a figure says of the models of one world against what they earn there."""
    traces = []
    for weighted, title, meta in (
        (False, "trained on clicks as they are", _PLAIN),
        (True, "inverse propensities", _WEIGHTED),
    ):
        chosen = [
            model
            for model in results.models
            if model.weighted == weighted and world.models[model.name].metrics.get(metric.name) is not None
        ]
        if chosen:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": title,
                    "meta": meta,
                    "x": [world.models[model.name].metrics[metric.name] for model in chosen],
                    "y": [world.models[model.name].online.value for model in chosen],
                    "text": [model.title for model in chosen],
                    "hovertemplate": "%{text}<br>"
                    + metric.name
                    + " %{x:.4f}<br>clicks per list %{y:.3f}<extra></extra>",
                }
            )
    layout = {
        "height": 250,
        "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
        "showlegend": False,
        "xaxis": {
            "title": {"text": f"{metric.name}, world {world.seed}"},
            "automargin": True,
            "nticks": 5,
            "zeroline": False,
        },
        "yaxis": {"title": {"text": "clicks per list online"}, "automargin": True, "nticks": 6, "zeroline": False},
    }
    return {"data": traces, "layout": layout}


def online_figure(results: SimulationResults) -> Figure:
    """Returns what every model earns online, mean over worlds, the best on top."""
    traces = []
    for weighted, title, meta in (
        (False, "trained on clicks as they are", _PLAIN),
        (True, "inverse propensities", _WEIGHTED),
    ):
        chosen = [model for model in results.models if model.weighted == weighted]
        if chosen:
            traces.append(dots(meta, title, [model.online for model in chosen], [model.title for model in chosen]))
    return horizontal(traces, [model.title for model in results.models], "expected clicks per list online")


def exposure_figure(world: WorldResult) -> Figure:
    """Returns how often the titles of one world were shown against how relevant they are."""
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "titles",
        "meta": LOGGED,
        "x": [title.relevance for title in world.titles],
        "y": [max(title.shown, 1) for title in world.titles],
        "hovertemplate": "relevance %{x:.2f}, shown %{y:,} times<extra></extra>",
    }
    layout = {
        "height": 320,
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "showlegend": False,
        "xaxis": {"title": {"text": "true relevance, mean over users"}, "tickformat": ".1f", "zeroline": False},
        "yaxis": {
            "title": {"text": "times shown (logarithmic)"},
            "type": "log",
            "automargin": True,
            "tickvals": [1, 10, 100, 1_000, 10_000, 100_000],
            "ticktext": ["1", "10", "100", "1,000", "10,000", "100,000"],
        },
    }
    return {"data": [trace], "layout": layout}
