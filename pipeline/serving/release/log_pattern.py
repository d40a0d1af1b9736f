"""Where the requests of a model are logged, as the servers' configuration has it."""

from __future__ import annotations

import glob
from pathlib import Path

from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.model_config_file import log_prefix_of, read_config


def log_pattern(folder: ServingFolder) -> str:
    """Returns the pattern of the files that the model's `logging_config` names.

    Raises:
      ReleaseError: if it names none, saying how requests are logged.
    """
    prefix = log_prefix_of(read_config(folder.config), folder.model_name)
    if prefix is None:
        raise ReleaseError(
            f"no requests are logged: the model {folder.model_name!r} has no logging_config in {folder.config}. "
            "Serve with `marquee serve --log-requests 0.1` for a while, or name the files by --logs"
        )
    path = Path(prefix)
    return str(path.parent / f"{glob.escape(path.name)}-*.tfrecord")  # Only the name is a pattern.
