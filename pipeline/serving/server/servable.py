"""`Servable`: one loaded version of a SavedModel, and the runs of its signatures.

The model runs in a TensorFlow session, as it does in TensorFlow Serving: signatures are those of the file, errors are
those of the C++ runtime, loading takes a fraction of `tf.saved_model.load`'s time because no Python objects are
rebuilt, and a request costs half of what calling a restored function does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2

from modules.models.custom_ops import register_custom_ops
from pipeline.serving.errors import StatusError, status_code
from pipeline.serving.messages import meta_graph_pb2, predict_pb2
from pipeline.serving.server import warm_up
from pipeline.serving.server.batching import RunScheduler, TensorSignature, Values
from pipeline.serving.server.calls import Call, Response, Signature
from pipeline.serving.server.predict import PredictCall
from pipeline.serving.server.runners import Runners

if TYPE_CHECKING:
    from pipeline.serving.server.config_files import BatchingParameters
    from pipeline.serving.server.metrics import ServerMetrics


class Servable:
    """One version of a model, in memory. Thread-safe.

    Attributes:
      signatures_by_name: the signatures, in a form that is quick to use.
      check_method_names: whether a signature only answers to the API that its `method_name` says.
    """

    def __init__(
        self,
        path: str,
        *,
        batching: BatchingParameters | None = None,
        warm_up: bool = True,
        warm_up_iterations: int = 1,
        check_method_names: bool = False,
        num_threads: int | None = None,
        session_parallelism: int = 0,
        metrics: ServerMetrics | None = None,
    ):
        """Loads the model and runs its warm-up requests.

        Args:
          path: folder of a SavedModel.
          batching: how requests are joined; None: not at all.
          warm_up: whether to run the warm-up requests; who asks but once need not.
          warm_up_iterations: how often each is run.
          check_method_names: see above; TensorFlow Serving's default is not to.
          num_threads: requests that run at a time, without batching; None: as many as processors.
          session_parallelism: size of TensorFlow's thread pools; 0: as TensorFlow chooses.
          metrics: told of batches and of the warm-up.

        Raises:
          StatusError: if the model cannot be loaded, or fails one of its own warm-up requests.
        """
        config = config_pb2.ConfigProto(
            intra_op_parallelism_threads=session_parallelism, inter_op_parallelism_threads=session_parallelism
        )
        self.check_method_names = check_method_names
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        self._runners = Runners(self._session, use_pool=batching is None)
        self._scheduler = RunScheduler(self._run_values, num_threads or os.cpu_count() or 1, batching, metrics)
        try:
            with self._session.graph.as_default():
                register_custom_ops(path)
                meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], path)
            self._runners.look_for_kernels_to_run_alone(meta_graph.graph_def)
            self._signatures = dict(meta_graph.signature_def)
            self.signatures_by_name: Mapping[str, Signature] = {
                name: Signature.of(name, definition) for name, definition in self._signatures.items()
            }
            if warm_up:
                self._warm_up(path, warm_up_iterations, batching is None, metrics)
        except Exception as error:
            self.close()
            raise _load_error(error) from error

    @property
    def signatures(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """The signatures by name, as in the SavedModel."""
        return self._signatures

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Answers a request in the caller's thread. The response's `model_spec` has no version.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        return self.call_now(PredictCall(self, request))

    def call_now(self, call: Call[Response]) -> Response:
        """Runs a request in the caller's thread, unbatched, and returns the answer.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        signature = (tuple(call.feeds), tuple(call.fetches))
        return call.respond(_named(call.fetches, self._run_values(signature, list(call.feeds.values()))))

    async def run_tensors(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> dict[str, np.ndarray]:
        """Computes tensors, together with other requests if batching is on.

        Args:
          feeds: name of each tensor that is given, to its value.
          fetches: names of the tensors to compute, sorted.

        Returns:
          Name of each computed tensor to its value.

        Raises:
          StatusError: with the code and the text of the C++ runtime.
        """
        signature = (tuple(feeds), tuple(fetches))
        return _named(fetches, await self._scheduler.submit(signature, list(feeds.values())))

    async def run(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Computes outputs of a signature; see `run_tensors`.

        Args:
          signature_name: one of `signatures`.
          inputs: alias of each input to its value.
          outputs: aliases of the outputs to compute.

        Returns:
          Alias of each output to its value.

        Raises:
          StatusError: with the code and the text of the C++ runtime.
        """
        signature = self.signatures_by_name[signature_name]
        tensors = {alias: signature.outputs[alias] for alias in outputs}
        values = await self.run_tensors(_feeds(signature, inputs), sorted(set(tensors.values())))
        return {alias: values[tensor] for alias, tensor in tensors.items()}

    def run_now(
        self, signature_name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Computes outputs of a signature in the caller's thread, unbatched; see `run`."""
        signature = self.signatures_by_name[signature_name]
        tensors = {alias: signature.outputs[alias] for alias in outputs}
        feeds, fetches = _feeds(signature, inputs), tuple(sorted(set(tensors.values())))
        values = _named(fetches, self._run_values((tuple(feeds), fetches), list(feeds.values())))
        return {alias: values[tensor] for alias, tensor in tensors.items()}

    def close(self) -> None:
        """Frees the model's memory. No request may be under way or come later."""
        self._scheduler.close()
        self._runners.close()
        self._session.close()

    def _run_values(self, signature: TensorSignature, values: Values) -> Values:
        return self._runners.run(*signature, values)

    def _warm_up(self, path: str, iterations: int, use_pool: bool, metrics: ServerMetrics | None) -> None:
        def run(call: Call) -> None:
            self.call_now(call)
            if use_pool:  # Large requests run in another way, whose first use is as slow.
                self._runners.run(tuple(call.feeds), tuple(call.fetches), list(call.feeds.values()), pool=True)

        warm_up.warm_up(self, path, run, iterations, metrics)


def _feeds(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {tensor: inputs[alias] for alias, tensor in signature.inputs.items()}


def _named(names: Sequence[str], values: Values) -> dict[str, np.ndarray]:
    return dict(zip(names, values, strict=True))


# How TensorFlow's Python loader words what its C++ loader calls a loss of data.
_UNREADABLE_MODEL = re.compile(r"Cannot parse file b'(?P<file>.*saved_model\.pb)': ", re.DOTALL)


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        return StatusError(status_code(error.error_code), error.message)
    if unreadable := _UNREADABLE_MODEL.match(str(error)):
        return StatusError(grpc.StatusCode.DATA_LOSS, f"Can't parse {unreadable['file']} as binary proto")
    if isinstance(error, OSError):
        return StatusError(grpc.StatusCode.NOT_FOUND, str(error))
    return StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
