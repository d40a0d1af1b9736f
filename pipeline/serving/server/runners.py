"""Prepared runs of a TensorFlow session.

A run that is prepared costs a fraction of `Session.run`, which looks up names and Python objects each time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2

from pipeline.serving.errors import StatusError, invalid_argument, status_code

ROWS_FOR_POOL = 17
"""Batch size from which on a single request is spread over TensorFlow's threads.

Smaller ones run in the thread that asks, which saves the handing over: a third of the time of a request for one
recommendation. Larger ones are answered sooner if another core is idle. Batches of many requests run in the thread
that asks whatever their size: there are other threads for other batches, and it takes less processor time.
"""

POOL_GAIN = 0.8
"""Smaller requests are spread as well if the fastest run that was spread took at most this share of the fastest other.

That is so of the scoring of a large catalogue, which several cores share well. What is gained less costs more processor
time than it is worth.
"""

RUNS_TO_JUDGE_BY = 4
"""Runs of each kind of which the fastest tells how long they take; the first one prepares things."""

MAX_RUNNERS = 256
"""Prepared runs that are kept: any selection of outputs needs its own, and takes memory."""

KERNELS_TO_RUN_ALONE = ("FusedBatchNorm",)
"""Beginnings of the names of operations of which one may run at a time.

With oneDNN, two of these kernels that run at the same time on several rows write beyond their memory (seen on
TensorFlow 2.16): the process dies, or answers wrongly before. Keras 2 makes layer normalisation of them.
"""

_alone = threading.Lock()

_TYPE_STRINGS = {"float32": "float", "float64": "double", "float16": "half"}


@dataclasses.dataclass(frozen=True)
class _Runner:
    """A prepared run.

    Attributes:
      run: takes the values of the tensors that are given.
      types: of those tensors.
      order: their places, sorted by name, which is how the runtime counts them.
    """

    run: Callable[..., list[np.ndarray]]
    types: Sequence[np.dtype]
    order: Sequence[int]

    def __call__(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        if [value.dtype for value in values] != self.types:
            self._refuse(values)
        # Of a string without dimensions the session returns what it holds.
        return [np.asarray(value, object) if isinstance(value, bytes) else value for value in self.run(*values)]

    def _refuse(self, values: Sequence[np.ndarray]) -> None:
        """Words the error as `Session::Run` does, which prepared runs word in another way."""
        for number, place in enumerate(self.order):
            expected, received = self.types[place], values[place].dtype
            if expected != received:
                raise invalid_argument(
                    f"Expects arg[{number}] to be {_type_string(expected)} but {_type_string(received)} is provided"
                )


def _type_string(dtype: np.dtype) -> str:
    """Returns the C++ runtime's name of a type."""
    name = tf.as_dtype(dtype).name
    return _TYPE_STRINGS.get(name, name)


class Runners:
    """The prepared runs of a session. Thread-safe."""

    def __init__(self, session: tf.compat.v1.Session, use_pool: bool):
        """Prepares nothing yet; the first use does.

        Args:
          session: with a loaded graph.
          use_pool: whether large runs are spread over TensorFlow's threads; not those that must run alone.
        """
        self._session = session
        self._use_pool = use_pool
        self._guard: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        self._fastest: dict[tuple[tuple[str, ...], tuple[str, ...], bool], tuple[int, float]] = {}
        self._prepared: collections.OrderedDict[tuple[tuple[str, ...], tuple[str, ...], bool], _Runner] = (
            collections.OrderedDict()
        )

    def look_for_kernels_to_run_alone(self, graph: graph_pb2.GraphDef) -> None:
        """Makes runs wait for each other, those of all such models, if the graph has a kernel that does not bear it."""
        functions = [node.op for function in graph.library.function for node in function.node_def]
        if any(op.startswith(KERNELS_TO_RUN_ALONE) for op in [*functions, *(node.op for node in graph.node)]):
            self._guard, self._use_pool = _alone, False

    def run(
        self, feeds: tuple[str, ...], fetches: tuple[str, ...], values: Sequence[np.ndarray], pool: bool | None = None
    ) -> list[np.ndarray]:
        """Computes tensors.

        Args:
          feeds: names of the tensors that are given.
          fetches: names of the tensors to compute.
          values: what the tensors that are given have, in the same order.
          pool: whether to spread the run over TensorFlow's threads; None: if it is large or faster so, and they are to
            be used.

        Returns:
          The values of `fetches`.

        Raises:
          StatusError: with the code and the text of the C++ runtime.
        """
        is_large = any(value.ndim > 0 and value.shape[0] >= ROWS_FOR_POOL for value in values)
        if not self._use_pool:
            pool = False
        elif pool is None:
            pool = is_large or self._is_faster_spread(feeds, fetches)
        try:
            runner = self._runner(feeds, fetches, pool)
            started = time.perf_counter()
            with self._guard:
                results = runner(values)
            if self._use_pool and not is_large:
                self._note_duration((feeds, fetches, pool), time.perf_counter() - started)
            return results
        except StatusError:
            raise
        except tf.errors.OpError as error:
            raise StatusError(status_code(error.error_code), error.message) from error
        except UnicodeDecodeError as error:
            # TensorFlow's Python layer fails on messages that quote binary input, which is what bad input gives.
            raise invalid_argument(error.object.decode("utf-8", "replace")) from error
        except Exception as error:
            logging.exception("a run of %s failed in an unexpected way", ", ".join(fetches))
            raise StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error

    def _is_faster_spread(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> bool:
        """Returns whether to spread a small run, as earlier ones tell, of which the first are made in either way."""
        fastest = {}
        for pool in (False, True):
            runs, fastest[pool] = self._fastest.get((feeds, fetches, pool), (0, 0.0))
            if runs < RUNS_TO_JUDGE_BY:
                return pool
        return fastest[True] <= POOL_GAIN * fastest[False]

    def _note_duration(self, kind: tuple[tuple[str, ...], tuple[str, ...], bool], seconds: float) -> None:
        runs, fastest = self._fastest.get(kind, (0, seconds))
        if runs < RUNS_TO_JUDGE_BY and (runs or len(self._fastest) < 2 * MAX_RUNNERS):
            self._fastest[kind] = (runs + 1, min(fastest, seconds))

    def close(self) -> None:
        """Lets go of the prepared runs."""
        self._prepared.clear()

    def _runner(self, feeds: tuple[str, ...], fetches: tuple[str, ...], pool: bool) -> _Runner:
        key = (feeds, fetches, pool)
        runner = self._prepared.get(key)
        if runner is None:
            options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
            if not pool:
                options.run_options.inter_op_thread_pool = -1
            # The public `make_callable` goes through `Session.run` when there are feeds.
            run = self._session._make_callable_from_options(options)
            types = [self._session.graph.get_tensor_by_name(name).dtype.as_numpy_dtype for name in feeds]
            order = sorted(range(len(feeds)), key=feeds.__getitem__)
            runner = self._prepared[key] = _Runner(run, [np.dtype(entry) for entry in types], order)
            if len(self._prepared) > MAX_RUNNERS:
                self._prepared.popitem(last=False)
        return runner
