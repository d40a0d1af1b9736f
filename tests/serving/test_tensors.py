"""Tensors on the wire, compared with TensorFlow's own conversion; and that none of it needs TensorFlow's runtime."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.serving.messages import tensor_pb2
from pipeline.serving.tensors import make_tensor, read_tensor, string_array

NUMBERS = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).flatmap(
    lambda shape: st.sampled_from(
        ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "bool", "bfloat16"]
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


def _proto(text: str) -> tensor_pb2.TensorProto:
    from google.protobuf import text_format

    return text_format.Parse(text, tensor_pb2.TensorProto())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dtype: DT_RESOURCE", "cannot read a tensor of type number 20"),
        ("dtype: DT_FLOAT tensor_shape { unknown_rank: true }", "must be fully known"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: -1 } }", "must be fully known"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: [1, 2]", "2 values do not fit"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: '123'", "buffer size"),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 4294967296 } } float_val: 1", "at most 268435456 elements"),
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
