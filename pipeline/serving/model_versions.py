"""`ModelVersions`: which versions of one model are in memory, and in what state.

The rules are TensorFlow Serving's defaults: of the numbered folders below the base path the latest is served; a new
version is loaded before the old one is unloaded; a version that does not load leaves the old one serving; requests
under way finish before their version is unloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping

import grpc
import tensorflow as tf
from absl import logging

from pipeline.serving.errors import StatusError
from pipeline.serving.servable import Servable

_VERSION_FOLDER = re.compile(r"[0-9]{1,18}")
_MODEL_FILE = "saved_model.pb"


class State(enum.IntEnum):
    """Where a version is in its life, with TensorFlow Serving's numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What is known about a version.

    Attributes:
      state: where it is in its life.
      error: why it could not be loaded, if so.
    """

    state: State
    error: StatusError | None = None


@dataclasses.dataclass
class _Loaded:
    servable: Servable
    users: int = 0


class ModelVersions:
    """The versions of one model. Requests come from any thread; only one thread may call `poll` and `close`."""

    def __init__(self, name: str, base_path: str, on_available: Callable[[int], None] = lambda version: None):
        """Loads nothing yet; `poll` does.

        Args:
          name: the model's name, for messages.
          base_path: folder of the numbered version folders.
          on_available: is called with each version that begins to serve.
        """
        self._name = name
        self._base_path = base_path
        self._on_available = on_available
        self._loaded: dict[int, _Loaded] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._failed: dict[int, tuple[int, ...]] = {}
        self._complaint = ""
        self._changed = threading.Condition()

    @property
    def statuses(self) -> Mapping[int, VersionStatus]:
        """The status of every version ever tried, latest version first."""
        with self._changed:
            return dict(sorted(self._statuses.items(), reverse=True))

    @contextlib.contextmanager
    def acquire(self, version: int | None = None) -> Iterator[tuple[int, Servable]]:
        """Lends a version, which stays loaded meanwhile.

        Args:
          version: which one; None for the latest available.

        Yields:
          The version and its servable.

        Raises:
          StatusError: NOT_FOUND, if no such version is available.
        """
        with self._changed:
            latest = max(self._loaded, default=None)
            chosen = latest if version is None else version
            loaded = None if chosen is None else self._loaded.get(chosen)
            if chosen is None or loaded is None:
                raise servable_not_found(self._name, version)
            loaded.users += 1
        try:
            yield chosen, loaded.servable
        finally:
            with self._changed:
                loaded.users -= 1
                self._changed.notify_all()

    def poll(self) -> None:
        """Looks at the base path and loads or unloads accordingly. Problems are logged and recorded, not raised."""
        try:
            found = self._find_versions()
        except (OSError, tf.errors.OpError) as error:
            # The folder may be away for a moment only: whatever serves goes on serving.
            self._complain(f"could not list the base path {self._base_path} of model {self._name}: {error}")
            return
        if not found:
            self._complain(f"no versions of model {self._name} found under the base path {self._base_path}; waiting")
            self._unload_all_but(None)
            return
        self._complaint = ""
        latest = max(found)
        if latest in self._loaded or self._load(latest, found[latest]):
            self._unload_all_but(latest)

    def close(self) -> None:
        """Unloads everything, once the requests under way are answered."""
        self._unload_all_but(None)

    def _find_versions(self) -> dict[int, str]:
        """Returns the complete version folders: those that hold the file that is written last."""
        names = (name.rstrip("/") for name in tf.io.gfile.listdir(self._base_path))
        versions = {int(name): os.path.join(self._base_path, name) for name in names if _VERSION_FOLDER.fullmatch(name)}
        return {
            version: path
            for version, path in versions.items()
            if version in self._loaded or tf.io.gfile.exists(os.path.join(path, _MODEL_FILE))
        }

    def _load(self, version: int, path: str) -> bool:
        written = _fingerprint(os.path.join(path, _MODEL_FILE))
        if self._failed.get(version) == written:
            return False  # It failed before and has not been written again.
        self._set_status(version, State.START)
        self._set_status(version, State.LOADING)
        try:
            servable = Servable(path)
        except StatusError as error:
            logging.error("version %d of model %s could not be loaded: %s", version, self._name, error.message)
            self._failed[version] = written
            self._set_status(version, State.END, error)
            return False
        with self._changed:
            self._loaded[version] = _Loaded(servable)
            self._set_status(version, State.AVAILABLE)
        self._on_available(version)
        return True

    def _unload_all_but(self, kept: int | None) -> None:
        for version in sorted(set(self._loaded) - {kept}):
            self._unload(version)

    def _unload(self, version: int) -> None:
        with self._changed:
            loaded = self._loaded.pop(version)
            self._set_status(version, State.UNLOADING)
            self._changed.wait_for(lambda: loaded.users == 0)
        loaded.servable.close()
        self._set_status(version, State.END)
        logging.info("unloaded version %d of model %s", version, self._name)

    def _set_status(self, version: int, state: State, error: StatusError | None = None) -> None:
        with self._changed:
            self._statuses[version] = VersionStatus(state, error)

    def _complain(self, message: str) -> None:
        if message != self._complaint:
            logging.warning("%s", message)
            self._complaint = message


def _fingerprint(file: str) -> tuple[int, ...]:
    """Returns numbers that change when the file is written again."""
    if os.path.exists(file):  # TensorFlow's file systems know the time to the second only.
        local = os.stat(file)
        return local.st_ino, local.st_mtime_ns, local.st_size
    remote = tf.io.gfile.stat(file)
    return remote.mtime_nsec, remote.length


def servable_not_found(name: str, version: int | None) -> StatusError:
    """Returns TensorFlow Serving's error for a model or version that is not available."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
