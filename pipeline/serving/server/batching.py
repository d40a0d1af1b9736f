"""Dynamic batching: concurrent requests for the same tensors share a run of the model.

The rules are those of TensorFlow Serving's `BatchingSession` on TensorFlow's `SharedBatchScheduler`, with two
differences that clients can only welcome: requests whose shapes cannot be joined run one after the other instead of
failing each other, and if a shared run fails it is repeated in halves, so that an error reaches only the request that
causes it.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import grpc
import numpy as np
from absl import logging

from pipeline.serving.errors import StatusError
from pipeline.serving.server.batches import join, rows_of, split

if TYPE_CHECKING:
    from pipeline.serving.server.config_files import BatchingParameters
    from pipeline.serving.server.metrics import ServerMetrics

Values: TypeAlias = Sequence[np.ndarray]
Outcome: TypeAlias = "Values | StatusError"
TensorSignature: TypeAlias = "tuple[tuple[str, ...], tuple[str, ...]]"
"""Names of the tensors that are given, and of those to compute."""


@dataclasses.dataclass(eq=False, slots=True)
class _Task:
    """A request, or a part of one, that waits.

    Attributes:
      values: what the tensors that are given have.
      rows: their size along dimension 0; 1 if nothing is batched.
      future: of the event loop, for the values of the tensors to compute.
      queued: when it came, by the monotonic clock.
    """

    values: Values
    rows: int
    future: asyncio.Future[Values]
    queued: float


class _Batch:
    """Requests that go together."""

    __slots__ = ("opened", "rows", "tasks")

    def __init__(self, task: _Task):
        self.tasks = [task]
        self.rows = task.rows
        self.opened = task.queued

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows

    def drop_abandoned(self) -> None:
        self.tasks = [task for task in self.tasks if not task.future.done()]
        self.rows = sum(task.rows for task in self.tasks)


class RunScheduler:
    """Runs requests of an event loop in threads, together where parameters say so.

    Methods are called on an event loop, except `close`.
    """

    def __init__(
        self,
        run: Callable[[TensorSignature, Values], Values],
        num_threads: int,
        batching: BatchingParameters | None = None,
        metrics: ServerMetrics | None = None,
    ):
        """Starts no thread yet; the first request does.

        Args:
          run: computes tensors from values in the order of the signature's names; raises a `StatusError`.
          num_threads: runs at a time, without batching.
          batching: how to batch, if at all.
          metrics: told of each batch.
        """
        self._run = run
        self._batching = batching
        self._metrics = metrics
        self._num_threads = num_threads if batching is None else batching.num_batch_threads
        self._max_rows = 0 if batching is None else batching.rows_per_batch
        self._timeout = 0.0 if batching is None else batching.batch_timeout_micros / 1e6
        self._queues: dict[TensorSignature, collections.deque[_Batch]] = {}
        self._changed = threading.Condition(threading.Lock())
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, signature: TensorSignature, values: Values) -> asyncio.Future[Values]:
        """Queues a request. Whoever cancels the future takes it out of the queue.

        Returns:
          The future of the values to compute.

        Raises:
          StatusError: INVALID_ARGUMENT if the request cannot be batched or is too large, UNAVAILABLE if too many wait.
        """
        future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        if self._batching is None:
            self._enqueue(signature, [_Task(values, 1, future, time.monotonic())])
            return future
        rows = rows_of(values)
        limit = self._batching.max_batch_size
        if rows > limit:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {limit}",
            )
        if rows > self._max_rows:
            return self._submit_parts(signature, values, rows)
        self._enqueue(signature, [_Task(values, rows, future, time.monotonic())])
        return future

    def close(self) -> None:
        """Ends the threads, once everything that was submitted is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _submit_parts(self, signature: TensorSignature, values: Values, rows: int) -> asyncio.Future[Values]:
        """Spreads a request over several batches."""
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        starts = range(0, rows, self._max_rows)
        parts = [[value[start : start + self._max_rows] for value in values] for start in starts]
        tasks = [_Task(part, len(part[0]), loop.create_future(), now) for part in parts]
        self._enqueue(signature, tasks)

        async def whole() -> Values:
            results = await asyncio.gather(*(task.future for task in tasks))
            return [np.concatenate(pieces) for pieces in zip(*results, strict=True)]

        return loop.create_task(whole())

    def _enqueue(self, signature: TensorSignature, tasks: Sequence[_Task]) -> None:
        with self._changed:
            if self._closed:
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The model is being unloaded")
            queue = self._queues.setdefault(signature, collections.deque())
            if self._batching is not None:
                try:
                    self._check_capacity(queue, tasks)
                except StatusError:
                    if not queue:
                        del self._queues[signature]
                    raise
            for task in tasks:
                if queue and queue[-1].rows + task.rows <= self._max_rows:
                    queue[-1].add(task)
                else:
                    queue.append(_Batch(task))
            for _ in range(min(len(tasks), self._num_threads - len(self._threads))):
                self._start_thread()
            self._changed.notify(len(tasks))

    def _check_capacity(self, queue: collections.deque[_Batch], tasks: Sequence[_Task]) -> None:
        """Refuses a request for which there is no place in the queue."""
        assert self._batching is not None
        limit = self._batching.max_enqueued_batches
        if len(queue) + len(tasks) <= limit:
            return
        for _ in range(len(queue)):
            batch = queue.popleft()
            batch.drop_abandoned()
            if batch.tasks:
                queue.append(batch)
        free = (limit - len(queue)) * self._max_rows + (self._max_rows - queue[-1].rows if queue else 0)
        rows = sum(task.rows for task in tasks)
        if rows <= free:
            return
        full = "The batch scheduling queue to which this task was submitted is full; "
        if self._batching.enable_large_batch_splitting:
            open_rows = queue[-1].rows if queue else 0
            raise StatusError(
                grpc.StatusCode.UNAVAILABLE,
                f"{full}task size is {rows} but scheduling capacity is only {free} "
                f"(num_enqueued_batches={len(queue)}, max_enqueued_batches={limit}, open_batch_size={open_rows}, "
                f"max_execution_batch_size={self._max_rows})",
            )
        raise StatusError(
            grpc.StatusCode.UNAVAILABLE,
            f"{full}currently {len(queue)} batches enqueued and max_enqueued_batches is {limit}",
        )

    def _start_thread(self) -> None:
        name = "model_run" if self._batching is None else self._batching.thread_pool_name
        thread = threading.Thread(target=self._work, name=f"{name}_{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while True:
            with self._changed:
                while (taken := self._take()) is None:
                    if self._closed:
                        return
                    self._changed.wait(self._seconds_to_next())
            signature, batch = taken
            try:
                self._process(signature, batch)
            except Exception as error:
                logging.exception("a batch failed in an unexpected way")
                internal = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
                _deliver(batch.tasks, [internal] * len(batch.tasks))
            del taken, batch  # Otherwise the last request's memory stays until the next one.

    def _take(self) -> tuple[TensorSignature, _Batch] | None:
        """Removes and returns the next batch that may run; the queues take turns."""
        now = time.monotonic() if self._timeout else 0.0
        for signature, queue in self._queues.items():
            first = queue[0]
            may_run = len(queue) > 1 or first.rows >= self._max_rows or self._closed
            if may_run or not self._timeout or now >= first.opened + self._timeout:
                queue.popleft()
                del self._queues[signature]
                if queue:
                    self._queues[signature] = queue
                return signature, first
        return None

    def _seconds_to_next(self) -> float | None:
        """Returns the time until a batch has waited long enough; None if none waits."""
        if not self._queues:
            return None
        opened = min(queue[0].opened for queue in self._queues.values())
        return max(0.0, opened + self._timeout - time.monotonic())

    def _process(self, signature: TensorSignature, batch: _Batch) -> None:
        started = time.monotonic()
        groups: Mapping[object, list[_Task]] = {0: batch.tasks}
        if self._batching is not None:
            groups = _groups(batch.tasks, self._batching.pad_variable_length_inputs)
        for tasks in groups.values():
            waiting = [task for task in tasks if not task.future.done()]
            if waiting:
                self._answer(signature, waiting, started)

    def _answer(self, signature: TensorSignature, tasks: Sequence[_Task], started: float) -> None:
        """Runs requests together, and in halves if that fails."""
        outcomes: Sequence[Outcome]
        try:
            outcomes = self._run_together(signature, tasks, started)
        except Exception as error:
            if len(tasks) > 1:
                half = len(tasks) // 2
                self._answer(signature, tasks[:half], started)
                self._answer(signature, tasks[half:], started)
                return
            if not isinstance(error, StatusError):
                logging.exception("a request failed in an unexpected way")
                error = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            outcomes = [error]
        _deliver(tasks, outcomes)

    def _run_together(self, signature: TensorSignature, tasks: Sequence[_Task], started: float) -> Sequence[Outcome]:
        if self._batching is None:
            return [self._run(signature, tasks[0].values)]
        sizes = [task.rows for task in tasks]
        joined, processed = join([task.values for task in tasks], sizes, self._batching)
        outputs = self._run(signature, joined)
        if self._metrics is not None:
            waited = [started - task.queued for task in tasks]
            self._metrics.batch_processed(sizes, processed, waited, self._batching.thread_pool_name)
        return split(outputs, sizes, processed)


def _groups(tasks: Iterable[_Task], pad: bool) -> Mapping[object, list[_Task]]:
    """Returns the requests that can be joined, by what they have in common.

    A request without rows is left alone: what it gets depends on the model.
    """
    groups: dict[object, list[_Task]] = collections.defaultdict(list)
    for task in tasks:
        key = tuple([(value.dtype, value.ndim if pad else value.shape[1:]) for value in task.values])
        groups[key if task.rows else id(task)].append(task)
    return groups


def _deliver(tasks: Sequence[_Task], outcomes: Sequence[Outcome]) -> None:
    """Hands the outcomes over to the event loop, waking it up once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Task, Outcome]]] = collections.defaultdict(list)
    for task, outcome in zip(tasks, outcomes, strict=True):
        by_loop[task.future.get_loop()].append((task, outcome))
    for loop, pairs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, pairs)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            logging.debug("%d answers came after the end of the event loop", len(pairs))


def _resolve(pairs: Iterable[tuple[_Task, Outcome]]) -> None:
    for task, outcome in pairs:
        if task.future.done():  # It was cancelled meanwhile.
            continue
        if isinstance(outcome, StatusError):
            task.future.set_exception(outcome)
        else:
            task.future.set_result(outcome)
