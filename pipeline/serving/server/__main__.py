"""Runs the server from the command line; see `options.py` for what it can be told."""

from __future__ import annotations

import logging as standard_logging
import os
import sys
import time

from absl import logging

from pipeline.config_files import ConfigError
from pipeline.serving.errors import StatusError
from pipeline.serving.server.options import parse_command_line

_OPTIONAL_PACKAGES_OF_TENSORFLOW = ("keras", "tf_keras", "googleapiclient")


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT."""
    started = time.monotonic()
    options = parse_command_line(arguments)
    logging.set_verbosity(logging.INFO)
    standard_logging.getLogger("tensorflow").setLevel("ERROR")
    prepare_quick_import()
    from pipeline.serving.server.server import serve  # Imports TensorFlow, which `--help` does not need.

    try:
        serve(options, started)
    except (OSError, ConfigError, StatusError) as error:
        sys.exit(f"error: {error}")


def prepare_quick_import() -> None:
    """Spares a process that only serves half of the time that TensorFlow takes to be imported.

    TensorFlow imports Keras and a Google client where they are installed, and does without where they are not. A
    SavedModel's graph needs neither.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules:
        for name in _OPTIONAL_PACKAGES_OF_TENSORFLOW:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type] # So it is as if it were not installed.


if __name__ == "__main__":
    main()
