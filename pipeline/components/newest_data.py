"""What the last run on Kubeflow that ended well has learned from: `newest_data.json` in the workspace.

TFX reads the annotations of the component's function, which therefore must not be postponed.
"""

import datetime
import json
import posixpath
from typing import NamedTuple

from absl import logging
from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio

FILE = "newest_data.json"


class NewestData(NamedTuple):
    """What was learned from, and when.

    Attributes:
      fingerprint: of the source files, as `look_for_new_data` found them before the run.
      recorded: when the run had done everything else, ISO 8601, UTC.
    """

    fingerprint: str
    recorded: str


def read_newest_data(workspace: str) -> NewestData | None:
    """Returns what the last run that ended well has recorded; None if none has.

    Raises:
      ValueError: naming the file, if it holds something else.
    """
    path = posixpath.join(workspace, FILE)
    if not fileio.exists(path):
        return None
    with fileio.open(path, "r") as stream:
        text = stream.read()
    try:
        document = json.loads(text)
        return NewestData(str(document["fingerprint"]), str(document["recorded"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: received {text!r}; expected JSON with fingerprint and recorded") from error


@component
def RecordNewestData(fingerprint: Parameter[str], workspace: Parameter[str]) -> None:  # type: ignore[valid-type]
    """Records what the run has learned from; the last step of a run.

    Args:
      fingerprint: of the source files.
      workspace: folder of the pipeline, local or remote.
    """
    data = NewestData(fingerprint, datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
    fileio.makedirs(workspace)
    aside, file = posixpath.join(workspace, f".{FILE}"), posixpath.join(workspace, FILE)
    with fileio.open(aside, "w") as stream:
        stream.write(json.dumps(data._asdict(), indent=2))
    fileio.rename(aside, file, overwrite=True)
    logging.info("the next run starts if the source files are others than %s", fingerprint)
