"""`SimulationResults`: everything a simulation found out, as written to `simulation.json`."""

from __future__ import annotations

from typing import Literal

from pipeline.experiment_results import Estimate, Result

MetricKind = Literal["logged", "off_policy"]


class ModelResult(Result):
    """One model."""

    name: str
    """Name in the configuration."""
    title: str
    """What a reader is told."""
    family: str
    """Its family."""
    groups: tuple[str, ...]
    """Feature groups that it sees."""
    weighted: bool
    """Whether it was trained with inverse propensities."""
    online: Estimate
    """Expected clicks per list online, mean over the worlds; the interval is of users and visits."""


class TitleResult(Result):
    """One title of one world."""

    relevance: float
    """Mean over users of the probability of a click once it is looked at, at the end of the log."""
    shown: int
    """Times that it was shown."""


class WorldModelResult(Result):
    """One model in one world."""

    online: Estimate
    """Expected clicks per list online; exact for each visit, with an interval over users."""
    sampled: float
    """Clicks per list drawn, as a check."""
    fit_seconds: float
    """Seconds of fitting."""
    metrics: dict[str, float | None]
    """What the Evaluator said of it on the log; None where a figure is refused or undefined."""
    refusals: dict[str, str]
    """Why off-policy estimates are refused, by metric."""


class WorldResult(Result):
    """One world, its log and what came after."""

    seed: int
    """Seed of the world."""
    run_id: str
    """Run in ML Metadata, in the world's workspace."""
    lists: int
    """Lists in the log."""
    clicks: int
    """Clicks in the log."""
    examination: tuple[float, ...]
    """Probability that each position is looked at."""
    click_rates: tuple[float, ...]
    """Share of the lists with a click at each position."""
    popularity_correlation: float
    """Spearman's correlation, over titles, of clicks in the log and true relevance."""
    logging_value: float
    """Clicks per list in the last tenth of the log: what the recommender of the log earned."""
    best_value: float
    """Expected clicks per list online of whoever knows the world."""
    examples: dict[str, int]
    """Examples by split."""
    titles: tuple[TitleResult, ...]
    """The titles."""
    models: dict[str, WorldModelResult]
    """The models by name."""


class Pick(Result):
    """The model that a figure picks in one world."""

    seed: int
    """The world."""
    model: str | None
    """Name of the model with the best figure; None if it is refused for all."""
    regret: float | None
    """Online value lost by that pick, against the best of the models."""


class MetricResult(Result):
    """How well one figure of the evaluation on the log foretells online value."""

    name: str
    """The metric."""
    kind: MetricKind
    """`off_policy`, or `logged` where the clicks are taken as they are."""
    lower_is_better: bool
    """Whether models are ordered from the lowest."""
    refused: int
    """Pairs of model and world for which it is refused or undefined."""
    spearman: Estimate | None
    """Rank correlation with online value, mean over worlds; None if it is refused for too many models."""
    kendall: Estimate | None
    """Kendall's tau-b, likewise."""
    spearman_by_world: dict[int, float | None]
    """The same by seed."""
    kendall_by_world: dict[int, float | None]
    """The same by seed."""
    picks: tuple[Pick, ...]
    """What it picks, world by world."""
    regret: float | None
    """Online value lost by its picks, mean over worlds."""


class WeightingResult(Result):
    """What training by inverse propensities changes for one model."""

    model: str
    """The weighted model."""
    unweighted: str
    """The same without weights."""
    change: Estimate
    """Change of expected clicks per list online, mean over worlds; paired over users."""
    by_world: dict[int, float]
    """The same by seed."""
    naive_change: float | None
    """What the naive metric makes of it, mean over worlds."""


class Finding(Result):
    """One sentence that follows from the figures."""

    key: str
    """What it is about."""
    statement: str
    """The sentence."""
    detail: str
    """The figures behind it."""


class SimulationResults(Result):
    """The document."""

    simulation: str
    """Name of the simulation."""
    title: str
    """Headline of the page."""
    versions: dict[str, str]
    """Versions of Python and the libraries."""
    grounding: str
    """Whose popularity skew, activity and genre shares the worlds have."""
    popularity_skew: float
    """Standard deviation of the logarithm of titles' clicks before the log."""
    activity_skew: float
    """Standard deviation of the logarithm of users' activity, before it is bounded."""
    naive: str
    """Metric that the naive choice goes by."""
    rule: str
    """Off-policy estimate that the better choice goes by."""
    level: float
    """Intervals cover 1 minus this."""
    replicates: int
    """Resamples behind them."""
    visits: int
    """Visits that each model answers online, per world."""
    models: tuple[ModelResult, ...]
    """The models, the best online first."""
    worlds: tuple[WorldResult, ...]
    """The worlds."""
    metrics: tuple[MetricResult, ...]
    """Off-policy estimates first, each kind by rank correlation."""
    spearman_difference: Estimate | None
    """Rank correlation of the rule minus that of the naive metric, paired."""
    weighting: tuple[WeightingResult, ...]
    """What training by inverse propensities changes."""
    findings: tuple[Finding, ...]
    """What it comes to, in sentences."""
