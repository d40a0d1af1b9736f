"""Encoded examples equal those that protocol buffers encode."""

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_feature, join_features

COLUMNS = st.one_of(
    st.tuples(st.just(ColumnType.INT), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)),
    st.tuples(st.just(ColumnType.FLOAT), st.lists(st.floats(allow_nan=False, width=32), min_size=1)),
    st.tuples(st.just(ColumnType.STRING), st.lists(st.one_of(st.text(), st.binary(max_size=300)), min_size=1)),
)


@given(st.dictionaries(st.text(min_size=1), COLUMNS, max_size=4))
def test_examples_equal_those_of_the_library(columns):
    expected = tf.train.Example()
    for name, (column_type, values) in columns.items():
        feature = expected.features.feature[name]
        if column_type is ColumnType.INT:
            feature.int64_list.value.extend(values)
        elif column_type is ColumnType.FLOAT:
            feature.float_list.value.extend(values)
        else:
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
    serialized = join_features(encode_feature(name, *column) for name, column in columns.items())
    assert tf.train.Example.FromString(serialized).features == expected.features


def test_a_long_list_needs_longer_lengths():
    ids = [b"%d" % number for number in range(10_000)]
    example = tf.train.Example.FromString(join_features([encode_feature("seen", ColumnType.STRING, ids)]))
    assert list(example.features.feature["seen"].bytes_list.value) == ids


def test_no_values_is_no_feature():
    assert encode_feature("genres", ColumnType.STRING, []) == b""
