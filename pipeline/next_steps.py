"""What to do after a run: commands that work as they stand, for the configuration that the run was of."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from pipeline.components.source_files import find_files, read_records
from pipeline.components.spans import source_directory
from pipeline.config import DataConfig, PipelineConfig
from pipeline.options import DEFAULT_CONFIG
from pipeline.runs import RunReport

_LOCAL_PROGRAMS = Path(".venv/bin")


def next_steps(report: RunReport, settings: PipelineConfig, config: str, *overrides: str) -> list[str]:
    """Returns commands, each with a comment where it needs one.

    Args:
      report: the run.
      settings: the configuration that `config` and `overrides` make.
      config: name or file of the configuration, as it was given.
      overrides: the assignments that were given with it.
    """
    options = [] if config == DEFAULT_CONFIG else ["--config", config]
    for override in overrides:
        options += ["--set", override]

    def command(*words: str) -> str:
        return shlex.join([_program(), *words, *options])

    steps = []
    if report.state == "running":
        return [f"{command('status')}  # again, later"]
    if report.state in ("failed", "interrupted"):
        steps.append(f"{command('run')}  # once that is mended; what was done is not done again")
    elif report.blessed is False:
        steps.append(f"# The rules are evaluation.gate of {config}; compare them with the metrics above.")
    elif report.pushed is not None and report.served_version is None:
        steps.append(f"{command('run')}  # pushes the model anew")
    if report.served_version is not None:
        steps.append(f"{command('serve')} &")
        user_id = _some_user(settings.data)
        if user_id is not None:
            steps.append(command("recommend", "--user", user_id))
    steps.append(command("status", "--json"))
    return steps


def _program() -> str:
    """Returns what to call this program from the current folder: by its path only where it is known to be there."""
    for program in (sys.argv[0], sys.executable):
        folder = os.path.dirname(os.path.abspath(program))
        if folder == os.path.abspath(_LOCAL_PROGRAMS) and (_LOCAL_PROGRAMS / "marquee").is_file():
            return str(_LOCAL_PROGRAMS / "marquee")
    return "marquee"


def _some_user(data: DataConfig) -> str | None:
    """Returns the user of the first well-formed interaction; None if the table cannot be read any more."""
    position = list(data.interactions.columns).index("user_id")
    try:
        for file in find_files(source_directory(data), "interactions", data.interactions):
            for record in read_records(file.path, "interactions", data.interactions):
                if record.reason is None and record.cells[position]:
                    return str(record.cells[position])
    except (ValueError, OSError):
        return None
    return None
