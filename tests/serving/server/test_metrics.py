"""The metrics page: TensorFlow Serving's names, buckets and text, as a Prometheus parser reads it."""

from __future__ import annotations

import threading

import grpc
import pytest
from prometheus_client import parser

from pipeline.serving.server.metrics import ServerMetrics

OK = grpc.StatusCode.OK


def samples(metrics: ServerMetrics) -> dict[tuple[str, ...], float]:
    """Returns every value by name and sorted labels. The parser calls every counter something that ends in `_total`."""
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(metrics.render())
        for sample in family.samples
    }


def test_requests_are_counted_by_model_and_status():
    metrics = ServerMetrics()
    for code in (OK, OK, grpc.StatusCode.NOT_FOUND):
        metrics.request_finished("films", code)
    assert [line for line in metrics.render().splitlines() if ":request_count" in line] == [
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="films",status="NOT_FOUND"} 1',
        ':tensorflow:serving:request_count{model_name="films",status="OK"} 2',
    ]


def test_names_that_clients_invent_have_no_end_of_counters():
    metrics = ServerMetrics()
    not_found = grpc.StatusCode.NOT_FOUND
    metrics.request_finished("x" * 10_000, not_found)
    for number in range(3000):
        metrics.request_finished(f"invented {number}", not_found)
    metrics.request_finished("films", not_found)
    metrics.request_finished("films", OK)  # So there is such a model.
    metrics.request_finished("films", not_found)
    metrics.request_finished("invented 0", not_found)
    found = samples(metrics)
    name = ":tensorflow:serving:request_count_total"
    assert len(found) == 1000 + 1 + 2
    assert found[name, "model_name=invented 0", "status=NOT_FOUND"] == 2
    assert found[name, "model_name=invented 999", "status=NOT_FOUND"] == 1
    assert found[name, "model_name=__other__", "status=NOT_FOUND"] == 1 + 2000 + 1
    assert found[name, "model_name=films", "status=OK"] == 1
    assert found[name, "model_name=films", "status=NOT_FOUND"] == 1


def test_latencies_are_histograms_of_microseconds():
    metrics = ServerMetrics()
    for seconds in (9e-6, 10e-6, 0.0005, 3600):
        metrics.request_latency("films", "Predict", "GRPC", seconds)
    name = ":tensorflow:serving:request_latency"
    lines = [line for line in metrics.render().splitlines() if line.startswith(name)]
    labels = 'model_name="films",API="Predict",entrypoint="GRPC"'
    assert lines[:3] == [
        f'{name}_bucket{{{labels},le="10"}} 1',
        f'{name}_bucket{{{labels},le="18"}} 2',  # A value at a limit belongs to the next bucket.
        f'{name}_bucket{{{labels},le="32.4"}} 2',
    ]
    assert lines[-3:] == [
        f'{name}_bucket{{{labels},le="+Inf"}} 4',
        f"{name}_sum{{{labels}}} 3.6e+09",
        f"{name}_count{{{labels}}} 4",
    ]
    assert len(lines) == 33 + 3  # Limits from 10 microseconds to 24 minutes, and the end.
    assert lines[32].startswith(f'{name}_bucket{{{labels},le="1.47476e+09"}}')


def test_batches_are_described():
    metrics = ServerMetrics()
    metrics.batch_processed([1, 2], 4, [0.001, 0.002], "threads")
    found = samples(metrics)
    session = ":tensorflow:serving:batching_session:"
    assert found[f"{session}wrapped_run_count_total",] == 1
    assert found[f"{session}input_batch_size_sum",] == 3
    assert found[f"{session}processed_batch_size_sum",] == 4
    assert found[f"{session}padding_size_sum", "execution_batch_size=4"] == 1
    assert found[f"{session}queuing_latency_sum", "thread_pool_name=threads"] == pytest.approx(3000)
    assert found[f"{session}queuing_latency_count", "thread_pool_name=threads"] == 2


def test_a_parser_of_prometheus_reads_every_metric():
    metrics = ServerMetrics()
    metrics.request_finished('a"b\\c\nd', OK)
    metrics.request_latency("m", "predict", "REST", 0.1)
    metrics.runtime_latency("m", "Predict", "TF1", 0.1)
    metrics.examples_received("m", 3)
    metrics.request_logged("m", OK)
    metrics.warmed_up("/models/m/1", OK, 1.5)
    metrics.batch_processed([1], 1, [0], "threads")
    families = list(parser.text_string_to_metric_families(metrics.render()))
    assert sorted(family.name.removeprefix(":tensorflow:serving:") for family in families) == [
        "batching_session:input_batch_size",
        "batching_session:padding_size",
        "batching_session:processed_batch_size",
        "batching_session:queuing_latency",
        "batching_session:wrapped_run_count",
        "model_warmup_latency",
        "request_count",
        "request_example_count",
        "request_example_counts",
        "request_latency",
        "request_log_count",
        "runtime_latency",
    ]
    assert all(family.samples and family.type in ("counter", "histogram") for family in families)
    found = samples(metrics)
    assert found[":tensorflow:serving:request_count_total", 'model_name=a"b\\c\nd', "status=OK"] == 1
    assert found[":tensorflow:serving:request_example_count_total", "model=m"] == 3
    assert found[":tensorflow:serving:model_warmup_latency_sum", "model_path=/models/m/1", "status=OK"] == 1.5e6


def test_counters_have_the_names_that_reload_requests_use():
    metrics = ServerMetrics()
    metrics.request_finished("films", OK)
    assert metrics.counters()["/tensorflow/serving/request_count"] == 1
    assert metrics.counters()["/tensorflow/serving/request_log_count"] == 0


def test_no_count_is_lost_between_threads():
    metrics = ServerMetrics()

    def count() -> None:
        for _ in range(2000):
            metrics.request_finished("films", OK)
            metrics.runtime_latency("films", "Predict", "TF1", 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = samples(metrics)
    assert found[":tensorflow:serving:request_count_total", "model_name=films", "status=OK"] == 8000
    runs = [value for key, value in found.items() if key[0] == ":tensorflow:serving:runtime_latency_count"]
    assert runs == [8000]
