"""`marquee skew`: whether the features of served requests are those that the model learned from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SetOption,
    fail,
    load_config_or_fail,
    load_schema_or_fail,
)
from pipeline.release_cli import LogsOption

SKEW_FOUND = 3
"""Exit code when a feature has moved; 1 is that of an error."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee skew --logs 'runs/movielens-100k/serving/requests-*.tfrecord'")(skew)


def skew(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    logs: LogsOption = None,
    most: Annotated[int, typer.Option("--requests", "-n", min=1, help="Latest logged requests to look at.")] = 10_000,
    run_id: Annotated[str | None, typer.Option("--run", help="The run to compare with; by default the latest.")] = None,
    max_l_infinity: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Distance of texts that is tolerated where the schema says none.")
    ] = 0.05,
    max_jensen_shannon: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Distance of numbers that is tolerated where the schema says none.")
    ] = 0.02,
    as_json: JsonOption = False,
) -> None:
    """Compare the features of logged requests with those that the model learned from; exit code 3 if any has moved."""
    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    from pipeline import terminal
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.log_pattern import log_pattern
    from pipeline.serving.skew.measure import Tolerances, measure_skew
    from pipeline.serving.skew.report import print_skew

    failure, report = "", None
    console, log = Console(), Path(settings.log_directory) / "skew.log"
    try:
        pattern = logs or log_pattern(ServingFolder.of(settings))
        # Standard output is the JSON's alone, and standard error goes to the log.
        with contextlib.nullcontext() if as_json else console.status("measuring …"), terminal.log_to_file(log):
            tolerances = Tolerances(max_l_infinity, max_jensen_shannon)
            report = measure_skew(settings, schema, pattern, most, tolerances, run_id)
    except (ReleaseError, ValueError, OSError) as error:
        failure = str(error)
    if report is None:
        raise fail(failure)
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print_skew(report, console)
    raise typer.Exit(SKEW_FOUND if report.moved else 0)
