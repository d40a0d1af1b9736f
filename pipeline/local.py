"""Runs the pipeline on this machine: LocalDagRunner, Beam's direct runner, SQLite ML Metadata."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.config import PipelineConfig
from pipeline.run_records import record_failure, retire_undone_pushes
from pipeline.runs import LOCK_FILE, NoRunError, RunStore
from pipeline.terminal import PROJECT_LOGGER

SETUP_FILE = Path(__file__).parent.parent / "setup.py"

_NAME_WIDTH = 24
_LOCK_TRIES = 5
_LOCK_PAUSE_SECONDS = 0.1
COMPONENT_MESSAGE = re.compile(r"^Component (?P<name>\S+) is (?P<what>running|finished)\.$")
"""What the runner says of a component."""

Build = Callable[[PipelineConfig], Any]
"""From a configuration that says where Beam's workers get this package from to the TFX pipeline to run."""


class PipelineFailedError(RuntimeError):
    """A component failed. The message is its own, in plain words.

    Attributes:
      run_id: the run in ML Metadata; None if it failed before it got there.
    """

    def __init__(self, message: str, run_id: str | None):
        super().__init__(message)
        self.run_id = run_id


class WorkspaceBusyError(RuntimeError):
    """Another run is using the workspace."""


def run_locally(config: PipelineConfig, console: Console, build: Build | None = None, until: str | None = None) -> None:
    """Runs the pipeline, telling of each component as it ends.

    Args:
      config: what to run.
      console: where progress goes.
      build: see `run_pipeline`; by default it builds that of `create_pipeline`.
      until: see `run_pipeline`.

    Raises:
      PipelineFailedError: if a component failed; nothing after it was started.
      WorkspaceBusyError: if another run is using the workspace.
    """
    with exclusive(Path(config.workspace)):
        run_pipeline(config, console, build or _build, until=until)


def run_pipeline(
    config: PipelineConfig,
    console: Console,
    build: Build,
    listeners: Sequence[logging.Handler] = (),
    until: str | None = None,
) -> None:
    """Runs a pipeline in a workspace whose lock is held; see `exclusive`.

    Args:
      config: what to run.
      console: where progress goes.
      build: returns the pipeline to run, recorded in ML Metadata at the configuration's `metadata_path`.
      listeners: what else is told the runner's messages, after the terminal.
      until: id of the last component to run, with all that it needs; by default all run.

    Raises:
      PipelineFailedError: if a component failed; nothing after it was started.
    """
    started = time.monotonic()
    with console.status("Loading TensorFlow and TFX …"):
        from tfx.orchestration.local.local_dag_runner import LocalDagRunner
        from tfx.orchestration.pipeline import RunOptions

        pipeline = build(_with_worker_code(config))
    console.print(f"  [dim]loaded TensorFlow and TFX in {time.monotonic() - started:.1f} s[/dim]")
    earlier_runs = _run_ids(config)
    components = [component.id for component in pipeline.components]
    with _progress(config, console, components, listeners) as handler:
        # Only what another run, or somebody by hand, has undone: a push that stands is found in the cache.
        retire_undone_pushes(config.metadata_path)
        try:
            LocalDagRunner().run(pipeline, run_options=RunOptions(to_nodes=[until]) if until else None)
        except Exception as error:
            logging.getLogger(PROJECT_LOGGER).exception("The pipeline failed.")
            handler.fail()
            reason = plain_message(error)
            run_id = next(iter(_run_ids(config)[len(earlier_runs) :]), None)
            if run_id is not None:
                _note_failure(config, run_id, reason)
            raise PipelineFailedError(reason, run_id) from error


def _build(config: PipelineConfig) -> Any:
    from pipeline.pipeline import create_pipeline

    return create_pipeline(config, metadata_path=config.metadata_path)


def _note_failure(config: PipelineConfig, run_id: str, reason: str) -> None:
    """Records in ML Metadata why a run failed; where that fails too, in the log."""
    try:
        record_failure(config.metadata_path, run_id, reason)
    except Exception:  # A full disk, say, which is why the run failed and is what must be told.
        logging.getLogger(PROJECT_LOGGER).exception("The failure could not be noted in ML Metadata.")


def _run_ids(config: PipelineConfig) -> list[str]:
    """Returns the workspace's runs, the latest last; none where nothing has run."""
    try:
        return RunStore(config.metadata_path).run_ids()
    except NoRunError:
        return []


def _with_worker_code(config: PipelineConfig) -> PipelineConfig:
    """Tells Beam where its workers get this package from, unless the configuration does.

    Workers elsewhere install it by its set-up file. Those of the direct runner and of a pool have it already; the image
    named for them is never looked at. Without either, TFX packages itself anew for each Beam component, which takes
    seconds every time.
    """
    if config.beam.ships_code:
        return config
    if config.beam.brings_code:
        source = "--sdk_container_image=installed"
    elif SETUP_FILE.is_file():
        source = f"--setup_file={SETUP_FILE}"
    else:
        return config
    beam = config.beam.model_copy(update={"arguments": (*config.beam.arguments, source)})
    return config.model_copy(update={"beam": beam})


def plain_message(error: BaseException) -> str:
    """Returns what an error of a component says, without what Beam wrapped around it."""
    text = str(error) or type(error).__name__
    text = re.sub(r"\s*\[while running '[^']*'\]", "", text)
    return text.strip()


@contextlib.contextmanager
def exclusive(workspace: Path) -> Iterator[None]:
    """Holds the workspace's lock, which the system releases when the process ends, however it ends."""
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / LOCK_FILE, "a", encoding="utf-8") as lock:
        for _ in range(_LOCK_TRIES):  # Who only asks whether a run is alive holds the lock for an instant.
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            raise WorkspaceBusyError(f"another run is using {workspace}; wait for it or choose another workspace")
        lock.truncate(0)
        lock.write(datetime.datetime.now().isoformat())
        lock.flush()
        yield


class _ProgressHandler(logging.Handler):
    """Turns the runner's log messages into lines on the terminal.

    Args:
      config: what runs, in which workspace.
      console: where the lines go.
      components: ids of the components, which the lines are laid out for.
    """

    def __init__(self, config: PipelineConfig, console: Console, components: Sequence[str]):
        super().__init__()
        self._width = max([_NAME_WIDTH, *map(len, components)])
        self._metadata_path = config.metadata_path
        self._console = console
        self._status = console.status("")
        self._current: str | None = None
        self._started = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a message of the runner or of this project."""
        try:
            self._show(record)
        except Exception:  # What only tells of a run must not end it.
            self.handleError(record)

    def _show(self, record: logging.LogRecord) -> None:
        if record.name.startswith(PROJECT_LOGGER):
            if record.levelno >= logging.INFO and record.exc_info is None:
                self._console.print(f"      [dim]{escape(record.getMessage())}[/dim]", highlight=False)
            return
        match = COMPONENT_MESSAGE.match(record.getMessage())
        if match is None:
            return
        if match["what"] == "running":
            self._current, self._started = match["name"], time.monotonic()
            self._status.update(f"{match['name']} …")
            self._status.start()
        else:
            self._status.stop()
            seconds = time.monotonic() - self._started
            cached = self._state(match["name"]) == "cached"
            mark, told = ("[cyan]=[/cyan]", "cached") if cached else ("[green]✓[/green]", f"{seconds:.1f} s")
            self._console.print(f"  {mark} {match['name']:<{self._width}}{told:>9}", highlight=False)
            self._current = None

    def fail(self) -> None:
        """Marks the running component as failed."""
        self.stop()
        if self._current is not None:
            self._console.print(f"  [red]✗ {self._current:<{self._width}}   failed[/red]", highlight=False)

    def stop(self) -> None:
        """Takes the line of the running component off the terminal."""
        self._status.stop()

    def _state(self, name: str) -> str | None:
        try:
            store = RunStore(self._metadata_path)
            component = store.component_states(store.run_ids()[-1]).get(name)
        except (NoRunError, IndexError):
            return None
        return component.state if component else None


@contextlib.contextmanager
def _progress(
    config: PipelineConfig, console: Console, components: Sequence[str], listeners: Sequence[logging.Handler]
) -> Iterator[_ProgressHandler]:
    """Tells of each component as it ends, while the block runs.

    Args:
      config: what runs, in which workspace.
      console: where the lines go.
      components: ids of the components, which the lines are laid out for.
      listeners: what else is told the runner's messages.
    """
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.INFO)
    handler = _ProgressHandler(config, console, components)
    runner, project = logging.getLogger("absl"), logging.getLogger(PROJECT_LOGGER)
    added = [(runner, handler), (project, handler), *((runner, listener) for listener in listeners)]
    for logger, listener in added:
        logger.addHandler(listener)
    try:
        yield handler
    finally:
        for logger, listener in added:
            logger.removeHandler(listener)
        handler.stop()
