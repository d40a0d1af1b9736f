from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import logging_config_pb2

from pipeline.serving.errors import StatusError
from pipeline.serving.prediction_logs import log_files, read_prediction_logs
from pipeline.serving.record_files import TornFileError, frame, read_records
from pipeline.serving.server.request_log import RequestLogger


def make_log(text: str) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["examples"].CopyFrom(tf.make_tensor_proto([text.encode()]))
    log.log_metadata.model_spec.name = "recommender"
    return log


def text_of(log: prediction_log_pb2.PredictionLog) -> str:
    return log.predict_log.request.inputs["examples"].string_val[0].decode()


def sampling(rate: float = 1.0) -> logging_config_pb2.SamplingConfig:
    return logging_config_pb2.SamplingConfig(sampling_rate=rate)


def wait_until_written(logger: RequestLogger, count: int) -> None:
    deadline = time.monotonic() + 10
    while logger.written + logger.failed < count:
        assert time.monotonic() < deadline, f"only {logger.written} written, {logger.failed} failed"
        time.sleep(0.005)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_can_be_read_by_tensorflow_after_closing(tmp_path: Path) -> None:
    logger = RequestLogger(str(tmp_path / "logs" / "requests"), sampling())
    logs = [make_log(f"request {number}") for number in range(20)]
    for log in logs:
        logger.write(log)
    logger.close()

    (path,) = (tmp_path / "logs").iterdir()
    assert path.match("requests-*T*Z-0.tfrecord")
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert [prediction_log_pb2.PredictionLog.FromString(record) for record in records] == logs
    assert (logger.written, logger.dropped, logger.failed) == (20, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(min_value=0))
def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "file"
    whole = b"".join(map(frame, records))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert path.read_bytes() == whole
    length = cut % (len(whole) + 1)
    path.write_bytes(whole[:length])

    found, torn = [], False
    try:
        for record in read_records(path):
            found.append(record)
    except TornFileError as error:
        torn = True
        assert error.whole_bytes == len(b"".join(map(frame, found)))
    assert found == records[: len(found)]
    assert torn == (length != len(b"".join(map(frame, found))))
    assert length < len(b"".join(map(frame, records[: len(found) + 1]))) or found == records


def test_a_damaged_record_is_told_and_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = bytearray(frame(b"first") + frame(b"second"))
    data[-6] ^= 1
    path.write_bytes(data)
    records = read_records(path)
    assert next(records) == b"first"
    with pytest.raises(TornFileError, match="damaged at byte 21"):
        next(records)


def test_a_whole_record_that_is_no_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "requests-20260101T000000Z-1.tfrecord"
    path.write_bytes(frame(make_log("a").SerializeToString()) + frame(b"nothing of the kind"))
    with pytest.raises(ValueError, match=r"requests-20260101T000000Z-1\.tfrecord: record 2 is no PredictionLog"):
        list(read_prediction_logs(str(path)))


def test_an_open_file_is_hidden_and_readable(tmp_path: Path) -> None:
    logger = RequestLogger(str(tmp_path / "requests"), sampling())
    logger.write(make_log("a"))
    wait_until_written(logger, 1)
    assert [name[0] + name[-5:] for name in names(tmp_path)] == [".".ljust(1) + ".open"]
    assert [text_of(log) for log in read_prediction_logs(f"{tmp_path}/requests-*.tfrecord")] == ["a"]
    logger.close()
    assert names(tmp_path)[0].endswith("-0.tfrecord")


def test_files_rotate_by_size_and_hold_everything_in_order(tmp_path: Path) -> None:
    size = len(frame(make_log("00").SerializeToString()))
    logger = RequestLogger(str(tmp_path / "requests"), sampling(), max_file_bytes=3 * size + 1)
    for number in range(10):
        logger.write(make_log(f"{number:02}"))
    logger.close()
    pattern = f"{tmp_path}/requests-*.tfrecord"
    assert [path.stat().st_size for path in log_files(pattern)] == [3 * size, 3 * size, 3 * size, size]
    expected = [f"{number:02}" for number in range(10)]
    assert [text_of(log) for log in read_prediction_logs(pattern)] == expected
    assert [text_of(log) for log in read_prediction_logs(pattern, latest_first=True)] == expected[::-1]


def test_a_file_is_completed_at_its_age_though_no_request_comes(tmp_path: Path) -> None:
    logger = RequestLogger(str(tmp_path / "requests"), sampling(), max_file_seconds=0.2)
    logger.write(make_log("a"))
    deadline = time.monotonic() + 5
    while not any(name.endswith(".tfrecord") for name in names(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    logger.write(make_log("b"))
    logger.close()
    assert len(names(tmp_path)) == 2


def test_all_files_together_stay_below_the_bound_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "requests-other.tfrecord").write_bytes(b"of somebody else")
    size = len(frame(make_log("00").SerializeToString()))
    logger = RequestLogger(str(tmp_path / "requests"), sampling(), max_file_bytes=2 * size, max_kept_bytes=6 * size)
    for number in range(20):
        logger.write(make_log(f"{number:02}"))
    logger.close()
    pattern = f"{tmp_path}/requests-2*.tfrecord"
    assert sum(path.stat().st_size for path in log_files(pattern)) <= 6 * size
    assert [text_of(log) for log in read_prediction_logs(pattern)] == [f"{number:02}" for number in range(14, 20)]
    assert (tmp_path / "requests-other.tfrecord").exists()


def test_two_loggers_of_one_prefix_write_files_of_their_own(tmp_path: Path) -> None:
    loggers = [RequestLogger(str(tmp_path / "requests"), sampling()) for _ in range(2)]
    for number, logger in enumerate(loggers):
        logger.write(make_log(str(number)))
        wait_until_written(logger, 1)
    for logger in loggers:
        logger.close()
    assert sorted(text_of(log) for log in read_prediction_logs(f"{tmp_path}/*.tfrecord")) == ["0", "1"]
    assert len(names(tmp_path)) == 2


def test_what_a_killed_server_leaves_is_readable_and_completed_by_the_next(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import time
        from tensorflow_serving.config import logging_config_pb2
        from pipeline.serving.messages import prediction_log_pb2
        from pipeline.serving.server.request_log import RequestLogger

        logger = RequestLogger({str(tmp_path / "requests")!r}, logging_config_pb2.SamplingConfig(sampling_rate=1.0))
        for number in range(3):
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.inputs["examples"].string_val.append(str(number).encode())
            logger.write(log)
        while logger.written < 3:
            time.sleep(0.01)
        print("written", flush=True)
        time.sleep(60)
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        other = RequestLogger(str(tmp_path / "requests"), sampling())
        other.write(make_log("other"))
        other.close()
        assert len([name for name in names(tmp_path) if name.startswith(".")]) == 1, "a living logger's file was taken"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    (left,) = (path for path in tmp_path.iterdir() if path.name.startswith("."))
    with left.open("ab") as file:
        file.write(b"half a rec")
    told: list[TornFileError] = []
    pattern = f"{tmp_path}/requests-*.tfrecord"
    found = {text_of(log) for log in read_prediction_logs(pattern, torn=told.append)}
    assert found == {"0", "1", "2", "other"}
    assert [error.path for error in told] == [left]

    with_next = RequestLogger(str(tmp_path / "requests"), sampling())
    with_next.write(make_log("next"))
    with_next.close()
    told.clear()
    assert {text_of(log) for log in read_prediction_logs(pattern, torn=told.append)} == found | {"next"}
    assert told == []
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_full_disk_is_told_once_counted_and_leaves_whole_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(frame(make_log("00").SerializeToString()))
    logger = RequestLogger(str(tmp_path / "requests"), sampling())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * size + 5, before[1]))
        for number in range(5):
            logger.write(make_log(f"{number:02}"))
            wait_until_written(logger, number + 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (logger.written, logger.failed) == (2, 3)
    assert len([record for record in caplog.records if "cannot write request logs" in record.message]) == 1
    logger.write(make_log("99"))
    logger.close()
    assert [text_of(log) for log in read_prediction_logs(f"{tmp_path}/*.tfrecord")] == ["00", "01", "99"]


def test_a_folder_that_cannot_be_made_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    logger = RequestLogger(str(tmp_path / "file" / "requests"), sampling())
    logger.write(make_log("a"))
    logger.close()
    assert (logger.written, logger.failed) == (0, 1)


def test_what_does_not_fit_into_the_queue_is_dropped_without_waiting(tmp_path: Path) -> None:
    """A pipe that nobody reads stands for a disk that hangs."""
    os.mkfifo(tmp_path / "pipe")
    logger = RequestLogger(str(tmp_path / "requests"), sampling(), max_queued_logs=4)
    log = make_log("a")
    logger.write(log)
    wait_until_written(logger, 1)
    descriptor = logger._files._file
    assert descriptor is not None
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    while True:
        try:
            os.write(writer, b"x")
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    kept = os.dup(descriptor)
    os.dup2(writer, descriptor)
    started = time.monotonic()
    taken = sum(logger.write(log) for _ in range(100))
    assert time.monotonic() - started < 1
    assert taken == 100 - logger.dropped
    assert logger.dropped >= 100 - 4 - 4
    os.dup2(kept, descriptor)
    drain = threading.Thread(target=_drain, args=(reader,))
    drain.start()
    os.close(writer)
    logger.close()
    drain.join()
    os.close(kept)
    assert logger.written + logger.dropped == 101


def _drain(reader: int) -> None:
    os.set_blocking(reader, True)
    while os.read(reader, 65536):
        pass
    os.close(reader)


def test_a_closed_logger_drops_and_counts(tmp_path: Path) -> None:
    logger = RequestLogger(str(tmp_path / "requests"), sampling())
    logger.close()
    assert not logger.write(make_log("a"))
    logger.close()
    assert (logger.written, logger.dropped) == (0, 1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_sampling_is_uniform_at_the_rate_and_repeats_with_a_seed(rate: float) -> None:
    draws = [
        [logger.sample() for _ in range(4000)]
        for logger in (RequestLogger("logs/requests", sampling(rate), seed=3) for _ in range(2))
    ]
    assert draws[0] == draws[1]
    assert abs(sum(draws[0]) / 4000 - rate) < 4 * (rate * (1 - rate) / 4000) ** 0.5 + 1e-9


def make_config(rate: float = 1.0, prefix: str = "logs/requests", type_: str = "") -> logging_config_pb2.LoggingConfig:
    config = logging_config_pb2.LoggingConfig()
    config.sampling_config.sampling_rate = rate
    config.log_collector_config.filename_prefix = prefix
    config.log_collector_config.type = type_
    return config


@pytest.mark.parametrize(
    ("config", "code", "text"),
    [
        (make_config(rate=1.5), grpc.StatusCode.INVALID_ARGUMENT, r"sampling_rate must lie in \[0, 1\]; received 1.5"),
        (make_config(rate=float("nan")), grpc.StatusCode.INVALID_ARGUMENT, "sampling_rate"),
        (make_config(prefix=""), grpc.StatusCode.INVALID_ARGUMENT, "filename_prefix"),
        (make_config(prefix="logs/"), grpc.StatusCode.INVALID_ARGUMENT, "received 'logs/'"),
        (make_config(type_="x"), grpc.StatusCode.NOT_FOUND, "^Cannot find LogCollector::Factory for type: x$"),
    ],
)
def test_a_bad_logging_config_is_refused_by_name(
    config: logging_config_pb2.LoggingConfig, code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(StatusError, match=text) as caught:
        RequestLogger.from_config(config)
    assert caught.value.code is code


def test_a_logger_is_made_from_a_models_logging_config(tmp_path: Path) -> None:
    config = make_config(prefix=str(tmp_path / "requests"), type_="tfrecord")
    logger = RequestLogger.from_config(config, max_file_seconds=60)
    assert logger.sample()
    logger.write(make_log("a"))
    logger.close()
    assert logger.sampling_config == config.sampling_config
    assert len(log_files(f"{tmp_path}/requests-*.tfrecord")) == 1
