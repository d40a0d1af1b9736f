"""The page of a report: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from modules.tasks import TASKS, main_metric
from pipeline.pages.charts import Figure
from pipeline.pages.rendering import MINUS, inline_assets, json_island, page_environment
from pipeline.report import metric_table, model_card
from pipeline.report.content import ReportContent
from pipeline.report.feature_statistics import Bar, describe_share
from pipeline.report.figures import slices_figure, weeks_figure
from pipeline.report.headline import headline
from pipeline.report.learning import describe_settings, describe_start, learning_figures
from pipeline.report.metric_table import MetricRow
from pipeline.slice_names import OVERALL

_SLICES_CHART, _WEEKS_CHART, _LEARNING_CHART = "slices-chart", "weeks-chart", "learning-chart-"
_GROUP_TITLES = {
    "next_title": "Next title",
    "because_you_watched": "Because you watched",
    "continue_watching": "Continue watching",
    "rank": "Rank what was rated",
    "beyond accuracy": "Beyond accuracy",
    "off-policy": "Off-policy",
}
_SPARK_WIDTH, _SPARK_HEIGHT = 120, 26


def render_report(content: ReportContent) -> str:
    """Returns the page as HTML; Plotly's library, the styles and all figures are inside."""
    environment = page_environment("pipeline.report")
    environment.filters.update(share=describe_share, spark=_spark, number=_number, moment=_moment)
    report, verdict, columns = content.report, content.verdict, content.columns
    top = headline(report, verdict)
    rows = metric_table.metric_rows(verdict)
    interactions = content.statistics.get("interactions", [])
    facts = model_card.split_facts(interactions, columns) if columns is not None else []
    groups = content.training_parameters.get("feature_groups", [])
    learning = learning_figures(report.training)
    charts = _charts(content, top.metric, learning)
    settings_from = report.training.get("settings_from", {})
    return environment.get_template("report.html.j2").render(
        report=report,
        verdict=verdict,
        top=top,
        rows=rows,
        group_titles=_GROUP_TITLES,
        metrics_of={group: _metrics(rows, group) for group in metric_table.group_order(row.group for row in rows)},
        refusals=sorted({f"{row.metric}: {row.refusal}" for row in rows if row.refusal and row.slice == OVERALL}),
        with_baseline=metric_table.has_baseline(verdict),
        statistics=content.statistics,
        drift=content.drift,
        learning={f"{_LEARNING_CHART}{number}": name for number, name in enumerate(learning)},
        start=describe_start(report.training.get("start", {})),
        settings=[
            (name, told, settings_from.get(name, ""))
            for name, told in describe_settings(report.training.get("model", {}).get("settings", {}))
        ],
        card=content.card,
        facts=facts,
        features=model_card.features_used(columns, groups) if columns is not None else [],
        gaps=model_card.fairness_gaps(verdict, top.metric, columns) if columns is not None and top.metric else [],
        limits=model_card.limits(
            verdict, report.data, facts, top.metric, report.training.get("final_fit_splits", ["train"])
        ),
        code_version=content.training_parameters.get("code_version"),
        evaluated=[row for row in rows if row.slice == OVERALL and row.metric in map(main_metric, TASKS)],
        users=content.users,
        users_missing=content.users_missing,
        charts=charts,
        figures=json_island(charts),
        **inline_assets(environment, ["page.css", "report.css"], ["theme.js", "tables.js", "filter.js", "charts.js"]),
    )


def _charts(content: ReportContent, metric: str | None, learning: dict[str, Figure]) -> dict[str, Figure]:
    charts = {f"{_LEARNING_CHART}{number}": figure for number, figure in enumerate(learning.values())}
    if metric is not None:
        charts[_SLICES_CHART] = slices_figure(metric_table.slices_of(content.verdict, metric), metric)
        weeks = metric_table.by_week(content.verdict, metric)
        if weeks:
            charts[_WEEKS_CHART] = weeks_figure(weeks, metric)
    return charts


def _metrics(rows: list[MetricRow], group: str) -> list[str]:
    """Returns the metrics of a group, each once."""
    return list(dict.fromkeys(row.metric for row in rows if row.group == group))


def _spark(bars: tuple[Bar, ...], name: str) -> Markup:
    """A small histogram as SVG, with what each bar stands for as its title."""
    if not bars:
        return Markup("")
    highest = max(bar.share for bar in bars) or 1.0
    width = _SPARK_WIDTH / len(bars)
    drawn = []
    for number, bar in enumerate(bars):
        height = max(_SPARK_HEIGHT * bar.share / highest, 0.5 if bar.share else 0)
        drawn.append(
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
                number * width,
                _SPARK_HEIGHT - height,
                max(width - 1, 0.5),
                height,
                f"{bar.label}: {describe_share(bar.share)}",
            )
        )
    return Markup('<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="Histogram of {}">{}</svg>').format(
        _SPARK_WIDTH, _SPARK_HEIGHT, name, Markup("").join(drawn)
    )


def _number(value: Any) -> str:
    """A figure of any size, short: metrics to four decimals, large ones without."""
    if value is None:
        return ""
    return (f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}").replace("-", MINUS)


def _moment(run_id: str) -> str:
    return run_id[:19].replace("T", " ")
