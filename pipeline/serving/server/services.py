"""`Services`: what a server answers, whichever way requests reach it.

Sources: TensorFlow Serving's `prediction_service_impl.cc`, `model_service_impl.cc`, `get_model_metadata_impl.cc` and
`get_model_status_impl.cc`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import (
    classification_pb2,
    error_codes_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from pipeline.serving.server.calls import Call
from pipeline.serving.server.examples import ClassifyCall, MultiInferenceCall, RegressCall
from pipeline.serving.server.predict import PredictCall

if TYPE_CHECKING:
    from pipeline.serving.server.leases import Lease
    from pipeline.serving.server.manager import ModelManager
    from pipeline.serving.server.metrics import ServerMetrics
    from pipeline.serving.server.servable import Servable

SIGNATURE_FIELD = "signature_def"
RUNTIME = "TF1"
"""What TensorFlow Serving calls a session in its metrics."""

_Response = TypeVar("_Response")
_CallResponse = TypeVar("_CallResponse")


class Services:
    """The methods of PredictionService and ModelService. All but the reload return at once or await a run.

    Whatever goes wrong is a `StatusError` with TensorFlow Serving's code and text; what nobody thought of is INTERNAL,
    and logged.
    """

    def __init__(self, manager: ModelManager, metrics: ServerMetrics):
        """Takes what it needs.

        Args:
          manager: lends the models.
          metrics: told of each request.
        """
        self._manager = manager
        self._metrics = metrics

    async def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Answers a Predict request."""
        return await self._counted(request, self._predict)

    async def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Answers a Classify request."""
        return await self._counted(request, self._classify)

    async def regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """Answers a Regress request."""
        return await self._counted(request, self._regress)

    async def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Answers a MultiInference request. The first task says which version of the model answers."""
        with _UnexpectedErrorsAreInternal():
            spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
            with self._manager.acquire(spec) as lease:
                call = MultiInferenceCall(lease.servable, request)
                response = await self._run(lease, call, "MultiInference")
                self._metrics.examples_received(spec.name, call.num_examples)
                for result in response.results:
                    result.model_spec.version.value = lease.version
                self._log(lease, spec, "multi_inference_log", request, response)
                return response

    async def get_model_metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answers with the signatures of a model."""
        with _UnexpectedErrorsAreInternal():
            _check_model_spec(request)
            if not request.metadata_field:
                raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != SIGNATURE_FIELD:
                    raise invalid_argument(f"Metadata field {field} is not supported")
            with self._manager.acquire(request.model_spec) as lease:
                signatures = get_model_metadata_pb2.SignatureDefMap()
                for name, definition in lease.servable.signatures.items():
                    signatures.signature_def[name].CopyFrom(definition)
                response = get_model_metadata_pb2.GetModelMetadataResponse()
                response.model_spec.name = lease.name
                response.model_spec.version.value = lease.version
                response.metadata[SIGNATURE_FIELD].Pack(signatures)
                return response

    async def get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answers with the states of a model's versions, latest version first."""
        with _UnexpectedErrorsAreInternal():
            _check_model_spec(request)
            response = get_model_status_pb2.GetModelStatusResponse()
            for version, status in sorted(self._manager.statuses(request.model_spec).items(), reverse=True):
                entry = response.model_version_status.add(version=version, state=int(status.state))
                entry.status.SetInParent()
                if status.error is not None:
                    entry.status.error_code = _error_number(status.error.code)
                    entry.status.error_message = status.error.message
            return response

    async def handle_reload_config(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Changes the models that are served, in a thread, since loading takes its time.

        Raises:
          StatusError: if the configuration is refused. TensorFlow Serving answers with the error itself, too, so that
            a client never gets a response whose `status` is one.
        """
        with _UnexpectedErrorsAreInternal():
            before = self._metrics.counters()
            if request.config.WhichOneof("config") != "model_config_list":
                raise invalid_argument(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                    "Only ModelConfigList is currently supported"
                )
            for index, config in enumerate(request.config.model_config_list.config):
                logging.info("reload: model %d is %s at %s", index, config.name, config.base_path)
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._manager.reload, request.config)
            except StatusError as error:
                logging.error("the configuration was refused: %s", error.message)
                raise
            response = model_management_pb2.ReloadConfigResponse()
            response.status.SetInParent()
            after = self._metrics.counters()
            for name in dict.fromkeys(request.metric_names):
                response.metric.add(name=name, int64_value_increase=after.get(name, 0) - before.get(name, 0))
            return response

    async def _counted(self, request: Any, answer: Callable[[Any], Any]) -> Any:
        """Answers, and counts the outcome."""
        code = grpc.StatusCode.CANCELLED
        try:
            with _UnexpectedErrorsAreInternal():
                _check_model_spec(request)
                response = await answer(request)
            code = grpc.StatusCode.OK
            return response
        except StatusError as error:
            code = error.code
            raise
        finally:
            self._metrics.request_finished(request.model_spec.name, code)

    async def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        return await self._answer(request, PredictCall, "Predict", "predict_log")

    async def _classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        return await self._answer(request, ClassifyCall, "Classify", "classify_log")

    async def _regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        return await self._answer(request, RegressCall, "Regress", "regress_log")

    async def _answer(self, request: Any, call_type: Callable[[Servable, Any], Call[Any]], api: str, log: str) -> Any:
        with self._manager.acquire(request.model_spec) as lease:
            response = await self._run(lease, call_type(lease.servable, request), api)
            response.model_spec.version.value = lease.version
            self._log(lease, response.model_spec, log, request, response)
            return response

    async def _run(self, lease: Lease, call: Call[_CallResponse], api: str) -> _CallResponse:
        started = time.perf_counter()
        outputs = await lease.servable.run_tensors(call.feeds, call.fetches)
        if api != "MultiInference":
            self._metrics.runtime_latency(lease.name, api, RUNTIME, time.perf_counter() - started)
        return call.respond(outputs)

    def _log(self, lease: Lease, spec: model_pb2.ModelSpec, kind: str, request: Any, response: Any) -> None:
        """Hands the request and its answer to the model's logger, if it wants them. Never fails a request."""
        logger = lease.request_logger
        if logger is None:
            return
        try:
            if not logger.sample():
                return
            log = prediction_log_pb2.PredictionLog()
            metadata = log.log_metadata
            metadata.model_spec.CopyFrom(spec)
            metadata.model_spec.version.value = lease.version
            metadata.sampling_config.CopyFrom(logger.sampling_config)
            metadata.saved_model_tags.append("serve")
            metadata.timestamp_secs = int(time.time())
            entry = getattr(log, kind)
            entry.request.CopyFrom(request)
            entry.response.CopyFrom(response)
            taken = logger.write(log)
            code = grpc.StatusCode.OK if taken else grpc.StatusCode.RESOURCE_EXHAUSTED
            self._metrics.request_logged(lease.name, code)
        except Exception:
            logging.exception("a request of the model %s could not be logged", lease.name)
            self._metrics.request_logged(lease.name, grpc.StatusCode.INTERNAL)


class _UnexpectedErrorsAreInternal:
    """A context that turns what is no `StatusError` into one. A generator would cost thrice as much."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, StatusError):
            logging.error("a request failed in an unexpected way", exc_info=error)
            raise StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}") from error


def _check_model_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _error_number(code: grpc.StatusCode) -> int:
    return error_codes_pb2.Code.Value(code.name)
