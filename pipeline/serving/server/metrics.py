"""The server's metrics under TensorFlow Serving's names, in the text format that its Prometheus exporter writes.

Names begin with a colon (`:tensorflow:serving:request_count`), which Prometheus reads but its Python client refuses to
write. Times are in microseconds.

Sources: `util/prometheus_exporter.cc`, `servables/tensorflow/util.cc` and `saved_model_warmup_util.cc`,
`batching/batching_util.h` and `batching_session.cc`, and `core/request_logger.cc` of TensorFlow Serving;
`lib/histogram/histogram.cc` of TensorFlow.
"""

from __future__ import annotations

import abc
import bisect
import re
import threading
from collections.abc import Mapping, Sequence

import grpc

MAX_MODEL_NAMES = 1000
"""Names of models that requests may ask for in vain before all further ones are counted together."""
MAX_NAME_LENGTH = 256
"""Characters of such a name; longer ones are counted with the others."""
OTHER_MODELS = "__other__"
"""`model_name` of what is counted together."""

_MICROSECONDS = 1e6
_LABEL_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def _exponential(scale: float, growth: float, count: int) -> list[float]:
    """Returns the upper limits of a histogram's buckets; one without a limit follows them."""
    limits = []
    for _ in range(count):
        limits.append(scale)
        scale *= growth
    return limits


class _Metric(abc.ABC):
    """Points by their labels' values."""

    kind = ""

    def __init__(self, name: str, label_names: Sequence[str]):
        self.name = re.sub(r"[^a-zA-Z0-9_]", ":", name)
        self._label_names = label_names

    def _labels(self, values: Sequence[str]) -> list[str]:
        return [
            f'{name}="{value.translate(_LABEL_ESCAPES)}"' for name, value in zip(self._label_names, values, strict=True)
        ]

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """Returns the metric's points as they are shown."""


class _Counter(_Metric):
    kind = "counter"

    def __init__(self, name: str, *label_names: str):
        super().__init__(name, label_names)
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, count: int, *labels: str) -> None:
        self.counts[labels] = self.counts.get(labels, 0) + count

    def lines(self) -> list[str]:
        return [f"{self.name}{{{','.join(self._labels(key))}}} {count}" for key, count in sorted(self.counts.items())]


class _Histogram(_Metric):
    kind = "histogram"

    def __init__(self, name: str, limits: list[float], *label_names: str):
        super().__init__(name, label_names)
        self._limits = limits
        self._points: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def add(self, value: float, *labels: str) -> None:
        if labels not in self._points:
            self._points[labels] = ([0] * (len(self._limits) + 1), [0.0])
        counts, total = self._points[labels]
        counts[bisect.bisect_right(self._limits, value)] += 1  # A limit itself belongs to the next bucket.
        total[0] += value

    def lines(self) -> list[str]:
        result = []
        for key, (counts, total) in sorted(self._points.items()):
            labels = self._labels(key)
            cumulative = 0
            for limit, count in zip([*(f"{limit:g}" for limit in self._limits), "+Inf"], counts, strict=True):
                cumulative += count
                result.append(f"{self.name}_bucket{{{','.join([*labels, f'le={_quoted(limit)}'])}}} {cumulative}")
            result.append(f"{self.name}_sum{{{','.join(labels)}}} {total[0]:g}")
            result.append(f"{self.name}_count{{{','.join(labels)}}} {cumulative}")
        return result


def _quoted(text: str) -> str:
    return f'"{text}"'


class ServerMetrics:
    """Counts and times what the server does. Thread-safe; every method returns at once."""

    def __init__(self) -> None:
        latency = _exponential(10, 1.8, 33)  # To about 20 minutes.
        sizes = _exponential(1, 2, 14)
        batching = "/tensorflow/serving/batching_session"
        self._lock = threading.Lock()
        self._model_names: set[str] = set()
        self._request_count = _Counter("/tensorflow/serving/request_count", "model_name", "status")
        self._request_latency = _Histogram(
            "/tensorflow/serving/request_latency", latency, "model_name", "API", "entrypoint"
        )
        self._runtime_latency = _Histogram(
            "/tensorflow/serving/runtime_latency", latency, "model_name", "API", "runtime"
        )
        self._example_counts = _Histogram("/tensorflow/serving/request_example_counts", _exponential(1, 2, 15), "model")
        self._example_count_total = _Counter("/tensorflow/serving/request_example_count_total", "model")
        self._request_log_count = _Counter("/tensorflow/serving/request_log_count", "model_name", "status_code")
        self._warm_up_latency = _Histogram("/tensorflow/serving/model_warmup_latency", latency, "model_path", "status")
        self._queuing_latency = _Histogram(
            f"{batching}/queuing_latency", _exponential(100, 1.2, 52), "thread_pool_name"
        )
        self._wrapped_run_count = _Counter(f"{batching}/wrapped_run_count")
        self._input_batch_size = _Histogram(f"{batching}/input_batch_size", sizes)
        self._processed_batch_size = _Histogram(f"{batching}/processed_batch_size", sizes)
        self._padding_size = _Histogram(f"{batching}/padding_size", sizes, "execution_batch_size")
        metrics = [value for value in vars(self).values() if isinstance(value, _Metric)]
        self._metrics: list[_Metric] = sorted(metrics, key=lambda metric: metric.name)

    def request_finished(self, model_name: str, code: grpc.StatusCode) -> None:
        """Counts a request to run a model by the status of its answer.

        A client may invent names. TensorFlow Serving keeps a counter for each of them, for ever; here the first
        `MAX_MODEL_NAMES` have one, and after them only models that have answered without an error. All others, and
        names longer than `MAX_NAME_LENGTH`, are counted under `OTHER_MODELS`.

        Args:
          model_name: name that the request gave.
          code: status of the answer.
        """
        with self._lock:
            if model_name not in self._model_names:
                has_room = len(self._model_names) < MAX_MODEL_NAMES and len(model_name) <= MAX_NAME_LENGTH
                if has_room or code is grpc.StatusCode.OK:  # Who answers is a model, whose name nobody invented.
                    self._model_names.add(model_name)
                else:
                    model_name = OTHER_MODELS
            self._request_count.add(1, model_name, code.name)

    def request_latency(self, model_name: str, api: str, entrypoint: str, seconds: float) -> None:
        """Times a request that was answered without an error.

        Args:
          model_name: name of the model.
          api: `Predict`, `Classify` or `Regress` over gRPC; in lower case over REST, and empty for its other calls.
          entrypoint: `GRPC` or `REST`.
          seconds: time from receiving the request to having the response.
        """
        with self._lock:
            self._request_latency.add(seconds * _MICROSECONDS, model_name, api, entrypoint)

    def runtime_latency(self, model_name: str, api: str, runtime: str, seconds: float) -> None:
        """Times a run of a model's graph.

        Args:
          model_name: name of the model.
          api: `Predict`, `Classify`, `Regress` or `MultiInference`.
          runtime: `TF1`, which is what TensorFlow Serving calls sessions.
          seconds: wall time of the run.
        """
        with self._lock:
            self._runtime_latency.add(seconds * _MICROSECONDS, model_name, api, runtime)

    def examples_received(self, model_name: str, count: int) -> None:
        """Counts the examples of a request to classify, to regress or for both."""
        with self._lock:
            self._example_counts.add(count, model_name)
            self._example_count_total.add(count, model_name)

    def request_logged(self, model_name: str, code: grpc.StatusCode) -> None:
        """Counts a request that was written to the log, or with another code than OK, that was not."""
        with self._lock:
            self._request_log_count.add(1, model_name, code.name)

    def warmed_up(self, model_path: str, code: grpc.StatusCode, seconds: float) -> None:
        """Times the warm-up of a model."""
        with self._lock:
            self._warm_up_latency.add(seconds * _MICROSECONDS, model_path, code.name)

    def batch_processed(
        self, input_sizes: Sequence[int], processed_size: int, queuing_seconds: Sequence[float], thread_pool_name: str
    ) -> None:
        """Counts a batch that was run.

        Args:
          input_sizes: number of rows of each request in it.
          processed_size: number of rows that were run, with the padding.
          queuing_seconds: time that each request waited for the run.
          thread_pool_name: name of the batching threads, as the batching parameters give it.
        """
        with self._lock:
            for size in input_sizes:
                self._input_batch_size.add(size)
            for seconds in queuing_seconds:
                self._queuing_latency.add(seconds * _MICROSECONDS, thread_pool_name)
            self._wrapped_run_count.add(1)
            self._processed_batch_size.add(processed_size)
            self._padding_size.add(processed_size - sum(input_sizes), str(processed_size))

    def counters(self) -> Mapping[str, int]:
        """Returns the first value of each counter by TensorFlow's name for it, as a request to reload may ask."""
        with self._lock:
            return {
                metric.name.replace(":", "/"): next(iter(metric.counts.values()), 0)
                for metric in self._metrics
                if isinstance(metric, _Counter)
            }

    def render(self) -> str:
        """Returns all metrics as Prometheus text, sorted by name."""
        with self._lock:
            lines = [
                line for metric in self._metrics for line in (f"# TYPE {metric.name} {metric.kind}", *metric.lines())
            ]
        return "\n".join(lines) + "\n"
