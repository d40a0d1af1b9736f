"""`StudyResults`: everything a study found out, as written to `study.json`."""

from __future__ import annotations

from typing import Literal

from pipeline.experiment_results import Estimate, Result
from pipeline.study.config import Kind

Verdict = Literal["supported", "not supported", "undecided here"]


class Difference(Estimate):
    """A paired difference of two models in a task's headline metric, first minus second."""

    first: str
    """Name of a model."""
    second: str
    """Name of the model that it is compared with."""
    p: float
    """Two-sided probability of so large a difference, were there none."""
    p_holm: float
    """The same, corrected for all pairs of models of the task."""


class Rung(Difference):
    """What a step of the ladder changes for one family."""

    family: str
    """The family."""
    step: str
    """The step; its groups are those of the first model."""
    compared_with: str
    """The step that it is compared with."""


class VariantResult(Result):
    """One fit."""

    id: str
    """Family, step and seed."""
    model: str
    """Name of the model, of which this is one seed."""
    seed: int
    """Seed of the fit."""
    fit_seconds: float
    """Seconds of fitting, the refit included."""
    peak_memory_mebibytes: float | None
    """Rise of resident memory while fitting; None where the system does not tell."""
    validation_ndcg: float
    """NDCG at 10 on validation, before any refit."""
    final_fit_splits: tuple[str, ...]
    """Splits that the evaluated model was fitted on."""
    metrics: dict[str, dict[str, float]]
    """Test metrics by task and name."""


class ModelResult(Result):
    """A family at a step of the ladder."""

    name: str
    """Family, step and, if it is one, `refit`."""
    family: str
    """The family."""
    title: str
    """The family as a reader is told, with `(refit)` behind it if it is one."""
    kind: Kind
    """`simple`, `deep` or `combined`."""
    step: str
    """The step."""
    top: bool
    """Whether it is the family's richest step on the ladder, by which the family is compared with others; no refit."""
    final_fit_splits: tuple[str, ...]
    """Splits that it was fitted on in the end; all but refits on the training split alone."""
    groups: tuple[str, ...]
    """Feature groups it is given."""
    settings: dict[str, object]
    """Fields of its config that are not the defaults."""
    seeds: tuple[int, ...]
    """Seeds that its metrics are means over."""
    fit_seconds: float
    """Mean over the seeds."""
    peak_memory_mebibytes: float | None
    """Largest over the seeds."""


class TaskResult(Result):
    """All models on one task."""

    name: str
    """The task."""
    headline_metric: str
    """Metric that orders the models and that differences are of."""
    users: int
    """Groups of users with events in the task: the independent units behind the intervals."""
    events: float
    """What the headline metric is a mean over: events, or users in `rank`."""
    scores: dict[str, dict[str, Estimate]]
    """By model and metric; means over the seeds. The best model in the headline metric comes first."""
    differences: tuple[Difference, ...]
    """All pairs of models, the better one first."""
    rungs: tuple[Rung, ...]
    """What each step of the ladder changes, by family."""


class Agreement(Result):
    """Whether two tasks put the models in the same order."""

    first: str
    """A task."""
    second: str
    """Another."""
    tau: Estimate
    """Kendall's rank correlation of the families at their richest step."""


class Figure(Result):
    """A number that a verdict rests on."""

    label: str
    """What it is."""
    value: float
    """The estimate."""
    lower: float | None = None
    """Lower end of its interval."""
    upper: float | None = None
    """Upper end of its interval."""
    p_holm: float | None = None
    """Corrected probability of so large a difference, were there none."""


class Claim(Result):
    """One claim and what this study says to it."""

    key: str
    """Short name."""
    statement: str
    """The claim in one sentence."""
    verdict: Verdict
    """What the figures say."""
    reason: str
    """Why, in one sentence."""
    figures: tuple[Figure, ...]
    """The numbers behind the verdict."""


class PlantedEffect(Result):
    """How one model answers to an effect planted in the synthetic world that it learned from."""

    effect: Literal["sequence", "hour"]
    """The effect; see `pipeline.study.planted`."""
    model: str
    """Name of the model."""
    response: Estimate
    """Change of a share of the first ten titles when the request is changed; 0 for who is blind to the effect."""
    users: int
    """Users whose requests can show it."""
    visible: bool
    """Whether the model is given what it takes to see it."""
    found: bool
    """Whether the whole interval lies above 0."""


class StepResult(Result):
    """One step of the ladder."""

    name: str
    """Its name."""
    title: str
    """What a reader is told of a model at this step."""
    adds: str | None
    """What a reader is told that it adds to the step below."""
    groups: tuple[str, ...]
    """Feature groups."""
    instead_of: str | None
    """The step that it is an alternative to, if it is no rung of the ladder."""


class StudyResults(Result):
    """Everything a study found out."""

    study: str
    """Name of the study."""
    title: str
    """Its headline."""
    pipeline: str
    """Name of the pipeline's configuration."""
    run_id: str
    """Run in ML Metadata that the figures are of."""
    versions: dict[str, str]
    """Versions of Python and of the libraries that decide on results."""
    examples: dict[str, int]
    """Examples by split, and titles of the catalogue."""
    replicates: int
    """Resamples of the bootstrap."""
    bootstrap_seed: int
    """Its seed."""
    level: float
    """Family-wise error of each task's tests; intervals cover 1 minus this."""
    margin: float
    """Share of a score that counts as no difference worth having."""
    steps: tuple[StepResult, ...]
    """The ladder."""
    skipped_steps: tuple[str, ...]
    """Steps left out, and why."""
    models: tuple[ModelResult, ...]
    """Families at their steps."""
    variants: tuple[VariantResult, ...]
    """Every fit."""
    tasks: tuple[TaskResult, ...]
    """Every task."""
    agreements: tuple[Agreement, ...]
    """Every pair of tasks."""
    claims: tuple[Claim, ...]
    """The claims and their verdicts."""
    planted_effects: tuple[PlantedEffect, ...]
    """How the models answer to planted effects; empty unless the data are a synthetic world of the study's own."""
    total_fit_seconds: float
    """Sum over all fits."""
