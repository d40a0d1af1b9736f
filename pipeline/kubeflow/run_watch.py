"""Follows a run on Kubeflow Pipelines to its end, and says which steps failed and why."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.kubeflow.connection import ClusterError, Endpoint, explained, quietly

if TYPE_CHECKING:
    from kfp import Client

SUCCEEDED = "SUCCEEDED"
ENDED = (SUCCEEDED, "FAILED", "CANCELED", "SKIPPED")
POLL_SECONDS = 5.0
_LOST_SECONDS = 300.0
"""How long the cluster may be out of reach before watching ends."""
_LONGEST_PAUSE = 60.0


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """How a run is at one moment.

    Attributes:
      name: of the run.
      state: of the run, as Kubeflow names it, e.g. `RUNNING`.
      error: why it failed; empty if it did not or nothing is said.
      steps: state by step, in order of their start.
      errors: what failed steps say, by step.
    """

    name: str
    state: str
    error: str
    steps: Mapping[str, str]
    errors: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED


def read_status(client: Client, endpoint: Endpoint, run_id: str) -> RunStatus:
    """Returns how a run is now.

    Raises:
      ClusterError: if the cluster cannot be reached, refuses or answers nonsense.
    """
    with quietly(), explained(endpoint.host):
        run = client.get_run(run_id)
    if run.run_id != run_id:
        raise ClusterError(f"{endpoint.host} answered for run {run.run_id!r} when asked for {run_id!r}")
    details = run.run_details.task_details if run.run_details else None
    # What Kubeflow itself starts for each step, its drivers, is of no interest.
    tasks = [task for task in details or [] if task.display_name and not task.display_name.endswith("-driver")]
    tasks.sort(key=lambda task: (task.start_time is None, str(task.start_time or ""), task.display_name))
    return RunStatus(
        name=run.display_name or run_id,
        state=run.state or "RUNTIME_STATE_UNSPECIFIED",
        error=_message(run.error),
        steps={task.display_name: task.state or "PENDING" for task in tasks},
        errors={task.display_name: _message(task.error) for task in tasks if _message(task.error)},
    )


def watch(
    client: Client,
    endpoint: Endpoint,
    run_id: str,
    tell: Callable[[RunStatus], None],
    tell_trouble: Callable[[str], None],
    poll_seconds: float = POLL_SECONDS,
) -> RunStatus:
    """Follows a run to its end.

    Args:
      client: see `connect`.
      endpoint: what it is connected to.
      run_id: the run.
      tell: is called with the status each time that it was asked for.
      tell_trouble: is called with what stands in the way while the cluster is out of reach for a time.
      poll_seconds: pause between two questions.

    Returns:
      The last status.

    Raises:
      ClusterError: if the cluster refuses, or is out of reach for long.
    """
    lost_since: float | None = None
    pause = poll_seconds
    while True:
        try:
            status = read_status(client, endpoint, run_id)
        except ClusterError as error:
            now = time.monotonic()
            lost_since = lost_since if lost_since is not None else now
            if not error.passing or now - lost_since > _LOST_SECONDS:
                raise
            tell_trouble(f"{error}; trying again")
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            lost_since, pause = None, poll_seconds
            tell(status)
            if status.has_ended:
                return status
        time.sleep(pause)


def _message(error: Any) -> str:
    return str(getattr(error, "message", None) or "") if error is not None else ""
