"""`ModelVersions`: which versions of one model are in memory, and in what state.

The rules are TensorFlow Serving's: a version policy chooses among the numbered folders below the base path; a new
version is loaded before the last old one is unloaded; a version that does not load leaves the old one serving;
requests under way finish before their version is unloaded. Beyond them, to keep a model available:

- a folder without a SavedModel's main file is not looked at, though it keeps an old version serving;
- a version that failed is tried again when its files change, as they do while a copy goes on;
- a version whose files changed while it was loaded is not served;
- waiting for the next attempt to load a version holds up nothing else;
- if the latest version fails and nothing else serves, the next one down does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import grpc
import tensorflow as tf
from absl import logging

from pipeline.serving.errors import StatusError
from pipeline.serving.server.leases import Lease, Lent
from pipeline.serving.server.version_folders import choose, find_versions, fingerprint, has_model_file
from pipeline.serving.server.version_states import LoadOptions, State, Target, Version, VersionStatus

__all__ = ["LoadOptions", "ModelVersions", "State", "Target", "VersionStatus", "servable_not_found"]

if TYPE_CHECKING:
    from pipeline.serving.server.request_log import RequestLogger
    from pipeline.serving.server.servable import Servable


class ModelVersions:
    """The versions of one model. Any thread may borrow; only one may call `poll`, `advance` and `close`."""

    def __init__(
        self,
        name: str,
        load: Callable[[str], Servable],
        target: Target | None,
        *,
        changed: threading.Condition | None = None,
        options: LoadOptions | None = None,
        on_available: Callable[[int], None] = lambda version: None,
    ):
        """Loads nothing yet; `poll` and `advance` do.

        Args:
          name: the model's name.
          load: loads a version folder.
          target: what is to be served; None: nothing.
          changed: lock of everything that requests see; is notified when it changes. None: one of its own.
          options: how to load.
          on_available: is called with each version that begins to serve.
        """
        self.target = target
        self._name = name
        self._load_servable = load
        self._options = options or LoadOptions()
        self._on_available = on_available
        self._changed = changed or threading.Condition()
        self._versions: dict[int, Version] = {}
        self._available: dict[int, Lent[Servable]] = {}
        self._latest: int | None = None
        self._found: Mapping[int, str] = {}
        self._awaits_copy = False
        self._settled: set[int] = set()
        self._complaints: frozenset[str] = frozenset()
        self._pursued: Target | None = None

    # What requests and configuration use, from any thread.

    @property
    def statuses(self) -> Mapping[int, VersionStatus]:
        """The status of every version ever to be served, highest version first."""
        with self._changed:
            return {version: record.status for version, record in sorted(self._versions.items(), reverse=True)}

    def is_available(self, version: int) -> bool:
        """Whether a version serves."""
        return version in self._available

    def lend(self, version: int | None = None, logger: Lent[RequestLogger] | None = None) -> Lease:
        """Lends a version, which stays loaded meanwhile.

        Args:
          version: which one; None for the latest available.
          logger: to be lent with it.

        Raises:
          StatusError: NOT_FOUND, if no such version is available.
        """
        with self._changed:
            chosen = self._latest if version is None else version
            servable = None if chosen is None else self._available.get(chosen)
            if chosen is None or servable is None:
                raise servable_not_found(self._name, version)
            return Lease(self._name, chosen, servable, logger, self._changed)

    def cannot_load(self, version: int, target: Target) -> bool:
        """Whether a version that belongs to a target proved to be missing, incomplete or broken."""
        if self._pursued is not target:
            return False  # It has not been looked for yet.
        record = self._versions.get(version)
        return record is None or not record.aspired or record.error is not None

    def forget_outcome(self) -> None:
        """Makes `outcome` tell only of what happens from now on."""
        with self._changed:
            self._settled.clear()

    @property
    def outcome(self) -> tuple[int, VersionStatus] | None:
        """The highest version that serves or has failed since `forget_outcome`, with its status; None: none yet."""
        with self._changed:
            for version in sorted(self._settled, reverse=True):
                if self._versions[version].is_settled:
                    return version, self._versions[version].status
            return None

    @property
    def has_returned(self) -> bool:
        """Whether a version waits to be unloaded that no request has any more."""
        return any(record.is_returned for record in self._versions.values())

    # What the managing thread calls.

    def poll(self) -> None:
        """Looks at the base path and decides what is to be served. Problems are logged, not raised."""
        target = self.target
        complaints: list[str] = []
        if target is None:
            self._found, self._awaits_copy = {}, False
            self._aspire({})
        else:
            try:
                self._look(target, complaints)
            except (OSError, UnicodeError, tf.errors.OpError) as error:
                # The folder may be away for a moment only: whatever serves goes on serving.
                complaints.append(f"could not list the base path {target.base_path} of model {self._name}: {error}")
        for complaint in complaints:
            if complaint not in self._complaints:
                logging.warning("%s", complaint)
        self._complaints = frozenset(complaints)
        with self._changed:
            self._pursued = target
            for version, record in self._versions.items():  # What was decided before stays so.
                if record.aspired and record.is_settled:
                    self._settled.add(version)
            self._changed.notify_all()

    def advance(self) -> bool:
        """Takes the next step: unloads, or loads, one version.

        Returns:
          Whether there was one to take.
        """
        return self._close_returned() or self._unload_next() or self._load_next() or self._fall_back()

    @property
    def next_attempt(self) -> float | None:
        """When a version is to be loaded again, by `time.monotonic`; None: never."""
        return min((record.due for record in self._versions.values() if record.is_waiting), default=None)

    def close(self) -> None:
        """Unloads everything, once the requests under way are answered."""
        self.target = None
        self.poll()
        while self.advance():
            pass
        with self._changed:
            draining = [record for record in self._versions.values() if record.state is State.UNLOADING]
            self._changed.wait_for(lambda: all(record.servable.is_returned for record in draining if record.servable))
        while self.advance():
            pass

    def _look(self, target: Target, complaints: list[str]) -> None:
        """Finds and chooses versions; adds what an operator should know to `complaints`."""
        name, policy = self._name, target.policy

        def duplicate(version: int, used: str, ignored: str) -> None:
            complaints.append(
                f"version {version} of model {name} has two folders below {target.base_path}: {used} is used, "
                f"{ignored} is ignored"
            )

        found = find_versions(target.base_path, duplicate)

        def is_complete(version: int) -> bool:
            return version in self._available or has_model_file(found[version])

        choice = choose(policy, found, is_complete)
        extra = {version for version in target.extra & found.keys() if is_complete(version)}
        chosen = {version: found[version] for version in choice.complete | extra}
        for version in sorted(choice.incomplete):
            complaints.append(
                f"version {version} of model {name} is not complete: {found[version]} has no saved_model.pb"
            )
        for version in sorted(choice.missing):
            complaints.append(
                f"version {version} of model {name}, which its version policy names, is not below {target.base_path}"
            )
        if policy.WhichOneof("policy_choice") == "specific" and not policy.specific.versions:
            complaints.append(f"the version policy of model {name} names no versions")
        elif not found:
            complaints.append(f"no versions of model {name} found under the base path {target.base_path}; waiting")
        if not chosen and not choice.incomplete and self._options.servable_versions_always_present:
            complaints.append(f"refusing to unload all versions of model {name}")
            return
        self._found = found
        self._awaits_copy = bool(choice.incomplete)
        self._aspire(chosen)

    def _aspire(self, chosen: Mapping[int, str]) -> None:
        """Makes the chosen versions those to be served."""
        now = time.monotonic()
        for version, path in chosen.items():
            record = self._versions.get(version)
            if record is None or (record.state is State.END and (record.error is None or not record.aspired)):
                with self._changed:
                    self._versions[version] = Version(path, due=now)
                continue
            record.aspired = True
            if record.attempts and record.state in (State.LOADING, State.END) and _changed_since(path, record):
                with self._changed:
                    self._versions[version] = Version(path, due=now)
        for version in self._versions.keys() - chosen.keys():
            record = self._versions[version]
            record.aspired = False
            if record.is_waiting:
                self._set_state(version, State.END)

    def _close_returned(self) -> bool:
        version = next((version for version, record in self._versions.items() if record.is_returned), None)
        if version is None:
            return False
        record = self._versions[version]
        assert record.servable is not None
        try:
            record.servable.thing.close()
        except Exception:
            logging.exception("closing version %d of model %s failed", version, self._name)
        record.servable = None
        self._set_state(version, State.END)
        logging.info("unloaded version %d of model %s", version, self._name)
        if record.aspired:  # It was wanted again while requests still had it.
            with self._changed:
                self._versions[version] = Version(record.path, due=time.monotonic())
        return True

    def _unload_next(self) -> bool:
        """Unloads the lowest version that is not wanted, if availability permits: TF Serving's policy by default."""
        aspired = {version for version, record in self._versions.items() if record.aspired}
        unwanted = sorted(self._available.keys() - aspired)
        is_covered = bool(self._available.keys() & aspired) or len(unwanted) > 1
        has_aspired = bool(aspired) or self._awaits_copy
        if not unwanted or (has_aspired and not is_covered):
            return False
        with self._changed:
            servable = self._available.pop(unwanted[0])
            servable.retired = True
            self._set_latest()
            self._set_state(unwanted[0], State.UNLOADING)
        return True

    def _load_next(self) -> bool:
        """Loads the highest version that is due."""
        now = time.monotonic()
        due = [version for version, record in self._versions.items() if record.is_waiting and record.due <= now]
        if not due:
            return False
        self._load(max(due))
        return True

    def _fall_back(self) -> bool:
        """Loads the next version down if the latest ones failed and nothing serves."""
        target = self.target
        if self._available or target is None or target.policy.WhichOneof("policy_choice") not in (None, "latest"):
            return False
        if not any(record.aspired and record.error is not None for record in self._versions.values()):
            return False
        for version in sorted(self._found, reverse=True):
            record = self._versions.get(version)
            path = self._found[version]
            if record is not None and (record.aspired or record.state is not State.END):
                continue
            if record is not None and record.error is not None and not _changed_since(path, record):
                continue
            if has_model_file(path):
                logging.warning("falling back to version %d of model %s", version, self._name)
                with self._changed:
                    self._versions[version] = Version(path, aspired=False)
                self._load(version)
                return True
        return False

    def _load(self, version: int) -> None:
        record = self._versions[version]
        self._set_state(version, State.LOADING)
        started = time.monotonic()
        try:
            servable = self._attempt(record)
        except StatusError as error:
            self._failed(version, record, error)
            return
        with self._changed:
            record.servable = self._available[version] = Lent(servable)
            record.error = None
            self._set_latest()
            self._settled.add(version)
            self._set_state(version, State.AVAILABLE)
        seconds = time.monotonic() - started
        logging.info("loaded version %d of model %s from %s in %.2f s", version, self._name, record.path, seconds)
        try:
            self._on_available(version)
        except Exception:
            logging.exception("telling of version %d of model %s failed", version, self._name)

    def _attempt(self, record: Version) -> Servable:
        """Loads a version's files as they are now.

        Raises:
          StatusError: if it fails, in whatever way.
        """
        record.attempts += 1
        try:
            record.fingerprint = fingerprint(record.path)
            servable = self._load_servable(record.path)
            if not _changed_since(record.path, record):
                return servable
            servable.close()
        except StatusError:
            raise
        except Exception as error:
            logging.exception("loading %s failed", record.path)
            raise StatusError(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}") from error
        raise StatusError(grpc.StatusCode.UNAVAILABLE, f"The files in {record.path} changed while they were loaded")

    def _failed(self, version: int, record: Version, error: StatusError) -> None:
        options = self._options
        will_retry = record.aspired and record.attempts <= options.max_num_load_retries
        logging.error(
            "version %d of model %s could not be loaded: %s: %s%s",
            version,
            self._name,
            error.code.name,
            error.message,
            f" (trying again in {options.load_retry_interval_seconds:g} s)" if will_retry else "",
        )
        with self._changed:
            record.error = error
            if will_retry:
                record.due = time.monotonic() + options.load_retry_interval_seconds
            else:
                self._settled.add(version)
                self._set_state(version, State.END)

    def _set_latest(self) -> None:
        self._latest = max(self._available, default=None)

    def _set_state(self, version: int, state: State) -> None:
        with self._changed:
            self._versions[version].state = state
            self._changed.notify_all()


def _changed_since(path: str, record: Version) -> bool:
    """Whether the files of a version are others than at the last attempt to load it."""
    try:
        return path != record.path or fingerprint(path) != record.fingerprint
    except (OSError, tf.errors.OpError):
        return False  # It cannot be loaded either.


def servable_not_found(name: str, version: int | None) -> StatusError:
    """Returns TensorFlow Serving's error for a model or version that is not available."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return StatusError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
