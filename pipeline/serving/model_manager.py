"""`ModelManager`: the models of a server, looked up by the specification that requests carry."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping

import grpc
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import model_pb2
from pipeline.serving.model_versions import ModelVersions, VersionStatus, servable_not_found
from pipeline.serving.servable import Servable


class ModelManager:
    """Watches the base paths of models in a thread of its own and lends their versions to requests."""

    def __init__(
        self,
        base_paths: Mapping[str, str],
        poll_seconds: float = 1.0,
        on_available: Callable[[str, int], None] = lambda name, version: None,
    ):
        """Starts nothing yet; `start` does.

        Args:
          base_paths: model name to folder of its numbered version folders.
          poll_seconds: time between two looks at the base paths.
          on_available: is called with the name and version of each version that begins to serve.
        """
        self._models = {
            name: ModelVersions(name, base_path, functools.partial(on_available, name))
            for name, base_path in base_paths.items()
        }
        self._poll_seconds = poll_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-manager", daemon=True)

    def start(self) -> None:
        """Begins to load and to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stops watching and unloads everything, once the requests under way are answered."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextlib.contextmanager
    def acquire(self, spec: model_pb2.ModelSpec) -> Iterator[tuple[int, Servable]]:
        """Lends the version that a request asks for, which stays loaded meanwhile.

        Yields:
          The version and its servable.

        Raises:
          StatusError: with TensorFlow Serving's code and text, if the specification is incomplete or nothing
            available matches it.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        version = spec.version.value if choice == "version" else None
        model = self._models.get(spec.name)
        if model is None:
            raise servable_not_found(spec.name, version)
        with model.acquire(version) as lent:
            yield lent

    def statuses(self, spec: model_pb2.ModelSpec) -> Mapping[int, VersionStatus]:
        """Returns the status of the versions that match, latest version first.

        Raises:
          StatusError: NOT_FOUND, if none does.
        """
        model = self._models.get(spec.name)
        statuses = model.statuses if model else {}
        if spec.HasField("version"):
            version = spec.version.value
            if version not in statuses:
                raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {spec.name}")
            return {version: statuses[version]}
        if not statuses:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return statuses

    def _watch(self) -> None:
        while True:
            for model in self._models.values():
                try:
                    model.poll()
                except Exception:
                    logging.exception("looking for new versions failed; trying again in %g s", self._poll_seconds)
            if self._stopped.wait(self._poll_seconds):
                break
        for model in self._models.values():
            model.close()
