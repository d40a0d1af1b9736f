"""`ModelServer`: the parts of the server put together, with its start and its end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvloop
from absl import logging
from aiohttp import web

from pipeline.serving.server.admission import Admission
from pipeline.serving.server.config_files import (
    BatchingParameters,
    MonitoringSettings,
    read_batching_parameters,
    read_model_server_config,
    read_monitoring_config,
    read_tls_config,
    single_model_config,
)
from pipeline.serving.server.config_polling import ConfigFile
from pipeline.serving.server.grpc_transport import GrpcTransport
from pipeline.serving.server.manager import ModelManager
from pipeline.serving.server.metrics import ServerMetrics
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.request_log import RequestLogger
from pipeline.serving.server.rest import MAX_BODY_BYTES, RestApi, RestOptions
from pipeline.serving.server.servable import Servable
from pipeline.serving.server.services import Services
from pipeline.serving.server.tls import check_certificate
from pipeline.serving.server.versions import LoadOptions

OnAvailable = Callable[[str, int], None]
LOG_FILE_BYTES = 64 << 20
"""Size at which a file of logged requests is completed and the next one begun."""


class ModelServer:
    """Serves models over gRPC and REST, on an event loop in a thread of its own.

        with ModelServer(ServerOptions(port=0, model_base_path="…")) as server:
            RecommenderClient(server.address, …)

    Attributes:
      address: where gRPC clients reach it, as `host:port`; known once it is started.
      rest_address: where HTTP clients reach it, as `host:port`; empty without a REST API.
      metrics: what it counts and times.
    """

    def __init__(self, options: ServerOptions, on_available: OnAvailable = lambda name, version: None):
        """Reads the configuration files; `start` begins to listen and to load.

        Args:
          options: what to serve, and how.
          on_available: is called with the model's name and version whenever one begins to serve.

        Raises:
          ConfigError: if a configuration file cannot be used.
          StatusError: if the models' configuration is refused.
        """
        self._options = options
        self._on_available = on_available
        self._tls = None
        if options.ssl_config_file:
            self._tls = read_tls_config(options.ssl_config_file)
            check_certificate(self._tls, options.ssl_config_file)
        monitoring = MonitoringSettings(bool(options.metrics_path), options.metrics_path)
        if options.monitoring_config_file:
            monitoring = read_monitoring_config(options.monitoring_config_file)
        self._metrics_path = monitoring.path if monitoring.enabled else None
        batching = None
        if options.enable_batching:
            batching = BatchingParameters(thread_pool_name="model_server_batch_threads")
            if options.batching_parameters_file:
                batching = read_batching_parameters(options.batching_parameters_file)
        if options.model_config_file:
            config = read_model_server_config(options.model_config_file)
        else:
            config = single_model_config(options.model_name, options.model_base_path)
        self.metrics = ServerMetrics()
        self._manager = ModelManager(
            config,
            load=functools.partial(
                Servable, batching=batching, warm_up=options.enable_model_warmup, metrics=self.metrics
            ),
            poll_seconds=options.file_system_poll_wait_seconds,
            options=LoadOptions(
                max_num_load_retries=options.max_num_load_retries,
                load_retry_interval_seconds=options.load_retry_interval_micros / 1e6,
            ),
            allow_version_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
            make_request_logger=lambda name, logging_config: RequestLogger.from_config(
                logging_config,
                max_file_bytes=min(LOG_FILE_BYTES, options.max_kept_log_bytes or LOG_FILE_BYTES),
                max_kept_bytes=options.max_kept_log_bytes or None,
            ),
            on_available=self._version_available,
        )
        self._config_file = None
        if options.model_config_file:
            self._config_file = ConfigFile(options.model_config_file, self._manager, config)
        self._awaited = {model.name for model in config.model_config_list.config}
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run_loop, name="event-loop")
        self._is_stopping = False
        self.address = ""
        self.rest_address = ""

    def start(self) -> None:
        """Begins to answer and to load, and returns once it listens.

        Raises:
          OSError: if an address cannot be listened on.
        """
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.stop()
            raise

    def request_stop(self) -> None:
        """Makes `start` return without having listened, if it still waits for models. Returns at once."""
        self._is_stopping = True
        # The loop may not have begun, or be over.
        with contextlib.suppress(AttributeError, RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)

    def stop(self) -> None:
        """Refuses new requests, waits for those under way as long as the options say, and unloads the models."""
        if self._thread.is_alive():
            self.request_stop()
            self._thread.join()

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def _run_loop(self) -> None:
        try:
            uvloop.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._is_stopping:
            self._stopping.set()
        options = self._options
        services = Services(self._manager, self.metrics)
        admission = Admission(options.max_queued_requests)
        self._grpc = GrpcTransport(
            services,
            self.metrics,
            admission,
            max_message_bytes=options.max_message_bytes,
            with_health=options.enable_grpc_healthcheck_service,
        )
        rest = RestApi(
            services,
            self._manager,
            self.metrics,
            admission,
            RestOptions(
                timeout_seconds=options.rest_api_timeout_in_ms / 1e3,
                max_body_bytes=min(options.max_message_bytes, MAX_BODY_BYTES),
                enable_cors=options.rest_api_enable_cors_support,
                metrics_path=self._metrics_path,
            ),
        )
        runner = web.AppRunner(
            rest.application(), access_log=None, auto_decompress=False, shutdown_timeout=options.grace_seconds
        )
        try:
            site = await self._bind(runner)
            await self._grpc.set_serving(False)
            self._manager.start()
            await self._wait_for_models()
            if not self._stopping.is_set():
                await self._grpc.start()
                if site is not None:
                    await site.start()
            if not self._awaited:
                self._report_serving()
            self._started.set_result(None)
            following = self._loop.create_task(self._follow_config_file())
            await self._stopping.wait()
            following.cancel()
            await self._grpc.set_serving(False)
        finally:
            for failure in await asyncio.gather(
                self._grpc.stop(options.grace_seconds), runner.cleanup(), return_exceptions=True
            ):
                if failure is not None:
                    logging.error("stopping to listen failed", exc_info=failure)
            # Reloads that wait for a model would keep the executor's threads for ever.
            self._manager.request_stop()
            await self._loop.run_in_executor(None, self._manager.close)

    async def _wait_for_models(self) -> None:
        """Waits a while for what is to be loaded at the start, unless the server is stopped meanwhile.

        Who connects now waits, instead of being told that there is no model: a server that is started again costs its
        clients time, but no request. A folder that is empty still is not waited for.
        """
        seconds = self._options.start_wait_seconds
        settled = asyncio.ensure_future(self._loop.run_in_executor(None, self._manager.wait_until_settled, seconds))
        stopping = self._loop.create_task(self._stopping.wait())
        either: set[asyncio.Future[Any]] = {settled, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _bind(self, runner: web.AppRunner) -> web.SockSite | None:
        """Takes the ports; what connects waits until the servers are started.

        Returns:
          The REST API's site, if there is to be one.
        """
        options = self._options
        host = f"[{options.host}]" if ":" in options.host else options.host
        port = self._grpc.listen(f"{host}:{options.port}", self._tls)
        self.address = f"{host}:{port}"
        if options.grpc_socket_path:
            self._grpc.listen(f"unix:{options.grpc_socket_path}", self._tls)
        if options.rest_api_port is None:
            return None
        await runner.setup()
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        try:
            listener = socket.create_server((options.host, options.rest_api_port), family=family, backlog=128)
        except OSError as error:
            where = f"{host}:{options.rest_api_port}"
            raise OSError(f"cannot listen on {where}; is another server running there?") from error
        self.rest_address = f"{host}:{listener.getsockname()[1]}"
        return web.SockSite(runner, listener)

    async def _follow_config_file(self) -> None:
        seconds = self._options.model_config_file_poll_wait_seconds
        while self._config_file is not None and seconds:
            await asyncio.sleep(seconds)
            try:
                await self._loop.run_in_executor(None, self._config_file.poll)
            except Exception:
                logging.exception("following %s failed; trying again", self._options.model_config_file)

    def _version_available(self, name: str, version: int) -> None:
        """Is called in the manager's thread."""
        if self._awaited:
            self._awaited.discard(name)
            if not self._awaited:
                # Once the loop is closed, nobody asks for the server's health any more.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._report_serving)
        self._on_available(name, version)

    def _report_serving(self) -> None:
        if not self._stopping.is_set():
            self._reporting = self._loop.create_task(self._grpc.set_serving(True))


def serve(options: ServerOptions, started: float | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then stops gracefully. Call it from the main thread.

    Whenever a version begins to serve, it prints `serving <model> version <version> on <host:port>`.

    Args:
      options: what to serve, and how.
      started: when the process was started, by the monotonic clock, for the log.

    Raises:
      OSError: if an address cannot be listened on.
      ConfigError: if a configuration file cannot be used.
      StatusError: if the models' configuration is refused.
    """
    stop = threading.Event()

    def stop_now(number: int, frame: object) -> None:
        stop.set()
        server.request_stop()
        signal.signal(number, signal.SIG_DFL)  # Who cannot wait asks twice.

    started = time.monotonic() if started is None else started

    def announce(name: str, version: int) -> None:
        where = server.address + (f" (gRPC) and {server.rest_address} (REST)" if server.rest_address else "")
        print(f"serving {name} version {version} on {where}", flush=True)

    def wait_for_end_of_input() -> None:
        sys.stdin.read()
        stop.set()
        server.request_stop()

    server = ModelServer(options, announce)
    previous = {number: signal.signal(number, stop_now) for number in (signal.SIGTERM, signal.SIGINT)}
    if options.stop_on_end_of_input:
        threading.Thread(target=wait_for_end_of_input, daemon=True).start()
    try:
        with server:
            rest = f" and {server.rest_address} (REST)" if server.rest_address else ""
            if not stop.is_set():
                logging.info("listening on %s (gRPC)%s", server.address, rest)
                logging.info("started in %.1f seconds", time.monotonic() - started)
            stop.wait()
            logging.info("stopping; requests under way have %g seconds to finish", options.grace_seconds)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
