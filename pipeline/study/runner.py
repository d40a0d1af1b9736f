"""Runs a study on this machine, and writes what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from modules.features import ColumnTable
from pipeline import experiment_results, local
from pipeline.config import PipelineConfig
from pipeline.config_checks import read_schema
from pipeline.datasets.folder import write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.fit_progress import FitProgress, describe_duration
from pipeline.study.config import StudyConfig, data_directory
from pipeline.study.results import StudyResults
from pipeline.study.variants import Plan, plan_study

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


def run_study(study: StudyConfig, config: PipelineConfig, console: Console) -> StudyResults:
    """Fits and evaluates whatever the cache does not hold yet, and works everything out.

    Args:
      study: the study.
      config: the pipeline's configuration, in the study's workspace.
      console: where progress goes.

    Raises:
      ConfigError: if a family's settings do not exist, or the configuration and the schema do not fit.
      PipelineFailedError: if a component failed. What ended before is found in the cache the next time.
      WorkspaceBusyError: if another study of this name is running in the workspace.
    """
    with local.exclusive(Path(config.workspace)):
        make_data(study, config)
        plan = plan_study(study, config, ColumnTable.from_schema(read_schema(config)))
        for skipped in plan.skipped:
            console.print(f"  [dim]left out {skipped}[/dim]", highlight=False)
        console.print(f"  {describe_plan(plan)}", highlight=False)
        _run_pipeline(study, config, plan, console)
        from pipeline.study.collection import collect_results

        with console.status("Comparing models …"):
            return collect_results(study, config, plan)


def describe_plan(plan: Plan) -> str:
    """Returns how many fits are planned, and about how long they take."""
    refits = sum(variant.refit for variant in plan.variants)
    told = f", {refits} of them refitted on train + validation" if refits else ""
    seconds = plan.expected_seconds
    estimate = "" if seconds is None else f": {describe_duration(seconds)} if none is cached"
    return f"{len(plan.variants)} fits{told}{estimate}"


def make_data(study: StudyConfig, config: PipelineConfig) -> None:
    """Makes the synthetic world that a study asks for, unless it is there."""
    if study.synthetic is None or Path(config.data.directory).exists():
        return
    write_tables(Path(config.data.directory), SyntheticWorld(**study.synthetic.model_dump()).generate())


def write_results(results: StudyResults, directory: Path) -> tuple[Path, Path]:
    """Writes `study.json` and the page that shows it, each aside and then renamed.

    Returns:
      The two files.
    """
    from pipeline.study.page import render_page

    return experiment_results.write_results(results, render_page(results), directory, "study")


def _run_pipeline(study: StudyConfig, config: PipelineConfig, plan: Plan, console: Console) -> None:
    def build(prepared: PipelineConfig) -> Pipeline:
        from pipeline.study.pipeline import create_study_pipeline

        world = _world(study, config)
        return create_study_pipeline(prepared, plan.variants, study.slices, prepared.metadata_path, world)

    local.run_pipeline(config, console, build, [FitProgress(plan.variants, console)])


def _world(study: StudyConfig, config: PipelineConfig) -> dict[str, int] | None:
    """Returns the synthetic world's arguments, if it is the study's own and not a folder given instead."""
    if study.synthetic is None or Path(config.data.directory) != data_directory(config.workspace, study.synthetic):
        return None
    return study.synthetic.model_dump()
