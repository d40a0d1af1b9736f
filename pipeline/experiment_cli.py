"""What the commands share that make many fits and write what came of them as a page and as JSON."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel
from rich.console import Console

from modules.features import SchemaError
from pipeline.components.source_storage import DataQualityError
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.options import fail

_Results = TypeVar("_Results", bound=BaseModel)


def run_experiment(
    noun: str,
    heading: str,
    config: PipelineConfig,
    as_json: bool,
    run: Callable[[Console], tuple[_Results, tuple[Path, Path]]],
    tell: Callable[[_Results, Console], None],
) -> None:
    """Runs an experiment with libraries' messages in a log file, and tells of it.

    Args:
      noun: what it is called, e.g. `study`.
      heading: first line on the console.
      config: the pipeline's configuration, in the experiment's workspace.
      as_json: whether to print the results as JSON and nothing else.
      run: makes the experiment; returns its results and the files written, JSON and page.
      tell: prints the results for a person.

    Raises:
      typer.Exit: if the experiment fails, for a reason that was told.
    """
    from pipeline import local, terminal

    log = Path(config.log_directory) / f"{noun}-{datetime.datetime.now():%Y%m%d-%H%M%S}.log"
    console = Console(quiet=as_json)
    with terminal.log_to_file(log):
        console.print(heading, highlight=False)
        try:
            outcome, reason = run(console), ""
        except (
            local.PipelineFailedError,
            local.WorkspaceBusyError,
            ConfigError,
            SchemaError,
            DataQualityError,
        ) as error:
            outcome, reason = None, str(error)
    if outcome is None:
        raise fail(f"the {noun} failed: {reason}\nThe whole story is in {log}")
    results, (document, page) = outcome
    if as_json:
        print(results.model_dump_json(indent=2))
    else:
        tell(results, console)
        console.print(f"\n{page}\n{document}\nLog: {log}", highlight=False, soft_wrap=True)
