"""Batches of the transformed splits: complete, in order or shuffled by a seed."""

import numpy as np
import pytest

from modules import training_data
from modules.training_data import TrainingData


@pytest.fixture(params=["kept", "streamed"])
def _memory(request, monkeypatch):
    """Splits are small enough to be kept in memory, or too large for that."""
    if request.param == "streamed":
        monkeypatch.setattr(training_data, "_MOST_KEPT_BYTES", 0)


def _orders(data, passes, **arguments):
    """Users and times of every example, pass by pass."""
    batches = data.batches("train", **arguments)
    return [
        [pair for batch in batches for pair in zip(batch["user_id"].numpy(), batch["timestamp"].numpy(), strict=True)]
        for _ in range(passes)
    ]


@pytest.mark.usefixtures("_memory")
def test_without_a_seed_every_example_comes_once_in_the_order_of_the_files(world):
    first, second = _orders(world.data, 2, batch_size=100)
    assert first == second and len(first) == len(world.rows["train"])
    assert [time for _, time in first] == [row["timestamp"][0] for row in world.rows["train"]]
    sizes = [len(batch["item_id"]) for batch in world.data.batches("train", 1900)]
    assert sizes == [1900, len(world.rows["train"]) - 1900]


@pytest.mark.usefixtures("_memory")
def test_a_seed_gives_the_same_new_orders_every_time(world):
    first, second = _orders(world.data, 2, batch_size=100, shuffle_seed=3)
    again, _ = _orders(world.data, 2, batch_size=100, shuffle_seed=3)
    other, _ = _orders(world.data, 2, batch_size=100, shuffle_seed=4)
    assert first == again and first != second and first != other
    whole_batches = len(world.rows["train"]) // 100 * 100
    assert len(first) == len(second) == whole_batches
    (in_order,) = _orders(world.data, 1, batch_size=100)
    assert len(set(in_order) - set(first)) <= len(in_order) - whole_batches


def test_columns_are_read_whole(world):
    columns = world.data.read("train", ["timestamp", "history_item_ids"])
    assert columns["timestamp"].tolist() == [row["timestamp"][0] for row in world.rows["train"]]
    assert columns["history_item_ids"].shape == (len(world.rows["train"]), world.data.length_of("history_item_ids"))


def test_seen_titles_stay_sparse(world):
    batch = next(iter(world.data.batches("train", 7)))
    np.testing.assert_array_equal(batch["seen_item_ids"].dense_shape[0], 7)


def test_a_split_without_files_is_named(world, tmp_path):
    with pytest.raises(ValueError, match=r"the eval split has no file: nothing matches \['.*/nothing\*'\]"):
        TrainingData.from_patterns(
            {"train": [world.pattern("train")], "eval": [str(tmp_path / "nothing*")]}, world.transform
        )
