"""Catalogue coverage against Python sets, for one and two models."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.metrics.coverage import CatalogueCoverage
from modules.metrics.model_outputs import metric_key

CUTOFFS = (1, 3, 8)
CATALOGUE = 12
recommendations = st.permutations(range(CATALOGUE)).flatmap(
    lambda order: st.integers(0, 8).map(lambda seen: [str(item) for item in order[: 8 - seen]] + [""] * seen)
)


def _outputs(ids: list[str], catalogue_size: int = CATALOGUE) -> dict:
    return {
        "top_k_item_ids": np.array([item.encode() for item in ids], object),
        "catalogue_size": np.array([catalogue_size]),
    }


def _compute(examples: list[dict], bundles: list[int], models=("",)) -> dict:
    result = {}
    for computation in CatalogueCoverage(top_k=CUTOFFS).computations(model_names=list(models)):
        combiner = computation.combiner
        accumulators = {bundle: combiner.create_accumulator() for bundle in {*bundles, -1}}
        for predictions, bundle in zip(examples, bundles, strict=True):
            inputs = list(computation.preprocessors[0].process({"predictions": predictions}))
            accumulators[bundle] = combiner.add_inputs(accumulators[bundle], inputs)
        result.update(combiner.extract_output(combiner.merge_accumulators(accumulators.values())))
    return result


def _reference(lists: list[list[str]], k: int) -> float:
    return len({item for ids in lists for item in ids[:k] if item}) / CATALOGUE


@given(st.lists(st.tuples(recommendations, recommendations, st.integers(0, 3)), min_size=1, max_size=12))
def test_equals_the_union_of_sets_however_the_examples_are_bundled(cases):
    bundles = [bundle for _, _, bundle in cases]
    one = _compute([_outputs(ids) for ids, _, _ in cases], bundles)
    two = _compute([{"a": _outputs(a), "b": _outputs(b)} for a, b, _ in cases], bundles, ("a", "b"))
    for k in CUTOFFS:
        for result, model, column in ((one, "", 0), (two, "a", 0), (two, "b", 1)):
            assert result[metric_key(f"coverage@{k}", model)] == _reference([case[column] for case in cases], k)


def test_is_undefined_without_examples():
    assert all(math.isnan(value) for value in _compute([], []).values())


def test_a_small_catalogue_may_return_fewer_places_than_the_cutoff():
    assert _compute([_outputs(["0", "1"], catalogue_size=2)], [0])[metric_key("coverage@8", "")] == 1.0


def test_refuses_a_model_that_returns_too_few_places():
    with pytest.raises(ValueError, match=r"coverage@8 needs.*returns 4 out of a catalogue of 12"):
        _compute([_outputs(["0", "1", "2", "3"])], [0])
