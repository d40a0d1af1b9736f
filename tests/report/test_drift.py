"""Drift: the measures against SciPy's and NumPy's, and what is reported of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from pipeline.report.drift import jensen_shannon, l_infinity, measure_drift
from tests.report.simulated import statistics

counts = st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any)


def histogram(low: float, high: float, numbers: list[int]) -> list[tuple[float, float, float]]:
    edges = np.linspace(low, high, len(numbers) + 1)
    return [(float(a), float(b), float(n)) for a, b, n in zip(edges, edges[1:], numbers, strict=False)]


def masses(buckets: list[tuple[float, float, float]], edges: np.ndarray) -> np.ndarray:
    """Mass between two edges, from the piecewise linear distribution function."""
    bounds = [buckets[0][0], *(high for _, high, _ in buckets)]
    cumulated = np.concatenate([[0.0], np.cumsum([count for _, _, count in buckets])])
    return np.diff(np.interp(edges, bounds, cumulated / cumulated[-1]))


@given(counts, counts, st.integers(-5, 5), st.integers(1, 9), st.integers(-5, 5), st.integers(1, 9))
def test_jensen_shannon_is_scipys_of_histograms_cut_alike(first, second, low, width, other_low, other_width):
    now, before = histogram(low, low + width, first), histogram(other_low, other_low + other_width, second)
    edges = np.unique([edge for a, b, _ in (*now, *before) for edge in (a, b)])
    expected = jensenshannon(masses(now, edges), masses(before, edges), base=2) ** 2
    assert jensen_shannon(now, before) == pytest.approx(np.nan_to_num(expected), abs=1e-6)
    assert jensen_shannon(before, now) == pytest.approx(jensen_shannon(now, before), abs=1e-9)


def test_jensen_shannon_of_single_values():
    assert jensen_shannon([(5.0, 5.0, 10.0)], [(5.0, 5.0, 3.0)]) == 0
    assert jensen_shannon([(5.0, 5.0, 10.0)], [(6.0, 6.0, 3.0)]) == 1
    assert jensen_shannon([(5.0, 5.0, 1.0), (6.0, 6.0, 1.0)], [(5.0, 5.0, 1.0)]) == pytest.approx(
        jensenshannon([0.5, 0.5], [1, 0], base=2) ** 2
    )


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1)),
)
def test_l_infinity_is_numpys_largest_difference(now: dict[str, float], before: dict[str, float]):
    values = sorted({*now, *before})
    differences = np.abs([now.get(value, 0) - before.get(value, 0) for value in values])
    distance, value = l_infinity(now, before)
    assert distance == pytest.approx(np.max(differences))
    assert value == values[int(np.argmax(differences))]


def test_the_largest_drift_comes_first_and_times_are_left_out():
    drifts = measure_drift(statistics(a=0.9, b=0.1), statistics(a=0.3, c=0.7), left_out={"timestamp"})
    assert [(drift.feature, drift.measure) for drift in drifts] == [("user_id", "L∞"), ("age", "Jensen-Shannon")]
    assert drifts[0].distance == pytest.approx(0.7)
    assert drifts[0].told == "“c” 70 % → 0 %"
    assert drifts[1].distance == 0
    assert drifts[1].told == ""


def test_features_that_one_of_both_lacks_have_no_drift():
    before = statistics(a=1.0)
    del before.features[0]
    assert [drift.feature for drift in measure_drift(statistics(a=1.0), before)] == ["timestamp", "user_id"]
    assert [drift.feature for drift in measure_drift(statistics(), statistics(a=1.0))] == ["age", "timestamp"]
