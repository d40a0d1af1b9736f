"""Writes the report of a run."""

from __future__ import annotations

from pathlib import Path

from pipeline.atomic_files import write_text_atomically
from pipeline.config import PipelineConfig
from pipeline.metadata import open_metadata
from pipeline.report.content import collect
from pipeline.report.page import render_report
from pipeline.runs import RunStore


def report_path(config: PipelineConfig, run_id: str) -> Path:
    """Returns where the report of a run is written unless something else is asked for."""
    return Path(config.workspace) / "reports" / f"{run_id}.html"


def write_report(config: PipelineConfig, run_id: str | None = None, output: Path | None = None) -> Path:
    """Writes the page that tells of a run, aside and then renamed.

    A run that failed, or is under way, gets a report of what there is.

    Args:
      config: the pipeline's configuration; its workspace and its `model_card` count.
      run_id: the run, by default the latest that was no search for settings.
      output: the file, by default `<workspace>/reports/<run_id>.html`.

    Returns:
      The file.

    Raises:
      NoRunError: if there is no such run; the message names those there are.
    """
    runs = RunStore(config.metadata_path)
    report = runs.report(run_id)
    content = collect(open_metadata(config.metadata_path), runs.run_ids(), report, config.model_card)
    path = output or report_path(config, report.run_id)
    write_text_atomically(path, render_report(content))
    return path
