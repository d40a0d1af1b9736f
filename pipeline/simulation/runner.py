"""Runs a simulation on this machine, and writes what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipeline import experiment_results, local
from pipeline.atomic_files import write_text_atomically
from pipeline.config import PipelineConfig, load_config
from pipeline.datasets.folder import damage, write_tables
from pipeline.fit_progress import FitProgress
from pipeline.simulation.config import SimulationConfig, world_config
from pipeline.simulation.fits import plan_fits
from pipeline.simulation.grounding import Grounding, ground_in
from pipeline.simulation.log import simulate_log, tables
from pipeline.simulation.results import SimulationResults
from pipeline.simulation.scenario import Scenario

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipeline.simulation.observations import WorldObservation


def run_simulation(simulation: SimulationConfig, config: PipelineConfig, console: Console) -> SimulationResults:
    """Makes the worlds, trains, deploys and evaluates whatever the cache does not hold yet, and works everything out.

    Args:
      simulation: the simulation.
      config: the pipeline's configuration, in the simulation's workspace.
      console: where progress goes.

    Raises:
      ConfigError: if settings do not exist, or the configuration and the schema do not fit.
      DataQualityError: if the data that worlds are to be like cannot be read.
      PipelineFailedError: if a component failed. What ended before is found in the cache the next time.
      WorkspaceBusyError: if another simulation of this name is running in the workspace.
    """
    with local.exclusive(Path(config.workspace)):
        grounding = ground_in(load_config(simulation.like)) if simulation.like else Grounding()
        observations = []
        for number, seed in enumerate(simulation.seeds, start=1):
            scenario = Scenario.of(simulation, grounding, seed)
            console.print(f"[bold]World {number} of {len(simulation.seeds)}[/bold] (seed {seed})", highlight=False)
            observations.append(_run_world(simulation, world_config(config, seed), scenario, console))
        from pipeline.simulation.analysis import summarise

        with console.status("Comparing figures with online value …"):
            return summarise(simulation, grounding, observations)


def make_log(config: PipelineConfig, scenario: Scenario, console: Console) -> None:
    """Writes the log of a world, unless it is there."""
    directory = Path(config.data.directory)
    mark = directory.parent / "scenario.json"
    if mark.is_file() and mark.read_text(encoding="utf-8") == scenario.to_json() and not damage(directory):
        return
    with console.status(f"Writing a log of {scenario.logging.lists:,} lists …"):
        write_tables(directory, tables(scenario.world, simulate_log(scenario.world, scenario.logging)))
        write_text_atomically(mark, scenario.to_json())


def write_results(results: SimulationResults, directory: Path) -> tuple[Path, Path]:
    """Writes `simulation.json` and the page that shows it, each aside and then renamed.

    Returns:
      The two files.
    """
    from pipeline.simulation.page import render_page

    return experiment_results.write_results(results, render_page(results), directory, "simulation")


def _run_world(
    simulation: SimulationConfig, config: PipelineConfig, scenario: Scenario, console: Console
) -> WorldObservation:
    make_log(config, scenario, console)
    fits = plan_fits(simulation)

    def build(prepared: PipelineConfig) -> Pipeline:
        from pipeline.simulation.pipeline import create_simulation_pipeline

        return create_simulation_pipeline(prepared, simulation, scenario)

    local.run_pipeline(config, console, build, [FitProgress(fits, console)])
    from pipeline.simulation.observations import observe

    return observe(scenario, config, fits)
