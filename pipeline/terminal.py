"""What a user sees: our own lines on the terminal, everything libraries have to say in a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

PROJECT_LOGGER = "marquee"


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Sends logs, warnings and the process's standard error, also that of C++ libraries, to a file.

    Must be entered before TensorFlow is imported, whose start-up messages are written straight to the process's
    standard error. Standard output is left to us.

    Args:
      path: the log file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal_fd = os.dup(2)
    root = logging.getLogger()
    previous_handlers, previous_level = root.handlers[:], root.level
    with open(path, "a", buffering=1, encoding="utf-8") as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        warnings.simplefilter("default")
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal_fd, 2)
            os.close(terminal_fd)
            root.handlers[:] = previous_handlers
            root.setLevel(previous_level)
            logging.captureWarnings(False)
