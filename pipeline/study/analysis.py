"""From what every variant earned from every user to estimates, differences and ladders, task by task."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from modules.metrics.user_sums import UserSums
from modules.tasks import main_metric
from pipeline.experiment_results import Estimate
from pipeline.study.config import StudyConfig
from pipeline.study.results import Agreement, Difference, Rung, TaskResult
from pipeline.study.statistics import (
    Floats,
    Scores,
    bootstrap_means,
    holm,
    kendall_tau,
    percentile_interval,
    two_sided_p,
)
from pipeline.study.variants import Plan, Variant, model_name


class StudyError(ValueError):
    """Evaluations that do not belong to one study."""


@dataclasses.dataclass(frozen=True)
class TaskScores:
    """One task's scores and their resamples.

    Attributes:
      name: the task.
      headline_metric: metric that orders the models.
      metrics: by name, seeds averaged.
      resamples: by metric, `[replicates, models]`; row r is of the same resample of the users in all tasks.
    """

    name: str
    headline_metric: str
    metrics: Mapping[str, Scores]
    resamples: Mapping[str, Floats]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that the task is defined for."""
        return self.metrics[self.headline_metric].models

    def value(self, model: str) -> float:
        """Returns a model's headline metric."""
        return float(self.metrics[self.headline_metric].means[self.models.index(model)])

    def resampled(self, model: str) -> Floats:
        """Returns its resamples, `[replicates]`."""
        return self.resamples[self.headline_metric][:, self.models.index(model)]


def score_tasks(study: StudyConfig, plan: Plan, sums: Mapping[str, Sequence[UserSums]]) -> list[TaskScores]:
    """Averages the seeds of each model, user by user, and resamples the users once for all tasks.

    Args:
      study: the study.
      plan: what was fitted.
      sums: by variant id, the sums of each task that the variant was evaluated on.

    Raises:
      StudyError: if a task does not have the metric that orders its models.
    """
    by_task: dict[str, dict[str, UserSums]] = {}
    for variant in plan.variants:
        for task_sums in sums[variant.id]:
            by_task.setdefault(task_sums.task, {})[variant.id] = task_sums
    users = np.unique(np.concatenate([s.group_ids for of_task in by_task.values() for s in of_task.values()]))
    names: list[tuple[str, str]] = []
    scores: list[Scores] = []
    for task, of_task in by_task.items():
        seeds = {
            model: [variant.id for variant in variants if variant.id in of_task]
            for model, variants in _variants_by_model(plan).items()
        }
        seeds = {model: ids for model, ids in seeds.items() if ids}
        for metric in next(iter(of_task.values())).metric_names:
            by_seed = _align(of_task, metric, users)
            if (by_seed.counts.sum(axis=1) > 0).all():
                names.append((task, metric))
                scores.append(by_seed.averaged(seeds))
    resamples = bootstrap_means(scores, study.bootstrap.replicates, study.bootstrap.seed)
    return [
        TaskScores(
            task,
            _headline(study, task, [metric for name, metric in names if name == task]),
            {metric: score for (name, metric), score in zip(names, scores, strict=True) if name == task},
            {metric: sample for (name, metric), sample in zip(names, resamples, strict=True) if name == task},
        )
        for task in dict.fromkeys(name for name, _ in names)
    ]


def describe_task(study: StudyConfig, plan: Plan, task: TaskScores) -> TaskResult:
    """Returns a task's estimates, the differences of all pairs of models, and what each step changes."""
    ordered = sorted(task.models, key=task.value, reverse=True)
    headline = task.metrics[task.headline_metric]
    differences = _all_differences(study, task, ordered)
    return TaskResult(
        name=task.name,
        headline_metric=task.headline_metric,
        users=int((headline.counts > 0).any(axis=0).sum()),
        events=float(headline.counts[0].sum()),
        scores={model: _estimates(study, task, model) for model in ordered},
        differences=tuple(differences),
        rungs=tuple(_rungs(study, plan, task, differences)),
    )


def describe_agreements(study: StudyConfig, tasks: Sequence[TaskScores], models: Sequence[str]) -> list[Agreement]:
    """Returns how well each pair of tasks agrees on the order of models, among those that both have."""
    result = []
    for first, second in itertools.combinations(tasks, 2):
        shared = [model for model in models if model in first.models and model in second.models]
        if len(shared) < 3:
            continue
        values = [np.array([[task.value(model) for model in shared]]) for task in (first, second)]
        resampled = [np.stack([task.resampled(model) for model in shared], axis=1) for task in (first, second)]
        tau = _estimate(study, float(kendall_tau(*values)[0]), kendall_tau(*resampled))
        result.append(Agreement(first=first.name, second=second.name, tau=tau))
    return result


def find_difference(differences: Sequence[Difference], first: str, second: str) -> Difference:
    """Returns the difference of two models, first minus second, whichever way round it was written down.

    Raises:
      LookupError: if the two were not compared.
    """
    for found in differences:
        if (found.first, found.second) == (first, second):
            return found
        if (found.first, found.second) == (second, first):
            turned = {"first": first, "second": second, "value": -found.value}
            return found.model_copy(update={**turned, "lower": -found.upper, "upper": -found.lower})
    raise LookupError(f"{first} and {second} were not compared")


def _variants_by_model(plan: Plan) -> dict[str, list[Variant]]:
    by_model: dict[str, list[Variant]] = {}
    for variant in plan.variants:
        by_model.setdefault(variant.model, []).append(variant)
    return by_model


def _align(of_task: Mapping[str, UserSums], metric: str, users: np.ndarray) -> Scores:
    sums, counts = np.zeros((2, len(of_task), len(users)))
    for row, (name, task_sums) in enumerate(of_task.items()):
        if metric not in task_sums.metric_names:
            raise StudyError(f"{name}: no metric {metric!r} in {task_sums.task}; received {task_sums.metric_names}")
        column = task_sums.metric_names.index(metric)
        places = np.searchsorted(users, task_sums.group_ids)
        sums[row, places] = task_sums.sums[:, column]
        counts[row, places] = task_sums.counts[:, column]
    return Scores(tuple(of_task), sums, counts)


def _headline(study: StudyConfig, task: str, metrics: Sequence[str]) -> str:
    wanted = study.headline_metrics.get(task, main_metric(task))
    if wanted not in metrics:
        raise StudyError(f"headline_metrics.{task}: received {wanted!r}; expected one of {list(metrics)}")
    return wanted


def _estimate(study: StudyConfig, value: float, resamples: Floats) -> Estimate:
    lower, upper = percentile_interval(resamples, study.level)
    return Estimate(value=value, lower=lower, upper=upper)


def _estimates(study: StudyConfig, task: TaskScores, model: str) -> dict[str, Estimate]:
    row = task.models.index(model)
    return {
        metric: _estimate(study, float(scores.means[row]), task.resamples[metric][:, row])
        for metric, scores in task.metrics.items()
    }


def _all_differences(study: StudyConfig, task: TaskScores, ordered: Sequence[str]) -> list[Difference]:
    pairs = list(itertools.combinations(ordered, 2))
    values = [task.value(first) - task.value(second) for first, second in pairs]
    resamples = [task.resampled(first) - task.resampled(second) for first, second in pairs]
    p_values = [two_sided_p(value, sample) for value, sample in zip(values, resamples, strict=True)]
    return [
        Difference(first=first, second=second, p=p, p_holm=corrected, **_estimate(study, value, sample).model_dump())
        for (first, second), value, sample, p, corrected in zip(
            pairs, values, resamples, p_values, holm(p_values), strict=True
        )
    ]


def _rungs(study: StudyConfig, plan: Plan, task: TaskScores, differences: Sequence[Difference]) -> list[Rung]:
    rungs = []
    for family in study.families:
        below: str | None = None
        for step in plan.steps:
            if model_name(family, step.name) not in task.models:
                continue
            other = step.instead_of or below
            if other is not None and model_name(family, other) in task.models:
                difference = find_difference(differences, *(model_name(family, name) for name in (step.name, other)))
                rungs.append(Rung(family=family, step=step.name, compared_with=other, **difference.model_dump()))
            if step.instead_of is None:
                below = step.name
    return rungs
