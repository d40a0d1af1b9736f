"""What is released: labels, versions with their state on the server, and the record; and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.serving.errors import ServingError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.live_server import LiveServer
from pipeline.serving.release.model_config_file import labels_of, read_config
from pipeline.serving.release.record import Move, RunEvidence, read_moves
from pipeline.serving.release.shadow_report import ShadowReport, SideReport

_METRICS = ("ndcg@10", "recall@10")
_MOVES_SHOWN = 20
_RUN_ID_SHOWN = len("2026-01-01T00:00:00")


class VersionOverview(BaseModel):
    """One version."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    version: int
    """Its number."""
    labels: list[str]
    """Labels that the file gives it."""
    pushed: bool
    """Whether its folder holds a model."""
    state: str | None
    """State on the server; None if the server does not know it, or does not answer."""
    error: str = ""
    """Why the server could not load it."""
    run: RunEvidence | None
    """The run that pushed it; None if ML Metadata has none."""


class Overview(BaseModel):
    """Labels, versions, history."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str
    """Name of the model."""
    address: str
    """The server that was asked."""
    server: str
    """`answers`, or why it does not."""
    labels: dict[str, int]
    """Versions by label, as the file has them."""
    served_labels: dict[str, int]
    """Versions that the server answers with."""
    versions: list[VersionOverview]
    """The latest first."""
    history: list[Move]
    """The record, the earliest first."""


def look(folder: ServingFolder, server: LiveServer, evidence: Mapping[int, RunEvidence]) -> Overview:
    """Collects it all; a server that does not answer is no error.

    Raises:
      ReleaseError: if the file or the record cannot be read.
    """
    labels = labels_of(read_config(folder.config), folder.model_name)
    history = [move for move in read_moves(folder.record) if move.model == folder.model_name]
    answers, statuses, served = "answers", {}, {}
    try:
        statuses = server.statuses()
        for label in labels:
            try:
                served[label] = server.resolve(label)
            except ServingError as error:
                if not statuses:
                    raise
                answers = f"does not answer for {label!r}: {error.message}"
    except ServingError as error:
        answers = error.message
    pushed = folder.pushed_versions()
    versions = [
        VersionOverview(
            version=version,
            labels=sorted(label for label, labelled in labels.items() if labelled == version),
            pushed=version in pushed,
            state=statuses[version].state if version in statuses else None,
            error=statuses[version].error if version in statuses else "",
            run=evidence.get(version),
        )
        for version in sorted({*pushed, *statuses, *labels.values()}, reverse=True)
    ]
    return Overview(
        model=folder.model_name,
        address=server.address,
        server=answers,
        labels=labels,
        served_labels=served,
        versions=versions,
        history=history,
    )


def print_overview(overview: Overview, console: Console) -> None:
    """Prints the versions, and the latest moves."""
    console.print(f"[bold]{overview.model}[/bold] on {overview.address}: {escape(overview.server)}", highlight=False)
    for label, version in overview.labels.items():
        served = overview.served_labels.get(label)
        if served is not None and served != version:
            console.print(f"[red]the server answers for {label!r} with version {served}, not {version}[/red]")
    versions = Table(box=None, pad_edge=False)
    for column in ("version", "labels", "state", *_METRICS, "gate", "run"):
        versions.add_column(
            column, justify="right" if column in _METRICS else "left", no_wrap=column not in ("labels", "state")
        )
    for entry in overview.versions:
        state = entry.state or ("" if entry.pushed else "[red]folder gone[/red]")
        versions.add_row(
            str(entry.version),
            ", ".join(entry.labels),
            state + (f" [red]{escape(entry.error)}[/red]" if entry.error else ""),
            *_describe_run(entry.run),
            entry.run.run_id[:_RUN_ID_SHOWN] if entry.run else "",
        )
    console.print(versions, highlight=False)
    if not overview.history:
        console.print("No label has been moved yet.")
        return
    console.print()
    moves = Table(box=None, pad_edge=False)
    for column in ("when (UTC)", "", "label", "from", "to", "who, why"):
        moves.add_column(column, no_wrap=column != "who, why")
    for move in overview.history[-_MOVES_SHOWN:]:
        moves.add_row(
            move.when.strftime("%Y-%m-%d %H:%M:%S"),
            move.action + (" offline" if move.state == "offline" else ""),
            move.label,
            "" if move.from_version is None else str(move.from_version),
            "dropped" if move.to_version is None else str(move.to_version),
            escape(": ".join(filter(None, (move.who, move.note)))),
        )
    console.print(moves, highlight=False)


def print_moves(moves: list[Move], console: Console) -> None:
    """Tells of moves made just now."""
    for move in moves:
        origin = "" if move.from_version is None else f"{move.from_version} → "
        target = "dropped" if move.to_version is None else str(move.to_version)
        how = f"as {move.address} confirms" if move.state == "confirmed" else "in the file only"
        console.print(f"[bold]{escape(move.label)}[/bold]: {origin}{target}, {how}", highlight=False, soft_wrap=True)
    runs = {move.to_version: move.run for move in moves if move.run is not None}
    for version, run in runs.items():
        metrics = ", ".join(f"{name} {run.metrics[name]:.4f}" for name in _METRICS if name in run.metrics)
        gate = {True: "passed the gate", False: "failed the gate", None: "not evaluated"}[run.blessed]
        console.print(
            f"version {version} is of run {run.run_id}: {', '.join(filter(None, (metrics, gate)))}",
            highlight=False,
            soft_wrap=True,
        )


def print_shadow(report: ShadowReport, console: Console) -> None:
    """Prints how canary and stable compare."""
    table = Table(
        box=None, pad_edge=False, title=f"{report.requests} logged requests, sent to both", title_justify="left"
    )
    for column in ("", "version", "errors", "malformed", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    for side in (report.canary, report.stable):
        table.add_row(side.label, str(side.version), str(side.errors), str(side.malformed), *_latencies(side))
    console.print(table, highlight=False)
    if report.overlap is not None and report.rank_biased_overlap is not None and report.top_changed is not None:
        console.print(
            f"{report.lists} lists: overlap at {report.k} {report.overlap:.3f}, rank-biased overlap (p = 0.9) "
            f"{report.rank_biased_overlap:.3f}, first title changed for {100 * report.top_changed:.1f} %",
            highlight=False,
            soft_wrap=True,
        )
    if report.slowdown is not None and report.slowdown_interval is not None:
        lower, upper = report.slowdown_interval
        console.print(
            f"95 % latency: {report.slowdown:.2f} times stable's (95 % interval {lower:.2f} to {upper:.2f})",
            highlight=False,
            soft_wrap=True,
        )
    for note in report.notes:
        console.print(escape(note), highlight=False, soft_wrap=True)
    for refusal in report.refusals:
        console.print(f"[red]✗[/red] {escape(refusal)}", highlight=False, soft_wrap=True)


def _latencies(side: SideReport) -> list[str]:
    return ["" if value is None else f"{value:.2f}" for value in (side.p50_ms, side.p95_ms, side.p99_ms)]


def _describe_run(run: RunEvidence | None) -> tuple[str, ...]:
    """Returns the metrics that are shown, and the gate's verdict."""
    if run is None:
        return ("",) * (len(_METRICS) + 1)
    metrics = (f"{run.metrics[name]:.4f}" if name in run.metrics else "" for name in _METRICS)
    return (*metrics, {True: "passed", False: "failed", None: ""}[run.blessed])
