"""`marquee study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.config_files import ConfigError
from pipeline.experiment_cli import run_experiment
from pipeline.local_checks import require_data, require_local_workspace
from pipeline.options import fail, load_schema_or_fail

if TYPE_CHECKING:
    from pipeline.study.results import StudyResults

_VERDICT_STYLES = {"supported": "green", "not supported": "red", "undecided here": "yellow"}


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee study --quick")(study)


def study(
    name: Annotated[
        str, typer.Option("--study", help="A YAML file, or the name of a shipped study.", metavar="STUDY")
    ] = "movielens-100k",
    quick: Annotated[bool, typer.Option("--quick", help="A few small models on synthetic data: minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder of study.json and study.html.")] = None,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set", "-s", help="Override a field of the pipeline's configuration, or `study.…` of the study's."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Fit models, feature groups and seeds, compare them pairwise and write a page that tells what came of it.

    What has been fitted before is found in the cache: an interrupted study goes on where it was.
    """
    # Not at the start of every command.
    from pipeline.study.config import QUICK_STUDY, load_study

    try:
        settings, config = load_study(QUICK_STUDY if quick else name, overrides)
    except ConfigError as error:
        raise fail(str(error)) from error
    require_local_workspace(config)
    if settings.synthetic is None:
        require_data(config)
    load_schema_or_fail(config)

    def run(console: Console) -> tuple[StudyResults, tuple[Path, Path]]:
        from pipeline.study.runner import run_study, write_results

        results = run_study(settings, config, console)
        return results, write_results(results, output or Path(config.workspace))

    run_experiment(
        "study", f"[bold]{settings.title}[/bold]: data {config.data.directory}", config, as_json, run, print_results
    )


def print_results(results: StudyResults, console: Console) -> None:
    """Prints claims and the main figures for a person."""
    models = {model.name: model for model in results.models}
    steps = {step.name: step.title for step in results.steps}
    for task in results.tasks:
        title = f"{task.name}: {task.headline_metric}, mean over {task.events:,.0f}, {task.users} groups of users"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("model")
        table.add_column("features")
        table.add_column(task.headline_metric, justify="right")
        table.add_column("interval", justify="right")
        for name, scores in task.scores.items():
            estimate = scores[task.headline_metric]
            interval = f"{estimate.lower:.4f} – {estimate.upper:.4f}"
            table.add_row(models[name].title, steps[models[name].step], f"{estimate.value:.4f}", interval)
        console.print()
        console.print(table)
    if results.planted_effects:
        _print_planted_effects(results, console)
    console.print()
    for claim in results.claims:
        style = _VERDICT_STYLES[claim.verdict]
        console.print(f"[{style}]{claim.verdict}[/{style}]: {escape(claim.statement)}", highlight=False, soft_wrap=True)
        console.print(f"  [dim]{escape(claim.reason)}[/dim]", highlight=False, soft_wrap=True)


def _print_planted_effects(results: StudyResults, console: Console) -> None:
    table = Table(title="planted effects: change of a share of the first ten titles, %", title_justify="left", box=None)
    table.pad_edge = False
    for name in ("effect", "model", "features"):
        table.add_column(name)
    for name in ("change", "interval"):
        table.add_column(name, justify="right")
    table.add_column("is")
    models = {model.name: model for model in results.models}
    steps = {step.name: step.title for step in results.steps}
    for planted in results.planted_effects:
        model, response = models[planted.model], planted.response
        table.add_row(
            planted.effect,
            model.title,
            steps[model.step],
            f"{100 * response.value:.1f}",
            f"{100 * response.lower:.1f} – {100 * response.upper:.1f}",
            ("found" if planted.found else "not found") + ("" if planted.visible else ", as it must be"),
        )
    console.print()
    console.print(table)
