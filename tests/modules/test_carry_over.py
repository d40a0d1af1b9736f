"""Rows are continued by raw token, whatever ids it has: checked against dictionaries of plain Python."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from modules.models.carry_over import FRESH, RowCounts, Rows, base_rows, continue_rows

_TOKENS = st.lists(st.sampled_from([f"t{number}".encode() for number in range(12)]), unique=True)


def _table(tokens, generator):
    """Draws a table with rows for "no value", each token and the unknown one; also by meaning."""
    table = generator.normal(size=(len(tokens) + 2, 3))
    return table, dict(zip([b"", *tokens, None], table, strict=True))


@given(base=_TOKENS, new=_TOKENS, learned=st.booleans(), seed=st.integers(0, 99))
def test_tokens_keep_their_rows_whatever_their_ids(base, new, learned, seed):
    generator = np.random.default_rng(seed)
    (base_table, meant), (fresh_table, fresh) = _table(base, generator), _table(new, generator)
    # The table of a vocabulary stands between two others, as in an encoder's common table.
    before, behind = generator.normal(size=(2, 3)), generator.normal(size=(4, 3))

    def layout(tokens):
        return [Rows("a", 2), Rows("f", len(tokens) + 2, "v", learned), Rows("z", 4)]

    rows, counts = base_rows(layout(new), layout(base), {"v": new}, {"v": base})
    continued = continue_rows(
        np.concatenate([before, fresh_table, behind]), np.concatenate([-before, base_table, -behind]), rows
    )
    expected = [
        meant[b""],
        *(meant.get(token, meant[None] if learned else fresh[token]) for token in new),
        meant[None],
    ]
    np.testing.assert_array_equal(continued, np.concatenate([-before, expected, -behind]))
    known = len(set(base) & set(new))
    added = len(new) - known
    assert counts == RowCounts(known, added * learned, added * (not learned), len(base) - known)


def test_buckets_of_another_number_and_new_features_stay_fresh():
    new = [Rows("age_bucket", 4), Rows("hour", 3), Rows("colour", 3, "colour")]
    base = [Rows("hour", 3), Rows("age_bucket", 5)]
    rows, counts = base_rows(new, base, {"colour": [b"red"]}, {})
    assert rows.tolist() == [FRESH] * 4 + [0, 1, 2] + [FRESH] * 3
    assert counts == RowCounts(fresh=1)
