"""What a changed configuration runs again, and what its model must pass to be pushed.

All tests share a workspace that has been run twice; each looks at the run it makes itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.models import registry
from pipeline import gate
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import COMPONENTS, RESOLVER, SCHEMA_TEXT, Run, make_config, run, served, summarise

pytestmark = pytest.mark.end_to_end

POPULARITY = ("model.family=popularity", "model.settings={}")
NO_WORSE = "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.001, minimum_change: 0.0}]}"
FROM_THE_TRAINER = set(COMPONENTS[COMPONENTS.index("RecommenderTrainer") :])


@pytest.fixture(scope="module")
def better(first_runs: FirstRuns) -> Run:
    """Popularity, which so small a world's two towers cannot beat."""
    return run(make_config(first_runs.folder, *POPULARITY, NO_WORSE))


def test_another_family_leaves_transform_cached(better: Run):
    assert better.nodes("COMPLETE") == FROM_THE_TRAINER
    assert better.nodes("CACHED") == set(COMPONENTS) - FROM_THE_TRAINER


def test_a_better_model_is_compared_with_the_last_blessed_one_and_pushed(better: Run, first_runs: FirstRuns):
    before, report = first_runs.first.report.metrics, better.report
    assert report.metrics["overall"]["ndcg@10"] > before["overall"]["ndcg@10"]
    for name in ("overall", "gender=F", "age_band=<25"):
        assert report.baseline_metrics[name]["ndcg@10"] == pytest.approx(before[name]["ndcg@10"], abs=1e-6)
    assert report.blessed
    assert [report.pushed and report.pushed.version] == better.new_versions
    (older,) = first_runs.first.new_versions
    assert int(older) < int(better.new_versions[0])


def test_a_worse_model_is_not_pushed(better: Run, first_runs: FirstRuns):
    versions = served(better.config)
    worse = run(make_config(first_runs.folder, NO_WORSE))

    # The model is the first run's, so only its comparison with the better one is new.
    assert worse.nodes("COMPLETE") == {RESOLVER, "RecommenderEvaluator", "AtomicPusher"}
    assert worse.report.baseline_metrics["overall"] == pytest.approx(better.report.metrics["overall"], abs=1e-6)
    assert worse.report.blessed is False
    (reason,) = worse.report.blessing_failures
    assert reason.startswith("ndcg@10 overall changed by -")
    assert reason.endswith(
        "against the last blessed model; the gate asks for a change of more than +0 with 95 % confidence"
    )
    assert worse.report.pushed is None
    assert served(worse.config) == versions


def test_a_model_below_the_minimum_is_not_pushed(first_runs: FirstRuns):
    versions = served(first_runs.first.config)
    minimum = "evaluation.gate={rules: [{metric: ndcg@10, slice: {gender: F}, minimum: 0.9}]}"
    groups = "features.groups=[ids, time_buckets]"
    refused = run(make_config(first_runs.folder, *POPULARITY, minimum, groups))

    assert refused.nodes("COMPLETE") == FROM_THE_TRAINER, "other feature groups must leave Transform cached"
    assert refused.report.blessed is False
    (reason,) = refused.report.blessing_failures
    assert reason.startswith("ndcg@10 on gender=F is 0.")
    assert reason.endswith("the gate asks for at least 0.9 with 95 % confidence")
    assert refused.report.pushed is None
    assert served(refused.config) == versions


def test_a_gate_without_rules_lets_nothing_through(first_runs: FirstRuns):
    versions = served(first_runs.first.config)
    refused = run(make_config(first_runs.folder, *POPULARITY, "evaluation.gate={}", "model.seed=18"))

    assert refused.nodes("COMPLETE") == FROM_THE_TRAINER, "another seed must leave Transform cached"
    assert refused.report.metrics["overall"]["ndcg@10"] > 0
    assert refused.report.blessed is False
    assert refused.report.blessing_failures == [gate.NO_RULE]
    assert refused.report.pushed is None
    assert served(refused.config) == versions


def test_a_changed_schema_runs_everything_that_reads_it(first_runs: FirstRuns, tmp_path: Path):
    wider = SCHEMA_TEXT.replace('value: "desktop"', 'value: "console" value: "desktop"')
    assert wider != SCHEMA_TEXT
    (tmp_path / "schema.pbtxt").write_text(wider, encoding="utf-8")
    changed = run(make_config(first_runs.folder, *POPULARITY, f"schema_file={tmp_path / 'schema.pbtxt'}"))

    # The catalogue has no column with that domain: its own schema, and so its validation, stay as they were.
    assert changed.nodes("CACHED") == set(COMPONENTS[: COMPONENTS.index("CuratedSchema")])
    assert changed.nodes("COMPLETE") == set(COMPONENTS[COMPONENTS.index("CuratedSchema") :])


def test_a_model_that_cannot_be_served_is_not_pushed(
    better: Run, first_runs: FirstRuns, monkeypatch: pytest.MonkeyPatch
):
    versions = served(first_runs.first.config)
    monkeypatch.setitem(registry.FAMILIES, "in_python", "tests.end_to_end.unservable:InPython")
    refused = run(make_config(first_runs.folder, "model.family=in_python", "model.settings={}"))

    assert refused.report.state == "complete"
    assert refused.report.blessed
    assert refused.report.servable is False
    assert refused.report.servable_reason is not None
    assert "pyfunc" in refused.report.servable_reason
    assert refused.report.pushed is None
    assert served(refused.config) == versions
    assert f"Not servable: {refused.report.servable_reason.splitlines()[0]}" in summarise(refused.report)

    # Nor is it what later models are compared with.
    following = run(make_config(first_runs.folder, NO_WORSE.replace("0.001", "0.002")))
    assert following.report.baseline_metrics["overall"] == pytest.approx(better.report.metrics["overall"], abs=1e-6)
