"""Warm-up files of every kind. Texts and limits are those of TensorFlow Serving's `saved_model_warmup_util.cc`."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import tensorflow as tf

from pipeline.serving.errors import StatusError
from pipeline.serving.messages import prediction_log_pb2
from pipeline.serving.server.calls import Call
from pipeline.serving.server.config_files import BatchingParameters
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.servable import Servable
from pipeline.serving.server.warm_up import MAX_RECORDS, warm_up
from tests.serving.saved_models import export_half_plus_two, write_warm_up_logs


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return export_half_plus_two(tmp_path / "model")


def _predict_log(signature: str = "", value: object = ((1.0,),)) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
    return log


def _logs_of_every_kind() -> list[prediction_log_pb2.PredictionLog]:
    classify, regress, multi = (prediction_log_pb2.PredictionLog() for _ in range(3))
    for entry, signature in (
        (classify.classify_log.request, "classify_x_to_y"),
        (regress.regress_log.request, "regress_x_to_y"),
    ):
        entry.model_spec.signature_name = signature
        entry.input.example_list.examples.add()
    task = multi.multi_inference_log.request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.name = "model"
    task.model_spec.signature_name = "regress_x_to_y2"
    multi.multi_inference_log.request.input.example_list.examples.add()
    return [_predict_log(), classify, regress, multi, prediction_log_pb2.PredictionLog()]


def test_requests_of_every_kind_are_run_as_often_as_asked(model: Path):
    write_warm_up_logs(model, _logs_of_every_kind())
    servable = Servable(str(model), warm_up=False)
    responses = []
    assert warm_up(servable, str(model), lambda call: responses.append(servable.call_now(call)), iterations=2) == 5
    assert [type(response).__name__ for response in responses[::2]] == [
        "PredictResponse",
        "ClassificationResponse",
        "RegressionResponse",
        "MultiInferenceResponse",
    ]
    assert responses[::2] == responses[1::2]


def test_loading_warms_up_with_and_without_batching(model: Path):
    write_warm_up_logs(model, _logs_of_every_kind())
    # Three kinds of outputs; without batching, for small requests and for large ones.
    for batching, prepared in ((None, 6), (BatchingParameters(num_batch_threads=1), 3)):
        metrics = ServerMetrics()
        servable = Servable(str(model), batching=batching, metrics=metrics)
        assert len(servable._runners._prepared) == prepared
        assert f'model_warmup_latency_count{{model_path="{model}",status="OK"}} 1' in metrics.render()
        servable.close()


def test_a_model_without_a_file_or_whose_file_is_not_to_be_run_loads(model: Path):
    calls: list[Call] = []
    servable = Servable(str(model))
    assert warm_up(servable, str(model), calls.append) == 0
    write_warm_up_logs(model, [_predict_log("nothing")])
    assert Servable(str(model), warm_up=False).signatures


@pytest.mark.parametrize(
    ("log", "code", "message"),
    [
        (_predict_log("nothing"), "FAILED_PRECONDITION", 'Serving signature key "nothing" not found.'),
        (_predict_log(value=[[1]]), "INVALID_ARGUMENT", "Expects arg[0] to be float but int32 is provided"),
        (b"\x0a\xff", "INVALID_ARGUMENT", "Failed to parse warmup record: "),
        (
            prediction_log_pb2.PredictionLog(predict_streamed_log=prediction_log_pb2.PredictStreamedLog()),
            "UNIMPLEMENTED",
            "Unsupported log_type for warmup: 7",
        ),
        (
            prediction_log_pb2.PredictionLog(session_run_log=prediction_log_pb2.SessionRunLog()),
            "UNIMPLEMENTED",
            "Unsupported log_type for warmup: 5",
        ),
    ],
)
def test_a_model_that_fails_its_warm_up_does_not_load(
    model: Path, log: prediction_log_pb2.PredictionLog | bytes, code: str, message: str
):
    write_warm_up_logs(model, [_predict_log(), log])
    metrics = ServerMetrics()
    with pytest.raises(StatusError) as caught:
        Servable(str(model), metrics=metrics)
    assert caught.value.code.name == code
    assert caught.value.message.startswith(message)
    assert f'status="{code}"}} 1' in metrics.render()


def test_as_many_requests_as_tensorflow_serving_accepts(model: Path):
    servable = Servable(str(model))
    write_warm_up_logs(model, [_predict_log()] * MAX_RECORDS)
    assert MAX_RECORDS == 1000
    assert warm_up(servable, str(model), servable.call_now) == MAX_RECORDS
    write_warm_up_logs(model, [_predict_log()] * (MAX_RECORDS + 1))
    file = model / "assets.extra" / "tf_serving_warmup_requests"
    with pytest.raises(StatusError) as caught:
        warm_up(servable, str(model), servable.call_now)
    assert caught.value.message == f"Number of warmup records exceeds the maximum (1000) at {file}"
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_file_of_another_format_is_a_data_loss(model: Path):
    write_warm_up_logs(model, [])
    (model / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"this is no TFRecord file")
    with pytest.raises(StatusError) as caught:
        Servable(str(model))
    assert caught.value.code is grpc.StatusCode.DATA_LOSS
    assert caught.value.message.startswith("corrupted record at 0")
    assert caught.value.message.endswith(". Please verify your warmup data is in TFRecord format.")
