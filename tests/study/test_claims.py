"""Verdicts follow from the figures: planted truths are found, their opposites refused, and noise left undecided."""

from __future__ import annotations

import math

import pytest
import yaml

from modules.features import ColumnTable
from pipeline.config import load_config
from pipeline.config_checks import read_schema
from pipeline.study.config import StudyConfig
from pipeline.study.results import Claim, StudyResults
from pipeline.study.variants import plan_study
from tests.study.simulated import Truth, simulate_study

STUDY = StudyConfig.model_validate(
    yaml.safe_load(
        """
        name: simulated
        title: Simulated
        config: synthetic
        seeds: [1, 2]
        bootstrap: {replicates: 1500}
        steps:
          - {name: ids, title: ids only, groups: [ids]}
          - {name: item, title: with items, adds: items, groups: [ids, item]}
          - {name: buckets, title: with time in buckets, adds: time in buckets, groups: [ids, item, time_buckets]}
          - {name: numbers, title: time as numbers, groups: [ids, item, continuous_time], instead_of: buckets}
        families:
          popularity: {kind: simple, title: Popularity}
          ease: {kind: simple, title: EASE}
          two_tower: {kind: deep, title: Two towers, steps: [ids, item, buckets, numbers], refitted: [buckets]}
        """
    )
)

REFIT = {"two_tower.buckets.refit": 0.9}
"""Far above all else, which must change no verdict."""

AS_IN_THE_PAPER: Truth = {
    "next_title": {
        "popularity.ids": 0.30,
        "ease.ids": 0.40,
        "two_tower.ids": 0.38,
        "two_tower.item": 0.41,
        "two_tower.buckets": 0.47,
        "two_tower.numbers": 0.52,
        **REFIT,
    },
    "because_you_watched": {
        "popularity.ids": 0.30,
        "ease.ids": 0.50,
        "two_tower.ids": 0.38,
        "two_tower.item": 0.38,
        "two_tower.buckets": 0.40,
        "two_tower.numbers": 0.40,
        **REFIT,
    },
}
THE_OPPOSITE: Truth = {
    task: {
        "popularity.ids": 0.30,
        "ease.ids": 0.55,
        "two_tower.ids": 0.53,
        "two_tower.item": 0.51,
        "two_tower.buckets": 0.48,
        "two_tower.numbers": 0.43,
        **REFIT,
    }
    for task in AS_IN_THE_PAPER
}
ALL_EQUAL: Truth = {task: dict.fromkeys(scores, 0.4) for task, scores in AS_IN_THE_PAPER.items()}


def simulate(truth: Truth, users: int = 300, noise: float = 0.02) -> StudyResults:
    config = load_config("synthetic")
    plan = plan_study(STUDY, config, ColumnTable.from_schema(read_schema(config)))
    return simulate_study(STUDY, plan, truth, users, noise)


@pytest.fixture(scope="module")
def paper() -> StudyResults:
    return simulate(AS_IN_THE_PAPER)


def verdicts(results: StudyResults) -> dict[str, str]:
    return {claim.key: claim.verdict for claim in results.claims}


def test_what_is_planted_is_found(paper: StudyResults):
    assert set(verdicts(paper).values()) == {"supported"}, verdicts(paper)
    assert len(paper.claims) == 7


def test_the_opposite_is_refused():
    found = verdicts(simulate(THE_OPPOSITE))
    # Deep models that lose with ids only are no better, as the claim has it; all else is turned around.
    assert found.pop("ids_only") == "supported"
    assert set(found.values()) == {"not supported"}, found


def test_a_deep_model_ahead_on_ids_refuses_the_claim():
    truth = {task: {**scores, "two_tower.ids": 0.6} for task, scores in AS_IN_THE_PAPER.items()}
    assert verdicts(simulate(truth))["ids_only"] == "not supported"


def test_few_users_leave_small_effects_undecided():
    close = {
        task: dict(zip(scores, (0.30, 0.40, 0.41, 0.411, 0.412, 0.413, 0.9), strict=True))
        for task, scores in AS_IN_THE_PAPER.items()
    }
    found = verdicts(simulate(close, users=25, noise=0.4))
    assert found["time"] == found["deep"] == found["ids_only"] == "undecided here"


def test_equal_models_are_neither_ordered_nor_different():
    results = simulate(ALL_EQUAL)
    found = verdicts(results)
    assert "supported" not in {found[key] for key in ("tasks", "features", "time", "continuous_time", "deep")}
    assert all(difference.p_holm > 0.01 for task in results.tasks for difference in task.differences)


def test_a_study_of_one_task_says_what_it_lacks():
    claims = {claim.key: claim for claim in simulate({"next_title": AS_IN_THE_PAPER["next_title"]}).claims}
    for key in ("tasks", "disagreement"):
        claim: Claim = claims[key]
        assert (claim.verdict, claim.figures) == ("undecided here", ())
        assert claim.reason.startswith("It takes two tasks")
    assert claims["deep"].verdict == "supported"


def test_estimates_differences_and_rungs_agree(paper: StudyResults):
    for task in paper.tasks:
        values = {name: scores[task.headline_metric] for name, scores in task.scores.items()}
        assert [estimate.value for estimate in values.values()] == sorted(
            (estimate.value for estimate in values.values()), reverse=True
        )
        assert all(estimate.lower < estimate.value < estimate.upper for estimate in values.values())
        assert len(task.differences) == math.comb(len(values), 2)
        for found in (*task.differences, *task.rungs):
            assert found.value == pytest.approx(values[found.first].value - values[found.second].value)
            assert found.lower <= found.value <= found.upper
            assert found.p <= found.p_holm <= 1
        assert [(rung.step, rung.compared_with) for rung in task.rungs] == [
            ("item", "ids"),
            ("buckets", "item"),
            ("numbers", "buckets"),
        ]
        assert task.users == 300


def test_refits_are_told_apart_and_kept_out_of_the_line_up(paper: StudyResults):
    models = {model.name: model for model in paper.models}
    refit = models["two_tower.buckets.refit"]
    assert (refit.title, refit.top, refit.seeds) == ("Two towers (refit)", False, (1,))
    assert refit.final_fit_splits == ("train", "eval")
    assert all(model.final_fit_splits == ("train",) for name, model in models.items() if name != refit.name)
    assert models["two_tower.buckets"].seeds == (1, 2)
    assert next(iter(paper.tasks[0].scores)) == refit.name
    assert not any("refit" in claim.reason for claim in paper.claims)
    assert not any(refit.title in figure.label for claim in paper.claims for figure in claim.figures)


def test_pairing_makes_differences_far_more_certain_than_scores(paper: StudyResults):
    task = paper.tasks[0]
    (gap,) = (
        found for found in task.differences if found.first == "two_tower.ids" and found.second == "popularity.ids"
    )
    score = task.scores["two_tower.ids"][task.headline_metric]
    assert gap.upper - gap.lower < (score.upper - score.lower) / 3
