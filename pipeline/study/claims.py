"""The claims of the case study, and what the figures at hand say to each.

A claim that one model is better than another is *supported* where the corrected test says so, *not supported* where it
says the opposite or where the whole interval stays below the margin that counts as no difference worth having, and
*undecided here* in between: too few users, or models or tasks that this study does not have.

References:
  Steck et al., Deep Learning for Recommender Systems: A Netflix Case Study, AI Magazine 42(3), 2021.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from pipeline.study.analysis import TaskScores, find_difference
from pipeline.study.config import Kind, StudyConfig
from pipeline.study.results import Agreement, Claim, Difference, Figure, ModelResult, TaskResult, Verdict
from pipeline.study.statistics import Floats, percentile_interval
from pipeline.study.variants import Plan, model_name

SUPPORTED: Verdict = "supported"
NOT_SUPPORTED: Verdict = "not supported"
UNDECIDED: Verdict = "undecided here"

_SAME_ORDER = 0.8
_TIME_GROUPS = frozenset({"time_buckets", "continuous_time"})


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that claims are judged by.

    Attributes:
      study: level, margin and main task.
      plan: the steps.
      models: by name.
      tasks: by name.
      scores: by name of the task.
      agreements: of every pair of tasks.
    """

    study: StudyConfig
    plan: Plan
    models: Mapping[str, ModelResult]
    tasks: Mapping[str, TaskResult]
    scores: Mapping[str, TaskScores]
    agreements: Sequence[Agreement]

    @property
    def main(self) -> TaskResult:
        """The task that the claims about features and depth are judged by."""
        return self.tasks[self.study.main_task]

    def title(self, name: str) -> str:
        """Returns what a reader is told of a model."""
        model = self.models[name]
        steps = {step.name: step.title for step in self.plan.steps}
        return model.title if model.top else f"{model.title} ({steps[model.step]})"

    def value(self, name: str, task: TaskResult | None = None) -> float:
        """Returns a model's headline metric."""
        chosen = task or self.main
        return chosen.scores[name][chosen.headline_metric].value

    def ranked(self, kind: Kind, step: str | None = None) -> list[str]:
        """Returns the models of a kind, the best in the main task first: those at a step, or each at its richest.

        Refits are left out: they have seen more data.
        """
        models = [self.models[name] for name in self.main.scores]
        alike = [m for m in models if m.kind == kind and m.name == model_name(m.family, m.step)]
        return [m.name for m in alike if (m.step == step if step else m.top)]

    def best(self, kind: Kind, step: str | None = None) -> str | None:
        """Returns the first of `ranked`, or None if there is none."""
        return next(iter(self.ranked(kind, step)), None)

    def line_up(self) -> list[str]:
        """Returns every family at its richest step."""
        return [model.name for model in self.models.values() if model.top]

    def score(self, name: str, task: TaskResult | None = None) -> Figure:
        """Returns a model's headline metric as a figure."""
        chosen = task or self.main
        estimate = chosen.scores[name][chosen.headline_metric]
        label = f"{self.title(name)}, {chosen.headline_metric} in {_said(chosen)}"
        return Figure(label=label, **estimate.model_dump())

    def difference(self, first: str, second: str, task: TaskResult | None = None) -> tuple[Difference, Figure]:
        """Returns the difference of two models, first minus second, and how to tell of it."""
        chosen = task or self.main
        found = find_difference(chosen.differences, first, second)
        label = f"{self.title(first)} minus {self.title(second)}, {_said(chosen)}"
        return found, Figure(label=label, value=found.value, lower=found.lower, upper=found.upper, p_holm=found.p_holm)


def judge_claims(evidence: Evidence) -> list[Claim]:
    """Returns every claim with its verdict."""
    return [
        _claim(evidence, key, statement, judge)
        for key, statement, judge in (
            ("tasks", "Different architectures excel at different tasks.", _different_winners),
            (
                "ids_only",
                "Given ids only, deep models do not beat the best well-tuned simple model.",
                _deep_no_better_on_ids,
            ),
            ("features", "Heterogeneous features lift deep models.", _features_lift),
            ("time", "Of all features, time matters most.", _time_matters_most),
            ("continuous_time", "Time as numbers beats time in buckets.", _continuous_beats_buckets),
            ("deep", "With features, the best deep model beats the best simple one.", _deep_beats_simple),
            ("disagreement", "Offline tasks disagree on which model is better.", _tasks_disagree),
        )
    ]


def _said(task: TaskResult) -> str:
    return f"“{task.name.replace('_', ' ')}”"


_Judgement = tuple[Verdict, str, list[Figure]]


def _claim(evidence: Evidence, key: str, statement: str, judge: Callable[[Evidence], _Judgement]) -> Claim:
    if evidence.study.main_task not in evidence.tasks:
        verdict, reason, figures = UNDECIDED, f"The study has no task {evidence.study.main_task}.", list[Figure]()
    else:
        verdict, reason, figures = judge(evidence)
    return Claim(key=key, statement=statement, verdict=verdict, reason=reason, figures=tuple(figures))


def _better(evidence: Evidence, difference: Difference) -> Verdict:
    """Returns whether the first of two models is better."""
    if difference.p_holm < evidence.study.level:
        return SUPPORTED if difference.value > 0 else NOT_SUPPORTED
    if difference.upper <= evidence.study.margin * evidence.value(difference.second):
        return NOT_SUPPORTED
    return UNDECIDED


def _wins(evidence: Evidence, task: TaskResult, first: str, second: str) -> bool:
    difference, _ = evidence.difference(first, second, task)
    return difference.value > 0 and difference.p_holm < evidence.study.level


def _ranking(evidence: Evidence, task: TaskResult) -> list[str]:
    line_up = set(evidence.line_up())
    return [name for name in task.scores if name in line_up]


def _different_winners(evidence: Evidence) -> _Judgement:
    tasks = [task for task in evidence.tasks.values() if len(_ranking(evidence, task)) > 1]
    if len(tasks) < 2:
        return UNDECIDED, "It takes two tasks with two families each.", []
    winners = {task.name: _ranking(evidence, task)[0] for task in tasks}
    figures = [evidence.score(winners[task.name], task) for task in tasks]
    for first, second in itertools.combinations(tasks, 2):
        a, b = winners[first.name], winners[second.name]
        if a == b or b not in first.scores or a not in second.scores:
            continue
        if _wins(evidence, first, a, b) and _wins(evidence, second, b, a):
            reason = (
                f"{evidence.title(a)} is best in {_said(first)} and {evidence.title(b)} in {_said(second)}, each ahead "
                f"of the other by more than chance."
            )
            gaps = [evidence.difference(a, b, first)[1], evidence.difference(b, a, second)[1]]
            return SUPPORTED, reason, figures + gaps
    best = winners[tasks[0].name]
    if set(winners.values()) == {best} and all(
        _wins(evidence, task, best, other) for task in tasks for other in _ranking(evidence, task)[1:]
    ):
        return NOT_SUPPORTED, f"{evidence.title(best)} beats every other family in every task.", figures
    return UNDECIDED, "No two tasks have winners that beat each other by more than chance.", figures


def _deep_no_better_on_ids(evidence: Evidence) -> _Judgement:
    step = evidence.plan.steps[0].name
    deep, simple = evidence.best("deep", step), evidence.best("simple", step)
    if deep is None or simple is None:
        return _missing(deep=deep, simple=simple)
    difference, figure = evidence.difference(deep, simple)
    names = f"{evidence.title(deep)}, the best deep model, and {evidence.title(simple)}, the best simple one"
    figures = [evidence.score(deep), evidence.score(simple), figure]
    if difference.upper <= evidence.study.margin * evidence.value(simple):
        return SUPPORTED, f"{names}: no gain beyond {evidence.study.margin:.0%} is left in the interval.", figures
    if difference.value > 0 and difference.p_holm < evidence.study.level:
        return NOT_SUPPORTED, f"{names}: the deep one is ahead by more than chance.", figures
    return UNDECIDED, f"{names}: the interval holds both no gain and one worth having.", figures


def _features_lift(evidence: Evidence) -> _Judgement:
    first = evidence.plan.steps[0].name
    pairs = [
        (model.name, model_name(model.family, first))
        for model in evidence.models.values()
        if model.kind == "deep" and model.top and model.step != first
    ]
    pairs = [pair for pair in pairs if all(name in evidence.main.scores for name in pair)]
    if not pairs:
        return UNDECIDED, "No deep family was fitted both with ids only and with features.", []
    differences, figures = zip(*(evidence.difference(*pair) for pair in pairs), strict=True)
    verdicts = [_better(evidence, difference) for difference in differences]
    lifted = sum(verdict == SUPPORTED for verdict in verdicts)
    harmed = sum(d.value < 0 and d.p_holm < evidence.study.level for d in differences)
    reason = f"Features lift {lifted} of {len(pairs)} deep families by more than chance and harm {harmed}."
    if harmed == 0 and 2 * lifted >= len(pairs):
        return SUPPORTED, reason, list(figures)
    if all(verdict == NOT_SUPPORTED for verdict in verdicts):
        return NOT_SUPPORTED, reason, list(figures)
    return UNDECIDED, reason, list(figures)


def _time_matters_most(evidence: Evidence) -> _Judgement:
    groups = {step.name: set(step.groups) for step in evidence.plan.steps}
    rungs = [step.name for step in evidence.plan.steps if step.instead_of is None]
    scores = evidence.scores[evidence.main.name]
    for name in evidence.ranked("deep"):
        family = evidence.models[name].family
        present = [step for step in rungs if model_name(family, step) in scores.models]
        pairs = [(upper, lower) for lower, upper in itertools.pairwise(present)]
        time = [pair for pair in pairs if groups[pair[0]] - groups[pair[1]] <= _TIME_GROUPS]
        others = [pair for pair in pairs if pair not in time]
        if time and others:
            break
    else:
        return UNDECIDED, "No deep family was fitted with time and other features added one after the other.", []

    def gain(upper: str, lower: str) -> tuple[float, Floats]:
        high, low = model_name(family, upper), model_name(family, lower)
        return scores.value(high) - scores.value(low), scores.resampled(high) - scores.resampled(low)

    # All of these intervals are looked at together.
    level = evidence.study.level / (len(others) + 1)
    gains = [gain(*pair) for pair in time]
    of_time, resampled = sum(value for value, _ in gains), np.sum([sample for _, sample in gains], axis=0)
    titles = {step.name: step.title for step in evidence.plan.steps}
    low, high = percentile_interval(resampled, level)
    figures = [Figure(label=f"{evidence.models[name].title}: gain from time", value=of_time, lower=low, upper=high)]
    for pair in others:
        value, sample = gain(*pair)
        low, high = percentile_interval(resampled - sample, level)
        label = f"{evidence.models[name].title}: gain from time minus gain from “{titles[pair[0]]}”"
        figures.append(Figure(label=label, value=of_time - value, lower=low, upper=high))
    subject = f"Judged by {evidence.models[name].title}, the best deep family"
    if all(figure.lower is not None and figure.lower > 0 for figure in figures):
        return SUPPORTED, f"{subject}: time adds more than each other group of features.", figures
    if any(figure.upper is not None and figure.upper < 0 for figure in figures):
        return NOT_SUPPORTED, f"{subject}: another group adds more than time, or time harms.", figures
    return UNDECIDED, f"{subject}: the gains are too close to be told apart.", figures


def _continuous_beats_buckets(evidence: Evidence) -> _Judgement:
    groups = {step.name: set(step.groups) for step in evidence.plan.steps}
    deep = (model for model in map(evidence.models.__getitem__, evidence.main.scores) if model.kind == "deep")
    for family in dict.fromkeys(model.family for model in deep if model.name == model_name(model.family, model.step)):
        for step in evidence.plan.steps:
            if step.instead_of is None or groups[step.name] ^ groups[step.instead_of] != _TIME_GROUPS:
                continue
            numbers, buckets = step.name, step.instead_of
            if "time_buckets" in groups[numbers]:
                numbers, buckets = buckets, numbers
            pair = model_name(family, numbers), model_name(family, buckets)
            if all(member in evidence.main.scores for member in pair):
                difference, figure = evidence.difference(*pair)
                reason = f"Judged by {evidence.models[pair[0]].title}, all other features being the same."
                return _better(evidence, difference), reason, [figure, *map(evidence.score, pair)]
    return UNDECIDED, "No deep family was fitted both with time as numbers and in buckets, all else being equal.", []


def _deep_beats_simple(evidence: Evidence) -> _Judgement:
    deep, simple = evidence.best("deep"), evidence.best("simple")
    if deep is None or simple is None:
        return _missing(deep=deep, simple=simple)
    difference, figure = evidence.difference(deep, simple)
    reason = f"{evidence.title(deep)} is the best deep model and {evidence.title(simple)} the best simple one."
    return _better(evidence, difference), reason, [evidence.score(deep), evidence.score(simple), figure]


def _tasks_disagree(evidence: Evidence) -> _Judgement:
    figures = [
        Figure(
            label=f"Rank correlation of {agreement.first} and {agreement.second} (Kendall's τ)",
            **agreement.tau.model_dump(),
        )
        for agreement in evidence.agreements
    ]
    for first, second in itertools.combinations(evidence.tasks.values(), 2):
        for a, b in itertools.permutations(_ranking(evidence, first), 2):
            if a not in second.scores or b not in second.scores:
                continue
            if _wins(evidence, first, a, b) and _wins(evidence, second, b, a):
                reason = (
                    f"{evidence.title(a)} beats {evidence.title(b)} in {_said(first)} and loses in {_said(second)}."
                )
                gaps = [evidence.difference(a, b, task)[1] for task in (first, second)]
                return SUPPORTED, reason, gaps + figures
    if not figures:
        return UNDECIDED, "It takes two tasks with three families each.", []
    if all(agreement.tau.lower >= _SAME_ORDER for agreement in evidence.agreements):
        return NOT_SUPPORTED, "All tasks put the families in nearly the same order.", figures
    return UNDECIDED, "No pair of families changes places between two tasks by more than chance.", figures


def _missing(**best: str | None) -> _Judgement:
    kinds: Iterable[str] = (kind for kind, name in best.items() if name is None)
    return UNDECIDED, f"The study has no {' and no '.join(kinds)} model to compare.", []
