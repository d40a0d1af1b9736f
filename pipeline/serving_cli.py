"""`marquee recommend`, `marquee rank` and `marquee similar`: a model server asked from the command line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modules.features import SchemaError
from pipeline.components.source_storage import DataQualityError
from pipeline.config import PipelineConfig
from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SetOption,
    fail,
    load_config_or_fail,
    load_schema_or_fail,
)

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from pipeline.lookup import User
    from pipeline.serving.channels import TlsOptions
    from pipeline.serving.methods import RecommenderMethods
    from pipeline.serving.requests import HistoryEvent
    from pipeline.serving.results import Recommendations

DEFAULT_LABEL = "stable"
"""The label that answers where `marquee release` has given it to a version."""

MAX_TIMEOUT_SECONDS = 86_400.0
"""Longest deadline of a request: nobody waits longer, and gRPC takes one of centuries for one that has passed."""

AddressOption = Annotated[
    str | None,
    typer.Option(help="A model server's host:port, the local one or TensorFlow Serving; by default the local one."),
]
CountOption = Annotated[int, typer.Option("--count", "-k", min=1, help="Titles to ask for.")]
TimeoutOption = Annotated[
    float, typer.Option(min=0.001, max=MAX_TIMEOUT_SECONDS, help="Deadline of the request, in seconds.")
]
WaitOption = Annotated[
    float, typer.Option(min=0.0, help="Seconds to wait for a server that is starting and for its first model.")
]
UserOption = Annotated[
    str, typer.Option("--user", help="User id; profile and history are read from the source tables.")
]
TimestampOption = Annotated[
    int | None, typer.Option(help="Time of the request, in seconds since 1970; by default just after the history.")
]
LabelOption = Annotated[
    str | None,
    typer.Option(
        help=f"Ask the version with this label; by default {DEFAULT_LABEL}, if `marquee release` has given it. "
        "An empty one asks the latest version."
    ),
]
VersionOption = Annotated[int | None, typer.Option("--model-version", min=0, max=2**63 - 1, help="Ask this version.")]
RestOption = Annotated[bool, typer.Option("--rest", help="Ask over the REST API instead of gRPC.")]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="PEM certificates of the authorities that may vouch for the server; encrypts the connection.",
        exists=True,
        dir_okay=False,
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", help="PEM certificate to show to a server that asks for one.", exists=True, dir_okay=False
    ),
]
KeyOption = Annotated[Path | None, typer.Option("--tls-key", help="Its PEM private key.", exists=True, dir_okay=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: marquee recommend --user 196 --count 10")(recommend)
    app.command(epilog="Example: marquee rank --user 196 --items 1,50,100")(rank)
    app.command(epilog="Example: marquee similar --item 50")(similar)


def recommend(
    user: UserOption,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    count: CountOption = 10,
    timestamp: TimestampOption = None,
    label: LabelOption = None,
    model_version: VersionOption = None,
    rest: RestOption = False,
    tls_ca: AuthorityOption = None,
    tls_cert: CertificateOption = None,
    tls_key: KeyOption = None,
    timeout: TimeoutOption = 5.0,
    wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model server for a user's recommendations."""
    from pipeline.serving.requests import Query

    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    tls = _tls(tls_ca, tls_cert, tls_key)
    with _client(settings, schema, address, timeout, label, model_version, rest, tls) as client:
        found, history, now = _find_user(settings, schema, user, timestamp)
        # Refuses what cannot be sent before a server is waited for.
        client.calls.recommend([Query(found.columns, history, timestamp=now)], count, numbered=False)
        _await_model(client, wait)
        answer = client.recommend(found.columns, history, timestamp=now, k=count)
        _show(settings, schema, answer, f"For user {user} ({_describe(found, history)})", as_json, user=user)


def rank(
    user: UserOption,
    items: Annotated[str, typer.Option(help="Item ids to order, separated by commas.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    timestamp: TimestampOption = None,
    label: LabelOption = None,
    model_version: VersionOption = None,
    rest: RestOption = False,
    tls_ca: AuthorityOption = None,
    tls_cert: CertificateOption = None,
    tls_key: KeyOption = None,
    timeout: TimeoutOption = 5.0,
    wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model server to put titles into order for a user."""
    from pipeline.serving.requests import Query

    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    candidates = [item.strip() for item in items.split(",") if item.strip()]
    tls = _tls(tls_ca, tls_cert, tls_key)
    with _client(settings, schema, address, timeout, label, model_version, rest, tls) as client:
        found, history, now = _find_user(settings, schema, user, timestamp)
        _require_titles(settings, schema, candidates)
        client.calls.rank(Query(found.columns, history, timestamp=now), candidates)
        _await_model(client, wait)
        answer = client.rank(found.columns, history, candidates=candidates, timestamp=now)
        title = f"In order for user {user} ({_describe(found, history)})"
        _show(settings, schema, answer, title, as_json, user=user)


def similar(
    item: Annotated[str, typer.Option(help="Item id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    count: CountOption = 10,
    label: LabelOption = None,
    model_version: VersionOption = None,
    rest: RestOption = False,
    tls_ca: AuthorityOption = None,
    tls_cert: CertificateOption = None,
    tls_key: KeyOption = None,
    timeout: TimeoutOption = 5.0,
    wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model server for the titles most like one: "because you watched"."""
    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    tls = _tls(tls_ca, tls_cert, tls_key)
    with _client(settings, schema, address, timeout, label, model_version, rest, tls) as client:
        known = _require_titles(settings, schema, [item])
        client.calls.similar([item], count)
        _await_model(client, wait)
        answer = client.similar(item, k=count)
        _show(settings, schema, answer, f"Because you watched {known[item].get('title', item)}", as_json, item=item)


@contextmanager
def _client(
    settings: PipelineConfig,
    schema: schema_pb2.Schema,
    address: str | None,
    timeout: float,
    label: str | None,
    version: int | None,
    rest: bool,
    tls: TlsOptions | None,
) -> Iterator[RecommenderMethods]:
    """Connects; turns what the server, the schema or the tables refuse into one sentence."""
    from pipeline.serving.errors import RequestError, ServingError

    if label and version is not None:
        raise fail("--label and --model-version exclude each other")
    port = settings.serving.rest_port if rest else settings.serving.port
    target = address or f"localhost:{port}"
    if label is None and version is None:
        label = _default_label(settings)
    kind: Any
    if rest:
        from pipeline.serving.rest_client import RestRecommenderClient as kind
    else:
        from pipeline.serving.client import RecommenderClient as kind
    name = settings.serving.model_name
    try:
        client = kind(target, name, timeout, schema, version=version, label=label or None, tls=tls)
    except (ValueError, OSError) as error:  # An argument out of its range, or a file that cannot be used.
        raise fail(str(error)) from error
    try:
        with client:
            yield client
    except (ServingError, RequestError, SchemaError, DataQualityError) as error:
        raise fail(str(error)) from error


def _tls(authority: Path | None, certificate: Path | None, key: Path | None) -> TlsOptions | None:
    """Returns how the connection is encrypted; None if no option asks for it."""
    from pipeline.serving.channels import TlsOptions

    if (certificate is None) != (key is None):
        raise fail("--tls-cert and --tls-key go together")
    return None if authority is certificate is None else TlsOptions(authority, certificate, key)


def _default_label(settings: PipelineConfig) -> str | None:
    """Returns the label that clients ask for by default, if a version has it."""
    from pipeline.serving.release.errors import ReleaseError
    from pipeline.serving.release.folder import ServingFolder
    from pipeline.serving.release.model_config_file import labels_of, read_config

    folder = ServingFolder.of(settings)
    try:
        labels = labels_of(read_config(folder.config), folder.model_name)
    except ReleaseError as error:
        raise fail(str(error)) from error
    return DEFAULT_LABEL if DEFAULT_LABEL in labels else None


def _find_user(
    settings: PipelineConfig, schema: schema_pb2.Schema, user: str, timestamp: int | None
) -> tuple[User, Sequence[HistoryEvent], int | None]:
    """Returns what the tables know of a user, the history before the request, and the request's time."""
    from pipeline.lookup import UnknownUserError, find_user

    try:
        found = find_user(settings.data, schema, user)
    except UnknownUserError as error:
        raise fail(str(error)) from error
    if timestamp is None:
        return found, found.history, found.history[-1].timestamp + 1 if found.history else None
    return found, [event for event in found.history if event.timestamp < timestamp], timestamp


def _require_titles(
    settings: PipelineConfig, schema: schema_pb2.Schema, items: Sequence[str]
) -> dict[str, dict[str, str]]:
    from pipeline.lookup import find_titles

    known = find_titles(settings.data, schema, items)
    if missing := [item for item in items if item not in known]:
        names = ", ".join(map(repr, missing))
        raise fail(f"no title {names} in {settings.data.directory}/{settings.data.items.pattern}")
    return known


def _describe(user: User, history: Sequence[HistoryEvent]) -> str:
    columns = ", ".join(f"{name} {value}" for name, value in user.columns.items() if name != "user_id")
    return f"{columns}; {len(history)} titles seen" if columns else f"{len(history)} titles seen"


def _await_model(client: RecommenderMethods, seconds: float) -> None:
    """Waits for a server that was started just now; the request tells what is wrong if it does not come."""
    if seconds > 0:
        with Console(stderr=True).status("Waiting for the model server …"):
            client.wait_until_available(seconds)


def _show(
    settings: PipelineConfig,
    schema: schema_pb2.Schema,
    answer: Recommendations,
    title: str,
    as_json: bool,
    **asked: str,
) -> None:
    from pipeline.lookup import find_titles

    titles = find_titles(settings.data, schema, [entry.item_id for entry in answer])
    if as_json:
        _print_json(settings.serving.model_name, answer, titles, asked)
    else:
        _print_table(settings, answer, titles, title)


def _print_json(
    model_name: str, answer: Recommendations, titles: Mapping[str, Mapping[str, str]], asked: Mapping[str, str]
) -> None:
    rows = [
        # JSON has no infinity, which stands for a title that the model does not know.
        {
            "item_id": entry.item_id,
            "score": entry.score if math.isfinite(entry.score) else None,
            **titles.get(entry.item_id, {}),
        }
        for entry in answer
    ]
    content = {"model": model_name, "model_version": answer.model_version, **asked, "items": rows}
    json.dump(content, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


def _print_table(
    settings: PipelineConfig, answer: Recommendations, titles: Mapping[str, Mapping[str, str]], title: str
) -> None:
    names = sorted(
        {name for columns in titles.values() for name in columns}, key=list(settings.data.items.columns).index
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    for name in ("score", *names):
        table.add_column(name.replace("_", " "), justify="right" if name == "score" else "left")
    for position, entry in enumerate(answer, start=1):
        columns = titles.get(entry.item_id, {})
        score = f"{entry.score:.3f}" if math.isfinite(entry.score) else "unknown"
        table.add_row(str(position), score, *(escape(columns.get(name, "")) for name in names))
    console = Console()
    console.print(f"[italic]{escape(title)}[/italic]", highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
