"""What a simulation comes to, in sentences that follow from its figures, whichever way they come out."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import numpy as np

from pipeline.experiment_results import Estimate
from pipeline.pages.rendering import MINUS
from pipeline.simulation.results import Finding, MetricResult, SimulationResults


def describe_findings(results: SimulationResults) -> Iterator[Finding]:
    """Yields a sentence per question that the figures can answer."""
    metrics = {metric.name: metric for metric in results.metrics}
    naive, rule = metrics.get(results.naive), metrics.get(results.rule)
    yield _bias(results)
    if naive is not None and naive.spearman is not None:
        yield _order(results, naive, "naive_order", "on the logged clicks")
    if rule is None or rule.spearman is None:
        statement = f"{results.rule} says nothing here: it was refused, or not computed."
        yield Finding(key="rule_order", statement=statement, detail="")
    else:
        yield _order(results, rule, "rule_order", "by which the better choice goes")
    if naive is not None and rule is not None:
        if results.spearman_difference is not None:
            yield _comparison(results, results.spearman_difference)
        if naive.regret is not None and rule.regret is not None:
            yield _choice(results, naive, rule)
    yield from _weighting(results)
    yield from _level(results)
    yield from _others(results)


def _bias(results: SimulationResults) -> Finding:
    correlations = [world.popularity_correlation for world in results.worlds]
    best = max(model.online.value for model in results.models)
    logging = float(np.mean([world.logging_value for world in results.worlds]))
    oracle = float(np.mean([world.best_value for world in results.worlds]))
    statement = (
        f"In the log, how often titles were clicked has a rank correlation of {_span(correlations)} with how relevant "
        "they are: it is made of exposure, too."
        if max(correlations) < 0.9
        else "In the log, clicks tell the relevance of titles well: there is little bias to correct."
    )
    detail = (
        f"The recommender that wrote the log earned {logging:.3f} clicks per list in its last tenth, the best model "
        f"deployed earns {best:.3f}, whoever knows the world {oracle:.3f}."
    )
    return Finding(key="bias", statement=statement, detail=detail)


def _order(results: SimulationResults, metric: MetricResult, key: str, told: str) -> Finding:
    assert metric.spearman is not None
    value = metric.spearman.value
    quality = (
        "orders the models almost as online value does"
        if value >= 0.8
        else "orders the models somewhat as online value does"
        if value >= 0.5
        else "says little about which model earns more online"
        if value > -0.2
        else "orders the models the wrong way round"
    )
    by_world = ", ".join(
        f"world {seed}: {'refused' if found is None else _number(found)}"
        for seed, found in metric.spearman_by_world.items()
    )
    detail = f"Rank correlation with online value {_interval(metric.spearman)}; {by_world}."
    if metric.refused:
        detail += f" Refused or undefined for {metric.refused} of {len(results.models) * len(results.worlds)} fits."
    return Finding(key=key, statement=f"{metric.name}, {told}, {quality}.", detail=detail)


def _comparison(results: SimulationResults, difference: Estimate) -> Finding:
    if difference.lower > 0:
        statement = f"{results.rule} orders the models better than {results.naive} does, by more than chance."
    elif difference.upper < 0:
        statement = f"{results.rule} orders the models worse than {results.naive} does, by more than chance."
    else:
        statement = f"Whether {results.rule} orders the models better than {results.naive} is not certain here."
    detail = f"Difference of the rank correlations {_interval(difference)}, paired over models and worlds."
    return Finding(key="comparison", statement=statement, detail=detail)


def _choice(results: SimulationResults, naive: MetricResult, rule: MetricResult) -> Finding:
    assert naive.regret is not None and rule.regret is not None
    best = float(np.mean([max(model.online.value for model in world.models.values()) for world in results.worlds]))
    lost, left = naive.regret / best, rule.regret / best
    statement = f"Choosing by {results.naive} loses {_percent(lost)} of the best model's online value; "
    if naive.regret == rule.regret:
        statement += f"choosing by {results.rule} loses as much."
    elif rule.regret > naive.regret:
        statement += f"choosing by {results.rule} loses even more, {_percent(left)}."
    else:
        statement += f"choosing by {results.rule} wins {_percent(lost - left)} of it back and loses {_percent(left)}."
    detail = (
        f"{results.naive} picks {_picks(results, naive)}; {results.rule} picks {_picks(results, rule)}; the best "
        f"online is {_best(results)}. Clicks per list lost, mean over worlds: {naive.regret:.3f} and {rule.regret:.3f}."
    )
    return Finding(key="choice", statement=statement, detail=detail)


def _weighting(results: SimulationResults) -> Iterator[Finding]:
    if not results.weighting:
        return
    online = {model.name: model.online.value for model in results.models}
    titles = {model.name: model.title for model in results.models}
    shares = [pair.change.value / online[pair.unweighted] for pair in results.weighting]
    better = sum(pair.change.lower > 0 for pair in results.weighting)
    worse = sum(pair.change.upper < 0 for pair in results.weighting)
    mean = float(np.mean(shares))
    gained = "gains" if mean >= 0 else "loses"
    statement = (
        f"Training with inverse propensities {gained} {_percent(abs(mean))} of online value on average: certainly "
        f"better for {better} of {len(shares)} models, certainly worse for {worse}."
    )
    told = "; ".join(
        f"{titles[pair.unweighted]} {_signed_percent(share)}"
        for pair, share in zip(results.weighting, shares, strict=True)
    )
    disagreeing = [pair for pair in results.weighting if pair.naive_change is not None]
    wrong = sum((pair.naive_change or 0) * pair.change.value < 0 for pair in disagreeing)
    detail = f"{told}. {results.naive} has the sign of the change wrong for {wrong} of {len(disagreeing)} models."
    yield Finding(key="weighting", statement=statement, detail=detail)


def _level(results: SimulationResults) -> Iterator[Finding]:
    errors = [
        model.metrics[results.rule] / model.online.value - 1  # type: ignore[operator]
        for world in results.worlds
        for model in world.models.values()
        if model.metrics.get(results.rule) is not None
    ]
    if not errors:
        return
    mean, size = float(np.mean(errors)), float(np.mean(np.abs(errors)))
    statement = (
        f"As an estimate of online value itself, {results.rule} is off by {_percent(size)} on average, "
        f"{_percent(abs(mean))} too {'high' if mean > 0 else 'low'} over all."
    )
    detail = "It is of the last part of the log, online value of the days after: part of this is that time has passed."
    yield Finding(key="level", statement=statement, detail=detail)


def _others(results: SimulationResults) -> Iterator[Finding]:
    known = [metric for metric in results.metrics if metric.spearman is not None]
    for kind, told in (("off_policy", "off-policy estimates"), ("logged", "figures on the logged clicks")):
        ordered = sorted(
            (metric for metric in known if metric.kind == kind),
            key=lambda metric: -metric.spearman.value,  # type: ignore[union-attr]
        )
        if len(ordered) > 1:
            first, last = ordered[0], ordered[-1]
            assert first.spearman is not None and last.spearman is not None
            yield Finding(
                key=f"range_{kind}",
                statement=f"Of the {told}, {first.name} foretells the order best, {last.name} worst.",
                detail=f"Rank correlations {_interval(first.spearman)} and {_interval(last.spearman)}.",
            )


def _picks(results: SimulationResults, metric: MetricResult) -> str:
    titles = {model.name: model.title for model in results.models}
    return _counted(["nothing" if pick.model is None else titles[pick.model] for pick in metric.picks])


def _best(results: SimulationResults) -> str:
    titles = {model.name: model.title for model in results.models}
    return _counted(
        [titles[max(world.models, key=lambda name: world.models[name].online.value)] for world in results.worlds]
    )


def _counted(names: list[str]) -> str:
    counter = collections.Counter(names)
    if len(counter) == 1:
        return f"“{names[0]}”" + (" in every world" if len(names) > 1 else "")
    return ", ".join(f"“{name}” in {count} of {len(names)} worlds" for name, count in counter.most_common())


def _span(values: list[float]) -> str:
    low, high = _number(min(values)), _number(max(values))
    return low if low == high else f"{low} to {high}"


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.value)} ({_number(estimate.lower)} to {_number(estimate.upper)})"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _signed_percent(share: float) -> str:
    return f"{100 * share:+.1f}\N{NO-BREAK SPACE}%".replace("-", MINUS)
