"""Studies whose truth is known: users earn what a table of true scores says, plus chance."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from modules.metrics.user_sums import UserSums
from pipeline.study.config import StudyConfig
from pipeline.study.results import StudyResults, VariantResult
from pipeline.study.summary import summarise_study
from pipeline.study.variants import Plan, Variant

Truth = Mapping[str, Mapping[str, float]]
"""Expected score by task and model, e.g. `{"next_title": {"popularity.ids": 0.2}}`."""


def simulate_sums(variant: Variant, truth: Truth, users: int, noise: float, seed: int = 0) -> list[UserSums]:
    """Returns what one variant earns: users differ a lot, models on one user by their truth and some noise."""
    result = []
    for task, scores in truth.items():
        of_users = np.random.default_rng([seed, zlib.crc32(task.encode())])
        taste = of_users.normal(0, 0.15, users)
        counts = of_users.integers(1, 30, users).astype(float)
        chance = np.random.default_rng([seed, zlib.crc32(f"{task} {variant.id}".encode())])
        means = scores[variant.model] + taste + chance.normal(0, noise, users)
        prefix = "" if task == "next_title" else f"{task}_"
        names = ("rank_user_auc",) if task == "rank" else (f"{prefix}ndcg@10", f"{prefix}recall@10")
        sums = np.stack([means * counts * (1 + column) for column in range(len(names))], axis=1)
        ids = np.arange(users, dtype=np.int64) * 3
        result.append(UserSums(task, names, ids, np.repeat(counts[:, None], len(names), axis=1), sums))
    return result


def simulate_study(study: StudyConfig, plan: Plan, truth: Truth, users: int = 300, noise: float = 0.02) -> StudyResults:
    """Returns the results of a study without fitting anything."""
    variants = [
        VariantResult(
            id=variant.id,
            model=variant.model,
            seed=variant.seed,
            fit_seconds=0.4 + len(variant.id) ** 2 / 10,
            peak_memory_mebibytes=20.0 + 7 * len(variant.id),
            validation_ndcg=0.1,
            final_fit_splits=("train", "eval") if variant.refit else ("train",),
            metrics={},
        )
        for variant in plan.variants
    ]
    sums = {variant.id: simulate_sums(variant, truth, users, noise) for variant in plan.variants}
    examples = {"train": 8_000, "eval": 1_000, "test": 1_000, "catalogue": 150}
    run_id = "2024-01-01T00:00:00.000000"
    return summarise_study(study, plan, variants, sums, pipeline="simulated", run_id=run_id, examples=examples)
