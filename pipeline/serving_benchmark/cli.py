"""`marquee bench-serving`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipeline.options import DEFAULT_CONFIG, ConfigOption, SetOption, fail, load_config_or_fail

if TYPE_CHECKING:
    from pipeline.serving_benchmark.benchmark import ModelBenchmark


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(name="bench-serving", epilog="Example: marquee bench-serving --sizes 0,100000")(bench_serving)


def bench_serving(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    sizes: Annotated[
        str, typer.Option(help="Sizes of the catalogues; 0 is the real one, larger ones get synthetic titles.")
    ] = "0,100000,1000000",
    connections: Annotated[str, typer.Option(help="Clients that ask at once.")] = "1,8,32,128",
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of each load.")] = 3.0,
    output: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Measure the local model server beside the direct call of the model; needs a finished run."""
    settings = load_config_or_fail(config, overrides)
    chosen_sizes, chosen_connections = _numbers("--sizes", sizes, 0), _numbers("--connections", connections, 1)
    from pipeline.atomic_files import write_text_atomically
    from pipeline.runs import NoRunError
    from pipeline.serving.process import ServerProcessError
    from pipeline.serving_benchmark.benchmark import ServingBenchmarkError, run_serving_benchmark

    console = Console()
    try:
        benchmark = run_serving_benchmark(
            config,
            overrides,
            settings,
            console,
            chosen_sizes,
            chosen_connections,
            seconds,
            lambda measured: print_model(measured, console),
        )
    except (NoRunError, FileNotFoundError, ServingBenchmarkError, ServerProcessError) as error:
        raise fail(str(error)) from error
    if output is not None:
        write_text_atomically(output, benchmark.model_dump_json(indent=2))


def print_model(one: ModelBenchmark, console: Console) -> None:
    """Prints the figures of a model for a person."""
    recall = "" if one.model.retrieval == "exact" else f", recall@100 {one.model.recall:.3f}"
    table = Table(
        title=f"{one.model.num_items:,} titles, {one.model.retrieval} retrieval{recall}; the server starts in "
        f"{one.start_seconds:.1f} s",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("connections", "batching"):
        table.add_column(name, justify="left", no_wrap=True)
    for name in ("requests/s", "p50 ms", "p95 ms", "p99 ms", "errors", "others"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, milliseconds in (
        ("direct, in a row", one.back_to_back_milliseconds),
        ("direct, in turn", one.direct_milliseconds),
        ("1, in turn", one.served_milliseconds),
    ):
        table.add_row(name, "", "", *(f"{value:.2f}" for value in milliseconds.values()))
    for m in one.measurements:
        latencies = [f"{value:.2f}" for value in m.milliseconds.values()] or ["", "", ""]
        cells = [f"{m.requests_per_second:,.0f}", *latencies, str(sum(m.errors.values())), str(m.other_lists)]
        table.add_row(str(m.connections), "on" if m.batching else "off", *cells)
    console.print(table, highlight=False)
    for error in sorted({error for m in one.measurements for error in m.errors}):
        console.print(f"  error: {error}", highlight=False, markup=False, overflow="ellipsis", no_wrap=True)
    ratios = one.ratios
    console.print(
        f"p50 of a request : direct call, in turn, {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f} over {len(ratios)} rounds)."
        + (f" Requests/s of 32 connections with batching : one without {one.gain:.2f}." if one.gain else "")
        + "\n",
        highlight=False,
    )


def _numbers(option: str, text: str, least: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise fail(f"{option}: received {text!r}; expected whole numbers from {least} on, separated by commas")
    return numbers
