"""The `marquee` command."""

from __future__ import annotations

import datetime
import logging
import os
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from modules.features import SchemaError
from pipeline import release_cli, serve_cli, serving_cli, skew_cli, tuning_cli
from pipeline.components.source_storage import DataQualityError
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.datasets.cli import data_app
from pipeline.kubeflow import submit_cli
from pipeline.kubeflow.compile_cli import DEFAULT_IMAGE, compile_or_fail
from pipeline.local_checks import require_data, require_local_workspace
from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    SetOption,
    fail,
    load_config_or_fail,
    load_schema_or_fail,
)
from pipeline.report import cli as report_cli
from pipeline.schema_cli import schema_app
from pipeline.serving_benchmark import cli as serving_benchmark_cli
from pipeline.simulation import cli as simulation_cli
from pipeline.study import cli as study_cli

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Marquee: a production recommender pipeline. Start with `marquee data movielens-100k` and `marquee run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(schema_app, name="schema")

serve_cli.register(app)
serving_cli.register(app)
release_cli.register(app)
skew_cli.register(app)
tuning_cli.register(app)
study_cli.register(app)
simulation_cli.register(app)
report_cli.register(app)
serving_benchmark_cli.register(app)
submit_cli.register(app)


def main() -> None:
    """Entry point of the console script."""
    # TFRS needs Keras 2. Must be set before TensorFlow is imported anywhere.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Libraries talk at import; `log_to_file` lets them, into a file.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    app()


@app.command(epilog="Example: marquee run --config movielens-100k --set model.family=popularity")
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Train with what `marquee tune` found; the same as model.use_tuned=true.")
    ] = False,
    if_new: Annotated[
        bool, typer.Option("--if-new", help="Do nothing unless a span has come or changed since a run ended well.")
    ] = False,
) -> None:
    """Run the pipeline on this machine and tell what came of it."""
    from pipeline import new_data, terminal

    overrides = [*overrides, *(["model.use_tuned=true"] if tuned else [])]
    settings = load_config_or_fail(config, overrides)
    require_local_workspace(settings)
    require_data(settings)
    load_schema_or_fail(settings)
    if if_new:
        try:
            nothing_new = new_data.find_nothing_new(settings)
        except (ConfigError, DataQualityError) as error:
            raise fail(str(error)) from error
        if nothing_new:
            print(nothing_new)
            return
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    log = Path(settings.log_directory) / f"run-{started}.log"
    console = Console()
    with terminal.log_to_file(log):
        console.print(f"[bold]{settings.name}[/bold]: model {settings.model.family}, data {settings.data.directory}")
        code = _run_and_summarise(settings, console, log, [config, *overrides])
    raise typer.Exit(code)


def _run_and_summarise(settings: PipelineConfig, console: Console, log: Path, arguments: list[str]) -> int:
    from pipeline import local, next_steps, run_summary, runs

    run_id, failed = None, False
    try:
        local.run_locally(settings, console)
    except (local.PipelineFailedError, local.WorkspaceBusyError, ConfigError, SchemaError) as error:
        run_id, failed = getattr(error, "run_id", None), True
        if run_id is None:  # There is nothing in ML Metadata to tell of.
            console.print(f"\n[red]The run failed:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            console.print(f"The whole story is in {log}", highlight=False, soft_wrap=True)
            return 1
    report = runs.RunStore(settings.metadata_path).report(run_id)
    run_summary.print_summary(report, console)
    console.print(f"{'The whole story is in' if failed else 'Log:'} {log}", highlight=False, soft_wrap=True)
    _link_report(settings, report.run_id, console)
    run_summary.print_next_steps(next_steps.next_steps(report, settings, *arguments), console)
    return int(failed)


def _link_report(settings: PipelineConfig, run_id: str, console: Console) -> None:
    """Writes the run's page. The run is done whether or not that succeeds."""
    from pipeline.report.writer import write_report

    try:
        with console.status("writing the report …"):
            console.print(f"Report: {write_report(settings, run_id)}", highlight=False, soft_wrap=True)
    except Exception as error:
        logger.exception("no report of run %s", run_id)
        console.print(f"[yellow]No report could be written:[/yellow] {escape(str(error))}", soft_wrap=True)


@app.command(epilog="Example: marquee status --json | jq '.metrics.overall[\"ndcg@10\"]'")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    run_id: Annotated[str | None, typer.Option("--run", help="An earlier run; by default the latest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Tell of a run, from ML Metadata."""
    from pipeline import next_steps, run_summary, runs

    settings = load_config_or_fail(config, overrides)
    try:
        report = runs.RunStore(settings.metadata_path).report(run_id)
    except runs.NoRunError as error:
        raise fail(str(error)) from error
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        console = Console()
        run_summary.print_summary(report, console)
        run_summary.print_next_steps(next_steps.next_steps(report, settings, config, *overrides), console)


@app.command(epilog="Example: marquee bench --config movielens-100k")
def bench(config: ConfigOption = DEFAULT_CONFIG, overrides: SetOption = []) -> None:  # noqa: B006
    """Measure a cold and a cached run, by component, and how fast the transformer trains."""
    from pipeline.benchmark import BenchmarkError, print_benchmark, run_benchmark

    settings = load_config_or_fail(config, overrides)
    require_data(settings)
    console = Console()
    try:
        print_benchmark(run_benchmark(config, overrides, console), console)
    except BenchmarkError as error:
        raise fail(str(error)) from error


@app.command(name="bench-scale", epilog="Example: marquee bench-scale --sizes 100000,1000000 --output scale.json")
def bench_scale(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    sizes: Annotated[str, typer.Option(help="Interactions, about, in ascending order.")] = "100000,1000000,10000000",
    until: Annotated[str, typer.Option(help="The last component to measure.")] = "RecommenderEvaluator",
    item_copies: Annotated[int, typer.Option(min=1, help="Copies of the catalogue, for large embedding tables.")] = 4,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Measure how each component grows with the log, on expansions of the data."""
    from pipeline import scale_benchmark
    from pipeline.benchmark import BenchmarkError
    from pipeline.datasets.expand import ExpandError

    settings = load_config_or_fail(config, overrides)
    require_data(settings)
    if until not in scale_benchmark.COMPONENTS:
        raise fail(f"--until: expected one of {', '.join(scale_benchmark.COMPONENTS)}; received {until!r}")
    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError as error:
        raise fail(f"--sizes: expected whole numbers with commas between; received {sizes!r}") from error
    if numbers != sorted(set(numbers)):
        raise fail(f"--sizes: expected ascending numbers; received {sizes!r}")
    components = scale_benchmark.COMPONENTS[: scale_benchmark.COMPONENTS.index(until) + 1]
    console = Console()
    try:
        figures = scale_benchmark.run_scale_benchmark(config, overrides, numbers, components, console, item_copies)
    except (BenchmarkError, ExpandError, DataQualityError, OSError) as error:
        raise fail(str(error)) from error
    scale_benchmark.print_scale(figures, console)
    if output:
        output.write_text(scale_benchmark.to_json(figures), encoding="utf-8")


@app.command(
    name="bench-windows", epilog="Example: marquee bench-windows --families two_tower,transformer --seeds 1,2,3"
)
def bench_windows(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    interactions: Annotated[int, typer.Option(min=1, help="Events in all three spans, about.")] = 300_000,
    families: Annotated[str, typer.Option(help="Families that are fitted in passes over the data.")] = "two_tower",
    seeds: Annotated[str, typer.Option(help="Seeds of the fits.")] = "1,2,3",
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Measure what continuous training saves, on three spans of an expansion of the data."""
    from pipeline import window_benchmark
    from pipeline.benchmark import BenchmarkError
    from pipeline.datasets.expand import ExpandError

    settings = load_config_or_fail(config, overrides)
    require_data(settings)
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise fail(f"--seeds: expected whole numbers with commas between; received {seeds!r}") from error
    console = Console()
    try:
        figures = window_benchmark.run_window_benchmark(
            config, overrides, interactions, families.split(","), numbers, console
        )
    except (BenchmarkError, ConfigError, ExpandError, DataQualityError, OSError) as error:
        raise fail(str(error)) from error
    window_benchmark.print_windows(*figures, console)
    if output:
        output.write_text(window_benchmark.to_json(*figures), encoding="utf-8")


@app.command(
    name="compile",
    epilog="Example: marquee compile --output recommender.yaml --image registry/marquee:1.0",
)
def compile_(
    output: Annotated[Path, typer.Option(help="File to write the Kubeflow Pipelines specification to.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    image: Annotated[str, typer.Option(help="Container image with Marquee installed.")] = DEFAULT_IMAGE,
) -> None:
    """Write the same pipeline as a Kubeflow Pipelines 2.1 specification."""
    compile_or_fail(load_config_or_fail(config, overrides), output, image)
    print(f"Wrote {output}")


if __name__ == "__main__":
    main()
