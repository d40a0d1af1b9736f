"""The serving folder of a workspace: pushed versions, the servers' configuration, the record, and its lock."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from pipeline.serving import messages as _messages  # noqa: F401 (loads the protocol modules without the runtime)
from pipeline.serving.release.errors import ReleaseError

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig

MODEL_FILE = "saved_model.pb"
SERVING_TAG = "serve"
"""Tag of the graph that model servers load."""


@dataclasses.dataclass(frozen=True)
class ServingFolder:
    """The serving folder of a workspace.

    Attributes:
      path: `<workspace>/serving`.
      model_name: the model's name on servers, and its folder's.
    """

    path: Path
    model_name: str

    @classmethod
    def of(cls, settings: PipelineConfig) -> ServingFolder:
        """Returns that of a configuration's workspace."""
        return cls(Path(settings.serving_directory).parent, settings.serving.model_name)

    @property
    def versions(self) -> Path:
        """Folder of the numbered version folders."""
        return self.path / self.model_name

    @property
    def config(self) -> Path:
        """The servers' `model_config_file`."""
        return self.path / "models.config"

    @property
    def record(self) -> Path:
        """The record of moves, one JSON object a line."""
        return self.path / "releases.jsonl"

    def pushed_versions(self) -> list[int]:
        """Returns the versions whose folder holds a model, the latest first."""
        names = [path.parent.name for path in self.versions.glob(f"*/{MODEL_FILE}")]
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def require_model(self, version: int) -> None:
        """Makes sure that a version's folder holds a SavedModel that a server can load.

        Raises:
          ReleaseError: naming the folder, and what is wrong with it.
        """
        # Unlike an import statement, this does not run the whole of `import tensorflow`; see `messages`.
        saved_model_pb2 = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
        folder = self.versions / str(version)
        pushed = ", ".join(map(str, self.pushed_versions())) or "none"
        if not folder.is_dir():
            raise ReleaseError(f"there is no folder {folder}; pushed versions: {pushed}")
        try:
            model = saved_model_pb2.SavedModel.FromString((folder / MODEL_FILE).read_bytes())
        except FileNotFoundError as error:
            raise ReleaseError(f"{folder} holds no {MODEL_FILE}; pushed versions: {pushed}") from error
        except DecodeError as error:
            raise ReleaseError(f"{folder / MODEL_FILE} is no SavedModel: {error}") from error
        tags = [sorted(graph.meta_info_def.tags) for graph in model.meta_graphs]
        if [SERVING_TAG] not in tags:
            raise ReleaseError(f"{folder / MODEL_FILE}: expected a graph tagged {[SERVING_TAG]}; received {tags}")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the lock on releases, which the system lets go when the process ends, however it ends.

        Raises:
          ReleaseError: if another release holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".release.lock", "a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ReleaseError(f"another release is under way in {self.path}; wait for it") from error
            yield
