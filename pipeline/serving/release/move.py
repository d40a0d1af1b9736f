"""Moves labels: on a live server in phases that no request notices, in its file, and in the record.

A server refuses a label on a version that it has not loaded. So the new version is loaded beside the old ones first;
once it is available the labels move; then what no label needs is dropped. Each step is written to the file before the
server is told, so that a server which starts from the file, or polls it, comes to the same state. Wherever a move is
cut off, the labels in the file name versions that the server has loaded, or they are as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from pipeline.atomic_files import write_text_atomically
from pipeline.serving.errors import ServingError
from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.folder import ServingFolder
from pipeline.serving.release.live_server import LiveServer, NotLoadedError
from pipeline.serving.release.model_config_file import (
    labels_of,
    plain_config,
    read_config,
    with_labels,
    with_versions,
    write_config,
)
from pipeline.serving.release.record import STABLE
from pipeline.serving.results import VersionState

_UNDO_SECONDS = 30.0
Tell = Callable[[str], None]
"""Is told of each step, in words."""


def move_labels(
    folder: ServingFolder,
    moves: Mapping[str, int],
    server: LiveServer | None,
    *,
    timeout_seconds: float = 120.0,
    tell: Tell = lambda step: None,
) -> list[str]:
    """Moves labels to versions. The caller holds the lock on releases.

    Other labels stay where they are; one whose version can no longer be served is dropped, and told of. `stable` is
    dropped only if its version's folder is gone.

    Args:
      folder: the serving folder.
      moves: versions by label.
      server: the server that serves from the folder; None if none runs: then only the file is written.
      timeout_seconds: time for loading the versions.
      tell: is told of each step.

    Returns:
      The labels that were dropped.

    Raises:
      ReleaseError: if a version cannot be served; then everything is as before, unless the message says otherwise.
    """
    for version in sorted(set(moves.values())):
        folder.require_model(version)
    old = read_config(folder.config)
    if server is not None:
        return _LiveMove(folder, server, old, dict(moves), timeout_seconds, tell).run()
    labels = dict(moves)
    dropped = []
    for label, version in labels_of(old, folder.model_name).items():
        if version in folder.pushed_versions():
            labels.setdefault(label, version)
        elif label not in moves:
            tell(f"label {label!r} is dropped: version {version} is gone from {folder.versions}")
            dropped.append(label)
    tell(f"writing {folder.config}")
    write_config(folder.config, with_versions(old, folder.model_name, folder.versions, labels.values(), labels))
    return dropped


@dataclasses.dataclass
class _LiveMove:
    folder: ServingFolder
    server: LiveServer
    old: model_server_config_pb2.ModelServerConfig
    moves: dict[str, int]
    timeout_seconds: float
    tell: Tell

    def run(self) -> list[str]:
        """Goes through the phases; takes everything back if one of them fails. Returns the labels that were dropped."""
        try:
            before = self.server.statuses()
        except ServingError as error:
            raise ReleaseError(f"{error}. Nothing has changed") from error
        old_text = self.folder.config.read_text(encoding="utf-8") if self.folder.config.exists() else None
        old_labels = labels_of(self.old, self.folder.model_name)
        loaded = {version for version, status in before.items() if status.state == "AVAILABLE"}
        answering = {label: version for label, version in old_labels.items() if version in loaded}
        every_version = loaded | set(old_labels.values()) | set(self.moves.values())
        listed = ", ".join(map(str, sorted(set(self.moves.values()))))
        if old_text is None:
            self.tell(
                f"there is no {self.folder.config} yet: the server's whole configuration is replaced, whatever it was "
                f"started with; it serves {self.folder.model_name} only, from {self.folder.versions}"
            )
        try:
            self.tell(f"loading version {listed} beside what is served")
            if old_text is not None:  # Without a file nobody polls it, and nobody starts from it.
                write_config(self.folder.config, self._config(every_version, old_labels))
            self.server.reload(self._config(every_version, answering), self.timeout_seconds)
            for version in sorted(set(self.moves.values())):
                self.server.wait_until_available(version, self.timeout_seconds, before)
            labels = self._other_labels(old_labels, before) | self.moves
            self.tell(f"version {listed} is available; moving {', '.join(map(repr, self.moves))}")
            self._tell_server(self._config(every_version, labels))
            self.tell("asking the server which version answers")
            for label, version in self.moves.items():
                if (received := self.server.resolve(label)) != version:
                    raise NotLoadedError(f"the server answers for {label!r} with version {received}")
        except (ServingError, NotLoadedError, OSError, KeyboardInterrupt) as error:
            reason = str(error) or "interrupted"
            undone = self._undo(old_text, old_labels, answering)
            raise ReleaseError(f"version {listed}: {reason}. {undone}") from error
        self.tell("dropping what no label needs")
        try:
            self._tell_server(self._config(labels.values(), labels))
        except (ServingError, OSError, KeyboardInterrupt) as error:
            # The labels have moved; what is left loaded costs memory, and goes with the next release.
            self.tell(f"not dropped: {error}")
        return sorted(old_labels.keys() - labels.keys())

    def _config(self, versions: Iterable[int], labels: Mapping[str, int]) -> model_server_config_pb2.ModelServerConfig:
        return with_versions(self.old, self.folder.model_name, self.folder.versions, versions, labels)

    def _tell_server(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        write_config(self.folder.config, config)
        self.server.reload(config, self.timeout_seconds)

    def _other_labels(self, old_labels: Mapping[str, int], before: Mapping[int, VersionState]) -> dict[str, int]:
        """Returns the labels that stay where they are: those whose versions the server can serve.

        Raises:
          NotLoadedError: if `stable` could not stay though its version's folder is there.
          ServingError: if the server does not answer.
        """
        kept = {}
        for label, version in old_labels.items():
            if label in self.moves:
                continue
            try:
                if version not in self.folder.pushed_versions() and version not in self.server.statuses():
                    raise NotLoadedError(f"it is gone from {self.folder.versions}")
                self.server.wait_until_available(version, self.timeout_seconds, before)
            except NotLoadedError as error:
                if label == STABLE and version in self.folder.pushed_versions():
                    raise NotLoadedError(
                        f"the label {label!r} would be lost: its version {version}: {error}"
                    ) from error
                self.tell(f"label {label!r} is dropped: version {version}: {error}")
            else:
                kept[label] = version
        return kept

    def _undo(self, old_text: str | None, old_labels: Mapping[str, int], answering: Mapping[str, int]) -> str:
        """Puts the file and the server back; returns how that went, as a sentence.

        Args:
          old_text: the file as it was; None if there was none.
          old_labels: its labels.
          answering: those that the server answered for.
        """
        folder = self.folder
        self.tell("putting everything back")
        try:
            if old_text is None:
                folder.config.unlink(missing_ok=True)
            else:
                write_text_atomically(folder.config, old_text)
        except OSError as error:
            return f"{folder.config} could not be put back: {error}"
        try:
            if old_text is None:
                self.server.reload(plain_config(folder.model_name, folder.versions), _UNDO_SECONDS)
                return (
                    f"There is no {folder.config}, as before; the server serves the latest version of "
                    f"{folder.model_name} only"
                )
            try:
                self.server.reload(self.old, _UNDO_SECONDS)
            except ServingError:
                if answering == old_labels:
                    raise
                # It may refuse labels on versions that it has not loaded; it did not answer for those before either.
                self.server.reload(with_labels(self.old, folder.model_name, answering), _UNDO_SECONDS)
                lost = ", ".join(map(repr, sorted(old_labels.keys() - answering.keys())))
                return f"{folder.config} is as before, but the server no longer knows {lost}, whose versions it lacks"
        except ServingError as error:
            return f"{folder.config} is as before, but the server could not be put back: {error}"
        return "Nothing has changed"
