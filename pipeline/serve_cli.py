"""`marquee serve`: the local model server on the pushed models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.options import DEFAULT_CONFIG, ConfigOption, SetOption, fail, load_config_or_fail

if TYPE_CHECKING:
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.server.options import ServerOptions

CONFIG_POLL_SECONDS = 1.0
"""Time until a moved label is served, at most."""


def register(app: typer.Typer) -> None:
    """Adds the command to the application."""
    app.command(epilog="Example: marquee serve --rest-port 8501 --metrics --log-requests 0.01")(serve)


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="gRPC port; 0 picks a free one.")] = None,
    rest_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the REST API; 0 picks a free one.")
    ] = None,
    rest: Annotated[bool, typer.Option("--rest/--no-rest", help="Offer the REST API.")] = True,
    host: Annotated[
        str, typer.Option(help="Interface to listen on; 0.0.0.0 lets other machines in.", metavar="ADDRESS")
    ] = "127.0.0.1",
    model_config: Annotated[
        Path | None,
        typer.Option(
            help="A model_config_file of TensorFlow Serving to serve by; by default <workspace>/serving/models.config, "
            "which `marquee release` writes, and without it the latest version.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    batching: Annotated[
        bool, typer.Option("--batching/--no-batching", help="Run requests that come together as one batch.")
    ] = True,
    batching_parameters: Annotated[
        Path | None,
        typer.Option(help="A batching_parameters_file of TensorFlow Serving.", exists=True, dir_okay=False),
    ] = None,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="Show Prometheus metrics on the REST port, at /monitoring/prometheus/metrics."),
    ] = False,
    tls: Annotated[
        Path | None,
        typer.Option(
            help="An ssl_config_file of TensorFlow Serving, with key and certificates: encrypts gRPC. Commands reach "
            "such a server with --tls-ca.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    health: Annotated[bool, typer.Option("--health/--no-health", help="Offer gRPC's health service.")] = True,
    log_requests: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the requests to log, e.g. 0.01, for warm-up, replay and `marquee skew`. Kept in "
            "models.config; 0 stops it.",
            metavar="RATE",
        ),
    ] = None,
) -> None:
    """Serve the pushed models on this machine, as TensorFlow Serving would; new versions are picked up."""
    settings = load_config_or_fail(config, overrides)
    from pipeline import terminal

    if log_requests is not None and model_config is not None:
        raise fail(f"--log-requests is kept in models.config; set logging_config in {model_config} instead")
    if metrics and not rest:
        raise fail("--metrics are shown on the REST port; leave --no-rest out")
    log = Path(settings.log_directory) / "serve.log"
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.folder import ServingFolder

    folder = ServingFolder.of(settings)
    try:
        with terminal.log_to_file(log):
            from pipeline.serving.server.config_files import DEFAULT_METRICS_PATH
            from pipeline.serving.server.options import ServerOptions

            if log_requests is not None:
                keep_logging(folder, log_requests)
            options = ServerOptions(
                port=settings.serving.port if port is None else port,
                rest_api_port=_rest_port(settings, rest, rest_port),
                host=host,
                **_models(folder, model_config),
                # Labels may point at versions that are still being loaded when the server starts.
                allow_version_labels_for_unavailable_models=True,
                enable_batching=batching or batching_parameters is not None,
                batching_parameters_file=str(batching_parameters or ""),
                metrics_path=DEFAULT_METRICS_PATH if metrics else "",
                ssl_config_file=str(tls or ""),
                enable_grpc_healthcheck_service=health,
            )
            if not folder.pushed_versions() and model_config is None:
                print(f"waiting for the first model in {folder.versions}; log: {log}", flush=True)
            _run(options)
    except (OSError, ConfigError, ReleaseError) as error:
        raise fail(str(error)) from error


def keep_logging(folder: ServingFolder, rate: float) -> None:
    """Writes into models.config that a share of the model's requests is logged, as `requests-….tfrecord` beside it.

    Args:
      folder: the serving folder; a models.config is made if there is none.
      rate: probability that a request is logged; 0 ends logging.

    Raises:
      ReleaseError: if models.config cannot be read, does not have the model, or a release is under way.
    """
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.model_config_file import plain_config, read_config, write_config
    from pipeline.serving.server.request_log import COLLECTOR_TYPE

    with folder.exclusive():
        config = read_config(folder.config)
        if not config.model_config_list.config:
            config = plain_config(folder.model_name, folder.versions)
        for model in config.model_config_list.config:
            if model.name == folder.model_name:
                model.ClearField("logging_config")
                if rate:
                    model.logging_config.sampling_config.sampling_rate = rate
                    collector = model.logging_config.log_collector_config
                    collector.type = COLLECTOR_TYPE
                    collector.filename_prefix = str((folder.path / "requests").absolute())
                break
        else:
            raise ReleaseError(f"{folder.config} has no model {folder.model_name!r}")
        write_config(folder.config, config)


def _rest_port(settings: PipelineConfig, rest: bool, rest_port: int | None) -> int | None:
    if not rest:
        return None
    return settings.serving.rest_port if rest_port is None else rest_port


def _models(folder: ServingFolder, model_config: Path | None) -> dict[str, Any]:
    """Returns the options that say which models are served."""
    file = model_config or (folder.config if folder.config.exists() else None)
    if file is not None:
        return {"model_config_file": str(file), "model_config_file_poll_wait_seconds": CONFIG_POLL_SECONDS}
    return {"model_name": folder.model_name, "model_base_path": str(folder.versions)}


def _run(options: ServerOptions) -> None:
    from pipeline.serving.errors import StatusError
    from pipeline.serving.server.__main__ import prepare_quick_import

    prepare_quick_import()
    from pipeline.serving.server.server import serve as serve_models

    try:
        serve_models(options)
    except StatusError as error:
        raise ConfigError(f"the models' configuration is refused: {error.message}") from error
