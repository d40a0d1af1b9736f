"""The first thing to know of a run: how good the model is, whether it is better, and where it went."""

from __future__ import annotations

import dataclasses

from modules.metrics.directions import lower_is_better
from modules.tasks import TASKS, main_metric
from pipeline.pages.rendering import score, signed
from pipeline.runs import PUSHER, RunReport
from pipeline.verdict import Estimate, Verdict


@dataclasses.dataclass(frozen=True)
class Headline:
    """The top of the page.

    Attributes:
      family: the model's family; None if none was fitted.
      metric: name of the main metric; None without an evaluation.
      estimate: its estimate over all test events.
      decision: `Blessed and pushed`, `Blessed`, `Not blessed`, `Not evaluated` or `Failed`.
      good: whether the decision is what one hopes for; None if there was none.
      sentence: all of it in plain words.
      destination: where the model was pushed; None if it was not.
    """

    family: str | None
    metric: str | None
    estimate: Estimate
    decision: str
    good: bool | None
    sentence: str
    destination: str | None


def headline(report: RunReport, verdict: Verdict) -> Headline:
    """Returns the top of the page."""
    metric = headline_metric(verdict)
    estimate = verdict.overall[metric] if metric else Estimate()
    family = report.training.get("model", {}).get("family")
    if report.blessed is None:
        decision, good = ("Failed", False) if report.state == "failed" else ("Not evaluated", None)
    elif not report.blessed:
        decision, good = "Not blessed", False
    else:
        decision, good = ("Blessed and pushed" if report.pushed is not None else "Blessed"), True
    return Headline(
        family=family,
        metric=metric,
        estimate=estimate,
        decision=decision,
        good=good,
        sentence=" ".join([*_quality(metric, estimate), *_fate(report)]),
        destination=report.pushed.destination if report.pushed is not None else None,
    )


def headline_metric(verdict: Verdict) -> str | None:
    """Returns the main metric of the first task that was evaluated; None without an evaluation."""
    defined = [name for name, estimate in verdict.overall.items() if estimate.value is not None]
    return next((main_metric(task) for task in TASKS if main_metric(task) in defined), next(iter(defined), None))


def _quality(metric: str | None, estimate: Estimate) -> list[str]:
    if metric is None or estimate.value is None:
        return []
    if estimate.change is None:
        return [f"{metric} on the test split is {score(estimate.value)}; there is no earlier blessed model to compare."]
    interval = ""
    if estimate.change_lower is not None and estimate.change_upper is not None:
        interval = f" (95 %: {signed(estimate.change_lower)} to {signed(estimate.change_upper)})"
    sign = estimate.certain_change * (-1 if lower_is_better(metric) else 1)
    verb = "is better than" if sign > 0 else "is worse than" if sign < 0 else "cannot be told apart from"
    return [f"This model {verb} the last blessed one: {metric} changed by {signed(estimate.change)}{interval}."]


def _fate(report: RunReport) -> list[str]:
    if report.blessed is None:
        state = f"The run {'is still running' if report.state == 'running' else report.state}"
        # The first line says what; the page's section on the gate has all of it.
        return [f"{state}: {report.failure.splitlines()[0]}" if report.failure else f"{state}."]
    if not report.blessed:
        return ["It was not blessed, so nothing was pushed."]
    if report.pushed is None:
        refused = report.servable is False
        return [f"It passed the gate, but {'no server could serve it' if refused else 'was not pushed'}."]
    cached = PUSHER in report.components and report.components[PUSHER].state == "cached"
    return [f"It passed the gate and was pushed as version {report.pushed.version}{' earlier' if cached else ''}."]
