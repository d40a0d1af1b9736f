"""`marquee serve`, `marquee recommend` and `marquee similar`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    SetOption,
    fail,
    load_config_or_fail,
    load_schema_or_fail,
)

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from pipeline.serving.client import Recommendation, RecommenderClient

AddressOption = Annotated[
    str | None,
    typer.Option(help="A model server's host:port, the local one or TensorFlow Serving; by default the local one."),
]
CountOption = Annotated[int, typer.Option("--count", "-k", min=1, help="Titles to ask for.")]
TimeoutOption = Annotated[float, typer.Option(min=0.001, help="Deadline of the request, in seconds.")]
WaitOption = Annotated[
    float, typer.Option(min=0.0, help="Seconds to wait for a server that is starting and for its first model.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(epilog="Example: marquee serve --port 8500")(serve)
    app.command(epilog="Example: marquee recommend --user 196 --count 10")(recommend)
    app.command(epilog="Example: marquee similar --item 50")(similar)


def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="gRPC port; 0 picks a free one.")] = None,
) -> None:
    """Serve the pushed models on this machine, as TensorFlow Serving would; new versions are picked up."""
    settings = load_config_or_fail(config, overrides)
    from pipeline import terminal

    failure = None
    log = Path(settings.log_directory) / "serve.log"
    with terminal.log_to_file(log):
        from pipeline.serving.server import serve as serve_models

        chosen = settings.serving.port if port is None else port
        if not any(name.isdecimal() for name in _folders(settings.serving_directory)):
            print(f"waiting for the first model in {settings.serving_directory}; log: {log}", flush=True)
        try:
            serve_models(settings.serving_directory, settings.serving.model_name, chosen)
        except OSError as error:
            failure = str(error)
    if failure is not None:
        raise fail(failure)


def recommend(
    user: Annotated[str, typer.Option(help="User id; profile and history are read from the source tables.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    count: CountOption = 10,
    timestamp: Annotated[
        int | None, typer.Option(help="Time of the request, in seconds since 1970; by default just after the history.")
    ] = None,
    timeout: TimeoutOption = 5.0,
    wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model server for a user's recommendations, over gRPC."""
    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    from pipeline.lookup import UnknownUserError, find_user

    with _client(settings, schema, address, timeout) as client:
        try:
            found = find_user(settings.data, schema, user)
        except UnknownUserError as error:
            raise fail(str(error)) from error
        history = found.history
        if timestamp is not None:
            history = [event for event in history if event.timestamp < timestamp]
        now = timestamp if timestamp is not None else (history[-1].timestamp + 1 if history else None)
        _await_model(client, wait)
        answer = client.recommend(found.columns, history, timestamp=now, k=count)
        columns = ", ".join(f"{name} {value}" for name, value in found.columns.items() if name != "user_id")
        _show(settings, schema, answer, f"For user {user} ({columns}; {len(history)} titles seen)", as_json)


def similar(
    item: Annotated[str, typer.Option(help="Item id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    address: AddressOption = None,
    count: CountOption = 10,
    timeout: TimeoutOption = 5.0,
    wait: WaitOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Ask a model server for the titles most like one: "because you watched"."""
    settings = load_config_or_fail(config, overrides)
    schema = load_schema_or_fail(settings)
    from pipeline.lookup import find_titles

    with _client(settings, schema, address, timeout) as client:
        known = find_titles(settings.data, schema, [item])
        if item not in known:
            raise fail(f"no title {item!r} in {settings.data.directory}/{settings.data.items.pattern}")
        _await_model(client, wait)
        answer = client.similar(item, k=count)
        _show(settings, schema, answer, f"Because you watched {known[item].get('title', item)}", as_json)


def _folders(directory: str) -> list[str]:
    return [path.name for path in Path(directory).iterdir()] if Path(directory).is_dir() else []


@contextmanager
def _client(
    settings: PipelineConfig, schema: schema_pb2.Schema, address: str | None, timeout: float
) -> Iterator[RecommenderClient]:
    """Connects; turns what the server, the schema or the tables refuse into one sentence."""
    from pipeline.serving.client import RecommenderClient
    from pipeline.serving.errors import RequestError, ServingError

    target = address or f"localhost:{settings.serving.port}"
    try:
        with RecommenderClient(target, settings.serving.model_name, timeout, schema) as client:
            yield client
    except (ServingError, RequestError, SchemaError, DataQualityError) as error:
        raise fail(str(error)) from error


def _await_model(client: RecommenderClient, seconds: float) -> None:
    """Waits for a server that was started just now; the request tells what is wrong if it does not come."""
    if seconds > 0:
        with Console(stderr=True).status("Waiting for the model server …"):
            client.wait_until_available(seconds)


def _show(
    settings: PipelineConfig, schema: schema_pb2.Schema, answer: list[Recommendation], title: str, as_json: bool
) -> None:
    from pipeline.lookup import find_titles

    titles = find_titles(settings.data, schema, [entry.item_id for entry in answer])
    if as_json:
        rows = [{"item_id": e.item_id, "score": e.score, **titles.get(e.item_id, {})} for e in answer]
        json.dump(rows, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    names = sorted(
        {name for columns in titles.values() for name in columns}, key=list(settings.data.items.columns).index
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    for name in ("score", *names):
        table.add_column(name.replace("_", " "), justify="right" if name == "score" else "left")
    for position, entry in enumerate(answer, start=1):
        columns = titles.get(entry.item_id, {})
        table.add_row(str(position), f"{entry.score:.3f}", *(escape(columns.get(name, "")) for name in names))
    console = Console()
    console.print(f"[italic]{escape(title)}[/italic]", highlight=False, soft_wrap=True)
    console.print(table, highlight=False)
