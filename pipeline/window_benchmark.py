"""What continuous training saves: the run on the next window of spans, beside one that begins from nothing.

An expansion of the configured data is cut into three spans of equal size by time. A first run learns from the spans
1 and 2. Then the spans 2 and 3 are learned from twice: in the workspace of the first run, beginning with its model, and
in a fresh one. What is compared is the seconds of the components that keep something of a span, and the fewest passes
over the training split that lead to the same validation metric. The learning rate decays over all passes of a fit, so
each number of passes is a fit of its own.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from modules import features
from pipeline.benchmark import BenchmarkError, measure
from pipeline.benchmark_run import run_until
from pipeline.config import load_config
from pipeline.data_config import DataConfig
from pipeline.datasets.expand import expand, overrides
from pipeline.runs import RunReport, RunStore

SPANS = 3
KEEPING = ("InteractionExampleGen", "Transform")
"""Components that keep something of a span."""

GOOD_ENOUGH = 0.99
"""Share of the best validation metric of the full fit that shorter ones must come to."""

Run = Callable[..., RunReport]
"""Takes the workspace, the newest span, the last component and further assignments; returns the run's report."""

_TRAINER, _LAST = "RecommenderTrainer", "AtomicPusher"
# Every model is blessed: whether it is good enough is not what is measured.
_GATE = "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.0, certain: false}]}"


@dataclasses.dataclass(frozen=True)
class KeptFigures:
    """Seconds of a component on spans 2 and 3.

    Attributes:
      component: its id.
      fresh_seconds: in a fresh workspace.
      kept_seconds: where spans 1 and 2 were learned from before.
    """

    component: str
    fresh_seconds: float
    kept_seconds: float

    @property
    def ratio(self) -> float:
        """How many times as fast it was with what was kept."""
        return self.fresh_seconds / self.kept_seconds


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fit of some passes.

    Attributes:
      passes: over the training split, at most; early stopping may end it before.
      best: best validation NDCG@10.
      seconds: of the fit, validation included.
    """

    passes: int
    best: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class WarmStartFigures:
    """The shortest fits that come to `GOOD_ENOUGH` of the best validation NDCG@10 of a fit from nothing.

    Attributes:
      family: of the model.
      seed: of all fits.
      full: the fit from nothing with as many passes as configured.
      cold: the shortest fit from nothing that comes to it.
      warm: the shortest that begins with the weights of the model of spans 1 and 2; None if none of at most as many
        passes as configured does.
    """

    family: str
    seed: int
    full: Fit
    cold: Fit
    warm: Fit | None


def run_window_benchmark(
    name_or_path: str,
    assignments: Sequence[str],
    interactions: int,
    families: Sequence[str],
    seeds: Sequence[int],
    console: Console,
) -> tuple[list[KeptFigures], list[WarmStartFigures]]:
    """Makes the runs for each family and seed, in a folder of their own, which is removed afterwards.

    Args:
      name_or_path: the configuration, as for `marquee run`, of data that are not of spans.
      assignments: as for `marquee run`.
      interactions: about how many there are in all three spans together.
      families: of models fitted by gradient descent.
      seeds: of the fits.
      console: where progress and each figure go.

    Raises:
      BenchmarkError: if a run fails, or a fit has no passes.
      ExpandError: if the data cannot be expanded.
    """
    kept: list[KeptFigures] = []
    started: list[WarmStartFigures] = []
    with tempfile.TemporaryDirectory(prefix="marquee-bench-windows-") as folder:
        data = load_config(name_or_path, assignments).data
        whole, spans = Path(folder) / "data", Path(folder) / "spans"
        expand(data, whole, interactions, item_copies=1, seed=0, console=console)
        split_by_time(whole, spans, data)
        settings = [*assignments, *overrides(data, spans / "span-{SPAN}"), _GATE]

        def run(workspace: str, newest: int, until: str, *further: str) -> RunReport:
            where = [f"workspace={folder}/{workspace}", f"data.window={{spans: 2, newest: {newest}}}"]
            with console.status(f"{workspace} workspace, newest span {newest}, {' '.join(further)} …"):
                measure(run_until(until, name_or_path, [*settings, *where, *further]))
            return RunStore(load_config(name_or_path, [*settings, *where, *further]).metadata_path).report()

        for family in families:
            for seed in seeds:
                figures, fit = _measure(run, family, seed)
                kept = kept or figures  # Later runs find these components in the cache.
                started.append(fit)
                console.print(describe(fit), highlight=False, soft_wrap=True)
    return kept, started


def _measure(run: Run, family: str, seed: int) -> tuple[list[KeptFigures], WarmStartFigures]:
    """Makes the runs of a family and seed."""
    model = (f"model.family={family}", f"model.seed={seed}")
    run("kept", SPANS - 1, _LAST, *model)
    fresh = run("fresh", SPANS, _TRAINER, *model)
    kept: list[RunReport] = []

    def fit_warm(passes: int) -> Fit:
        further = ("model.warm_start={}", f"model.settings.max_epochs={passes}")
        kept.append(run("kept", SPANS, _TRAINER, *model, *further))
        return read_fit(family, kept[-1].training, warm=True)

    def fit_cold(passes: int) -> Fit:
        report = run("fresh", SPANS, _TRAINER, *model, f"model.settings.max_epochs={passes}")
        return read_fit(family, report.training)

    full = read_fit(family, fresh.training)
    warm, cold = (shortest(full, fit) for fit in (fit_warm, fit_cold))
    return compare(fresh, kept[0]), WarmStartFigures(family, seed, full, cold or full, warm)


def split_by_time(source: Path, target: Path, data: DataConfig) -> None:
    """Cuts an expansion into folders `span-1` to `span-3` of equally many events, in order of time.

    Args:
      source: what `expand` has written.
      target: folder to write to.
      data: configuration of the data that were expanded.
    """
    time = data.interactions.columns[features.TIMESTAMP].source
    log = pyarrow.concat_tables(pyarrow.parquet.read_table(file) for file in sorted(source.glob("interactions-*")))
    log = log.take(pyarrow.compute.sort_indices(log, sort_keys=[(time, "ascending")]))
    for span in range(SPANS):
        folder = target / f"span-{span + 1}"
        folder.mkdir(parents=True)
        start, end = (at * log.num_rows // SPANS for at in (span, span + 1))
        pyarrow.parquet.write_table(log.slice(start, end - start), folder / "interactions-00000-of-00001.parquet")
        for table in ("items.parquet", *(["users.parquet"] if data.users else [])):
            shutil.copyfile(source / table, folder / table)


def compare(fresh: RunReport, kept: RunReport) -> list[KeptFigures]:
    """Compares the seconds of two runs on the same spans."""
    return [KeptFigures(name, fresh.components[name].seconds, kept.components[name].seconds) for name in KEEPING]


def read_fit(family: str, training: Mapping[str, Any], warm: bool = False) -> Fit:
    """Reads the Trainer's report of a fit.

    Raises:
      BenchmarkError: if it had no passes, or did not begin with the weights of a model although it was to.
    """
    curve = [float(epoch["validation_ndcg@10"]) for epoch in training["epochs"]]
    if not curve:
        raise BenchmarkError(f"{family} is not fitted in passes over the data; expected a family that is")
    if warm and training["start"].get("kind") != "warm":
        raise BenchmarkError(f"{family} did not begin with the weights of the earlier model: {training['start']}")
    return Fit(len(curve), max(curve), float(training["fit_seconds"]))


def shortest(full: Fit, fit: Callable[[int], Fit]) -> Fit | None:
    """Returns the first fit of 1, 2, ... passes that is good enough; None if none is.

    Args:
      full: what the others are measured by.
      fit: fits with a number of passes.
    """
    fits = (fit(passes) for passes in range(1, full.passes + 1))
    return next((one for one in fits if one.best >= GOOD_ENOUGH * full.best), None)


def describe(figures: WarmStartFigures) -> str:
    """Returns the figures of a family and seed in one line."""
    warm = figures.warm
    reached = (
        f"{warm.passes} passes ({warm.seconds:.0f} s) from the earlier model" if warm else "never from the earlier one"
    )
    return (
        f"{figures.family}, seed {figures.seed}: to {GOOD_ENOUGH:.0%} of {figures.full.best:.4f} in "
        f"{figures.cold.passes} passes ({figures.cold.seconds:.0f} s) from nothing, {reached} from the earlier model"
    )


def print_windows(kept: Sequence[KeptFigures], started: Sequence[WarmStartFigures], console: Console) -> None:
    """Prints the figures for a person."""
    table = Table(title="With what was kept of a span", title_justify="left", box=None, pad_edge=False)
    table.add_column("component")
    for name in ("fresh s", "kept s", "times as fast"):
        table.add_column(name, justify="right")
    for component in kept:
        seconds = (component.fresh_seconds, component.kept_seconds)
        table.add_row(component.component, *(f"{one:.1f}" for one in seconds), f"{component.ratio:.2f}")
    console.print(table)
    title = f"Passes to {GOOD_ENOUGH:.0%} of the NDCG@10 of the full fit"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("family")
    for name in ("seed", "NDCG@10", "from nothing", "warm", "from nothing s", "warm s"):
        table.add_column(name, justify="right")
    for one in started:
        warm = [str(one.warm.passes), f"{one.warm.seconds:.0f}"] if one.warm else ["never", ""]
        table.add_row(
            one.family,
            str(one.seed),
            f"{one.full.best:.4f}",
            str(one.cold.passes),
            warm[0],
            f"{one.cold.seconds:.0f}",
            warm[1],
        )
    console.print(table)


def to_json(kept: Sequence[KeptFigures], started: Sequence[WarmStartFigures]) -> str:
    """Returns the figures as JSON: lists `kept` and `warm_starts` of objects with the fields of the classes."""
    figures = {
        "kept": [dataclasses.asdict(one) for one in kept],
        "warm_starts": [dataclasses.asdict(one) for one in started],
    }
    return json.dumps(figures, indent=2)
