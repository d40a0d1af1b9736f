"""The page of a simulation: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import json

from pipeline.pages.charts import Figure
from pipeline.pages.rendering import MINUS, inline_assets, json_island, page_environment
from pipeline.simulation.figures import correlation_figure, exposure_figure, online_figure, scatter_figure
from pipeline.simulation.results import MetricResult, SimulationResults


def render_page(results: SimulationResults) -> str:
    """Returns the page as HTML; Plotly's library, the styles and all figures are inside."""
    environment = page_environment("pipeline.simulation")
    environment.filters.update(hundredths=_hundredths, thousandths=_thousandths, signed_thousandths=_signed_thousandths)
    compared = _compared(results)
    figures: dict[str, Figure] = {"online": online_figure(results), "exposure": exposure_figure(results.worlds[0])}
    if any(metric.spearman is not None for metric in results.metrics):
        figures["correlations"] = correlation_figure(results)
    for metric in compared:
        for world in results.worlds:
            figures[scatter_id(metric.name, world.seed)] = scatter_figure(results, metric, world)
    return environment.get_template("simulation.html.j2").render(
        results=results,
        titles={model.name: model.title for model in results.models},
        compared=compared,
        refusals=_refusals(results),
        scatter_id=scatter_id,
        findings=[finding for finding in results.findings if finding.key != "bias"],
        bias=next(finding for finding in results.findings if finding.key == "bias"),
        figures=json_island(figures),
        document=json_island(json.loads(results.model_dump_json())),
        **inline_assets(environment, ["page.css", "simulation.css"], ["tables.js", "charts.js"]),
    )


def scatter_id(metric: str, seed: int) -> str:
    """Returns the id of a chart, which style sheets and scripts can name."""
    return f"scatter-{metric.replace('@', '-at-')}-{seed}"


def _compared(results: SimulationResults) -> list[MetricResult]:
    """The naive metric and the rule, as far as they were computed."""
    by_name = {metric.name: metric for metric in results.metrics}
    return [
        by_name[name]
        for name in (results.naive, results.rule)
        if name in by_name and by_name[name].spearman is not None
    ]


def _refusals(results: SimulationResults) -> dict[str, list[str]]:
    """What is refused, by reason."""
    found: dict[str, list[str]] = {}
    for world in results.worlds:
        for model in results.models:
            for metric, reason in world.models[model.name].refusals.items():
                found.setdefault(reason, []).append(f"{metric} of {model.title} in world {world.seed}")
    return found


def _hundredths(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _thousandths(value: float) -> str:
    return f"{value:.3f}".replace("-", MINUS)


def _signed_thousandths(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)
