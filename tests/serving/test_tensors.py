"""Tensors on the wire, compared with TensorFlow's own conversion; and that none of it needs TensorFlow's runtime."""

from __future__ import annotations

import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.serving.messages import tensor_pb2, types_pb2
from pipeline.serving.tensors import make_tensor, read_tensor, string_array, type_name

NUMBERS = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5).flatmap(
    lambda shape: st.sampled_from(
        ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool", "bfloat16", "c8", "c16"]
    ).flatmap(
        lambda name: arrays.arrays(np.float32 if name == "bfloat16" else np.dtype(name), shape).map(
            lambda array: array.astype(ml_dtypes.bfloat16) if name == "bfloat16" else array
        )
    )
)
STRINGS = arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4).flatmap(
    lambda shape: arrays.arrays(object, shape, elements=st.binary(max_size=5))
)


@given(array=NUMBERS | STRINGS)
def test_reads_and_writes_what_tensorflow_does(array: np.ndarray):
    for answer in (read_tensor(make_tensor(array)), tf.make_ndarray(make_tensor(array))):
        assert (answer.dtype, answer.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(answer, array)
    packed = read_tensor(tf.make_tensor_proto(array))  # Numbers go into `tensor_content` here.
    assert packed.dtype == array.dtype
    np.testing.assert_array_equal(packed, array)


def test_one_value_stands_for_all():
    proto = tf.make_tensor_proto(7.0, shape=[2, 3])
    assert len(proto.float_val) == 1
    np.testing.assert_array_equal(read_tensor(proto), np.full((2, 3), 7, np.float32))


def test_text_becomes_bytes():
    array = string_array([["é", b"\xff\x00"], ["", "a"]])
    assert array.tolist() == [["é".encode(), b"\xff\x00"], [b"", b"a"]]
    assert string_array([[]]).shape == (1, 0)


VALUES = {
    "DT_FLOAT": ("float_val", st.floats(width=32, allow_nan=False)),
    "DT_DOUBLE": ("double_val", st.floats(allow_nan=False)),
    "DT_HALF": ("half_val", st.integers(0, 0x7BFF)),
    "DT_BFLOAT16": ("half_val", st.integers(0, 0x7F7F)),
    "DT_INT32": ("int_val", st.integers(-(2**31), 2**31 - 1)),
    "DT_UINT8": ("int_val", st.integers(-(2**31), 2**31 - 1)),
    "DT_INT16": ("int_val", st.integers(-(2**31), 2**31 - 1)),
    "DT_INT64": ("int64_val", st.integers(-(2**63), 2**63 - 1)),
    "DT_UINT32": ("uint32_val", st.integers(0, 2**32 - 1)),
    "DT_UINT64": ("uint64_val", st.integers(0, 2**64 - 1)),
    "DT_BOOL": ("bool_val", st.booleans()),
    "DT_COMPLEX64": ("scomplex_val", st.floats(width=32, allow_nan=False)),
    "DT_COMPLEX128": ("dcomplex_val", st.floats(allow_nan=False)),
    "DT_STRING": ("string_val", st.binary(max_size=4)),
}


@st.composite
def sloppy_protos(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """Draws messages whose values are too few, just enough or too many, in one field or in several."""
    name = draw(st.sampled_from(sorted(VALUES)))
    field, values = VALUES[name]
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(name))
    for size in draw(st.lists(st.integers(0, 9), max_size=3)):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.booleans())
    getattr(proto, field).extend(draw(st.lists(values, max_size=80)))
    if draw(st.booleans()):
        proto.variant_val.add(type_name="something after the values")
    return proto


@given(proto=sloppy_protos())
@settings(max_examples=200)
def test_reads_whatever_tensorflow_reads(proto: tensor_pb2.TensorProto):
    answer, expected = read_tensor(proto), tf.io.parse_tensor(proto.SerializeToString(), proto.dtype)
    assert answer.shape == expected.shape
    assert answer.dtype == expected.dtype.as_numpy_dtype
    assert answer.tolist() == np.array(expected.numpy()).tolist()


@given(lengths=st.lists(st.sampled_from([0, 1, 127, 128, 300]), max_size=5), cut=st.integers(-3, 3))
def test_reads_packed_strings_as_tensorflow_does(lengths: list[int], cut: int):
    strings = [bytes([index]) * length for index, length in enumerate(lengths)]
    sizes = b"".join(bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7]) for size in lengths)
    content = sizes + b"".join(strings)
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_content=content[:cut] if cut < 0 else content)
    proto.tensor_content += b"x" * max(cut, 0)
    proto.tensor_shape.dim.add(size=len(lengths))
    try:
        expected = tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy()
    except tf.errors.InvalidArgumentError:
        with pytest.raises(ValueError, match=r"a tensor's strings take|ends after"):
            read_tensor(proto)
    else:
        assert read_tensor(proto).tolist() == expected.tolist()


def test_tensors_of_many_numbers_are_quick_to_write_and_read():
    array = np.linspace(0, 1, 1_000_000, dtype=np.float32)
    started = time.perf_counter()
    np.testing.assert_array_equal(read_tensor(make_tensor(array)), array)
    assert time.perf_counter() - started < 0.1  # Number by number it is over a second.


def test_types_have_tensorflows_names():
    assert type_name(np.zeros(1, np.float64)) == "DT_DOUBLE"
    assert type_name(string_array(["a"])) == "DT_STRING"


def _proto(text: str) -> tensor_pb2.TensorProto:
    return text_format.Parse(text, tensor_pb2.TensorProto())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtype: DT_RESOURCE", "cannot read a tensor of type number 20"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: -1 } }", "must be fully known"),
        (
            "dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: '123'",
            "has 8 bytes of content; received 3",
        ),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 4294967296 } } float_val: 1", "at most 268435456 elements"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 16777217 } } float_val: 1", "of which 1 values are given"),
    ],
)
def test_malformed_tensors_are_refused(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_tensor(_proto(text))


def test_types_without_a_counterpart_are_refused():
    with pytest.raises(ValueError, match="cannot write an array of type datetime64"):
        make_tensor(np.zeros(1, "datetime64[s]"))


def test_a_client_does_not_load_tensorflow_and_gets_along_with_it():
    program = """
import sys
import pipeline.serving.client
from pipeline.serving import messages
assert "tensorflow" not in sys.modules and "tensorflow.python" not in sys.modules
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2
assert tf.train.Example is messages.example_pb2.Example
assert meta_graph_pb2.SignatureDef is messages.meta_graph_pb2.SignatureDef
request = predict_pb2.PredictRequest()
request.inputs["a"].CopyFrom(tf.make_tensor_proto([1.0]))
assert isinstance(request.inputs["a"], messages.tensor_pb2.TensorProto)
print("done")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.strip() == "done", result.stderr
