"""Fractal expansion: sizes, shapes, and where each event comes from."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings

from pipeline.datasets.fractal import FractalExpansion, scale_to_sum, shrink

DAY = 86_400


def heavy_tailed_log() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    events, users, items = 6000, 200, 150
    rng = np.random.default_rng(5)
    pairs = rng.permutation(users * items)
    weight = 1 / (1 + pairs // items) ** 0.7 / (1 + pairs % items) ** 0.9
    chosen = rng.choice(pairs, events, replace=False, p=weight / weight.sum())
    return chosen // items, chosen % items, rng.integers(10 * DAY, 200 * DAY, events)


def blocks(plan: FractalExpansion) -> list:
    return [plan.block(number) for number in range(len(plan.rates))]


@pytest.mark.parametrize(("interactions", "item_copies"), [(6000, 1), (6000, 3), (50_000, 4), (61_234, 2)])
def test_the_size_is_as_asked(interactions: int, item_copies: int) -> None:
    log = heavy_tailed_log()
    plan = FractalExpansion(*log, interactions, item_copies, seed=1)
    assert plan.rates.shape == (-(-interactions // 6000), item_copies)
    assert (plan.rates >= 0).all() and (plan.rates <= 1).all()
    assert plan.rates.sum() * 6000 == pytest.approx(interactions)
    total = sum(len(block.rows) for block in blocks(plan))
    assert abs(total - interactions) <= 5 * np.sqrt(interactions)


def test_events_are_copies_moved_by_whole_days() -> None:
    users, items, timestamps = heavy_tailed_log()
    plan = FractalExpansion(users, items, timestamps, 30_000, 3, seed=1)
    seen: set[tuple] = set()
    for number, block in enumerate(blocks(plan)):
        assert (np.diff(block.item_copies) >= 0).all()
        moved = block.timestamps - timestamps[block.rows]
        assert (moved % DAY == 0).all() and (abs(moved) <= 7 * DAY).all()
        assert block.timestamps.min() >= timestamps.min() and block.timestamps.max() <= timestamps.max()
        for copy in range(3):
            at = block.item_copies == copy
            originals = users[block.rows[at]]
            renamed = dict(zip(originals.tolist(), block.users[at].tolist(), strict=True))
            assert len(set(renamed.values())) == len(renamed)
            assert [renamed[user] for user in originals.tolist()] == block.users[at].tolist()
            shifts = dict(zip(originals.tolist(), moved[at].tolist(), strict=True))
            assert [shifts[user] for user in originals.tolist()] == moved[at].tolist()
            if copy == np.argmax(plan.rates[number]):
                assert (block.users[at] == originals).all()
        new = {
            (number, *event)
            for event in zip(block.users.tolist(), items[block.rows].tolist(), block.item_copies.tolist(), strict=True)
        }
        assert len(new) == len(block.rows) and not new & seen
        seen |= new


def test_the_same_arguments_give_the_same_events_in_any_order() -> None:
    log = heavy_tailed_log()
    first = FractalExpansion(*log, 30_000, 3, seed=1)
    again = FractalExpansion(*log, 30_000, 3, seed=1)
    other = FractalExpansion(*log, 30_000, 3, seed=2)
    for number in (4, 0, 2):
        for one, two in zip(first.block(number), again.block(number), strict=True):
            np.testing.assert_array_equal(one, two)
        assert not np.array_equal(first.block(number).rows, other.block(number).rows)


def concentration(ids: np.ndarray) -> float:
    """Returns the share of the events that the most frequent tenth has."""
    counts = np.sort(np.unique(ids, return_counts=True)[1])[::-1]
    return counts[: max(1, len(counts) // 10)].sum() / counts.sum()


def test_activity_and_popularity_keep_their_shape() -> None:
    users, items, timestamps = heavy_tailed_log()
    made = blocks(FractalExpansion(users, items, timestamps, 120_000, 4, seed=1))
    new_users = np.concatenate([1000 * number + block.users for number, block in enumerate(made)])
    new_items = np.concatenate([1000 * block.item_copies + items[block.rows] for block in made])
    # More of the head than before, since copies differ in how much they get, but no other kind of distribution.
    for old, new in ((users, new_users), (items, new_items)):
        assert concentration(old) - 0.03 <= concentration(new) <= concentration(old) + 0.25
    activity = len(users) / len(np.unique(users))
    assert len(new_users) / len(np.unique(new_users)) == pytest.approx(activity, rel=0.3)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 30),
    shape=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_images_of_any_size(rows: int, columns: int, shape: tuple[int, int], seed: int) -> None:
    matrix = scipy.sparse.csr_matrix(np.random.default_rng(seed).integers(0, 2, shape) | np.eye(*shape, dtype=int))
    image = shrink(matrix, rows, columns)
    assert image.shape == (rows, columns)
    assert image.min() >= 0 and image.max() == 1


def test_an_image_in_the_same_size_is_the_matrix() -> None:
    # Of rank 2, with rows and columns in order of their sums.
    matrix = np.outer([4, 3, 2, 1], [3, 2, 1]) + np.outer([2, 1, 1, 0], [1, 1, 0])
    np.testing.assert_allclose(shrink(scipy.sparse.csr_matrix(matrix), 4, 3), matrix / matrix.max(), atol=1e-9)
    halved = shrink(scipy.sparse.csr_matrix(matrix), 2, 3)
    means = matrix.reshape(2, 2, 3).mean(axis=1)
    np.testing.assert_allclose(halved, means / means.max(), atol=1e-9)


@given(image=st.lists(st.floats(0.01, 1), min_size=1, max_size=30), share=st.floats(0.01, 1))
def test_scaling_caps_at_one(image: list[float], share: float) -> None:
    scaled = scale_to_sum(np.array(image), share * len(image))
    assert scaled.sum() == pytest.approx(share * len(image))
    assert scaled.max() <= 1
    below = scaled < 1
    ratios = scaled[below] / np.array(image)[below]
    np.testing.assert_allclose(ratios, ratios[:1].repeat(len(ratios)))


def test_what_cannot_be_expanded() -> None:
    users, items, timestamps = heavy_tailed_log()
    with pytest.raises(ValueError, match=r"at least the log's 6,000 interactions.*received 5,999 and 1"):
        FractalExpansion(users, items, timestamps, 5999, 1, seed=0)
    with pytest.raises(ValueError, match="at least 2 users and 2 items; received 1 and 150"):
        FractalExpansion(np.zeros_like(users), items, timestamps, 60_000, 2, seed=0)
    with pytest.raises(ValueError, match="3 shares cannot add up to 4"):
        scale_to_sum(np.ones(3), 4)
