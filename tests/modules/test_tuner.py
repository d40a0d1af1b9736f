"""The search for settings: what it tries, how it judges, and what it survives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras_tuner
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from tfx.components.trainer.fn_args_utils import FnArgs

from modules import hyperparameters, trainer
from modules.hyperparameters import read_settings, search_space
from modules.models import registry
from modules.models.base import FitReport
from modules.models.popularity import Popularity, PopularityConfig
from modules.models.search_space import Choice, Dimension, FloatRange, IntRange
from modules.settings import flatten_settings, merge_settings, nest_settings
from modules.tuner import OBJECTIVE, SettingsOracle, tuner_fn
from tests.modules.small_world import GROUPS, QUANTILE_BUCKETS, SmallWorld


class MoodyConfig(PopularityConfig):
    """Settings of `Moody`."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "window_days": Choice((5.0, 13.0, None)),
        "share": FloatRange(0.5, 2.0, logarithmic=True),
    }
    share: float = 1.0
    """Nothing that matters."""


class Moody(Popularity):
    """Popularity that does not converge with a window of 13 days."""

    config_class = MoodyConfig

    def fit(self, data, catalogue, context):
        if self.config.window_days == 13:
            raise ValueError("training diverged in epoch 1")
        return super().fit(data, catalogue, context)[0], FitReport()


def _search(world: SmallWorld, name: str, family: str, settings: dict[str, Any], **search: Any):
    """Searches by way of the Tuner's entry point; returns the tuner."""
    wanted = {"family": family, "settings": settings, "fixed": {}, "seed": 5, "trials": 4, **search}
    result = tuner_fn(
        FnArgs(
            working_dir=str(world.directory / name),
            train_files=[world.pattern("train")],
            eval_files=[world.pattern("eval")],
            schema_path=str(world.directory / "schema.pbtxt"),
            transform_graph_path=str(world.directory / "transform"),
            custom_config={
                "catalogue_files": world.pattern("catalogue"),
                "feature_groups": list(GROUPS),
                "quantile_buckets": QUANTILE_BUCKETS,
                "search": wanted,
            },
        )
    )
    result.tuner.search(**result.fit_kwargs)
    return result.tuner


@pytest.fixture(scope="module")
def small_search(world: SmallWorld):
    """A search for the better one of a few windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PopularityConfig, "search_space", {"window_days": Choice((3.0, 7.0, None))})
        return _search(world, "whole", "popularity", {"window_days": 7.0}, trials=50)


def test_a_small_space_is_tried_whole_and_judged_as_the_trainer_does(world: SmallWorld, small_search):
    trials = small_search.search_record.trials
    assert [trial.settings["window_days"] for trial in trials] == [7.0, 3.0, None], "what is configured comes first"
    assert all(trial.failure is None for trial in trials)
    directory = world.train("window-3", "popularity", {"window_days": 3.0})
    reported = json.loads((directory / "run" / "training.json").read_text())
    assert trials[1].validation_ndcg == reported["validation_ndcg@10"]


def test_the_best_hyperparameters_reach_the_trainer(small_search):
    best = small_search.search_record.ranked()[0]
    found = small_search.get_best_hyperparameters()[0].get_config()
    assert read_settings(keras_tuner.HyperParameters.from_config(found)) == best.settings
    assert best.validation_ndcg == max(trial.validation_ndcg for trial in small_search.search_record.trials)

    def effective(**layers: Any):
        config = {"model": {"settings": layers.get("settings", {})}, "tuned": layers.get("tuned", {})}
        return trainer._effective_settings(FnArgs(custom_config=config, hyperparameters=layers.get("found")))

    assert effective(found=found) == (best.settings, {"window_days": "marquee tune"})
    assert effective(tuned={"window_days": 2.0}) == ({"window_days": 2.0}, {"window_days": "tuned"})
    assert effective(tuned={"window_days": 2.0}, found=found) == (best.settings, {"window_days": "marquee tune"})
    everything = effective(tuned={"window_days": 2.0}, found=found, settings={"window_days": 4.0})
    assert everything == ({"window_days": 4.0}, {"window_days": "model.settings"})


def test_a_large_space_is_searched_from_what_is_configured_and_what_is_fixed_is_left_alone(world: SmallWorld):
    fixed = {"recency_decay": 0.5}
    tuner = _search(world, "large", "ease", {"regularisation": 50.0, **fixed}, fixed=fixed, trials=2)
    first, second = tuner.search_record.trials
    assert first.settings == {"older_weight": 0.03, "regularisation": 50.0}
    assert second.settings.keys() == first.settings.keys()
    assert second.settings != first.settings
    assert second.validation_ndcg != first.validation_ndcg


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # Seven points are few for the process.
def test_the_same_seed_searches_the_same(tmp_path: Path):
    def tried(name: str, seed: int) -> list[dict[str, Any]]:
        space = keras_tuner.HyperParameters()
        space.Float("a", 0.0, 1.0)
        space.Choice("b", ["1", "2"])
        oracle = SettingsOracle(space, 7, seed)
        oracle._set_project_dir(str(tmp_path), name)
        values = []
        # Past the random draws, so that the Gaussian process has its say.
        while (trial := oracle.create_trial("tuner")).status == "RUNNING":
            values.append(trial.hyperparameters.values)
            oracle.update_trial(trial.trial_id, {OBJECTIVE: -((trial.hyperparameters.get("a") - 0.7) ** 2)})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)
        return values

    first = tried("seed-1", 0)
    assert len(first) == 7
    assert first == tried("seed-2", 0)
    assert first != tried("seed-3", 1)


def test_failed_trials_are_noted_and_the_search_goes_on(world: SmallWorld, monkeypatch, caplog):
    monkeypatch.setitem(registry.FAMILIES, "moody", f"{__name__}:Moody")
    monkeypatch.setattr(MoodyConfig, "search_space", {"window_days": Choice((5.0, 13.0))})
    caplog.set_level("INFO", logger="marquee.tuner")
    record = _search(world, "moody", "moody", {"window_days": 13.0}).search_record
    assert [trial.failure for trial in record.trials] == ["training diverged in epoch 1", None]
    assert record.ranked()[-1] == record.trials[0]
    assert caplog.messages[0].startswith("trial 1/2 of moody: failed: training diverged in epoch 1 (")
    assert caplog.messages[1].startswith("trial 2/2 of moody: NDCG@10 0.")
    assert caplog.messages[1].endswith(" s), best so far")
    assert caplog.messages[2] == "  window_days 5.0"

    monkeypatch.setattr(MoodyConfig, "search_space", {"window_days": Choice((13.0,))})
    with pytest.raises(ValueError, match="tuning moody: every trial failed, the first with: training diverged"):
        _search(world, "hopeless", "moody", {"window_days": 13.0})


@settings(max_examples=12)
@given(trials=st.integers(1, 26), seed=st.integers(0, 2**40))
def test_nothing_is_tried_twice_and_everything_is_in_its_range(trials: int, seed: int):
    space = keras_tuner.HyperParameters()
    dimensions: dict[str, Dimension] = {
        "a": IntRange(1, 3, logarithmic=True),
        "b": Choice((None, (1, 2))),
        "c": IntRange(-1, 0),
    }
    defaults: dict[str, Any] = {"a": 4, "b": (3,), "c": 0}
    for name, dimension in dimensions.items():
        hyperparameters._declare(space, name, dimension, defaults[name])
    oracle = SettingsOracle(space, trials, seed)
    # No Gaussian process here: it is slow, and what it proposes goes through the same checks.
    oracle.num_initial_points = trials
    tried = []
    for number in range(trials + 1):
        answer = oracle.populate_space(str(number))
        if answer["values"] is None or number >= oracle.max_trials:
            break
        oracle.trials[str(number)] = keras_tuner.engine.trial.Trial(space.copy(), str(number))
        oracle.trials[str(number)].hyperparameters.values = answer["values"]
        tried.append(read_settings(oracle.trials[str(number)].hyperparameters))
    assert len(tried) == min(trials, 4 * 3 * 2)
    assert tried[0] == {"a": 4, "b": [3], "c": 0}
    assert all(one not in tried[:number] for number, one in enumerate(tried))
    assert all(1 <= one["a"] <= 4 and one["b"] in (None, [1, 2], [3]) and -1 <= one["c"] <= 0 for one in tried)


@pytest.mark.parametrize("family", sorted(registry.FAMILIES))
def test_every_family_can_be_searched_from_its_defaults(family: str):
    declared = registry.create_recommender(family, {}).config.search_space
    defaults = read_settings(search_space(family, {}, {}))
    assert declared
    assert defaults.keys() == declared.keys()
    for path, dimension in declared.items():
        if isinstance(dimension, Choice):
            assert defaults[path] in dimension.values
            ends = dimension.values
        else:
            assert dimension.low <= defaults[path] <= dimension.high
            ends = (dimension.low, dimension.high)
        for end in ends:
            registry.create_recommender(family, nest_settings({path: end}))


@pytest.mark.parametrize(
    ("chosen", "fixed", "message"),
    [
        ({"share": -1.0}, {}, r"share: a search has to start from a number above zero; received -1\.0"),
        ({}, {"share": 1.0, "window_days": 3}, r"model\.settings fixes all .*\['share', 'window_days'\]"),
    ],
)
def test_what_cannot_be_searched_is_refused(chosen, fixed, message, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "moody", f"{__name__}:Moody")
    with pytest.raises(ValueError, match=message):
        search_space("moody", {**chosen, **fixed}, fixed)


_TREES = st.recursive(
    st.integers() | st.none() | st.lists(st.floats(0, 1), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
    max_leaves=6,
)


@given(nested=st.dictionaries(st.sampled_from("abc"), _TREES, max_size=3))
def test_dotted_paths_and_nested_settings_are_the_same(nested):
    assert nest_settings(flatten_settings(nested)) == nested


@given(below=st.dictionaries(st.sampled_from("abc"), _TREES), above=st.dictionaries(st.sampled_from("abc"), _TREES))
def test_the_upper_layer_wins_field_by_field(below, above):
    merged = flatten_settings(merge_settings(below, above))
    upper = flatten_settings(above)
    assert upper.items() <= merged.items()
    for path, value in flatten_settings(below).items():
        hidden = any(f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.") for other in upper)
        assert hidden or merged[path] == value


def test_nested_settings_are_searched_by_dotted_path(monkeypatch):
    class NestedConfig(PopularityConfig):
        class Inner(PopularityConfig):
            family: str = "two_tower"
            settings: dict[str, Any] = Field(default={"dropout": 0.1})

        search_space: ClassVar[Mapping[str, Dimension]] = {
            "inner.settings.dimension": Choice((8, 16)),
            "inner.settings.dropout": FloatRange(0.0, 0.5),
        }
        inner: Inner = Inner()

    class Nested(Popularity):
        config_class = NestedConfig

    monkeypatch.setattr("tests.modules.test_tuner.Nested", Nested, raising=False)
    monkeypatch.setitem(registry.FAMILIES, "nested", f"{__name__}:Nested")
    space = search_space("nested", {}, {})
    assert read_settings(space) == {"inner.settings.dimension": 64, "inner.settings.dropout": 0.1}
    fixed = {"inner": {"settings": {"dimension": 8}}}
    assert set(read_settings(search_space("nested", fixed, fixed))) == {"inner.settings.dropout"}


def test_the_objective_is_the_validation_metric():
    space = keras_tuner.HyperParameters()
    space.Float("a", 0.0, 1.0)
    objective = SettingsOracle(space, 3, 1).objective
    assert (objective.name, objective.direction) == (OBJECTIVE, "max")
