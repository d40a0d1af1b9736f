"""What is known of a model's versions, and what is wanted of them."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

from pipeline.serving.errors import StatusError
from pipeline.serving.server.leases import Lent
from pipeline.serving.server.version_folders import Fingerprint, Policy

if TYPE_CHECKING:
    from pipeline.serving.server.servable import Servable

_NO_FINGERPRINT: Fingerprint = frozenset()


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


@dataclasses.dataclass(frozen=True)
class LoadOptions:
    """How a model's versions are loaded; the defaults are TensorFlow Serving's.

    Attributes:
      max_num_load_retries: attempts after the first.
      load_retry_interval_seconds: between two attempts; a change of the files cuts it short.
      servable_versions_always_present: whether the last versions go on serving when all folders are gone.
    """

    max_num_load_retries: int = 5
    load_retry_interval_seconds: float = 60.0
    servable_versions_always_present: bool = False


@dataclasses.dataclass(frozen=True)
class Target:
    """What of a model is to be served.

    Attributes:
      base_path: folder of the numbered version folders.
      policy: which of them.
      extra: versions besides.
    """

    base_path: str
    policy: Policy
    extra: frozenset[int] = frozenset()


@dataclasses.dataclass
class Version:
    """A version that was at least once to be served.

    Attributes:
      path: folder.
      state: where it is in its life.
      aspired: whether it is to be served now.
      servable: when loaded.
      error: why the last attempt to load it failed.
      attempts: to load it, since its files last changed.
      due: when it is to be loaded, by `time.monotonic`; matters in the states START and LOADING.
      fingerprint: of the files, before the last attempt.
    """

    path: str
    state: State = State.START
    aspired: bool = True
    servable: Lent[Servable] | None = None
    error: StatusError | None = None
    attempts: int = 0
    due: float = 0.0
    fingerprint: Fingerprint = _NO_FINGERPRINT

    @property
    def status(self) -> VersionStatus:
        """What is told of it: as in TensorFlow Serving, no error as long as another attempt is to come."""
        return VersionStatus(self.state, self.error if self.state is State.END else None)

    @property
    def is_waiting(self) -> bool:
        """Whether it is to be loaded, now or later."""
        return self.state in (State.START, State.LOADING)

    @property
    def is_settled(self) -> bool:
        """Whether it serves or has failed for good."""
        return self.state is State.AVAILABLE or self.status.error is not None

    @property
    def is_returned(self) -> bool:
        """Whether it waits to be unloaded and no request has it any more."""
        return self.state is State.UNLOADING and self.servable is not None and self.servable.is_returned
