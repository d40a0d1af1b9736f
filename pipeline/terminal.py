"""What a user sees: our own lines on the terminal, everything libraries have to say in a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

PROJECT_LOGGER = "marquee"


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[Console]:
    """Sends the process's output, also that of C++ libraries, to a log file; the console stays with us.

    Must be entered before TensorFlow is imported, whose start-up messages are written straight to the process's
    standard error.

    Args:
      path: the log file; its folder is made.

    Yields:
      A console on the terminal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal_fds = os.dup(1), os.dup(2)
    with open(path, "a", buffering=1, encoding="utf-8") as log, os.fdopen(os.dup(1), "w") as terminal:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        previous_handlers, previous_level = root.handlers[:], root.level
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        warnings.simplefilter("default")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield Console(file=terminal, force_terminal=os.isatty(terminal.fileno()))
        finally:
            terminal.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(terminal_fds[0], 1)
            os.dup2(terminal_fds[1], 2)
            for fd in terminal_fds:
                os.close(fd)
            root.handlers[:] = previous_handlers
            root.setLevel(previous_level)
            logging.captureWarnings(False)
