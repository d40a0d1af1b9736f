"""`marquee report`."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.local_checks import require_local_workspace
from pipeline.options import DEFAULT_CONFIG, ConfigOption, SetOption, fail, load_config_or_fail


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee report --output report.html")(report)


def report(
    run_id: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; by default the latest that was no search.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default <workspace>/reports/<run>.html.")
    ] = None,
) -> None:
    """Write one HTML page that tells everything of a run: metrics, data, drift, model card, example users."""
    settings = load_config_or_fail(config, overrides)
    require_local_workspace(settings)
    from pipeline import terminal
    from pipeline.runs import NoRunError, RunStore

    try:
        chosen = RunStore(settings.metadata_path).report(run_id).run_id
    except NoRunError as error:
        raise fail(str(error)) from error
    log = Path(settings.log_directory) / f"report-{datetime.datetime.now():%Y%m%d-%H%M%S}.log"
    with terminal.log_to_file(log):
        from pipeline.report.writer import write_report

        path = write_report(settings, chosen, output)
    print(path)
