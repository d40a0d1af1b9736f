"""The REST side of the server, on aiohttp: TensorFlow Serving's URLs, answers, errors and metrics page.

Errors found in a URL's version, and CORS preflights, have an empty body; whatever is not below `/v1/` gets the page
that the HTTP library of TensorFlow Serving sends.

Sources: `model_servers/http_server.cc`, `http_rest_api_handler.cc`, `http_rest_api_util.cc` and
`util/net_http/server/internal` of TensorFlow Serving.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import re
import time
import urllib.parse
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import grpc
from absl import logging
from aiohttp import web
from google.protobuf.message import Message

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)
from pipeline.serving.server.admission import Admission
from pipeline.serving.server.calls import DEFAULT_SIGNATURE
from pipeline.serving.server.json_answers import write_classifications, write_predict_response, write_regressions
from pipeline.serving.server.json_examples import read_examples_request
from pipeline.serving.server.json_tensors import TensorInfos, read_predict_request
from pipeline.serving.server.json_writing import as_bytes, error_text
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.proto_json import message_to_json
from pipeline.serving.server.services import Services

if TYPE_CHECKING:
    from pipeline.serving.server.manager import ModelManager

MAX_BODY_BYTES = 32 << 20
"""Largest body of a request, as sent and unpacked, unless the options say otherwise."""
LARGE_REQUEST_BYTES = 256 << 10
"""Size of a body from which on it is read in a thread: the event loop would answer nobody else meanwhile."""
LARGE_RESPONSE_BYTES = 64 << 10
"""The same for responses; as JSON they have several times this size."""

_CONVERTING_THREADS = 2  # Python runs one of them at a time; more would only take turns with the event loop.

_HTTP_STATUSES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
_API = re.compile(r"/v1/.*", re.IGNORECASE)
_PREDICTION = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r":(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_DESCRIPTION = re.compile(
    r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?:/(?P<part>metadata))?",
    re.IGNORECASE | re.ASCII,
)
_ALLOWED_METHODS = frozenset({"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"})
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_JSON = "application/json"
_HTML = "text/html; charset=ISO-8859-1"  # What libevent says of answers that do not name their type.
_Response = TypeVar("_Response", bound=Message)
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class RestOptions:
    """How the REST side behaves.

    Attributes:
      timeout_seconds: time that a model has to answer; 0 means no limit.
      max_body_bytes: largest body of a request, as sent and unpacked.
      enable_cors: whether to let pages from any origin use the API.
      metrics_path: path of the metrics page; None means that there is none.
    """

    timeout_seconds: float = 30.0
    max_body_bytes: int = MAX_BODY_BYTES
    enable_cors: bool = False
    metrics_path: str | None = None


@dataclasses.dataclass
class _Exchange:
    """What is found out about a request on the way, for the metrics.

    Attributes:
      model_name: name in the URL; empty if it has none.
      method: `predict`, `classify` or `regress`; empty for other requests.
      is_counted: whether the services have counted the request.
    """

    model_name: str = ""
    method: str = ""
    is_counted: bool = False


class RestApi:
    """Answers HTTP requests."""

    def __init__(
        self,
        services: Services,
        manager: ModelManager,
        metrics: ServerMetrics,
        admission: Admission,
        options: RestOptions,
    ):
        """Makes it; `application` is what a runner serves.

        Args:
          services: what answers.
          manager: lends the models whose signatures say how JSON is to be read.
          metrics: is told of the requests, and shown.
          admission: bounds the requests to run a model.
          options: how it behaves.
        """
        self._services = services
        self._manager = manager
        self._metrics = metrics
        self._admission = admission
        self._options = options
        self._converting = concurrent.futures.ThreadPoolExecutor(_CONVERTING_THREADS, "rest-conversion")

    def application(self) -> web.Application:
        """Returns an application of one route that takes every request."""
        application = web.Application(client_max_size=self._options.max_body_bytes)
        application.router.add_route("*", "/{path:.*}", self._answer)
        application.on_cleanup.append(self._stop_converting)
        return application

    async def _stop_converting(self, unused: web.Application) -> None:
        self._converting.shutdown(wait=False)

    async def _answer(self, request: web.Request) -> web.Response:
        target = request.raw_path
        if not target.startswith("/"):  # The form that proxies are sent.
            parts = urllib.parse.urlsplit(target)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if request.method not in _ALLOWED_METHODS:
            return _library_error(HTTPStatus.NOT_IMPLEMENTED)
        if target.partition("?")[0] == self._options.metrics_path:
            return self._show_metrics(target)
        if not _API.fullmatch(target):
            return _library_error(HTTPStatus.NOT_FOUND)
        started = time.perf_counter()
        exchange = _Exchange()
        try:
            code, answer, content_type = await self._call(request, target, exchange)
        except _BodyTooLarge:
            text = error_text(f"The request is larger than {self._options.max_body_bytes} bytes")
            return web.Response(text=text, status=413, content_type=_JSON)
        if code is grpc.StatusCode.OK:
            self._metrics.request_latency(exchange.model_name, exchange.method, "REST", time.perf_counter() - started)
        if not exchange.is_counted:
            self._metrics.request_finished(exchange.model_name, code)
        headers = {"Content-Type": content_type} | (_CORS_HEADERS if self._options.enable_cors else {})
        return web.Response(body=answer, status=_HTTP_STATUSES.get(code, 500), headers=headers)

    def _show_metrics(self, target: str) -> web.Response:
        path = self._options.metrics_path
        if target != path:
            text, status = f"Unexpected path: {target}. Should be {path}", 400
        else:
            text, status = self._metrics.render(), 200
        return web.Response(body=text.encode("utf-8"), status=status, headers={"Content-Type": "text/plain"})

    async def _call(self, request: web.Request, target: str, exchange: _Exchange) -> tuple[grpc.StatusCode, bytes, str]:
        """Returns status, body and content type."""
        if request.method == "OPTIONS":
            has_origin = re.search("https?://", request.headers.get("Origin", "")) is not None
            return grpc.StatusCode.OK if has_origin else grpc.StatusCode.FAILED_PRECONDITION, b"", _HTML
        try:
            return grpc.StatusCode.OK, await self._process(request, target, exchange), _JSON
        except _VersionError:
            return grpc.StatusCode.INVALID_ARGUMENT, b"", _JSON
        except StatusError as error:
            failure = error
        except (_BodyTooLarge, ConnectionError):
            raise
        except Exception as error:
            logging.exception("%s %s failed", request.method, target)
            failure = StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        return failure.code, as_bytes(error_text(failure.message)), _JSON

    async def _process(self, request: web.Request, target: str, exchange: _Exchange) -> bytes:
        pattern = {"POST": _PREDICTION, "GET": _DESCRIPTION}.get(request.method)
        match = pattern.fullmatch(target) if pattern else None
        if match is not None:
            exchange.model_name = urllib.parse.unquote(match["name"] or "")
            spec = _model_spec(exchange.model_name, match["version"], match["label"])
            if request.method == "GET":
                return await self._describe(spec, match["part"] == "metadata")
            exchange.method = match["method"]
            runs = {"predict": self._predict, "classify": self._classify, "regress": self._regress}
            if run := runs.get(exchange.method):  # The URL's letters may be of either case, the method's may not.
                with self._admission:  # Before the body takes memory, and until its answer is written.
                    return await run(spec, await self._read_body(request), exchange)
        raise invalid_argument(f"Malformed request: {request.method} {target}")

    async def _read_body(self, request: web.Request) -> bytes:
        """Waits for a request's body, and unpacks it if it is packed.

        Raises:
          StatusError: DEADLINE_EXCEEDED if it does not arrive within the time that a model has to answer.
          _BodyTooLarge: if it is larger than the options allow.
          ConnectionError: if the client goes away.
        """
        seconds = None if request.content.is_eof() else self._options.timeout_seconds or None
        try:
            body = await asyncio.wait_for(request.read(), seconds)
        except asyncio.TimeoutError:
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for the request's body") from None
        except web.HTTPRequestEntityTooLarge:
            raise _BodyTooLarge from None
        if "gzip" not in request.headers.get("Content-Encoding", ""):
            return body
        return await self._in_thread(functools.partial(unpack, body, self._options.max_body_bytes))

    async def _predict(self, spec: model_pb2.ModelSpec, body: bytes, exchange: _Exchange) -> bytes:
        request = predict_pb2.PredictRequest(model_spec=spec)
        inputs_of = functools.partial(self._inputs_of, spec)
        in_rows = await self._read(functools.partial(read_predict_request, body, request, inputs_of), body)
        response = await self._run(functools.partial(self._services.predict, request), exchange)
        return await self._write(lambda: write_predict_response(response.outputs, in_rows), response)

    def _inputs_of(self, spec: model_pb2.ModelSpec, signature_name: str) -> TensorInfos:
        name = signature_name or DEFAULT_SIGNATURE
        with self._manager.acquire(spec) as lease:
            definition = lease.servable.signatures.get(name)
        if definition is None:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        return definition.inputs

    async def _classify(self, spec: model_pb2.ModelSpec, body: bytes, exchange: _Exchange) -> bytes:
        request = classification_pb2.ClassificationRequest(model_spec=spec)
        await self._read(functools.partial(read_examples_request, body, request), body)
        response = await self._run(functools.partial(self._services.classify, request), exchange)
        return await self._write(lambda: write_classifications(response.result), response)

    async def _regress(self, spec: model_pb2.ModelSpec, body: bytes, exchange: _Exchange) -> bytes:
        request = regression_pb2.RegressionRequest(model_spec=spec)
        await self._read(functools.partial(read_examples_request, body, request), body)
        response = await self._run(functools.partial(self._services.regress, request), exchange)
        return await self._write(lambda: write_regressions(response.result), response)

    async def _run(self, answer: Callable[[], Awaitable[_Response]], exchange: _Exchange) -> _Response:
        """Waits for a model's answer, within the limit of time."""
        exchange.is_counted = True
        try:
            return await asyncio.wait_for(answer(), self._options.timeout_seconds or None)
        except asyncio.TimeoutError:
            raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None

    async def _read(self, read: Callable[[], _Result], body: bytes) -> _Result:
        """Returns what reading a body returns."""
        return await self._in_thread(read) if len(body) > LARGE_REQUEST_BYTES else read()

    async def _write(self, write: Callable[[], bytes], response: Message) -> bytes:
        """Returns a response as JSON."""
        return await self._in_thread(write) if response.ByteSize() > LARGE_RESPONSE_BYTES else write()

    async def _in_thread(self, convert: Callable[[], _Result]) -> _Result:
        """Returns what a function returns, without keeping the event loop from others.

        A thread cannot be cancelled. So a request that is keeps its place among those admitted until the thread is done
        with it: who sends large requests and goes away gets no further than who waits.
        """
        conversion = asyncio.get_running_loop().run_in_executor(self._converting, convert)
        try:
            return await asyncio.shield(conversion)
        except asyncio.CancelledError:
            await asyncio.wait([conversion])
            raise

    async def _describe(self, spec: model_pb2.ModelSpec, with_signatures: bool) -> bytes:
        if not spec.name:
            raise invalid_argument("Missing model name in request.")
        if not with_signatures:
            status = await self._services.get_model_status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
            return message_to_json(status).encode("utf-8")
        field = "signature_def"
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[field])
        response = await self._services.get_model_metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[field].Unpack(signatures)
        return (
            f'{{\n"model_spec":{message_to_json(response.model_spec)},\n'
            f'"metadata": {{"{field}": {message_to_json(signatures)}}}\n}}\n'
        ).encode()


class _BodyTooLarge(Exception):
    """A body beyond the limit, as sent or unpacked."""


class _VersionError(Exception):
    """A version that is no number of 64 bits."""


def _model_spec(name: str, version: str | None, label: str | None) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=name)
    if version is not None:
        if len(version.lstrip("0")) > 19 or int(version) >= 2**63:
            raise _VersionError
        spec.version.value = int(version)
    if label is not None:
        spec.version_label = urllib.parse.unquote(label)
    return spec


def _library_error(status: HTTPStatus) -> web.Response:
    """Returns what libevent sends for a request that no handler takes."""
    page = (
        f"<HTML><HEAD>\n<TITLE>{status.value} {status.phrase}</TITLE>\n</HEAD><BODY>\n<H1>{status.phrase}</H1>\n"
        "</BODY></HTML>\n"
    )
    response = web.Response(body=page.encode(), status=status, headers={"Content-Type": "text/html"})
    response.force_close()
    return response


def unpack(body: bytes, limit: int) -> bytes:
    """Returns a gzipped body unpacked, or nothing if it is none, which is how TensorFlow Serving sees it, too.

    Raises:
      _BodyTooLarge: if it would be larger than `limit` bytes.
    """
    decompressor = zlib.decompressobj(wbits=31)
    try:
        unpacked = decompressor.decompress(body, limit + 1)
    except zlib.error:
        return b""
    if len(unpacked) > limit:
        raise _BodyTooLarge
    return unpacked if decompressor.eof else b""
