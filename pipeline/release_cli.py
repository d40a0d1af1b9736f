"""`marquee release ...` and `marquee rollback`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.config import PipelineConfig
from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SetOption,
    fail,
    load_config_or_fail,
)

if TYPE_CHECKING:
    from pipeline.serving.release.live_server import LiveServer
    from pipeline.serving.release.plans import Plan
    from pipeline.serving.release.shadow_report import ShadowReport

release_app = typer.Typer(no_args_is_help=True, help="Say which pushed version serves: labels, and how they move.")

VersionOption = Annotated[int | None, typer.Option("--version", min=0, help="A pushed version, by its number.")]
AddressOption = Annotated[
    str | None, typer.Option(help="The model server's host:port; by default the local one's, localhost:<serving.port>.")
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="No server runs: write its configuration only. The next one starts from it.")
]
NoteOption = Annotated[str, typer.Option(help="Why; goes into the record.")]
ByOption = Annotated[str | None, typer.Option(help="Who; by default you, as user@host.")]
TimeoutOption = Annotated[float, typer.Option(min=0.001, help="Seconds that a version has to load.")]
LogsOption = Annotated[
    str | None,
    typer.Option(
        "--logs",
        help="Pattern of the files of logged requests, of which only the last part may hold wildcards; by default "
        "those of the model's logging_config.",
        metavar="PATTERN",
    ),
]
CountOption = Annotated[int, typer.Option("--requests", "-n", min=1, help="Latest logged requests to replay.")]
SlowdownOption = Annotated[
    float, typer.Option(min=0.0, help="Most that the canary's 95 % latency may be, as a multiple of stable's.")
]
OverlapOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Least mean overlap of the first ten titles; by default any.")
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="Encrypt, and trust the certificate authorities in this PEM file.",
        exists=True,
        dir_okay=False,
    ),
]

SPOKEN_AGAINST = 3
"""Exit code when something speaks against the canary; 1 is that of an error."""


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.add_typer(release_app, name="release")
    app.command(epilog="Example: marquee rollback --note 'fewer plays since noon'")(rollback)


@release_app.command(epilog="Example: marquee release canary --version 1795643531")
def canary(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    version: VersionOption = None,
    address: AddressOption = None,
    offline: OfflineOption = False,
    note: NoteOption = "",
    by: ByOption = None,
    timeout: TimeoutOption = 120.0,
    tls_ca: TlsCaOption = None,
) -> None:
    """Give a version, by default the latest pushed, the label `canary`: who asks for the label gets it.

    The first release of all writes models.config; a server that was started otherwise then serves this model only.
    """
    settings = load_config_or_fail(config, overrides)
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.plans import plan_canary

    _release(
        settings,
        "release",
        plan_canary(ServingFolder.of(settings), version),
        address,
        tls_ca,
        offline,
        note,
        by,
        timeout,
    )


@release_app.command(epilog="Example: marquee release stable --shadow --min-overlap 0.3 --note 'ndcg@10 + 4 %'")
def stable(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    version: VersionOption = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="First compare the canary with stable on logged requests.")
    ] = False,
    logs: LogsOption = None,
    requests: CountOption = 200,
    max_slowdown: SlowdownOption = 1.5,
    min_overlap: OverlapOption = None,
    address: AddressOption = None,
    offline: OfflineOption = False,
    note: NoteOption = "",
    by: ByOption = None,
    timeout: TimeoutOption = 120.0,
    tls_ca: TlsCaOption = None,
) -> None:
    """Give the canary's version, or another, the label `stable`. The canary's label stays where it is.

    The first release of all writes models.config; a server that was started otherwise then serves this model only.
    """
    settings = load_config_or_fail(config, overrides)
    if shadow and offline:
        raise fail("--shadow needs a server that answers; --offline says that there is none")
    from pipeline.serving.release.plans import plan_stable

    compare = (
        functools.partial(
            _compare,
            settings,
            logs=logs,
            count=requests,
            max_slowdown=max_slowdown,
            min_overlap=min_overlap,
        )
        if shadow
        else None
    )
    _release(settings, "release", plan_stable(version), address, tls_ca, offline, note, by, timeout, compare)


@release_app.command(name="shadow", epilog="Example: marquee release shadow --requests 500")
def shadow_(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    logs: LogsOption = None,
    requests: CountOption = 200,
    max_slowdown: SlowdownOption = 1.5,
    min_overlap: OverlapOption = None,
    address: AddressOption = None,
    tls_ca: TlsCaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the canary with stable on logged requests and move nothing; exit code 3 if anything speaks against it."""
    settings = load_config_or_fail(config, overrides)
    from pipeline.serving.errors import ServingError
    from pipeline.serving.release.errors import ReleaseError

    try:
        with _server(settings, address, tls_ca) as server:
            report = _compare(settings, server, logs, requests, max_slowdown, min_overlap, quiet=as_json)
    except (ReleaseError, ServingError, ValueError, OSError) as error:
        raise fail(str(error)) from error
    if as_json:
        print(report.model_dump_json(indent=2))
    raise typer.Exit(SPOKEN_AGAINST if report.refusals else 0)


@release_app.command(epilog="Example: marquee release status --json | jq .labels")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    tls_ca: TlsCaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the labels, the pushed versions with their state on the server, and the record of moves."""
    settings = load_config_or_fail(config, overrides)
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.evidence import find_evidence
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.overview import look, print_overview

    folder = ServingFolder.of(settings)
    try:
        with _server(settings, address, tls_ca) as server:
            overview = look(folder, server, find_evidence(settings.metadata_path, folder.model_name))
    except (ReleaseError, ValueError, OSError) as error:
        raise fail(str(error)) from error
    if as_json:
        print(overview.model_dump_json(indent=2))
    else:
        print_overview(overview, Console())


def rollback(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    offline: OfflineOption = False,
    note: NoteOption = "",
    by: ByOption = None,
    timeout: TimeoutOption = 120.0,
    tls_ca: TlsCaOption = None,
) -> None:
    """Put `stable` back to the version before its last release. A canary on the version left goes with it."""
    settings = load_config_or_fail(config, overrides)
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.plans import plan_rollback

    _release(
        settings, "rollback", plan_rollback(ServingFolder.of(settings)), address, tls_ca, offline, note, by, timeout
    )


def _server(settings: PipelineConfig, address: str | None, tls_ca: Path | None) -> LiveServer:
    from pipeline.serving.channels import TlsOptions
    from pipeline.serving.release.live_server import LiveServer

    return LiveServer(
        address or f"localhost:{settings.serving.port}",
        settings.serving.model_name,
        tls=None if tls_ca is None else TlsOptions(tls_ca),
    )


def _compare(
    settings: PipelineConfig,
    server: LiveServer,
    logs: str | None,
    count: int,
    max_slowdown: float,
    min_overlap: float | None,
    quiet: bool = False,
) -> ShadowReport:
    """Replays requests, and shows how the labels compare unless `quiet`."""
    from pipeline.serving.prediction_logs import logged_requests
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.log_pattern import log_pattern
    from pipeline.serving.release.overview import print_shadow
    from pipeline.serving.release.shadow import Limits, compare

    pattern = logs or log_pattern(ServingFolder.of(settings))
    with Console(stderr=True).status("replaying logged requests …"):
        found = logged_requests(pattern, server.model_name, count)
        if not found:
            raise ReleaseError(f"{pattern} holds no logged request for recommendations of {server.model_name!r}")
        report = compare(server, found, Limits(max_slowdown, min_overlap))
    if not quiet:
        print_shadow(report, Console())
    return report


def _release(
    settings: PipelineConfig,
    action: Literal["release", "rollback"],
    plan: Plan,
    address: str | None,
    tls_ca: Path | None,
    offline: bool,
    note: str,
    by: str | None,
    timeout: float,
    compare: Callable[[LiveServer], ShadowReport] | None = None,
) -> None:
    """Moves labels for a command, and tells of it."""
    from grpc import StatusCode

    from pipeline.serving.errors import ServingError
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.evidence import find_evidence
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.overview import print_moves
    from pipeline.serving.release.record import who_am_i
    from pipeline.serving.release.release import make_release

    if offline and address is not None:
        raise fail(f"--offline says that no server runs; received --address {address} as well")
    folder, console = ServingFolder.of(settings), Console()
    try:
        with contextlib.ExitStack() as stack:
            server = None if offline else stack.enter_context(_server(settings, address, tls_ca))
            moves = make_release(
                folder,
                plan,
                server,
                action=action,
                who=by or who_am_i(),
                note=note,
                timeout_seconds=timeout,
                find_evidence=lambda: find_evidence(settings.metadata_path, folder.model_name),
                compare=compare,
                tell=lambda step: console.print(f"  [dim]{escape(step)}[/dim]", highlight=False, soft_wrap=True),
            )
    except (ReleaseError, ValueError, OSError) as error:
        unreachable = (
            compare is None
            and isinstance(error.__cause__, ServingError)
            and error.__cause__.code is StatusCode.UNAVAILABLE
        )
        hint = ". Start one by `marquee serve`, or give --offline to write the file only" if unreachable else ""
        raise fail(f"{error}{hint}") from error
    if moves:
        print_moves(moves, console)
    else:
        console.print("The labels are there already; nothing was recorded.")
