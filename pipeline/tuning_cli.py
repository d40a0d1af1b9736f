"""`marquee tune`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from modules.features import SchemaError
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.local_checks import require_data, require_local_workspace
from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    SetOption,
    fail,
    load_config_or_fail,
    load_schema_or_fail,
)


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee tune --family popularity --family two_tower --trials 20")(tune)


def tune(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    family: Annotated[
        list[str], typer.Option(help="Family to tune; by default `tuner.families`, or else the model's. Repeatable.")
    ] = [],  # noqa: B006
    every: Annotated[bool, typer.Option("--all", help="Tune every family that there is something to tune of.")] = False,
    trials: Annotated[int | None, typer.Option(min=1, help="Fits per family; by default `tuner.trials`.")] = None,
) -> None:
    """Search for better settings, judged on the validation split, and print them as a section of the configuration."""
    if every and family:
        raise fail(f"--all tunes every family; received --family {' --family '.join(family)} as well")
    if trials is not None:
        overrides = [*overrides, f"tuner.trials={trials}"]
    settings = load_config_or_fail(config, overrides)
    require_local_workspace(settings)
    require_data(settings)
    load_schema_or_fail(settings)
    families = [] if every else list(dict.fromkeys(family or settings.tuner.families or [settings.model.family]))
    raise typer.Exit(_tune_and_tell(settings, families))


def _tune_and_tell(settings: PipelineConfig, families: list[str]) -> int:
    from pipeline import local, terminal, tuning

    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    log = Path(settings.log_directory) / f"tune-{started}.log"
    console = Console()
    with terminal.log_to_file(log):
        told = ", ".join(families) or "every family"
        console.print(f"[bold]{settings.name}[/bold]: tunes {told}, data {settings.data.directory}", highlight=False)
        try:
            searches = tuning.tune_locally(settings, families, console)
        except (local.PipelineFailedError, local.WorkspaceBusyError, ConfigError, SchemaError) as error:
            console.print(f"\n[red]The search failed:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            console.print(f"The whole story is in {log}", highlight=False, soft_wrap=True)
            return 1
    for search in searches:
        tuning.print_search(search, console)
    console.print(f"\nLog: {log}", highlight=False, soft_wrap=True)
    console.print("\nTo use these settings, put this into the configuration; or `marquee run --tuned`,")
    console.print("which takes what was found last in this workspace:\n")
    print(tuning.tuned_section(searches))
    return 0
