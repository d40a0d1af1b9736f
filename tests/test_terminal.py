"""Libraries' noise goes to the log, in processes of their own, since it starts with the first import."""

import subprocess
import sys
import textwrap
from pathlib import Path


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_nothing_of_tensorflow_reaches_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    script = """
        import logging, os, pathlib, sys, warnings
        from pipeline.terminal import log_to_file
        with log_to_file(pathlib.Path(sys.argv[1])):
            import tensorflow as tf
            from absl import logging as absl_logging
            absl_logging.warning("from absl")
            logging.getLogger("a.library").info("from logging")
            warnings.warn("from warnings")
            os.write(2, b"from C++")
            print("ours")
        print("after", file=sys.stderr)
    """
    finished = _run(script, str(log))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "ours\n"
    assert finished.stderr == "after\n"
    written = log.read_text(encoding="utf-8")
    for message in ("from absl", "from logging", "from warnings", "from C++"):
        assert message in written


def test_an_error_ends_the_redirection(tmp_path: Path) -> None:
    script = """
        import pathlib, sys
        from pipeline.terminal import log_to_file
        try:
            with log_to_file(pathlib.Path(sys.argv[1])):
                raise ValueError("broken")
        except ValueError as error:
            print(error, file=sys.stderr)
    """
    finished = _run(script, str(tmp_path / "run.log"))
    assert finished.stderr == "broken\n"
