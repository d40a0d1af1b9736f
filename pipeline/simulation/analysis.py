"""From what every model earned and was said to earn to rank correlations, picks and regrets."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence

import numpy as np

from modules.metrics.directions import lower_is_better
from pipeline.experiment_results import Estimate
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.findings import describe_findings
from pipeline.simulation.grounding import Grounding
from pipeline.simulation.observations import OFF_POLICY_PREFIX, WorldObservation
from pipeline.simulation.rank_correlation import Correlation, Floats, Resamples, by_world, kendall, spearman
from pipeline.simulation.results import (
    MetricResult,
    ModelResult,
    Pick,
    SimulationResults,
    WeightingResult,
    WorldModelResult,
    WorldResult,
)
from pipeline.study.statistics import Scores, bootstrap_means, percentile_interval

_LIBRARIES = ("numpy", "tensorflow", "tensorflow-recommenders", "tensorflow-model-analysis", "tfx")


@dataclasses.dataclass(frozen=True)
class _Figures:
    """All figures as arrays.

    Attributes:
      models: names.
      seeds: of the worlds.
      online: `[worlds, models]`, expected clicks per list.
      online_resamples: `[replicates, worlds, models]`, over users.
      metrics: by name `[worlds, models]`; NaN where refused.
    """

    models: tuple[str, ...]
    seeds: tuple[int, ...]
    online: Floats
    online_resamples: Floats
    metrics: Mapping[str, Floats]

    def oriented(self, metric: str) -> Floats:
        """Returns a metric, negated where less is better, so that the largest is the best."""
        return -self.metrics[metric] if lower_is_better(metric) else self.metrics[metric]


def summarise(
    simulation: SimulationConfig, grounding: Grounding, observations: Sequence[WorldObservation]
) -> SimulationResults:
    """Works everything out."""
    figures = _collect(simulation, observations)
    resamples = Resamples.draw(
        len(figures.models), len(figures.seeds), simulation.bootstrap.replicates, simulation.bootstrap.seed
    )
    metrics = [_describe_metric(simulation, figures, resamples, name) for name in figures.metrics]
    metrics.sort(key=lambda metric: -(metric.spearman.value if metric.spearman else -2.0))
    metrics.sort(key=lambda metric: metric.kind != "off_policy")
    results = SimulationResults(
        simulation=simulation.name,
        title=simulation.title,
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        grounding=grounding.source,
        popularity_skew=grounding.popularity_skew,
        activity_skew=grounding.activity_skew,
        naive=simulation.naive,
        rule=simulation.rule,
        level=simulation.level,
        replicates=simulation.bootstrap.replicates,
        visits=simulation.deployment.visits,
        models=tuple(_describe_models(simulation, figures)),
        worlds=tuple(_describe_worlds(simulation, figures, observations)),
        metrics=tuple(metrics),
        spearman_difference=_difference(simulation, figures, resamples),
        weighting=tuple(_describe_weighting(simulation, figures)),
        findings=(),
    )
    return results.model_copy(update={"findings": tuple(describe_findings(results))})


def _collect(simulation: SimulationConfig, observations: Sequence[WorldObservation]) -> _Figures:
    models = tuple(simulation.models)
    online, resampled = [], []
    for observation in observations:
        scores = _scores_by_user(observation, models)
        seed = simulation.bootstrap.seed + observation.seed
        online.append(scores.means)
        resampled.append(bootstrap_means([scores], simulation.bootstrap.replicates, seed)[0])
    names = dict.fromkeys(
        name for observation in observations for model in observation.models.values() for name in model.metrics
    )
    return _Figures(
        models,
        tuple(observation.seed for observation in observations),
        np.stack(online),
        np.stack(resampled, axis=1),
        {
            name: np.array([[o.models[model].metrics.get(name, np.nan) for model in models] for o in observations])
            for name in names
        },
    )


def _scores_by_user(observation: WorldObservation, models: tuple[str, ...]) -> Scores:
    """Sums what lists earn by user: visits of one user are not independent. All models answer the same visits."""
    users = observation.models[models[0]].users
    _, index, visits = np.unique(users, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(index, observation.models[name].expected).astype(float) for name in models])
    return Scores(models, sums, np.tile(visits.astype(float), (len(models), 1)))


def _estimate(simulation: SimulationConfig, value: float, resamples: Floats) -> Estimate:
    lower, upper = percentile_interval(resamples, simulation.level)
    return Estimate(value=value, lower=lower, upper=upper)


def _describe_models(simulation: SimulationConfig, figures: _Figures) -> list[ModelResult]:
    models = [
        ModelResult(
            name=name,
            title=entry.title,
            family=entry.family,
            groups=entry.groups,
            weighted=entry.propensity_weighting is not None,
            online=_estimate(
                simulation,
                float(figures.online[:, column].mean()),
                figures.online_resamples[:, :, column].mean(axis=1),
            ),
        )
        for column, (name, entry) in enumerate(simulation.models.items())
    ]
    return sorted(models, key=lambda model: -model.online.value)


def _describe_worlds(
    simulation: SimulationConfig, figures: _Figures, observations: Sequence[WorldObservation]
) -> list[WorldResult]:
    return [
        WorldResult(
            seed=observation.seed,
            run_id=observation.run_id,
            **observation.facts,
            models={
                name: WorldModelResult(
                    online=_estimate(
                        simulation,
                        float(figures.online[row, column]),
                        figures.online_resamples[:, row, column],
                    ),
                    sampled=float(observation.models[name].sampled.mean()),
                    fit_seconds=observation.models[name].fit_seconds,
                    refusals=dict(observation.models[name].refusals),
                    metrics={
                        metric: None if np.isnan(values[row, column]) else float(values[row, column])
                        for metric, values in figures.metrics.items()
                    },
                )
                for column, name in enumerate(figures.models)
            },
        )
        for row, observation in enumerate(observations)
    ]


def _describe_metric(simulation: SimulationConfig, figures: _Figures, resamples: Resamples, name: str) -> MetricResult:
    values = figures.oriented(name)
    correlations = {
        key: _correlate(simulation, figures, resamples, correlation, values)
        for key, correlation in (("spearman", spearman), ("kendall", kendall))
    }
    picks = [_pick(figures, values, row) for row in range(len(figures.seeds))]
    regrets = [pick.regret for pick in picks if pick.regret is not None]
    return MetricResult(
        name=name,
        kind="off_policy" if name.startswith(OFF_POLICY_PREFIX) else "logged",
        lower_is_better=lower_is_better(name),
        refused=int(np.isnan(values).sum()),
        spearman=correlations["spearman"][0],
        kendall=correlations["kendall"][0],
        spearman_by_world=correlations["spearman"][1],
        kendall_by_world=correlations["kendall"][1],
        picks=tuple(picks),
        regret=float(np.mean(regrets)) if regrets else None,
    )


def _correlate(
    simulation: SimulationConfig, figures: _Figures, resamples: Resamples, correlation: Correlation, values: Floats
) -> tuple[Estimate | None, dict[int, float | None]]:
    found = by_world(correlation, values, figures.online)
    told = {seed: None if np.isnan(value) else float(value) for seed, value in zip(figures.seeds, found, strict=True)}
    if np.isnan(found).all():
        return None, told
    undefined = np.isnan(found)[:, np.newaxis]
    resampled = resamples.correlations(correlation, np.where(undefined, np.nan, values), figures.online)
    return _estimate(simulation, float(np.nanmean(found)), resampled), told


def _pick(figures: _Figures, values: Floats, row: int) -> Pick:
    if np.isnan(values[row]).all():
        return Pick(seed=figures.seeds[row], model=None, regret=None)
    chosen = int(np.nanargmax(values[row]))
    regret = float(figures.online[row].max() - figures.online[row, chosen])
    return Pick(seed=figures.seeds[row], model=figures.models[chosen], regret=regret)


def _difference(simulation: SimulationConfig, figures: _Figures, resamples: Resamples) -> Estimate | None:
    """Returns how much better the rule orders the models than the naive metric; None if either is refused."""
    if not {simulation.rule, simulation.naive} <= set(figures.metrics):
        return None
    both = np.stack([figures.oriented(name) for name in (simulation.rule, simulation.naive)])
    # Paired: over the models, and the worlds, that both have a figure for.
    both[:, np.isnan(both).any(axis=0)] = np.nan
    found = np.stack([by_world(spearman, values, figures.online) for values in both])
    both[:, np.isnan(found).any(axis=0)] = np.nan
    if np.isnan(both).all():
        return None
    value = float(np.nanmean(found[0] - found[1]))
    resampled = [resamples.correlations(spearman, values, figures.online) for values in both]
    return _estimate(simulation, value, resampled[0] - resampled[1])


def _describe_weighting(simulation: SimulationConfig, figures: _Figures) -> list[WeightingResult]:
    found = []
    for name, entry in simulation.models.items():
        if entry.unweighted is None:
            continue
        weighted, plain = figures.models.index(name), figures.models.index(entry.unweighted)
        changes = figures.online[:, weighted] - figures.online[:, plain]
        resampled = figures.online_resamples[:, :, weighted] - figures.online_resamples[:, :, plain]
        naive = figures.metrics.get(simulation.naive)
        found.append(
            WeightingResult(
                model=name,
                unweighted=entry.unweighted,
                change=_estimate(simulation, float(changes.mean()), resampled.mean(axis=1)),
                by_world=dict(zip(figures.seeds, changes.tolist(), strict=True)),
                naive_change=None if naive is None else float((naive[:, weighted] - naive[:, plain]).mean()),
            )
        )
    return found
