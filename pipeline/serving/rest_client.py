"""`RestRecommenderClient`: what `RecommenderClient` is, over TensorFlow Serving's REST API."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import threading
from collections.abc import Mapping

import grpc
import httpx
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.calls import Answer, Call, Calls, Method, ModelSelection, unusable
from pipeline.serving.channels import TlsOptions, check_metadata, explain
from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError
from pipeline.serving.methods import RecommenderMethods
from pipeline.serving.rest_format import read_answer, read_error, request_body, request_path
from pipeline.serving.retries import DEFAULT_RETRY, NO_RETRY, Retries, RetryPolicy


class RestRecommenderClient(RecommenderMethods):
    """Talks to one model of one server over REST. Thread-safe. Use it in a `with` block, or call `close`.

    For where gRPC does not get through. Slower, and it knows less: answers do not say which version gave them, so
    `model_version` is the client's own `version`; a signature's only output comes without its name. Errors carry the
    gRPC code that TensorFlow Serving's HTTP status stands for.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "recommender",
        timeout_seconds: float = 5.0,
        schema: schema_pb2.Schema | None = None,
        *,
        version: int | None = None,
        label: str | None = None,
        tls: TlsOptions | None = None,
        metadata: Mapping[str, str] | None = None,
        retry: RetryPolicy = DEFAULT_RETRY,
        generator: random.Random | None = None,
    ):
        """Connects lazily: nothing is sent before the first request.

        Args:
          address: the server's REST API, as `host:port`.
          model_name: the model's name on the server.
          timeout_seconds: deadline of each method, retries included.
          schema: tagged schema that requests must fit; None to take fields as they come.
          version: the version that answers; None for the latest.
          label: name of the version that answers, instead of its number.
          tls: how to encrypt the connection; None not to.
          metadata: headers of each request. Keys in lower case.
          retry: when requests are sent again.
          generator: makes the waits before retries random; None for one that differs from client to client.

        Raises:
          SchemaError: if the schema's tags contradict each other.
          ValueError: if an argument is out of its range.
          OSError: if a file of `tls` cannot be read.
        """
        super().__init__(Calls(ModelSelection(model_name, version, label), schema), timeout_seconds)
        self._address = address
        self._retries = Retries(retry, generator)
        self._extensions = {"sni_hostname": tls.server_name} if tls is not None and tls.server_name is not None else {}
        try:
            url = httpx.URL(f"{'http' if tls is None else 'https'}://{address}")
        except httpx.InvalidURL as error:
            raise ValueError(f"address: received {address!r}; expected host:port ({error})") from error
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=dict(check_metadata(metadata)),
            timeout=None,  # httpx limits each read, not their sum: a deadline is kept around all of it instead.
            trust_env=False,  # A model server is a neighbour, never behind the proxy to the outside.
            verify=tls.ssl_context() if tls is not None else False,  # Without TLS there is nothing to verify.
        )
        # An event loop can give up on a request at a given moment, whatever it waits for; a blocking socket cannot.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest-client", daemon=True)
        self._thread.start()
        self._closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the connections. A call of another thread that is under way ends with the code CANCELLED."""
        with self._lock:  # No call can get between the last that is cancelled and the end of the loop.
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        try:
            ended.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self) -> None:
        """Cancels all calls, so that nobody waits for an answer of a loop that has stopped."""
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._http.aclose()

    def _send(self, call: Call[Answer], deadline: Deadline, *, retry: bool = True) -> Answer:
        retries = self._retries if retry else Retries(NO_RETRY)
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(self._within(call, deadline, retries), self._loop)
        try:
            body = future.result()
        except concurrent.futures.CancelledError as error:
            raise ServingError(grpc.StatusCode.CANCELLED, "the client was closed", self._address) from error
        except BaseException:
            future.cancel()
            raise
        try:
            return read_answer(call, body, self._calls.model)
        except (ValueError, RecursionError) as error:
            raise unusable(str(error), self._address) from error

    async def _within(self, call: Call[Answer], deadline: Deadline, retries: Retries) -> bytes:
        try:
            return await asyncio.wait_for(self._until_answered(call, deadline, retries), deadline.remaining)
        except asyncio.TimeoutError as error:
            raise explain(grpc.StatusCode.DEADLINE_EXCEEDED, "", self._address, deadline) from error

    async def _until_answered(self, call: Call[Answer], deadline: Deadline, retries: Retries) -> bytes:
        for attempt in itertools.count(1):
            try:
                body = await self._attempt(call, deadline)
                break
            except ServingError as error:
                wait = retries.wait_after(attempt, error, deadline)
                if wait is None:
                    raise
            await asyncio.sleep(wait)
        retries.answered()
        return body

    async def _attempt(self, call: Call[Answer], deadline: Deadline) -> bytes:
        request = self._http.build_request(
            "POST" if call.method is Method.PREDICT else "GET",
            request_path(call.method, self._calls.model),
            content=request_body(call.request) if call.method is Method.PREDICT else None,
            headers={"content-type": "application/json"},
            extensions=self._extensions,
        )
        try:
            response = await self._http.send(request)
        except httpx.ConnectError as error:
            raise explain(
                grpc.StatusCode.UNAVAILABLE, f"failed to connect: {error}", self._address, deadline
            ) from error
        except (httpx.TransportError, OSError) as error:  # httpx lets what TLS refuses late through as it is.
            details = str(error) or type(error).__name__
            raise explain(grpc.StatusCode.UNAVAILABLE, details, self._address, deadline) from error
        except httpx.RequestError as error:
            raise unusable(str(error), self._address) from error
        if response.status_code == httpx.codes.OK:
            return response.content
        code, message = read_error(response.status_code, response.content)
        raise explain(code, message, self._address, deadline)
