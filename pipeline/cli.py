"""The `marquee` command."""

from __future__ import annotations

import datetime
import os
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline import serving_cli
from pipeline.config import ConfigError, PipelineConfig
from pipeline.datasets.cli import data_app
from pipeline.options import DEFAULT_CONFIG, ConfigOption, SetOption, fail, load_config_or_fail
from pipeline.schema_cli import schema_app

app = typer.Typer(
    help="Marquee: a production recommender pipeline. Start with `marquee data movielens-100k` and `marquee run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(schema_app, name="schema")

serving_cli.register(app)


def main() -> None:
    """Entry point of the console script."""
    # TFRS needs Keras 2. Must be set before TensorFlow is imported anywhere.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Libraries talk at import; `log_to_file` lets them, into a file.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    warnings.simplefilter("ignore")
    app()


@app.command(epilog="Example: marquee run --config movielens-100k --set model.family=popularity")
def run(config: ConfigOption = DEFAULT_CONFIG, overrides: SetOption = []) -> None:  # noqa: B006
    """Run the pipeline on this machine and tell what came of it."""
    from pipeline import terminal

    settings = load_config_or_fail(config, overrides)
    _require_local_workspace(settings)
    _require_data(settings)
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    log = Path(settings.log_directory) / f"run-{started}.log"
    console = Console()
    with terminal.log_to_file(log):
        console.print(f"[bold]{settings.name}[/bold]: model {settings.model.family}, data {settings.data.directory}")
        code = _run_and_summarise(settings, console, log)
    raise typer.Exit(code)


def _run_and_summarise(settings: PipelineConfig, console: Console, log: Path) -> int:
    from pipeline import local, run_summary, runs

    try:
        local.run_locally(settings, console)
    except (local.PipelineFailedError, local.WorkspaceBusyError, ConfigError) as error:
        console.print(f"\n[red]The run failed:[/red] {escape(str(error))}", highlight=False)
        console.print(f"The whole story is in {log}", highlight=False)
        return 1
    report = runs.RunStore(settings.metadata_path).report()
    run_summary.print_summary(report, console)
    console.print(f"Log: {log}", highlight=False)
    if report.pushed is not None:
        console.print("\nNext:", highlight=False)
        for command in ("marquee serve &", "marquee recommend --user 196", "marquee status --json"):
            console.print(f"  .venv/bin/{command}", highlight=False)
    return 0


@app.command(epilog="Example: marquee status --json | jq '.metrics.overall[\"ndcg@10\"]'")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    run_id: Annotated[str | None, typer.Option("--run", help="An earlier run; by default the latest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Tell of a run, from ML Metadata."""
    from pipeline import run_summary, runs

    settings = load_config_or_fail(config, overrides)
    try:
        report = runs.RunStore(settings.metadata_path).report(run_id)
    except runs.NoRunError as error:
        raise fail(str(error)) from error
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        run_summary.print_summary(report, Console())


@app.command(epilog="Example: marquee bench --config movielens-100k")
def bench(config: ConfigOption = DEFAULT_CONFIG, overrides: SetOption = []) -> None:  # noqa: B006
    """Measure a cold and a cached run: seconds by component, Beam, training and imports, and peak memory."""
    from pipeline.benchmark import BenchmarkError, print_benchmark, run_benchmark

    settings = load_config_or_fail(config, overrides)
    _require_data(settings)
    console = Console()
    try:
        print_benchmark(run_benchmark(config, overrides, console), console)
    except BenchmarkError as error:
        raise fail(str(error)) from error


@app.command(
    name="compile",
    epilog="Example: marquee compile --output recommender.yaml --image registry/marquee:1.0",
)
def compile_(
    output: Annotated[Path, typer.Option(help="File to write the Kubeflow Pipelines specification to.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    image: Annotated[str, typer.Option(help="Container image with Marquee installed.")] = "marquee:latest",
) -> None:
    """Write the same pipeline as a Kubeflow Pipelines 2.1 specification."""
    from pipeline import terminal

    settings = load_config_or_fail(config, overrides)
    # The workspace may be remote; the log of compiling is of this machine.
    log = Path(tempfile.gettempdir()) / "marquee-compile.log"
    reason: str | None = None
    with terminal.log_to_file(log):
        from pipeline.kubeflow_runner import KubeflowMissingError, compile_pipeline

        try:
            compile_pipeline(settings, output, image)
        except (ConfigError, KubeflowMissingError) as error:
            reason = str(error)
    if reason is not None:
        raise fail(f"not compiled: {reason}")
    print(f"Wrote {output}")


def _require_local_workspace(settings: PipelineConfig) -> None:
    if "://" in settings.workspace:
        raise fail(f"workspace: a run on this machine needs a local folder; received {settings.workspace!r}")


def _require_data(settings: PipelineConfig) -> None:
    directory = settings.data.directory.split("{", 1)[0]
    if "://" not in directory and not Path(directory).is_dir():
        raise fail(
            f"data.directory: no such folder {settings.data.directory!r}; "
            f"`marquee data movielens-100k` and `marquee data synthetic` make one, your own data go anywhere"
        )


if __name__ == "__main__":
    main()
