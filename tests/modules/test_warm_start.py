"""Warm starts: what a fit takes over from an exported model, through the Trainer's entry point."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.modules.conftest import SETTINGS
from tests.modules.permuted_world import make_permuted_world
from tests.modules.small_world import query_of, serialize

_STANDING_STILL = {"learning_rate": 1e-12, "weight_decay": 0.0, "max_epochs": 1}
_TRAINED_FAMILIES = ("autoencoder", "gru", "ranker", "transformer", "two_tower")


@pytest.fixture(scope="module")
def permuted(world, tmp_path_factory):
    return make_permuted_world(world, tmp_path_factory.mktemp("permuted"))


@pytest.fixture
def pushed(serve, tmp_path):
    """Returns a copy of a family's SavedModel, which is all that a serving folder has."""

    def copy(family):
        return str(shutil.copytree(serve(family).directory / "model", tmp_path / family / "1700000000"))

    return copy


def _report(directory):
    return json.loads((directory / "run" / "training.json").read_text())


def _scores(model, world):
    """Returns what `rank` says of all known titles for some requests, `[requests, titles]`."""
    loaded = tf.saved_model.load(str(model))
    examples = [serialize(query_of(row)) for row in world.rows["test"][:20]]
    titles = sorted(title["item_id"][0] for title in world.titles)
    answer = loaded.signatures["rank"](
        examples=tf.constant(examples), candidate_ids=tf.constant([titles] * len(examples))
    )
    return answer["scores"].numpy()


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name == "two_tower" else pytest.mark.slow) for name in _TRAINED_FAMILIES],
)
def test_other_ids_of_the_same_tokens_do_not_change_a_score(family, permuted, world, serve, pushed):
    settings = {**SETTINGS[family], **_STANDING_STILL}
    began = permuted.train(f"still_{family}", family, settings, base_model=pushed(family))
    start = _report(began)["start"]
    (model,) = start["models"].values()
    assert start["kind"] == "warm"
    assert model["fresh_weights"] == [] and model["rows"]["fresh"] == model["rows"]["lost"] == 0
    assert model["rows"]["carried"] > 100
    before = _scores(serve(family).directory / "model", world)
    np.testing.assert_allclose(_scores(began / "model", permuted), before, rtol=1e-3, atol=1e-4)
    if family == "two_tower":
        cold = permuted.train(f"cold_{family}", family, settings)
        assert np.abs(_scores(cold / "model", permuted) - before).max() > 0.01


@pytest.mark.slow
def test_a_second_fit_goes_on_where_the_first_one_ended(permuted, serve, pushed):
    base = pushed("two_tower")
    again = permuted.train(
        "again", "two_tower", SETTINGS["two_tower"], base_model=base, warm_start={"learning_rate_factor": 0.25}
    )
    report = _report(again)
    assert report["start"]["base_model"] == base and report["start"]["learning_rate_factor"] == 0.25
    before = report["start"]["models"]["model"]["validation_before"]
    assert before == pytest.approx(_report(serve("two_tower").directory)["validation_ndcg@10"], abs=1e-6)
    assert report["epochs"][0]["loss"] < _report(serve("two_tower").directory)["epochs"][0]["loss"]


@pytest.mark.slow
def test_what_has_another_shape_stays_fresh_and_is_named(world, pushed):
    settings = {**SETTINGS["two_tower"], "hidden_units": 12, "max_epochs": 1}
    report = _report(world.train("wider", "two_tower", settings, base_model=pushed("two_tower")))
    (model,) = report["start"]["models"].values()
    assert report["start"]["kind"] == "warm"
    assert model["fresh_weights"] == [
        f"query_tower/{name}" for name in ("_hidden/bias", "_hidden/kernel", "_output/kernel")
    ]
    assert "fresh: query_tower/_hidden/bias" in model["told"]


@pytest.mark.slow
def test_a_base_model_of_another_family_means_a_cold_start(world, serve, pushed):
    settings = SETTINGS["two_tower"]
    other = world.train("other", "two_tower", settings, base_model=pushed("ease"))
    start = _report(other)["start"]
    assert start["kind"] == "cold"
    assert start["models"]["model"]["reason"] == "the base model has no 'two_tower' in this place; it holds []"
    assert _report(other)["epochs"] == _report(serve("two_tower").directory)["epochs"]


def test_closed_forms_say_that_they_do_not_use_a_base_model(world, pushed):
    start = _report(world.train("closed", "ease", SETTINGS["ease"], base_model=pushed("two_tower")))["start"]
    assert (start["kind"], start["models"]) == ("cold", {})
    assert start["reason"] == "this family is fitted in closed form, from the data alone"


def test_an_empty_artifact_means_a_cold_start(world, tmp_path):
    start = _report(world.train("empty", "popularity", {}, base_model=str(tmp_path)))["start"]
    assert start == {"kind": "cold", "reason": "there is no base model"}


@pytest.mark.slow
def test_the_parts_of_a_hybrid_and_of_a_cascade_go_on(world, permuted):
    tower = {**SETTINGS["two_tower"], "max_epochs": 1}
    for family, settings, parts in (
        ("hybrid", {"members": [{"family": "ease"}, {"family": "two_tower", "settings": tower}]}, ["members/1/model"]),
        (
            "cascade",
            {**SETTINGS["cascade"], "retrieval": {"family": "two_tower", "settings": tower}},
            ["ranker/_model", "retrieval/model"],
        ),
    ):
        first = world.train(f"first_{family}", family, settings)
        start = _report(permuted.train(f"second_{family}", family, settings, base_model=str(first / "model")))["start"]
        assert start["kind"] == "warm" and sorted(start["models"]) == parts
        assert all(model["carried_weights"] and not model["fresh_weights"] for model in start["models"].values())
