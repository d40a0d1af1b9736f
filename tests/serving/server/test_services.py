"""What a server answers, with real models behind a real manager."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    logging_config_pb2,
    model_management_pb2,
    model_server_config_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from pipeline.serving.server.config_files import BatchingParameters
from pipeline.serving.server.manager import ModelManager
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.request_log import RequestLogger
from pipeline.serving.server.request_loggers import MakeRequestLogger
from pipeline.serving.server.servable import Servable
from pipeline.serving.server.services import Services
from tests.serving.saved_models import export_arithmetic, export_half_plus_two, publish

VERSION = 7
REGRESS = "tensorflow/serving/regress"
CLASSIFY = "tensorflow/serving/classify"


@pytest.fixture(scope="module")
def base_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    publish(export_half_plus_two(folder / "exported"), folder / "half_plus_two", VERSION)
    publish(export_arithmetic(folder / "other"), folder / "arithmetic", 1)
    return {name: folder / name for name in ("half_plus_two", "arithmetic")}


def _config(base_paths: dict[str, Path], log_to: Path | None = None) -> model_server_config_pb2.ModelServerConfig:
    config = model_server_config_pb2.ModelServerConfig()
    for name, path in base_paths.items():
        entry = config.model_config_list.config.add(name=name, base_path=str(path), model_platform="tensorflow")
        if log_to is not None:
            entry.logging_config.log_collector_config.filename_prefix = str(log_to)
            entry.logging_config.sampling_config.sampling_rate = 1.0
    return config


def _make_request_logger(name: str, config: logging_config_pb2.LoggingConfig) -> RequestLogger:
    return RequestLogger.from_config(config)


class Server:
    """A manager and the services on it."""

    def __init__(
        self,
        config: model_server_config_pb2.ModelServerConfig,
        batching: BatchingParameters | None = None,
        make_request_logger: MakeRequestLogger = _make_request_logger,
    ):
        self.metrics = ServerMetrics()
        self.manager = ModelManager(
            config,
            load=functools.partial(Servable, batching=batching, metrics=self.metrics),
            poll_seconds=0.05,
            make_request_logger=make_request_logger,
        )
        self.manager.start()
        self.manager.wait_until_available(60)
        self.services = Services(self.manager, self.metrics)

    def close(self) -> None:
        self.manager.close()


@pytest.fixture(scope="module")
def server(base_paths: dict[str, Path]) -> Iterator[Server]:
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}))
    yield server
    server.close()


def _refusal(answer: Coroutine[Any, Any, Any]) -> tuple[str, str]:
    with pytest.raises(StatusError) as caught:
        asyncio.run(answer)
    return caught.value.code.name, caught.value.message


def _predict_request(x: object = ((2.0,),), name: str = "half_plus_two") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    return request


def _example_request(message_type: Any, signature: str) -> Any:
    request = message_type()
    request.model_spec.name = "half_plus_two"
    request.model_spec.signature_name = signature
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(80.0)
    return request


def _multi_inference_request() -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest()
    for signature, method in (("regress_x_to_y", REGRESS), ("classify_x_to_y", CLASSIFY)):
        task = request.tasks.add(method_name=method)
        task.model_spec.name = "half_plus_two"
        task.model_spec.signature_name = signature
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(80.0)
    return request


def test_predict_says_which_model_version_and_signature_answered(server: Server):
    response = asyncio.run(server.services.predict(_predict_request()))
    assert list(response.outputs["y"].float_val) == [3.0]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half_plus_two", VERSION, "serving_default")
    assert spec.WhichOneof("version_choice") == "version"


def test_classify_and_regress_answer(server: Server):
    regression = asyncio.run(
        server.services.regress(_example_request(regression_pb2.RegressionRequest, "regress_x_to_y"))
    )
    assert [entry.value for entry in regression.result.regressions] == [42]
    assert (regression.model_spec.version.value, regression.model_spec.signature_name) == (VERSION, "regress_x_to_y")
    classification = asyncio.run(
        server.services.classify(_example_request(classification_pb2.ClassificationRequest, "classify_x_to_y"))
    )
    assert classification.result.classifications[0].classes[0].score == 42
    assert classification.model_spec.version.value == VERSION


def test_multi_inference_answers_and_counts_its_examples(server: Server):
    response = asyncio.run(server.services.multi_inference(_multi_inference_request()))
    assert [result.model_spec.version.value for result in response.results] == [VERSION, VERSION]
    assert response.results[0].regression_result.regressions[0].value == 42
    assert response.results[1].classification_result.classifications[0].classes[0].score == 42
    assert ':tensorflow:serving:request_example_count_total{model="half_plus_two"}' in server.metrics.render()


def test_multi_inference_without_a_task_names_no_model(server: Server):
    request = inference_pb2.MultiInferenceRequest()
    assert _refusal(server.services.multi_inference(request)) == (
        "INVALID_ARGUMENT",
        "ModelSpec has no name specified.",
    )


@pytest.mark.parametrize(
    ("method", "message_type"),
    [
        ("predict", predict_pb2.PredictRequest),
        ("classify", classification_pb2.ClassificationRequest),
        ("regress", regression_pb2.RegressionRequest),
        ("get_model_metadata", get_model_metadata_pb2.GetModelMetadataRequest),
        ("get_model_status", get_model_status_pb2.GetModelStatusRequest),
    ],
)
def test_a_model_spec_is_required(server: Server, method: str, message_type: Any):
    assert _refusal(getattr(server.services, method)(message_type())) == ("INVALID_ARGUMENT", "Missing ModelSpec")


def test_requests_are_counted_by_status_and_runs_are_timed(base_paths: dict[str, Path]):
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}))
    asyncio.run(server.services.predict(_predict_request()))
    assert _refusal(server.services.predict(_predict_request(x=[["text"]])))[0] == "INVALID_ARGUMENT"
    assert _refusal(server.services.predict(_predict_request(name="nobody")))[0] == "NOT_FOUND"
    text = server.metrics.render()
    for model, status in (("half_plus_two", "OK"), ("half_plus_two", "INVALID_ARGUMENT"), ("nobody", "NOT_FOUND")):
        assert f':tensorflow:serving:request_count{{model_name="{model}",status="{status}"}} 1' in text
    assert ':tensorflow:serving:runtime_latency_count{model_name="half_plus_two",API="Predict",runtime="TF1"} 1' in text
    server.close()


def test_what_nobody_thought_of_is_an_internal_error_and_is_logged(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("the disk is on fire")

    monkeypatch.setattr(Servable, "run_tensors", break_down)
    with caplog.at_level("ERROR", logger="absl"):
        assert _refusal(server.services.predict(_predict_request())) == (
            "INTERNAL",
            "ZeroDivisionError: the disk is on fire",
        )
    assert any(record.exc_info for record in caplog.records)


def test_metadata_are_the_signatures_of_the_model(server: Server):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half_plus_two"
    response = asyncio.run(server.services.get_model_metadata(request))
    assert (response.model_spec.name, response.model_spec.version.value) == ("half_plus_two", VERSION)
    assert not response.model_spec.signature_name
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["regress_x_to_y"].method_name == REGRESS
    assert signatures.signature_def["serving_default"].inputs["x"].name == "x:0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["signature_def", "weather"], "Metadata field weather is not supported"),
    ],
)
def test_metadata_that_there_are_not(server: Server, fields: list[str], message: str):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "nobody"  # The fields are looked at first.
    assert _refusal(server.services.get_model_metadata(request)) == ("INVALID_ARGUMENT", message)


def test_the_status_tells_the_state_of_each_version(tmp_path: Path):
    good = publish(export_arithmetic(tmp_path / "exported"), tmp_path / "model", 2)
    config = _config({"model": good.parent})
    config.model_config_list.config[0].model_version_policy.all.SetInParent()
    server = Server(config)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "model"
    response = asyncio.run(server.services.get_model_status(request))
    (status,) = response.model_version_status
    assert (status.version, status.state) == (2, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert status.HasField("status")
    assert (status.status.error_code, status.status.error_message) == (0, "")
    request.model_spec.version.value = 3
    assert _refusal(server.services.get_model_status(request)) == (
        "NOT_FOUND",
        "Could not find version 3 of model model",
    )
    server.close()


def test_a_reload_changes_the_models(base_paths: dict[str, Path]):
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}))
    asyncio.run(server.services.predict(_predict_request()))
    request = model_management_pb2.ReloadConfigRequest(
        config=_config({"arithmetic": base_paths["arithmetic"]}),
        metric_names=["/tensorflow/serving/request_count", "/nothing", "/nothing"],
    )
    response = asyncio.run(server.services.handle_reload_config(request))
    assert response.HasField("status")
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert [(metric.name, metric.int64_value_increase) for metric in response.metric] == [
        ("/tensorflow/serving/request_count", 0),
        ("/nothing", 0),
    ]
    assert _refusal(server.services.predict(_predict_request()))[0] == "NOT_FOUND"
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "arithmetic"
    for alias in "ab":
        request.inputs[alias].CopyFrom(tf.make_tensor_proto([1.0]))
    assert list(asyncio.run(server.services.predict(request)).outputs["sum"].float_val) == [2.0]
    server.close()


def test_a_reload_that_is_refused_is_an_error_and_changes_nothing(server: Server):
    request = model_management_pb2.ReloadConfigRequest()
    assert _refusal(server.services.handle_reload_config(request)) == (
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. "
        "Only ModelConfigList is currently supported",
    )
    request.config.model_config_list.config.add(name="half_plus_two")  # Without a base path.
    code, _ = _refusal(server.services.handle_reload_config(request))
    assert code == "INVALID_ARGUMENT"
    assert list(asyncio.run(server.services.predict(_predict_request())).outputs["y"].float_val) == [3.0]


def test_requests_and_answers_are_logged(base_paths: dict[str, Path], tmp_path: Path):
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}, log_to=tmp_path / "requests"))
    predict, multi = _predict_request(), _multi_inference_request()
    regress = _example_request(regression_pb2.RegressionRequest, "regress_x_to_y")
    answers = [
        asyncio.run(server.services.predict(predict)),
        asyncio.run(server.services.regress(regress)),
        asyncio.run(server.services.multi_inference(multi)),
    ]
    assert _refusal(server.services.predict(_predict_request(x=[["text"]])))[0] == "INVALID_ARGUMENT"
    server.close()
    (file,) = tmp_path.glob("requests-*")
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log", "regress_log", "multi_inference_log"]
    entries = [logs[0].predict_log, logs[1].regress_log, logs[2].multi_inference_log]
    assert [entry.request for entry in entries] == [predict, regress, multi]
    assert [entry.response for entry in entries] == answers
    for log, signature in zip(logs, ["serving_default", "regress_x_to_y", "regress_x_to_y"], strict=True):
        metadata = log.log_metadata
        assert metadata.model_spec.name == "half_plus_two"
        assert metadata.model_spec.version.value == VERSION
        assert metadata.model_spec.signature_name == signature
        assert metadata.sampling_config.sampling_rate == 1.0
        assert list(metadata.saved_model_tags) == ["serve"]
        assert metadata.timestamp_secs > 1_700_000_000
    logged = ':tensorflow:serving:request_log_count{model_name="half_plus_two",status_code="OK"} 3'
    assert logged in server.metrics.render()


def test_a_request_whose_log_is_dropped_is_answered_and_counted_so(base_paths: dict[str, Path], tmp_path: Path):
    def make_full(name: str, config: logging_config_pb2.LoggingConfig) -> RequestLogger:
        prefix = config.log_collector_config.filename_prefix
        return RequestLogger(prefix, config.sampling_config, max_queued_bytes=0)

    config = _config({"half_plus_two": base_paths["half_plus_two"]}, log_to=tmp_path / "requests")
    server = Server(config, make_request_logger=make_full)
    assert asyncio.run(server.services.predict(_predict_request())).outputs
    dropped = ':tensorflow:serving:request_log_count{model_name="half_plus_two",status_code="RESOURCE_EXHAUSTED"} 1'
    assert dropped in server.metrics.render()
    assert 'status_code="OK"' not in server.metrics.render()
    server.close()


def test_concurrent_requests_share_batches(base_paths: dict[str, Path]):
    batching = BatchingParameters(num_batch_threads=1, max_batch_size=64)
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}), batching)

    async def main() -> list[predict_pb2.PredictResponse]:
        asks = [server.services.predict(_predict_request([[float(number)]])) for number in range(50)]
        return await asyncio.gather(*asks)

    values = [response.outputs["y"].float_val[0] for response in asyncio.run(main())]
    np.testing.assert_array_equal(values, np.arange(50) / 2 + 2)
    runs = server.metrics.counters()["/tensorflow/serving/batching_session/wrapped_run_count"]
    assert 1 <= runs < 50
    server.close()


def test_a_request_that_its_client_gives_up_is_counted_as_cancelled(base_paths: dict[str, Path]):
    batching = BatchingParameters(num_batch_threads=1, batch_timeout_micros=10_000_000)
    server = Server(_config({"half_plus_two": base_paths["half_plus_two"]}), batching)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(server.services.predict(_predict_request()), 0.05)

    asyncio.run(main())
    cancelled = ':tensorflow:serving:request_count{model_name="half_plus_two",status="CANCELLED"} 1'
    assert cancelled in server.metrics.render()
    server.close()  # Does not wait for the batch, in which nobody is left.
    assert server.metrics.counters()["/tensorflow/serving/batching_session/wrapped_run_count"] == 0
