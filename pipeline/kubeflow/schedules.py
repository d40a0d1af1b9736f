"""Recurring runs on Kubeflow Pipelines, known by their name: one name is one schedule."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config_files import ConfigError
from pipeline.kubeflow.connection import ClusterError, Endpoint, explained, quietly
from pipeline.kubeflow.submission import experiment_id

if TYPE_CHECKING:
    from kfp import Client

_PAGE = 100
_FIELDS = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    ("day of the week", 0, 6, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)
_PART = re.compile(r"(?P<all>[*?])(?:/(?P<every>\d+))?|(?P<low>\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\d+))?")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A recurring run.

    Attributes:
      schedule_id: its id on the cluster.
      name: its name.
      cron: when it starts a run, in six fields; empty for one that goes by an interval.
      enabled: whether it starts any.
    """

    schedule_id: str
    name: str
    cron: str
    enabled: bool


def normalise_cron(expression: str) -> str:
    """Returns a cron expression in Kubeflow's six fields, the first of which is the second.

    Args:
      expression: the usual five fields, or six.

    Raises:
      ConfigError: naming the field, the value received and what was expected.
    """
    fields = expression.split()
    if len(fields) == len(_FIELDS) - 1:
        fields = ["0", *fields]
    if len(fields) != len(_FIELDS):
        raise ConfigError(
            f"--cron: received {expression!r} with {len(fields)} fields; expected minute, hour, day of the month, "
            "month, day of the week, e.g. '0 3 * * *'"
        )
    for text, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            _check_part(expression, part, name, low, high, names)
    return " ".join(fields)


def create(
    client: Client,
    endpoint: Endpoint,
    package: Path,
    experiment: str,
    name: str,
    cron: str,
    parameters: Mapping[str, Any],
    *,
    catch_up: bool = False,
    max_concurrency: int = 1,
    start: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
) -> tuple[Schedule, list[Schedule]]:
    """Makes a schedule; those of the same name go as soon as it stands, so that there is never none.

    Args:
      client: see `connect`.
      endpoint: what it is connected to.
      package: the specification, a YAML file.
      experiment: name of the experiment of its runs; made if it does not exist.
      name: its name.
      cron: when to start a run; see `normalise_cron`.
      parameters: value of every parameter.
      catch_up: whether runs that were missed while it was paused are made up for.
      max_concurrency: runs that may go on at once.
      start: when it begins to count; with a time zone.
      end: when it ends to count; with a time zone.

    Returns:
      The schedule, and those that it has replaced.

    Raises:
      ConfigError: if the cron expression cannot be understood.
      ClusterError: if the cluster cannot be reached, refuses or answers nonsense.
    """
    cron = normalise_cron(cron)
    with quietly(), explained(endpoint.host):
        experiment_of_runs = experiment_id(client, endpoint, experiment)
        replaced = [one for one in list_all(client, endpoint) if one.name == name]
        made = client.create_recurring_run(
            experiment_id=experiment_of_runs,
            job_name=name,
            cron_expression=cron,
            pipeline_package_path=str(package),
            params=dict(parameters),
            max_concurrency=max_concurrency,
            no_catchup=not catch_up,
            start_time=start,
            end_time=end,
        )
        if not made.recurring_run_id:
            raise ClusterError(f"{endpoint.host} took the schedule and did not say its id; is it Kubeflow Pipelines 2?")
        for one in replaced:
            client.delete_recurring_run(one.schedule_id)
    return Schedule(made.recurring_run_id, name, cron, True), replaced


def list_all(client: Client, endpoint: Endpoint) -> list[Schedule]:
    """Returns all schedules of the namespace, by name.

    Raises:
      ClusterError: if the cluster cannot be reached, refuses or answers nonsense.
    """
    found: list[Schedule] = []
    token = ""
    with quietly(), explained(endpoint.host):
        while True:
            page = client.list_recurring_runs(page_token=token, page_size=_PAGE, namespace=endpoint.namespace)
            found.extend(map(_schedule, page.recurring_runs or []))
            token = page.next_page_token or ""
            if not token:
                return sorted(found, key=lambda one: (one.name, one.schedule_id))


def find(client: Client, endpoint: Endpoint, name: str) -> Schedule:
    """Returns the schedule of a name.

    Raises:
      ClusterError: if there is none or several, or as `list_all`.
    """
    schedules = list_all(client, endpoint)
    matching = [one for one in schedules if one.name == name]
    if len(matching) != 1:
        names = ", ".join(sorted({one.name for one in schedules})) or "none"
        raise ClusterError(f"{len(matching)} schedules are named {name!r}; there are: {names}")
    return matching[0]


def enable(client: Client, endpoint: Endpoint, name: str, enabled: bool) -> Schedule:
    """Lets a schedule start runs, or not.

    Raises:
      ClusterError: as `find`.
    """
    schedule = find(client, endpoint, name)
    with quietly(), explained(endpoint.host):
        (client.enable_recurring_run if enabled else client.disable_recurring_run)(schedule.schedule_id)
    return dataclasses.replace(schedule, enabled=enabled)


def delete(client: Client, endpoint: Endpoint, name: str) -> Schedule:
    """Deletes a schedule; runs that it has started go on.

    Raises:
      ClusterError: as `find`.
    """
    schedule = find(client, endpoint, name)
    with quietly(), explained(endpoint.host):
        client.delete_recurring_run(schedule.schedule_id)
    return schedule


def _schedule(run: Any) -> Schedule:
    cron = run.trigger.cron_schedule if run.trigger else None
    enabled = run.status == "ENABLED" or (run.status is None and run.mode == "ENABLE")
    return Schedule(run.recurring_run_id, run.display_name or "", (cron.cron if cron else "") or "", enabled)


def _check_part(expression: str, part: str, name: str, low: int, high: int, names: tuple[str, ...]) -> None:
    match = _PART.fullmatch(part)
    numbers = [_number(match[key], low, names) for key in ("low", "high") if match[key]] if match else []
    steps = [int(match[key]) for key in ("every", "step") if match[key]] if match else []
    known = [number for number in numbers if number is not None and low <= number <= high]
    if match is None or known != numbers or known != sorted(known) or not all(steps):
        raise ConfigError(
            f"--cron: received {part!r} for the {name} in {expression!r}; expected *, or numbers from {low} to {high}, "
            "as in 5, 1-5, */2 or 1,3"
        )


def _number(text: str, low: int, names: tuple[str, ...]) -> int | None:
    if text.upper() in names:
        return low + names.index(text.upper())
    return int(text) if text.isdecimal() else None
