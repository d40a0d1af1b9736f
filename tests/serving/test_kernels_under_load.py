"""A model that was not made here, of a kernel that does not bear concurrent batches where oneDNN runs it."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf

from pipeline.serving.messages import predict_pb2, prediction_service_pb2_grpc
from pipeline.serving.process import ServerProcess
from pipeline.serving.tensors import make_tensor, read_tensor

SIZE = 64
CLIENTS = 4
REQUESTS = 1500


class Normaliser(tf.Module):
    """Normalises rows by the kernel of which Keras 2 makes layer normalisation."""

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE], tf.float32, name="rows")])
    def normalise(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(rows)[0]
        image = tf.reshape(rows, [1, count, SIZE, 1])
        outputs = tf.compat.v1.nn.fused_batch_norm(image, tf.ones([count]), tf.zeros([count]), data_format="NCHW")
        return {"normalised": tf.reshape(outputs[0], tf.shape(rows))}


def test_concurrent_batches_of_a_fused_kernel_are_answered(tmp_path: Path):
    module = Normaliser()
    tf.saved_model.save(module, str(tmp_path / "models" / "1"), {"serving_default": module.normalise})
    values = np.random.default_rng(1).normal(size=(33, SIZE)).astype(np.float32)
    expected = (values - values.mean(1, keepdims=True)) / np.sqrt(values.var(1, keepdims=True) + 1e-3)

    def ask(seed: int) -> int:
        random = np.random.default_rng(seed)
        with grpc.insecure_channel(server.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            for _ in range(REQUESTS):
                count = random.integers(1, len(values))
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "normaliser"
                request.inputs["rows"].CopyFrom(make_tensor(values[:count]))
                answer = read_tensor(stub.Predict(request, timeout=30).outputs["normalised"])
                np.testing.assert_allclose(answer, expected[:count], rtol=1e-4, atol=1e-4)
        return REQUESTS

    with (
        ServerProcess(str(tmp_path / "models"), "normaliser", 120) as server,
        concurrent.futures.ThreadPoolExecutor() as threads,
    ):
        assert sum(threads.map(ask, range(CLIENTS))) == CLIENTS * REQUESTS
