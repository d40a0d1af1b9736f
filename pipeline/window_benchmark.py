"""What continuous training saves: the run on the next window of spans, beside one that begins from nothing.

An expansion of the configured data is cut into three spans of equal size by time. A first run learns from the spans
1 and 2. Then the spans 2 and 3 are learned from twice: in the workspace of the first run, beginning with its model, and
in a fresh one. What is compared is the seconds of the components that keep something of a span, and the passes over the
training split until the fit from nothing has come to its best, which the same validation split tells.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
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
class WarmStartFigures:
    """One fit from nothing, and the one that began with the weights of the model of spans 1 and 2.

    Attributes:
      family: of the model.
      seed: of both fits.
      cold_best: best validation NDCG@10 of the fit from nothing.
      cold_passes: passes over the training split until then.
      warm_best: best validation NDCG@10 of the other.
      warm_passes: its passes until it had come to `cold_best`; None if it never did.
    """

    family: str
    seed: int
    cold_best: float
    cold_passes: int
    warm_best: float
    warm_passes: int | None


def run_window_benchmark(
    name_or_path: str,
    assignments: Sequence[str],
    interactions: int,
    families: Sequence[str],
    seeds: Sequence[int],
    console: Console,
) -> tuple[list[KeptFigures], list[WarmStartFigures]]:
    """Runs the three runs for each family and seed, in a folder of their own, which is removed afterwards.

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
                model = [f"model.family={family}", f"model.seed={seed}"]
                run("kept", SPANS - 1, _LAST, *model)
                warm = run("kept", SPANS, _TRAINER, *model, "model.warm_start={}")
                cold = run("fresh", SPANS, _TRAINER, *model)
                if not kept:  # Later runs find these components in the cache.
                    kept = [
                        KeptFigures(name, cold.components[name].seconds, warm.components[name].seconds)
                        for name in KEEPING
                    ]
                started.append(compare(family, seed, cold.training, warm.training))
                console.print(describe(started[-1]), highlight=False, soft_wrap=True)
    return kept, started


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
        for file in source.glob("[iu]*s.parquet"):
            (folder / file.name).write_bytes(file.read_bytes())


def compare(family: str, seed: int, cold: Mapping[str, Any], warm: Mapping[str, Any]) -> WarmStartFigures:
    """Compares the Trainer's reports of two fits.

    Raises:
      BenchmarkError: if a fit has no passes, or the second did not begin with the weights of a model.
    """
    curves = [[float(epoch["validation_ndcg@10"]) for epoch in report["epochs"]] for report in (cold, warm)]
    if not all(curves):
        raise BenchmarkError(f"{family} is not fitted in passes over the data; expected a family that is")
    if warm["start"].get("kind") != "warm":
        raise BenchmarkError(f"{family} did not begin with the weights of the earlier model: {warm['start']}")
    cold_curve, warm_curve = curves
    best = max(cold_curve)
    reached = next((number for number, value in enumerate(warm_curve, 1) if value >= best), None)
    return WarmStartFigures(family, seed, best, cold_curve.index(best) + 1, max(warm_curve), reached)


def describe(figures: WarmStartFigures) -> str:
    """Returns the figures of a fit in one line."""
    reached = f"after {figures.warm_passes}" if figures.warm_passes else "never"
    return (
        f"{figures.family}, seed {figures.seed}: best validation NDCG@10 {figures.cold_best:.4f} after "
        f"{figures.cold_passes} passes from nothing; {reached} from the earlier model, whose best is "
        f"{figures.warm_best:.4f}"
    )


def print_windows(kept: Sequence[KeptFigures], started: Sequence[WarmStartFigures], console: Console) -> None:
    """Prints the figures for a person."""
    table = Table(title="With what was kept of a span", title_justify="left", box=None, pad_edge=False)
    table.add_column("component")
    for name in ("fresh s", "kept s", "times as fast"):
        table.add_column(name, justify="right")
    for one in kept:
        table.add_row(one.component, f"{one.fresh_seconds:.1f}", f"{one.kept_seconds:.1f}", f"{one.ratio:.2f}")
    console.print(table)
    table = Table(title="Passes to the same NDCG@10", title_justify="left", box=None, pad_edge=False)
    table.add_column("family")
    for name in ("seed", "from nothing", "warm", "NDCG@10", "warm best"):
        table.add_column(name, justify="right")
    for fit in started:
        table.add_row(
            fit.family,
            str(fit.seed),
            str(fit.cold_passes),
            str(fit.warm_passes or "never"),
            f"{fit.cold_best:.4f}",
            f"{fit.warm_best:.4f}",
        )
    console.print(table)


def to_json(kept: Sequence[KeptFigures], started: Sequence[WarmStartFigures]) -> str:
    """Returns the figures as JSON: lists `kept` and `warm_starts` of objects with the fields of the classes."""
    figures = {
        "kept": [dataclasses.asdict(one) for one in kept],
        "warm_starts": [dataclasses.asdict(one) for one in started],
    }
    return json.dumps(figures, indent=2)
