"""`marquee simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.config_files import ConfigError
from pipeline.experiment_cli import run_experiment
from pipeline.local_checks import require_local_workspace
from pipeline.options import fail, load_schema_or_fail

if TYPE_CHECKING:
    from pipeline.simulation.results import SimulationResults


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee simulate --quick")(simulate)


def simulate(
    name: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped simulation.")] = "default",
    quick: Annotated[bool, typer.Option("--quick", help="One small world and a few models: minutes.")] = False,
    seeds: Annotated[list[int], typer.Option("--seeds", help="Seed of a world; repeatable.")] = [],  # noqa: B006
    like: Annotated[
        str | None,
        typer.Option(help="A configuration whose data lend popularity skew, activity and genres.", metavar="CONFIG"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder of simulation.json and simulation.html.")] = None,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set", "-s", help="Override a field of the pipeline's configuration, or `simulation.…` of this one's."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Train models on biased logs of known worlds, deploy them there, and tell which offline figures foretold it.

    What has been fitted before is found in the cache: an interrupted simulation goes on where it was.
    """
    # Not at the start of every command.
    from pipeline.simulation.config import QUICK_SIMULATION, load_simulation

    try:
        simulation, config = load_simulation(QUICK_SIMULATION if quick else name, overrides, seeds, like)
    except ConfigError as error:
        raise fail(str(error)) from error
    require_local_workspace(config)
    load_schema_or_fail(config)

    def run(console: Console) -> tuple[SimulationResults, tuple[Path, Path]]:
        from pipeline.simulation.runner import run_simulation, write_results

        results = run_simulation(simulation, config, console)
        return results, write_results(results, output or Path(config.workspace))

    run_experiment(
        "simulation",
        f"[bold]{simulation.title}[/bold]: {len(simulation.models)} models",
        config,
        as_json,
        run,
        print_results,
    )


def print_results(results: SimulationResults, console: Console) -> None:
    """Prints figures and findings for a person."""
    table = _table(f"online value, worlds: {len(results.worlds)}", ["model"], ["clicks per list"])
    for model in results.models:
        table.add_row(escape(model.title), f"{model.online.value:.3f}")
    console.print()
    console.print(table)
    title = "figures on the log: rank correlation with online value, and what their picks lose"
    table = _table(title, ["figure on the log"], ["Spearman", "95 % interval", "Kendall", "clicks per list lost"])
    for metric in results.metrics:
        if metric.spearman is None or metric.kendall is None or metric.regret is None:
            table.add_row(metric.name, "refused")
        else:
            interval = f"{metric.spearman.lower:.2f} – {metric.spearman.upper:.2f}"
            numbers = (f"{metric.spearman.value:.2f}", interval, f"{metric.kendall.value:.2f}", f"{metric.regret:.3f}")
            table.add_row(metric.name, *numbers)
    console.print()
    console.print(table)
    console.print()
    for finding in results.findings:
        console.print(f"[bold]{escape(finding.statement)}[/bold]", highlight=False, soft_wrap=True)
        console.print(f"  [dim]{escape(finding.detail)}[/dim]", highlight=False, soft_wrap=True)


def _table(title: str, left: list[str], right: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table
