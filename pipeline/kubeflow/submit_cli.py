"""`marquee submit`, `marquee watch` and `marquee schedule`: the pipeline on Kubeflow Pipelines."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.kubeflow import run_watch, schedules, submission
from pipeline.kubeflow.compile_cli import DEFAULT_IMAGE, compile_or_fail
from pipeline.kubeflow.connection import TOKEN_VARIABLE, ClusterError, Endpoint, connect
from pipeline.kubeflow.specification import parameter_values, pipeline_name, read_specification, write_with_image
from pipeline.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    SetOption,
    fail,
    load_config_or_fail,
)

if TYPE_CHECKING:
    from kfp import Client

_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELED": "red", "RUNNING": "cyan", "SKIPPED": "yellow"}

HostOption = Annotated[str | None, typer.Option(help="URL of the API; by default kubeflow.host.", metavar="URL")]
NamespaceOption = Annotated[
    str | None, typer.Option(help="Your namespace, on a shared cluster; by default kubeflow.namespace.")
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with a bearer token; by default {TOKEN_VARIABLE}, or the pod's identity."),
]
CaOption = Annotated[Path | None, typer.Option("--ca-file", help="Certificates to check the server's against.")]
SpecOption = Annotated[
    Path | None, typer.Option(help="A file that `marquee compile` wrote; by default the configuration is compiled.")
]
ImageOption = Annotated[
    str | None, typer.Option(help=f"Container image; by default that of --spec, else {DEFAULT_IMAGE}.")
]
ParameterOption = Annotated[
    list[str],
    typer.Option("--parameter", "-p", help="Value of a runtime parameter, e.g. `-p max_epochs=3`. Repeatable."),
]
ExperimentOption = Annotated[
    str | None, typer.Option(help="Experiment; by default kubeflow.experiment, or the pipeline's name.")
]
WatchOption = Annotated[bool, typer.Option("--watch", help="Follow the run to its end.")]

schedule_app = typer.Typer(no_args_is_help=True, help="Recurring runs on Kubeflow Pipelines, known by their names.")


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    app.command(
        epilog="Example: marquee submit --host http://localhost:8888 --image registry/marquee:1.0 -p max_epochs=3"
    )(submit)
    app.command(epilog="Example: marquee watch 0f3c9a1e-… --host http://localhost:8888")(watch)
    app.add_typer(schedule_app, name="schedule")


def submit(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    spec: SpecOption = None,
    image: ImageOption = None,
    parameters: ParameterOption = [],  # noqa: B006
    experiment: ExperimentOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the pipeline's and the time.")] = None,
    follow: WatchOption = False,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    ca_file: CaOption = None,
) -> None:
    """Run the pipeline on Kubeflow Pipelines, with the parameters of this run."""
    settings = load_config_or_fail(config, overrides)
    endpoint = _endpoint(settings, host, namespace, token_file, ca_file)
    with _told(), _package(settings, spec, image, parameters) as package:
        client = connect(endpoint)
        run = submission.submit(
            client,
            endpoint,
            package.path,
            experiment or settings.kubeflow.experiment or package.name,
            name or f"{package.name} {datetime.datetime.now().isoformat(sep=' ', timespec='seconds')}",
            package.parameters,
        )
        print(f"Submitted: {run.run_id}\n{run.url}")
        if follow:
            _follow(client, endpoint, run.run_id)


def watch(
    run_id: Annotated[str, typer.Argument(help="Id of the run, as `marquee submit` printed it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    once: Annotated[bool, typer.Option("--once", help="Tell how it is now and do not wait.")] = False,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    ca_file: CaOption = None,
) -> None:
    """Follow a run on Kubeflow Pipelines; the exit code is 0 if it succeeded and 1 if it did not."""
    endpoint = _endpoint(load_config_or_fail(config, overrides), host, namespace, token_file, ca_file)
    with _told():
        client = connect(endpoint)
        if not once:
            _follow(client, endpoint, run_id)
            return
        status = run_watch.read_status(client, endpoint, run_id)
        Console().print(_picture(status))
        raise typer.Exit(int(status.has_ended and status.state != run_watch.SUCCEEDED))


@schedule_app.command(
    "create",
    epilog="Example: marquee schedule create nightly --cron '0 3 * * *' --host http://localhost:8888 -p max_epochs=3",
)
def create_schedule(
    name: Annotated[str, typer.Argument(help="Name; a schedule of the same name is replaced.")],
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, weekday; a second before them if you like.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    spec: SpecOption = None,
    image: ImageOption = None,
    parameters: ParameterOption = [],  # noqa: B006
    experiment: ExperimentOption = None,
    catch_up: Annotated[
        bool, typer.Option("--catch-up/--no-catch-up", help="Make up for runs missed while it was paused.")
    ] = False,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs that may go on at once.")] = 1,
    start: Annotated[datetime.datetime | None, typer.Option(help="When it begins to count (UTC).")] = None,
    end: Annotated[datetime.datetime | None, typer.Option(help="When it ends to count (UTC).")] = None,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    ca_file: CaOption = None,
) -> None:
    """Have the pipeline run again and again."""
    settings = load_config_or_fail(config, overrides)
    endpoint = _endpoint(settings, host, namespace, token_file, ca_file)
    with _told():
        schedules.normalise_cron(cron)
        with _package(settings, spec, image, parameters) as package:
            made, replaced = schedules.create(
                connect(endpoint),
                endpoint,
                package.path,
                experiment or settings.kubeflow.experiment or package.name,
                name,
                cron,
                package.parameters,
                catch_up=catch_up,
                max_concurrency=max_concurrency,
                start=start.replace(tzinfo=datetime.timezone.utc) if start else None,
                end=end.replace(tzinfo=datetime.timezone.utc) if end else None,
            )
    print(f"Scheduled: {made.name} ({made.cron}), {made.schedule_id}")
    for one in replaced:
        print(f"It replaces {one.schedule_id} ({one.cron})")


@schedule_app.command("list", epilog="Example: marquee schedule list --host http://localhost:8888 --json")
def list_schedules(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
    host: HostOption = None,
    namespace: NamespaceOption = None,
    token_file: TokenOption = None,
    ca_file: CaOption = None,
) -> None:
    """List the schedules of the namespace."""
    endpoint = _endpoint(load_config_or_fail(config, overrides), host, namespace, token_file, ca_file)
    with _told():
        found = schedules.list_all(connect(endpoint), endpoint)
    if as_json:
        Console().print_json(data=[dataclasses.asdict(one) for one in found])
        return
    table = Table("Name", "Cron", "State", "Id")
    for one in found:
        table.add_row(one.name, one.cron or "by interval", "on" if one.enabled else "paused", one.schedule_id)
    Console().print(table if found else "There are no schedules.")


def _change(kind: str) -> Any:
    """Returns the command that pauses, resumes or deletes a schedule."""

    def change(
        name: Annotated[str, typer.Argument(help="Name of the schedule.")],
        config: ConfigOption = DEFAULT_CONFIG,
        overrides: SetOption = [],  # noqa: B006
        host: HostOption = None,
        namespace: NamespaceOption = None,
        token_file: TokenOption = None,
        ca_file: CaOption = None,
    ) -> None:
        endpoint = _endpoint(load_config_or_fail(config, overrides), host, namespace, token_file, ca_file)
        with _told():
            client = connect(endpoint)
            if kind == "delete":
                schedule = schedules.delete(client, endpoint, name)
            else:
                schedule = schedules.enable(client, endpoint, name, kind == "resume")
        print(f"{_DONE[kind]}: {schedule.name} ({schedule.cron})")

    return change


_DONE = {"pause": "Paused", "resume": "Resumed", "delete": "Deleted"}
_HELP = {
    "pause": "Let a schedule start no more runs until it is resumed.",
    "resume": "Let a paused schedule start runs again.",
    "delete": "Delete a schedule; runs that it has started go on.",
}
for _kind in _DONE:
    schedule_app.command(
        _kind, help=_HELP[_kind], epilog=f"Example: marquee schedule {_kind} nightly --host http://localhost:8888"
    )(_change(_kind))


@dataclasses.dataclass(frozen=True)
class _Package:
    path: Path
    name: str
    parameters: dict[str, Any]


@contextlib.contextmanager
def _package(settings: PipelineConfig, spec: Path | None, image: str | None, given: list[str]) -> Iterator[_Package]:
    """Yields the specification to submit, as a file, and the value of every parameter."""
    with tempfile.TemporaryDirectory(prefix="marquee-submit-") as folder:
        path = Path(folder) / "pipeline.yaml"
        if spec is None:
            compile_or_fail(settings, path, image or DEFAULT_IMAGE)
        specification = read_specification(spec or path)
        parameters = parameter_values(specification, given)
        write_with_image(specification, image, path)
        yield _Package(path, pipeline_name(specification), parameters)


def _endpoint(
    settings: PipelineConfig, host: str | None, namespace: str | None, token_file: Path | None, ca_file: Path | None
) -> Endpoint:
    host = host or settings.kubeflow.host
    if host is None:
        raise fail("where is Kubeflow Pipelines? Give the URL of its API with --host, or set kubeflow.host")
    if not host.startswith(("http://", "https://")):
        raise fail(f"--host: received {host!r}; expected a URL such as https://kubeflow.example.com/pipeline")
    return Endpoint(host.rstrip("/"), namespace or settings.kubeflow.namespace, token_file, ca_file)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tells what went wrong in one message."""
    try:
        yield
    except (ConfigError, ClusterError) as error:
        raise fail(str(error)) from error


def _follow(client: Client, endpoint: Endpoint, run_id: str) -> None:
    """Shows a run until it ends.

    Raises:
      typer.Exit: 1 if it did not succeed, 130 if watching was interrupted.
    """
    console = Console()
    try:
        status = _follow_live(client, endpoint, run_id, console)
    except KeyboardInterrupt:
        print(f"\nThe run goes on; `marquee watch {run_id} --host {endpoint.host}` follows it again.")
        raise typer.Exit(130) from None
    if status.state != run_watch.SUCCEEDED:
        raise typer.Exit(1)


def _follow_live(client: Client, endpoint: Endpoint, run_id: str, console: Console) -> run_watch.RunStatus:
    if console.is_terminal:
        with Live(Text("…"), console=console, transient=False) as live:
            return run_watch.watch(
                client,
                endpoint,
                run_id,
                lambda status: live.update(_picture(status), refresh=True),
                lambda trouble: live.console.print(trouble, style="yellow", markup=False),
            )
    told: dict[str, str] = {}

    def tell(status: run_watch.RunStatus) -> None:
        for step, state in [*status.steps.items(), (f"run {status.name}", status.state)]:
            if told.get(step) != state:
                told[step] = state
                reason = status.errors.get(step) or (status.error if step.startswith("run ") else "")
                console.print(f"{state:<10} {step}{': ' + reason if reason else ''}", markup=False, soft_wrap=True)

    def tell_trouble(trouble: str) -> None:
        console.print(trouble, markup=False, soft_wrap=True)

    return run_watch.watch(client, endpoint, run_id, tell, tell_trouble)


def _picture(status: run_watch.RunStatus) -> Group:
    table = Table("Step", "State", title=f"{status.name}: {status.state}", title_justify="left")
    for step, state in status.steps.items():
        table.add_row(step, Text(state, style=_STYLES.get(state, "")))
    errors = [Text(f"{step}: {message}", style="red") for step, message in status.errors.items()]
    return Group(table, *errors, *([Text(status.error, style="red")] if status.error else []))
