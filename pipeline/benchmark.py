"""Where the time of a run goes, cold and all cached; how fast training is; what intervals cost; in own processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.evaluation_benchmark import EvaluationBenchmark, print_evaluation
from pipeline.runs import RunReport, RunStore
from pipeline.training_benchmark import TrainingBenchmark, print_training

# Components that spend their time in Beam pipelines. ExampleValidator has an executor without one.
_BEAM_PARTS = ("ExampleGen", "Statistics", "Transform", "Evaluator")
_IMPORT = "import pipeline.pipeline"


class BenchmarkError(RuntimeError):
    """A measured process failed. The message holds the end of what it said."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One process.

    Attributes:
      seconds: wall-clock time from start to exit.
      cpu_seconds: time on all processors.
      peak_mebibytes: largest resident memory of the process; at least that of who measures it.
    """

    seconds: float
    cpu_seconds: float
    peak_mebibytes: float


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The figures of one benchmark.

    Attributes:
      imports: a process that does nothing but import what a run imports.
      cold: a run in an empty workspace.
      cached: the same run again.
      report: the cold run's report.
      training: training throughput on the cold run's data.
      evaluation: what intervals and a baseline cost, on the cold run's model.
    """

    imports: Measurement
    cold: Measurement
    cached: Measurement
    report: RunReport
    training: TrainingBenchmark
    evaluation: EvaluationBenchmark

    @property
    def beam_seconds(self) -> float:
        """Seconds in components that run Beam pipelines."""
        return sum(c.seconds for name, c in self.report.components.items() if name.endswith(_BEAM_PARTS))

    @property
    def training_seconds(self) -> float:
        """Seconds of fitting, without reading the catalogue and exporting."""
        return float(self.report.training["fit_seconds"])


def run_benchmark(name_or_path: str, overrides: list[str], console: Console) -> Benchmark:
    """Runs the pipeline twice in a workspace of its own, which is removed afterwards.

    Args:
      name_or_path: the configuration, as for `marquee run`.
      overrides: assignments, as for `marquee run`.
      console: where progress goes.

    Raises:
      BenchmarkError: if a run fails.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as workspace:
        run = [sys.executable, "-m", "pipeline.cli", "run", "--config", name_or_path]
        assignments = [*overrides, f"workspace={workspace}"]
        for override in assignments:
            run += ["--set", override]
        with console.status("importing …"):
            imports = measure([sys.executable, "-c", _IMPORT])
        with console.status("cold run …"):
            cold = measure(run)
        report = RunStore(f"{workspace}/metadata.sqlite").report()
        with console.status("cached run …"):
            cached = measure(run)
        figures = Path(workspace) / "figures.json"
        with console.status("training beside a plain loop …"):
            measure([sys.executable, "-m", "pipeline.training_benchmark", name_or_path, str(figures), *assignments])
        training = TrainingBenchmark.from_json(figures.read_text(encoding="utf-8"))
        with console.status("evaluating with intervals and a baseline, and without …"):
            measure([sys.executable, "-m", "pipeline.evaluation_benchmark", name_or_path, str(figures), *assignments])
        evaluation = EvaluationBenchmark.from_json(figures.read_text(encoding="utf-8"))
    return Benchmark(imports, cold, cached, report, training, evaluation)


def print_benchmark(benchmark: Benchmark, console: Console) -> None:
    """Prints the figures for a person."""
    cold = benchmark.cold
    table = Table(title="Cold run", title_justify="left", box=None, pad_edge=False)
    table.add_column("component")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name, component in benchmark.report.components.items():
        table.add_row(name, f"{component.seconds:.1f}", f"{component.seconds / cold.seconds:.0%}")
    table.add_section()
    named = benchmark.beam_seconds + benchmark.training_seconds + benchmark.imports.seconds
    for name, seconds in (
        ("Beam", benchmark.beam_seconds),
        ("training", benchmark.training_seconds),
        ("imports", benchmark.imports.seconds),
        ("everything else", cold.seconds - named),
        ("the whole process", cold.seconds),
    ):
        table.add_row(f"[bold]{name}[/bold]", f"{seconds:.1f}", f"{seconds / cold.seconds:.0%}")
    console.print(table)
    console.print(
        f"Peak memory {cold.peak_mebibytes:,.0f} MiB; {cold.cpu_seconds:.0f} s on {os.cpu_count()} processors.\n"
        f"All cached: {benchmark.cached.seconds:.1f} s, {benchmark.cached.seconds / cold.seconds:.2f} of the cold run.",
        highlight=False,
    )
    console.print()
    print_training(benchmark.training, console)
    console.print()
    print_evaluation(benchmark.evaluation, console)


def measure(command: list[str]) -> Measurement:
    """Runs a command to its end and measures it.

    Raises:
      BenchmarkError: if it ends with another code than 0.
    """
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            tail = output.read().decode("utf-8", "replace").strip().splitlines()[-10:]
            raise BenchmarkError(f"{' '.join(command)} ended with code {process.returncode}:\n" + "\n".join(tail))
    return Measurement(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
