"""The page of a study: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import json

from pipeline.pages.rendering import MINUS, inline_assets, json_island, page_environment
from pipeline.study.figures import cost_figure, ladder_figure, score_figure
from pipeline.study.results import ModelResult, StudyResults, TaskResult

VALIDATION_SPLIT = "eval"

_TASK_TITLES = {
    "next_title": "Which title comes next",
    "because_you_watched": "Because you watched",
    "continue_watching": "Continue watching",
    "rank": "Which of these are liked",
}


_EFFECTS = {
    "sequence": (
        "Whoever has just seen a title wants its sequel",
        "Share of such sequels among the first ten titles, minus that with the latest visit left out of the history.",
    ),
    "hour": (
        "Genres have their time of day",
        "Share of evening genres among the first ten titles at nine in the evening, minus that at nine in the morning.",
    ),
}


def render_page(results: StudyResults) -> str:
    """Returns the page as HTML; Plotly's library, the styles and all figures are inside."""
    environment = page_environment("pipeline.study")
    environment.filters.update(p_value=_p_value, points=_points)
    models = {model.name: model for model in results.models}
    steps = {step.name: step.title for step in results.steps}
    figures = {
        "cost-seconds": cost_figure(results, results.tasks[0], "fit_seconds", "seconds of fitting"),
        "cost-memory": cost_figure(results, results.tasks[0], "peak_memory_mebibytes", "rise of memory, MiB"),
    }
    for task in results.tasks:
        figures[f"scores-{task.name}"] = score_figure(results, task)
        if task.rungs:
            figures[f"ladder-{task.name}"] = ladder_figure(results, task)
    return environment.get_template("study.html.j2").render(
        results=results,
        models=models,
        steps=steps,
        effects=_EFFECTS,
        refits=any(VALIDATION_SPLIT in model.final_fit_splits for model in results.models),
        final_fit=_final_fit,
        task_titles={task.name: _TASK_TITLES.get(task.name, task.name) for task in results.tasks},
        line_ups={task.name: _line_up(task, models) for task in results.tasks},
        marks={task.name: _marks(results, task, models) for task in results.tasks},
        figures=json_island(figures),
        document=json_island(json.loads(results.model_dump_json())),
        **inline_assets(environment, ["page.css", "study.css"], ["tables.js", "charts.js"]),
    )


def _line_up(task: TaskResult, models: dict[str, ModelResult]) -> list[str]:
    """Families at their richest step, the best first."""
    return [name for name in task.scores if models[name].top]


def _marks(results: StudyResults, task: TaskResult, models: dict[str, ModelResult]) -> dict[str, dict[str, str]]:
    """What each cell of the significance matrix says: `better`, `worse` or `open`, by row and column."""
    marks: dict[str, dict[str, str]] = {name: {} for name in _line_up(task, models)}
    for found in task.differences:
        if found.first in marks and found.second in marks:
            certain = found.p_holm < results.level
            ahead = found.value > 0
            marks[found.first][found.second] = ("better" if ahead else "worse") if certain else "open"
            marks[found.second][found.first] = ("worse" if ahead else "better") if certain else "open"
    return marks


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}".replace("-", MINUS).replace("+0.0", "0.0")


def _final_fit(model: ModelResult) -> str:
    return " + ".join("validation" if split == VALIDATION_SPLIT else split for split in model.final_fit_splits)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
