"""Which features models see, by group, and the sizes of their vocabularies."""

import pytest

from modules.model_inputs import Form, ModelInput, build_model_inputs
from tests.modules.small_world import GROUPS, QUANTILE_BUCKETS

BUCKETS = QUANTILE_BUCKETS + 2
ALWAYS = {"log_seen_count", "log_seen_count_missing", "log_seen_count_bucket"}
FEATURES = {
    "user": {"age", "age_missing", "age_bucket", "gender", "occupation"},
    "context": {"device", "channel", "minutes", "minutes_missing", "minutes_bucket"},
    "time_buckets": {"hour", "weekday", "log_gap_bucket"},
    "continuous_time": {"hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "day", "log_gap", "log_gap_missing"},
    "item": {"title", "release_year", "release_year_missing", "release_year_bucket", "genres"},
}

QUERY_GROUPS = [group for group in FEATURES if group != "item"]


def _build(world, groups):
    return build_model_inputs(world.columns, world.transform, groups, QUANTILE_BUCKETS)


def _names(inputs):
    return {model_input.name for model_input in inputs}


def test_all_groups(world):
    inputs = _build(world, GROUPS)
    assert _names(inputs.query) == set().union(*(FEATURES[group] for group in QUERY_GROUPS)) | ALWAYS
    assert _names(inputs.item) == FEATURES["item"]
    assert len(inputs.query) == len(_names(inputs.query)) and len(inputs.item) == len(_names(inputs.item))
    assert inputs.use_item_ids and inputs.use_time_buckets and inputs.use_continuous_time
    assert (inputs.history_feedback, inputs.history_feedback_size) == ("history_rating_bucket", BUCKETS)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_that_is_left_out_takes_its_features_along_and_no_others(world, group):
    rest = [other for other in GROUPS if other != group]
    inputs = _build(world, rest)
    expected = set().union(*(FEATURES[other] for other in QUERY_GROUPS if other != group))
    assert _names(inputs.query) == expected | ALWAYS
    assert _names(inputs.item) == (set() if group == "item" else FEATURES["item"])
    assert inputs.use_item_ids == (group != "ids")
    assert inputs.use_time_buckets == (group != "time_buckets")
    assert inputs.use_continuous_time == (group != "continuous_time")


def test_nothing_but_how_much_was_seen_remains_without_groups(world):
    inputs = _build(world, ())
    assert _names(inputs.query) == ALWAYS and not inputs.item
    assert not inputs.use_item_ids and not inputs.use_gaps


@pytest.mark.parametrize("split", ["train", "eval"])
def test_sizes_are_just_above_the_largest_id(world, split):
    inputs = _build(world, GROUPS)
    transformed = world.transformed[split]
    id_forms = [model_input for model_input in (*inputs.query, *inputs.item) if model_input.form is not Form.NUMBER]
    assert len(id_forms) == 13
    for model_input in id_forms:
        assert 0 <= transformed[model_input.name].numpy().min() <= transformed[model_input.name].numpy().max()
        assert transformed[model_input.name].numpy().max() < model_input.size, model_input
    for name in ("gender", "channel"):
        distinct = {value for row in world.rows["train"] for value in row.get(name, [])}
        assert ModelInput(name, Form.ID, len(distinct) + 2, name) in inputs.query
    assert ModelInput("age_bucket", Form.ID, BUCKETS) in inputs.query
    assert ModelInput("hour", Form.ID, 24) in inputs.query and ModelInput("weekday", Form.ID, 7) in inputs.query
    genres = {genre for row in world.rows["train"] for genre in row.get("genres", [])}
    assert ModelInput("genres", Form.ID_BAG, len(genres) + 2, "genres") in inputs.item
    assert inputs.item_vocabulary_size == len({row["item_id"][0] for row in world.rows["train"]}) + 2
    assert inputs.user_vocabulary_size == len({row["user_id"][0] for row in world.rows["train"]}) + 2
    assert transformed["history_rating_bucket"].numpy().max() < inputs.history_feedback_size
