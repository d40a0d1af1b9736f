"""The table at the end of a run: what happened, how good the model is, where it went and what to do next."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modules.tasks import TASKS, main_metric, metric_prefix
from pipeline.runs import PUSHER, RunReport
from pipeline.slice_names import OVERALL

_HEADLINE_METRICS = ("recall@10", "ndcg@10", "mrr@10", "coverage@10")
_SLICE_METRIC = "ndcg@10"
_STATE_STYLES = {"run": "green", "cached": "cyan", "failed": "red", "running": "yellow", "interrupted": "yellow"}


def print_summary(report: RunReport, console: Console) -> None:
    """Prints a run's report for a person."""
    console.print()
    console.print(f"[bold]{report.pipeline}[/bold], run of {report.run_id[:19].replace('T', ' ')}: {report.state}")
    console.print(_components_table(report))
    if report.data:
        console.print(_data_sentence(report), highlight=False)
    if report.anomalies and report.anomalies != report.failure:
        console.print(f"Anomalies: {report.anomalies}", markup=False, highlight=False, soft_wrap=True)
    if report.training:
        console.print(_training_sentence(report), highlight=False)
    if report.metrics:
        console.print()
        console.print(_metrics_table(report))
        console.print(_tasks_table(report))
        console.print(_slices_table(report))
    if report.gate:
        console.print(_gate_table(report))
        for reason, number in collections.Counter(line.reason for line in report.gate if line.passed is None).items():
            told = reason.removeprefix("not judged: ")
            console.print(f"{number} not judged: {told}", markup=False, highlight=False)
    _print_decision(report, console)
    if report.failure is not None:
        console.print(f"\n[red]The run failed:[/red] {escape(report.failure)}", highlight=False, soft_wrap=True)


def print_next_steps(steps: Sequence[str], console: Console) -> None:
    """Prints commands so that they can be copied: one a line, never wrapped."""
    console.print("\nNext:", highlight=False)
    for step in steps:
        console.print(f"  {step}", markup=False, highlight=False, soft_wrap=True)


def _components_table(report: RunReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("component")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    for name, component in report.components.items():
        style = _STATE_STYLES[component.state]
        table.add_row(name, f"[{style}]{component.state}[/{style}]", f"{component.seconds:.1f}")
    table.add_row("[bold]total[/bold]", "", f"[bold]{report.total_seconds:.1f}[/bold]")
    return table


def _data_sentence(report: RunReport) -> str:
    data = report.data
    splits = ", ".join(
        f"{data[key]:,} {name}"
        for name, key in (
            ("train", "num_examples_train"),
            ("validation", "num_examples_eval"),
            ("test", "num_examples_test"),
        )
        if key in data
    )
    rejected = sum(int(value) for key, value in data.items() if key.endswith("_rejected"))
    shown = f"; {data['impressions']:,} impressions, {data['impressions_not_taken']:,} of them not taken" if (
        data.get("impressions")
    ) else ""  # fmt: skip
    titles = f"{data.get('num_examples_catalogue', 0):,} titles"
    return f"Data: {splits} events{shown}; {titles}; {rejected:,} rows rejected."


def _training_sentence(report: RunReport) -> str:
    training = report.training
    epochs = training.get("epochs", [])
    curve = ""
    if epochs:
        values = ", ".join(f"{epoch['validation_ndcg@10']:.4f}" for epoch in epochs)
        curve = f"; validation NDCG@10 by epoch: {values} (kept: epoch {training['best_epoch']})"
    return (
        f"Model: {training['model']['family']}, fitted in {training['fit_seconds']:.1f} s; "
        f"validation NDCG@10 {training['validation_ndcg@10']:.4f}{curve}."
    )


def _metrics_table(report: RunReport) -> Table:
    table = Table(title="Test metrics, full catalogue", title_justify="left", box=None, pad_edge=False)
    table.add_column("metric")
    _add_value_columns(table, report)
    if report.baseline_metrics.get(OVERALL):
        table.add_column("95 % interval", justify="right")
    for name in _HEADLINE_METRICS:
        if name in report.metrics[OVERALL]:
            change = report.changes.get(OVERALL, {}).get(name)
            table.add_row(
                name, *_value_cells(report, name), *([_interval_cell(change.interval, "+")] if change else [])
            )
    return table


def _tasks_table(report: RunReport) -> Table:
    """One line for each task, with the metric that stands for it; tasks that do not apply are left out."""
    table = Table(title="Tasks", title_justify="left", box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("metric")
    _add_value_columns(table, report)
    for task in TASKS:
        name = main_metric(task)
        if name in report.metrics[OVERALL]:
            table.add_row(task, name.removeprefix(metric_prefix(task)), *_value_cells(report, name))
    return table


def _add_value_columns(table: Table, report: RunReport) -> None:
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    if report.baseline_metrics.get(OVERALL):
        table.add_column("last blessed", justify="right")
        table.add_column("change", justify="right")


def _value_cells(report: RunReport, name: str) -> list[str]:
    """Returns an overall metric's cells of the columns of `_add_value_columns`."""
    value, baseline = report.metrics[OVERALL][name], report.baseline_metrics.get(OVERALL, {})
    cells = [f"{value:.4f}", _interval_cell(report.intervals.get(OVERALL, {}).get(name))]
    if baseline:
        change = report.changes.get(OVERALL, {}).get(name)
        cells += [f"{baseline[name]:.4f}" if name in baseline else "", _signed(change.value) if change else ""]
    return cells


def _interval_cell(interval: tuple[float, float] | None, sign: str = "") -> str:
    return f"{interval[0]:{sign}.4f} – {interval[1]:{sign}.4f}" if interval else ""


def _slices_table(report: RunReport) -> Table:
    table = Table(title=f"{_SLICE_METRIC} by slice", title_justify="left", box=None, pad_edge=False)
    table.add_column("slice")
    table.add_column("events", justify="right")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    if report.baseline_metrics:
        table.add_column("last blessed", justify="right")
    for name, metrics in report.metrics.items():
        if name == OVERALL or "," in name or _SLICE_METRIC not in metrics:
            continue
        interval = report.intervals.get(name, {}).get(_SLICE_METRIC)
        row = [
            escape(name),
            f"{report.example_counts.get(name, 0):,}",
            f"{metrics[_SLICE_METRIC]:.4f}",
            _interval_cell(interval),
        ]
        if report.baseline_metrics:
            baseline = report.baseline_metrics.get(name, {}).get(_SLICE_METRIC)
            row.append(f"{baseline:.4f}" if baseline is not None else "")
        table.add_row(*row)
    return table


def _gate_table(report: RunReport) -> Table:
    table = Table(title="Gate", title_justify="left", box=None, pad_edge=False)
    table.add_column("rule")
    table.add_column("slice")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("passed")
    for line in report.gate:
        if line.passed is None:
            continue
        value = "" if line.value is None else f"{line.value:.4f}"
        interval = None if line.lower is None or line.upper is None else (line.lower, line.upper)
        passed = "[green]yes[/green]" if line.passed else "[red]no[/red]"
        table.add_row(escape(line.rule), escape(line.slice), value, _interval_cell(interval), passed)
    return table


def _print_decision(report: RunReport, console: Console) -> None:
    console.print()
    if report.blessed is not None:
        if report.blessed:
            console.print("[green]Blessed[/green]: every rule that could be judged holds.")
        else:
            console.print("[red]Not blessed[/red]:")
            for reason in report.blessing_failures:
                console.print(f"  • {reason}", markup=False, highlight=False)
    if report.servable is not None:
        if report.servable:
            console.print("[green]Servable[/green]: a model server loaded it and answered real requests.")
        else:
            console.print(f"[red]Not servable[/red]: {escape(report.servable_reason or '')}", highlight=False)
    sentence = _push_sentence(report)
    if sentence:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _push_sentence(report: RunReport) -> str | None:
    """Tells where the model went, and what is there now if that is something else."""
    served = report.served_version
    if report.pushed is None:
        if report.blessed is None:
            return None
        return "Nothing was pushed; " + (f"version {served} is served still." if served else "nothing is served yet.")
    pushed = report.pushed
    cached = PUSHER in report.components and report.components[PUSHER].state == "cached"
    by_whom = " by an earlier run" if cached else ""
    sentence = f"Pushed as version {pushed.version} to {pushed.destination}{by_whom}"
    if served is None:
        return f"{sentence}; that folder is gone, and nothing is served."
    if served != pushed.version:
        return f"{sentence}; version {served} is served instead."
    return sentence


def _signed(value: float) -> str:
    return f"{value:+.4f}"
