"""What the Trainer's entry point leaves behind beside the model."""

import json

import pytest
import tensorflow as tf

from modules.models.registry import create_recommender
from modules.models.validation import Validator


def _tensorboard_curve(served, name):
    """Reads a scalar of the event file, in order of the steps, as TensorBoard does."""
    (path,) = (served.directory / "run" / "train").glob("events.out.tfevents.*")
    values = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            if value.tag == name:
                values[event.step] = float(tf.make_ndarray(value.tensor))
    return [values[step] for step in range(1, len(values) + 1)]


def test_the_report_tells_how_the_model_was_fitted(served, world):
    report = json.loads((served.directory / "run" / "training.json").read_text())
    assert report["model"] == {"family": served.family, "settings": served.settings, "seed": 5, "refit": False}
    assert report["final_fit_splits"] == ["train"]
    assert report["fit_seconds"] > 0
    assert 0 < report["validation_ndcg@10"] < 1
    assert [epoch["epoch"] for epoch in report["epochs"]] == list(range(1, len(report["epochs"]) + 1))
    # A ranker stops on its own loss, and a cascade has the curves of both its stages.
    curve = [epoch["validation_ndcg@10"] for epoch in report["epochs"] if "validation_ndcg@10" in epoch]
    if curve:
        assert curve[report["best_epoch"] - 1] == max(curve)
        assert report["validation_ndcg@10"] == pytest.approx(max(curve), abs=1e-6)
        assert _tensorboard_curve(served, "validation_ndcg@10") == pytest.approx(curve)
        assert _tensorboard_curve(served, "loss") == pytest.approx([epoch["loss"] for epoch in report["epochs"]])
    elif served.family == "ranker":
        losses = [epoch["validation_watch_loss"] for epoch in report["epochs"]]
        assert losses[report["best_epoch"] - 1] == min(losses)
        assert _tensorboard_curve(served, "validation_watch_loss") == pytest.approx(losses)
    else:
        assert report["best_epoch"] == 0


def test_popularity_is_reported_as_it_validates(serve, world):
    context = world.fit_context()
    scorer, _ = create_recommender("popularity", {}).fit(world.data, world.catalogue, context)
    validator = Validator(scorer, world.data, world.catalogue, context.inputs.item_vocabulary_size)
    report = json.loads((serve("popularity").directory / "run" / "training.json").read_text())
    assert report["validation_ndcg@10"] == validator.ndcg()


def test_a_band_over_an_unknown_column_is_refused_before_training(world, monkeypatch):
    monkeypatch.setattr("tests.modules.small_world.BANDS", {"age": [25], "height": [180]})
    with pytest.raises(ValueError, match=r"evaluation\.bands .*'age'.*received \['height'\]"):
        world.train("refused", "popularity", {})
    assert not (world.directory / "refused").exists()
