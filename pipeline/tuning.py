"""Searches for settings on this machine, and tells what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from rich.table import Table

from modules.settings import nest_settings
from modules.trials import Search, Trial
from pipeline.config import PipelineConfig
from pipeline.local import run_locally
from pipeline.search_results import latest_search

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline


def tune_locally(config: PipelineConfig, families: Sequence[str], console: Console) -> list[Search]:
    """Searches for the settings of families; what was done before is found in the cache.

    Args:
      config: what to tune, and how long: see `TunerConfig`.
      families: families to tune; empty for all that there is something to tune of.
      console: where progress goes.

    Returns:
      A search per family.

    Raises:
      ConfigError: see `create_tuning_pipeline`.
      PipelineFailedError: if a component failed, a search of which every trial failed included.
      WorkspaceBusyError: if a run is using the workspace.
    """
    tuned = list(families)

    def build(prepared: PipelineConfig) -> Pipeline:
        from pipeline.pipeline import create_tuning_pipeline

        tuned[:] = tuned or _tunable_families(prepared)
        return create_tuning_pipeline(prepared, tuned, prepared.metadata_path)

    run_locally(config, console, build)
    searches = [latest_search(config.metadata_path, config.name, family) for family in tuned]
    return [search for search in searches if search is not None]


def tuned_section(searches: Iterable[Search]) -> str:
    """Returns the best settings of searches as the YAML section that makes a configuration use them."""
    best: dict[str, Any] = {search.family: nest_settings(search.ranked()[0].settings) for search in searches}
    return yaml.safe_dump({"tuned": best}, sort_keys=False, default_flow_style=None, width=80).rstrip()


def print_search(search: Search, console: Console) -> None:
    """Prints the trials of a search, the best first."""
    console.print()
    title = f"Trials of {search.family} by validation NDCG@10"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column("NDCG@10", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("settings", overflow="fold")
    for trial in search.ranked():
        table.add_row(str(trial.number), _outcome(trial), f"{trial.seconds:.1f}", _settings_text(trial))
    console.print(table, markup=False)
    for trial in search.trials:
        if trial.failure is not None:
            reason = trial.failure.splitlines()[0]
            console.print(f"Trial {trial.number} failed: {reason}", markup=False, highlight=False, soft_wrap=True)
    best, configured = search.ranked()[0], search.trials[0]
    console.print(_verdict(best, configured), markup=False, highlight=False)


def _tunable_families(config: PipelineConfig) -> list[str]:
    from modules.models.registry import FAMILIES, create_recommender

    return [family for family in FAMILIES if create_recommender(family, config.settings_of(family)).config.search_space]


def _outcome(trial: Trial) -> str:
    return "failed" if trial.validation_ndcg is None else f"{trial.validation_ndcg:.4f}"


def _settings_text(trial: Trial) -> str:
    text = yaml.safe_dump(trial.settings, sort_keys=False, default_flow_style=True, width=10_000).strip()
    return text[1:-1] + ("  (as configured)" if trial.number == 0 else "")


def _verdict(best: Trial, configured: Trial) -> str:
    if best.number == configured.number:
        return "Nothing better than the settings as they are configured was found."
    if best.validation_ndcg is None or configured.validation_ndcg is None:
        return "A fit with the settings as they are configured failed."
    gain = best.validation_ndcg - configured.validation_ndcg
    return f"Validation NDCG@10 {gain:+.4f} against the settings as they are configured."
