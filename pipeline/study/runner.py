"""Runs a study on this machine, and writes what it found."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from modules.features import ColumnTable
from pipeline import local
from pipeline.config import PipelineConfig
from pipeline.config_checks import read_schema
from pipeline.datasets.folder import write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.study.config import StudyConfig, data_directory
from pipeline.study.progress import StudyProgress, describe_duration
from pipeline.study.results import StudyResults
from pipeline.study.variants import Plan, plan_study
from pipeline.terminal import PROJECT_LOGGER

RESULTS_FILE = "study.json"
PAGE_FILE = "study.html"


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

    directory.mkdir(parents=True, exist_ok=True)
    files = directory / RESULTS_FILE, directory / PAGE_FILE
    for path, text in zip(files, (results.model_dump_json(indent=2) + "\n", render_page(results)), strict=True):
        _replace(path, text)
    return files


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _run_pipeline(study: StudyConfig, config: PipelineConfig, plan: Plan, console: Console) -> None:
    started = time.monotonic()
    with console.status("Loading TensorFlow and TFX …"):
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner

        from pipeline.study.pipeline import create_study_pipeline

        runnable = local.with_worker_code(config)
        pipeline = create_study_pipeline(
            runnable, plan.variants, study.slices, config.metadata_path, _world(study, config)
        )
    console.print(f"  [dim]loaded TensorFlow and TFX in {time.monotonic() - started:.1f} s[/dim]")
    earlier_runs = local.run_ids(config)
    components = local.component_ids(pipeline)
    with local.progress(config, console, components) as progress, _telling(StudyProgress(plan.variants, console)):
        try:
            LocalDagRunner().run(pipeline)
        except Exception as error:
            logging.getLogger(PROJECT_LOGGER).exception("The study failed.")
            progress.fail()
            reason = local.plain_message(error)
            run_id = next(iter(local.run_ids(config)[len(earlier_runs) :]), None)
            if run_id is not None:
                local.note_failure(config, run_id, reason)
            raise local.PipelineFailedError(reason, run_id) from error


def _world(study: StudyConfig, config: PipelineConfig) -> dict[str, int] | None:
    """Returns the synthetic world's arguments, if it is the study's own and not a folder given instead."""
    if study.synthetic is None or Path(config.data.directory) != data_directory(config.workspace, study.synthetic):
        return None
    return study.synthetic.model_dump()


@contextlib.contextmanager
def _telling(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
