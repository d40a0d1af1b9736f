from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.serving.release.agreement import jaccard, rank_biased_overlap

rankings = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=12)


def overlap(first: list[str], second: list[str], depth: int) -> int:
    return len(set(first[:depth]) & set(second[:depth]))


@given(rankings, rankings, st.floats(min_value=0.05, max_value=0.99))
def test_rank_biased_overlap_is_equation_32_of_webber_et_al(first: list[str], second: list[str], p: float) -> None:
    shorter, longer = sorted((first, second), key=len)
    s, length = len(shorter), len(longer)
    if s == 0:
        assert rank_biased_overlap(first, second, p) == float(length == 0)
        return
    head = sum(overlap(first, second, d) / d * p**d for d in range(1, length + 1))
    tail = sum(overlap(first, second, s) * (d - s) / (s * d) * p**d for d in range(s + 1, length + 1))
    x_s, x_l = overlap(first, second, s), overlap(first, second, length)
    expected = (1 - p) / p * (head + tail) + ((x_l - x_s) / length + x_s / s) * p**length
    assert rank_biased_overlap(first, second, p) == pytest.approx(expected)


@given(rankings, rankings)
def test_agreement_lies_between_0_and_1_and_is_symmetric(first: list[str], second: list[str]) -> None:
    for measure in (rank_biased_overlap, lambda a, b: jaccard(a, b, 5)):
        assert -1e-12 <= measure(first, second) <= 1 + 1e-12
        assert measure(first, second) == pytest.approx(measure(second, first))
        assert measure(first, first) == pytest.approx(1)


def test_disjoint_rankings_do_not_agree_and_the_top_counts_most() -> None:
    assert rank_biased_overlap(list("abc"), list("xyz")) == 0
    assert jaccard(list("abc"), list("abx"), 2) == 1
    assert jaccard(list("abc"), list("abx"), 3) == pytest.approx(2 / 4)
    swapped_above = rank_biased_overlap(list("abcdef"), list("bacdef"))
    swapped_below = rank_biased_overlap(list("abcdef"), list("abcdfe"))
    assert swapped_above < swapped_below < 1


def test_a_persistence_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\); received 1"):
        rank_biased_overlap(["a"], ["a"], 1.0)
