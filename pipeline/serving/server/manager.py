"""`ModelManager`: the models of a server, looked up by the specification that requests carry.

Codes and texts are those of TensorFlow Serving's `ServerCore`.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import grpc
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import model_pb2, model_server_config_pb2
from pipeline.serving.server.leases import Lease
from pipeline.serving.server.model_configs import check_new_config, check_platforms, require_versions
from pipeline.serving.server.request_loggers import MakeRequestLogger, RequestLoggers
from pipeline.serving.server.versions import (
    LoadOptions,
    ModelVersions,
    State,
    Target,
    VersionStatus,
    servable_not_found,
)

if TYPE_CHECKING:
    from pipeline.serving.server.servable import Servable

_ServerConfig: TypeAlias = model_server_config_pb2.ModelServerConfig
_ModelConfig: TypeAlias = model_server_config_pb2.ModelConfig
_NO_LABELS: Mapping[str, int] = {}


@dataclasses.dataclass(frozen=True)
class _Model:
    """A model as configured; replaced as a whole when the configuration is.

    Attributes:
      versions: its versions.
      labels: label to version.
      is_configured: whether it is in the configuration, and not merely remembered for its versions' states.
    """

    versions: ModelVersions
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    is_configured: bool = True


class ModelManager:
    """Serves models by a configuration: loads and unloads versions in a thread of its own, lends them to requests."""

    def __init__(
        self,
        config: _ServerConfig,
        *,
        load: Callable[[str], Servable],
        poll_seconds: float = 1.0,
        options: LoadOptions | None = None,
        allow_version_labels_for_unavailable_models: bool = False,
        force_allow_any_version_labels_for_unavailable_models: bool = False,
        servable_state_waiter_timeout_seconds: float | None = None,
        make_request_logger: MakeRequestLogger | None = None,
        on_available: Callable[[str, int], None] = lambda name, version: None,
    ):
        """Takes the first configuration, but loads nothing yet; `start` does.

        Args:
          config: the models; an empty message: none until `reload`.
          load: loads a version folder.
          poll_seconds: time between two looks at the base paths; 0: one look after each configuration; negative: none.
          options: how to load versions.
          allow_version_labels_for_unavailable_models: whether a new label may point at a version that does not serve.
          force_allow_any_version_labels_for_unavailable_models: whether any label may.
          servable_state_waiter_timeout_seconds: time that `reload` waits for new models; None: without end.
          make_request_logger: makes the logger of a model that has a `logging_config`, from its name and this.
          on_available: is called with the name and version of each version that begins to serve.

        Raises:
          StatusError: if the configuration is refused.
        """
        self._load = load
        self._poll_seconds = poll_seconds
        self._options = options or LoadOptions()
        self._allow_labels = allow_version_labels_for_unavailable_models
        self._force_labels = force_allow_any_version_labels_for_unavailable_models
        self._waiter_timeout = servable_state_waiter_timeout_seconds
        self._on_available = on_available

        self._changed = threading.Condition()  # Guards what follows, and whatever requests borrow.
        self._models: dict[str, _Model] = {}
        self._config: _ServerConfig | None = None
        self._loggers = RequestLoggers(make_request_logger, self._changed)
        self._must_look = False
        self._stopped = False
        self._settled = threading.Event()

        self._configuring = threading.Lock()
        self._thread = threading.Thread(target=self._manage, name="model-manager", daemon=True)
        kind = config.WhichOneof("config")
        if kind == "custom_model_config":
            raise invalid_argument("ModelServer does not yet support custom model config.")
        if kind is not None:
            self._configure(config)

    def start(self) -> None:
        """Begins to load and to watch."""
        self._thread.start()

    def wait_until_settled(self, timeout_seconds: float | None = None) -> None:
        """Waits until each version that was found at the start serves, or could not be loaded at the first attempt.

        Args:
          timeout_seconds: None: without end.
        """
        self._settled.wait(timeout_seconds)

    def request_stop(self) -> None:
        """Ends whatever waits for models, and loads no more of them. Returns at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._settled.set()

    def close(self) -> None:
        """Stops watching and unloads everything, once the requests under way are answered."""
        self.request_stop()
        if self._thread.ident is None:
            self._unload_everything()
        else:
            self._thread.join()

    # Requests.

    def acquire(self, spec: model_pb2.ModelSpec) -> Lease:
        """Lends the version that a request asks for, which stays loaded meanwhile. Never waits.

        Args:
          spec: name, and version, label or neither, for the latest version available.

        Returns:
          A lease, to be used in a `with` statement.

        Raises:
          StatusError: if the specification is incomplete or nothing available matches it.
        """
        name = spec.name
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        with self._changed:  # Label and version are looked up at once, or a label could move in between.
            model = self._models.get(name)
            version = None
            if choice == "version":
                version = spec.version.value
            elif choice == "version_label":
                version = self._labelled(model, spec.version_label)
            if model is None:
                raise servable_not_found(name, version)
            return model.versions.lend(version, self._loggers.get(name))

    def statuses(self, spec: model_pb2.ModelSpec) -> Mapping[int, VersionStatus]:
        """Returns the status of the versions that match, highest version first.

        As in TensorFlow Serving, a label in the specification narrows nothing down, and versions stay known after
        their model has left the configuration.

        Raises:
          StatusError: NOT_FOUND, if none matches.
        """
        model = self._models.get(spec.name)
        statuses = model.versions.statuses if model else {}
        if spec.HasField("version"):
            version = spec.version.value
            if version not in statuses:
                raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {spec.name}")
            return {version: statuses[version]}
        if not statuses:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return statuses

    # Configuration.

    def reload(self, config: _ServerConfig, *, load_labelled_first: bool = False, wait: bool = True) -> None:
        """Changes the configuration, and waits until each model that is new has a version that serves.

        A configuration that is refused changes nothing. As in TensorFlow Serving one whose new models do not load is
        not refused: the error tells of it, and the models stay configured.

        Args:
          config: the models from now on.
          load_labelled_first: whether to load the versions that labels are to point at before anything else changes,
            instead of refusing labels of versions that do not serve yet. TensorFlow Serving needs two reloads for this.
          wait: whether to wait for new models; if not, any error means that nothing was changed.

        Raises:
          StatusError: as TensorFlow Serving answers; ABORTED, if another reload came between; UNAVAILABLE, if the
            manager is closed meanwhile.
        """
        if config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        try:
            interim, added = self._load_labelled(config) if load_labelled_first else (None, [])
            added += self._configure(config, replaces=interim)
        except StatusError as error:
            logging.error("the configuration is refused: %s", error.message)
            raise
        logging.info("serving by a new configuration of %d models", len(config.model_config_list.config))
        if wait:
            self._wait_for(added, "model", self._waiter_timeout)

    def wait_until_available(self, timeout_seconds: float | None = None) -> None:
        """Waits until each configured model has a version that serves, as TensorFlow Serving does when it starts.

        Args:
          timeout_seconds: None: without end.

        Raises:
          StatusError: UNKNOWN, if the highest version of a model could not be loaded, or nothing could in time.
        """
        with self._changed:
            names = [name for name, model in self._models.items() if model.is_configured]
        self._wait_for(names, "servable", timeout_seconds)

    def _labelled(self, model: _Model | None, label: str) -> int:
        if self._config is None:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, f"Model labels does not init yet.{label}")
        version = (model.labels if model else _NO_LABELS).get(label)
        if version is None:
            raise invalid_argument(f"Unrecognized servable version label: {label}")
        return version

    def _configure(
        self,
        config: _ServerConfig,
        *,
        extra: Mapping[str, frozenset[int]] | None = None,
        replaces: _ServerConfig | None = None,
        check_labels: bool = True,
    ) -> list[str]:
        """Changes the configuration, if nothing speaks against it.

        Args:
          config: a list of models; is copied.
          extra: model to versions to serve beyond its policy.
          replaces: the configuration that must be in force; None: any.
          check_labels: whether labels may point at versions that serve only.

        Returns:
          The models that were not configured before.

        Raises:
          StatusError: in which case nothing is changed.
        """
        with self._configuring:
            if replaces is not None and self._config is not replaces:
                raise StatusError(grpc.StatusCode.ABORTED, "Another config was loaded meanwhile.")
            check_new_config(self._config, config)
            with self._changed:
                for model_config in config.model_config_list.config if check_labels else ():
                    self._check_labels(model_config)
            check_platforms(config)
            if self._options.servable_versions_always_present:
                require_versions(config)
            loggers = self._loggers.prepare(config)
            with self._changed:
                self._loggers.replace(config, loggers)
                return self._replace_models(config, extra or {})

    def _check_labels(self, config: _ModelConfig) -> None:
        model = self._models.get(config.name)
        for label, version in config.version_labels.items():
            old = None if model is None else model.labels.get(label)
            is_allowed = self._force_labels or (self._allow_labels and old in (None, version))
            if not is_allowed and (model is None or not model.versions.is_available(version)):
                raise _cannot_label(config.name, version)

    def _replace_models(self, config: _ServerConfig, extra: Mapping[str, frozenset[int]]) -> list[str]:
        models = {
            name: dataclasses.replace(model, labels=_NO_LABELS, is_configured=False)
            for name, model in self._models.items()
        }
        added = []
        own_config = _ServerConfig()
        own_config.CopyFrom(config)
        for entry in own_config.model_config_list.config:
            name = entry.name
            old = self._models.get(name)
            target = Target(entry.base_path, entry.model_version_policy, extra.get(name, frozenset()))
            versions = old.versions if old else self._new_versions(name)
            if old is None or not old.is_configured:
                added.append(name)
                versions.forget_outcome()
            versions.target = target
            models[name] = _Model(versions, dict(entry.version_labels))
        for model in models.values():
            if not model.is_configured:
                model.versions.target = None
        self._models = models
        self._config = own_config
        self._must_look = True
        self._changed.notify_all()
        return added

    def _new_versions(self, name: str) -> ModelVersions:
        return ModelVersions(
            name,
            self._load,
            None,
            changed=self._changed,
            options=self._options,
            on_available=functools.partial(self._on_available, name),
        )

    def _load_labelled(self, config: _ServerConfig) -> tuple[_ServerConfig, list[str]]:
        """Loads what the labels of a configuration are to point at, while all goes on as before.

        Returns:
          The configuration in force meanwhile, which is the old one with the new models, and the names of these.

        Raises:
          StatusError: if `config` is refused, or one of these versions is not there or does not load.
        """
        check_new_config(self._config, config)
        check_platforms(config)
        old = self._config
        interim = _ServerConfig()
        interim.model_config_list.SetInParent()
        if old is not None:
            interim.CopyFrom(old)
        entries = {entry.name: entry for entry in interim.model_config_list.config}
        extra = {}
        for new in config.model_config_list.config:
            entry = entries.get(new.name)
            if entry is None:
                entry = interim.model_config_list.config.add()
                entry.CopyFrom(new)
                entry.ClearField("version_labels")
            entry.base_path = new.base_path
            extra[new.name] = frozenset(new.version_labels.values())
        added = self._configure(interim, extra=extra, replaces=old, check_labels=False)
        with self._changed:
            in_force = self._config
            targets = {name: self._models[name].versions.target for name in extra}
        assert in_force is not None
        try:
            for name, versions in extra.items():
                for version in sorted(versions):
                    self._wait_for_version(name, version, targets[name], in_force)
        except StatusError:
            if old is not None:
                self._configure(old, replaces=in_force, check_labels=False)
            raise
        return in_force, added

    def _wait_for_version(self, name: str, version: int, target: Target | None, in_force: _ServerConfig) -> None:
        assert target is not None
        versions = self._models[name].versions
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopped
                    or self._config is not in_force
                    or versions.is_available(version)
                    or versions.cannot_load(version, target)
                ),
                self._waiter_timeout,
            )
            if self._stopped:
                raise _closed()
            if self._config is not in_force:
                raise StatusError(grpc.StatusCode.ABORTED, "Another config was loaded meanwhile.")
            if not versions.is_available(version):
                raise _cannot_label(name, version)

    def _wait_for(self, names: Iterable[str], noun: str, timeout_seconds: float | None) -> None:
        """Waits until the models have outcomes, and raises TensorFlow Serving's error if they are not all good."""
        names = sorted(names)
        with self._changed:
            models = [self._models[name].versions for name in names]

            def removed() -> list[str]:
                return [name for name in names if not self._models[name].is_configured]

            done = self._changed.wait_for(
                lambda: self._stopped or removed() or all(model.outcome for model in models), timeout_seconds
            )
            outcomes = [(name, *model.outcome) for name, model in zip(names, models, strict=True) if model.outcome]
            if done and self._stopped and len(outcomes) < len(names):
                raise _closed()
            if done and removed() and len(outcomes) < len(names):
                raise StatusError(
                    grpc.StatusCode.ABORTED, f"Another config removed {', '.join(removed())} before it was available."
                )
        failed = [outcome for outcome in outcomes if outcome[2].state is not State.AVAILABLE]
        if failed or not done:
            details = "".join(
                f"{{{{name: {name} version: {version}}}{_due_to(status)}}}, " for name, version, status in failed
            )
            raise StatusError(
                grpc.StatusCode.UNKNOWN, f"{len(failed)} {noun}(s) did not become available: {{{details}}}"
            )

    # The managing thread.

    def _manage(self) -> None:
        next_look = time.monotonic()
        while True:
            with self._changed:
                if self._stopped:
                    break
                # Before what was found at the start is dealt with, a folder that keeps changing must not hold it up.
                is_time = self._settled.is_set() and self._poll_seconds > 0 and time.monotonic() >= next_look
                look = self._must_look or is_time
                self._must_look = False
                models = list(self._models.values())
            if look:
                next_look = time.monotonic() + self._poll_seconds
                for model in models:
                    if self._poll_seconds >= 0 or not model.is_configured:
                        self._attempt(model.versions.poll)
            # One step of each model in turn, that none holds up the others for long.
            advanced = [self._attempt(model.versions.advance) for model in models]
            self._attempt(self._loggers.close_returned)
            if not any(advanced):
                self._settled.set()
                self._rest(models, next_look)
        self._settled.set()
        self._unload_everything()

    def _unload_everything(self) -> None:
        for model in self._models.values():
            self._attempt(model.versions.close)
        self._attempt(self._loggers.close)

    def _rest(self, models: list[_Model], next_look: float) -> None:
        """Waits for something to do."""
        times = [due for model in models if (due := model.versions.next_attempt) is not None]
        if self._poll_seconds > 0:
            times.append(next_look)
        timeout = min(max(min(times) - time.monotonic(), 0.001), threading.TIMEOUT_MAX) if times else None
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stopped
                    or self._must_look
                    or any(model.versions.has_returned for model in models)
                    or self._loggers.has_returned
                ),
                timeout,
            )

    def _attempt(self, step: Callable[[], bool | None]) -> bool:
        """Takes a step of one model; whatever goes wrong there must not end the thread, which serves them all."""
        try:
            return bool(step())
        except Exception:
            logging.exception("managing the versions of a model failed; going on")
            return False


def _due_to(status: VersionStatus) -> str:
    return "" if status.error is None else f" due to error: {status.error.code.name}: {status.error.message}"


def _cannot_label(name: str, version: int) -> StatusError:
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"Request to assign label to version {version} of model {name}, which is not currently available for inference",
    )


def _closed() -> StatusError:
    return StatusError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
