"""Servers for tests, over real sockets, and a model that takes its time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer

PLAIN_CHANNEL = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))


class Stubs:
    """The services' stubs on one channel, as any client of TensorFlow Serving makes them."""

    def __init__(self, channel: grpc.Channel):
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Stubs]:
    with grpc.insecure_channel(address, PLAIN_CHANNEL) as channel:
        yield Stubs(channel)


@contextlib.contextmanager
def running_server(*, wait_for: int = 1, **options: Any) -> Iterator[ModelServer]:
    """Runs a server on free ports; the block begins when `wait_for` versions serve."""
    available = threading.Semaphore(0)
    server = ModelServer(ServerOptions(**{"port": 0, "rest_api_port": 0, **options}), lambda *_: available.release())
    with server:
        for _ in range(wait_for):
            assert available.acquire(timeout=60)
        yield server


def models_config(**base_paths: Path) -> str:
    """Returns a model_config_file's text."""
    entries = (
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
        for name, path in base_paths.items()
    )
    return f"model_config_list {{ {' '.join(entries)} }}"


def request(model: str | None, *, signature: str = "", **inputs: object) -> predict_pb2.PredictRequest:
    result = predict_pb2.PredictRequest()
    if model is not None:
        result.model_spec.name = model
        result.model_spec.signature_name = signature
    for name, value in inputs.items():
        result.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return result


def export_counter(path: Path) -> Path:
    """Exports a model that counts to the number it is given, which takes about a microsecond for each."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="n")])
    def count(n: tf.Tensor) -> dict[str, tf.Tensor]:
        start = tf.constant(0, tf.int64)
        (result,) = tf.while_loop(lambda i: i < n, lambda i: [i + 1], [start], parallel_iterations=1)
        return {"count": result}

    tf.saved_model.save(tf.Module(), str(path), signatures={"serving_default": count})
    return path
