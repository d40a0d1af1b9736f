"""From the users' responses to planted effects to what a study says of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.experiment_results import Estimate
from pipeline.study.config import StudyConfig
from pipeline.study.results import PlantedEffect
from pipeline.study.statistics import Scores, bootstrap_means, percentile_interval
from pipeline.study.variants import Plan

PlantedDocument = Mapping[str, Sequence]
"""`users` and, by effect, a response for each of them or None; see `PlantedEffectsExecutor`."""

_TIME_GROUPS = frozenset({"time_buckets", "continuous_time"})
_BLIND_TO_HISTORY = frozenset({"popularity"})


def describe_planted_effects(
    study: StudyConfig, plan: Plan, responses: Mapping[str, PlantedDocument]
) -> list[PlantedEffect]:
    """Returns the mean response of each model to each effect, with an interval from a bootstrap over users.

    Args:
      study: level and bootstrap.
      plan: what was fitted.
      responses: by variant id; all of the same users.
    """
    if not responses:
        return []
    result = []
    effects = [name for name in next(iter(responses.values())) if name != "users"]
    seeds: dict[str, list[str]] = {}
    for variant in plan.variants:
        seeds.setdefault(variant.model, []).append(variant.id)
    for effect in effects:
        values = np.array([responses[variant.id][effect] for variant in plan.variants], float)
        counts = np.isfinite(values).astype(float)
        if not counts.any():
            continue
        scores = Scores(tuple(variant.id for variant in plan.variants), np.nan_to_num(values), counts).averaged(seeds)
        (resamples,) = bootstrap_means([scores], study.bootstrap.replicates, study.bootstrap.seed)
        for row, model in enumerate(scores.models):
            variant = next(variant for variant in plan.variants if variant.model == model)
            lower, upper = percentile_interval(resamples[:, row], study.level)
            visible = (
                bool(_TIME_GROUPS & set(variant.groups))
                if effect == "hour"
                else variant.family not in _BLIND_TO_HISTORY
            )
            result.append(
                PlantedEffect(
                    effect=effect,
                    model=model,
                    response=Estimate(value=float(scores.means[row]), lower=lower, upper=upper),
                    users=int(counts[0].sum()),
                    visible=visible,
                    found=lower > 0,
                )
            )
    return result
