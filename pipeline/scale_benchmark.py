"""How the pipeline grows with its data: seconds, rows per second and peak memory of each component at several sizes.

The data are fractal expansions of the configured ones. Each component runs in a process of its own, in which those
before it are found in the cache.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.benchmark import measure
from pipeline.benchmark_run import run_until
from pipeline.config import load_config
from pipeline.datasets.expand import expand, overrides
from pipeline.runs import RunStore

COMPONENTS = (
    "InteractionExampleGen",
    "InteractionStatistics",
    "Transform",
    "RecommenderTrainer",
    "RecommenderEvaluator",
)
ITEM_COPIES = 4
"""Copies of the catalogue, by default."""

# One pass over the data, of a model whose step does not depend on how many titles there are.
TRAINING = ("model.family=two_tower", "model.settings.max_epochs=1")


@dataclasses.dataclass(frozen=True)
class ComponentFigures:
    """One component at one size.

    Attributes:
      component: its id.
      interactions: rows of the log.
      seconds: from its driver's start to publication.
      peak_mebibytes: largest resident memory of its process, or of the largest of its worker processes, about 900 of
        which are TensorFlow and TFX.
    """

    component: str
    interactions: int
    seconds: float
    peak_mebibytes: float

    @property
    def rows_per_second(self) -> float:
        """Rows of the log per second."""
        return self.interactions / self.seconds


def run_scale_benchmark(
    name_or_path: str,
    assignments: Sequence[str],
    sizes: Sequence[int],
    components: Sequence[str],
    console: Console,
    item_copies: int = ITEM_COPIES,
) -> list[ComponentFigures]:
    """Runs components on data of several sizes, in a folder of its own, which is removed afterwards.

    Args:
      name_or_path: the configuration, as for `marquee run`.
      assignments: as for `marquee run`.
      sizes: interactions, about, in ascending order.
      components: of `COMPONENTS`, in that order.
      console: where progress and each figure go.
      item_copies: copies of the catalogue; many of them show what large embedding tables cost.

    Raises:
      BenchmarkError: if a component fails.
      ExpandError: if the data cannot be expanded.
    """
    figures = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="marquee-bench-scale-") as folder:
            data = load_config(name_or_path, assignments).data
            directory = Path(folder) / "data"
            made = expand(data, directory, size, item_copies, seed=0, console=console)
            settings = [*TRAINING, *assignments, *overrides(data, directory), f"workspace={folder}/runs"]
            for component in components:
                with console.status(f"{made.interactions:,} interactions: {component} …"):
                    process = measure(run_until(component, name_or_path, settings))
                config = load_config(name_or_path, settings)
                seconds = RunStore(config.metadata_path).report().components[component].seconds
                figures.append(ComponentFigures(component, made.interactions, seconds, process.peak_mebibytes))
                console.print(describe(figures[-1]), highlight=False, soft_wrap=True)
    return figures


def describe(figures: ComponentFigures) -> str:
    """Returns the figures of a component in one line."""
    return (
        f"{figures.interactions:>12,} interactions  {figures.component:<22} {figures.seconds:>8.1f} s "
        f"{figures.rows_per_second:>9,.0f} rows/s {figures.peak_mebibytes:>7,.0f} MiB"
    )


def growth_exponents(figures: Sequence[ComponentFigures]) -> dict[str, list[float]]:
    """Returns by component how its seconds grow from each size to the next: as rows to the power of this."""
    by_component: dict[str, list[ComponentFigures]] = {}
    for one in figures:
        by_component.setdefault(one.component, []).append(one)
    return {
        component: [
            math.log(larger.seconds / smaller.seconds) / math.log(larger.interactions / smaller.interactions)
            for smaller, larger in itertools.pairwise(ordered)
        ]
        for component, ordered in by_component.items()
    }


def print_scale(figures: Sequence[ComponentFigures], console: Console) -> None:
    """Prints the figures for a person."""
    table = Table(title="Growth with the log", title_justify="left", box=None, pad_edge=False)
    table.add_column("component")
    for name in ("interactions", "seconds", "rows/s", "peak MiB", "exponent"):
        table.add_column(name, justify="right")
    exponents = growth_exponents(figures)
    for component, growth in exponents.items():
        table.add_section()
        own = [one for one in figures if one.component == component]
        for one, exponent in zip(own, [None, *growth], strict=True):
            table.add_row(
                component if exponent is None else "",
                f"{one.interactions:,}",
                f"{one.seconds:.1f}",
                f"{one.rows_per_second:,.0f}",
                f"{one.peak_mebibytes:,.0f}",
                "" if exponent is None else f"{exponent:.2f}",
            )
    console.print(table)


def to_json(figures: Sequence[ComponentFigures]) -> str:
    """Returns the figures as JSON: a list of objects, with the fields of `ComponentFigures`."""
    return json.dumps([dataclasses.asdict(one) for one in figures], indent=2)
