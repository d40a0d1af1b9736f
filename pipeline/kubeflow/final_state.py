"""`ReportFinalState`: says how a run on Kubeflow ended, also when it failed.

TFX reads the annotations of the component's function, which therefore must not be postponed.
"""

import datetime
import json
import posixpath
import re
from typing import Any

from absl import logging
from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.io import fileio
from tfx.orchestration.kubeflow.decorators import FinalStatusStr, exit_handler

FOLDER = "final_states"
_STATE = "state"


def read_final_state(final_status: str) -> dict[str, Any]:
    """Returns what the orchestrator says of a run: `state`, `error` (empty if none), `run`.

    Args:
      final_status: a `PipelineTaskFinalStatus` as JSON.

    Raises:
      ValueError: if it is no such thing.
    """
    try:
        status = json.loads(final_status)
        error = status.get("error") or {}
        return {
            "run": str(status.get("pipelineJobResourceName", "")),
            _STATE: str(status[_STATE]),
            "error": str(error.get("message", "")),
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"final_status: received {final_status!r}; expected a PipelineTaskFinalStatus as JSON, with a state"
        ) from error


def final_status() -> FinalStatusStr:
    """Returns what stands for the run's state until it is known."""
    return FinalStatusStr()


@exit_handler
def ReportFinalState(final_status: Parameter[str], workspace: Parameter[str]) -> None:  # type: ignore[valid-type]
    """Logs the final state of a run and writes it to `<workspace>/final_states/<run>.json`.

    Args:
      final_status: what the orchestrator passes in.
      workspace: folder of the pipeline, local or remote.
    """
    report = {**read_final_state(final_status), "ended": datetime.datetime.now(datetime.timezone.utc).isoformat()}
    logging.info("the run ended in state %s %s", report[_STATE], report["error"])
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", report["run"].rpartition("/")[2]) or "run"
    folder = posixpath.join(workspace, FOLDER)
    fileio.makedirs(folder)
    aside, file = posixpath.join(folder, f".{name}.json"), posixpath.join(folder, f"{name}.json")
    with fileio.open(aside, "w") as stream:
        stream.write(json.dumps(report, indent=2))
    fileio.rename(aside, file, overwrite=True)
