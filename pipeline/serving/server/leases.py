"""Things that requests borrow, and that are closed when the last request has given them back."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from pipeline.serving.server.request_log import RequestLogger
    from pipeline.serving.server.servable import Servable


class _Closable(Protocol):
    def close(self) -> None: ...


_Thing = TypeVar("_Thing", bound=_Closable)


class Lent(Generic[_Thing]):
    """A thing with the number of its users. Whoever changes the attributes holds the lock of the things' owner.

    Attributes:
      thing: what is lent.
      users: requests that have it.
      retired: whether nobody gets it any more, so that it is closed once `users` is zero.
    """

    __slots__ = ("retired", "thing", "users")

    def __init__(self, thing: _Thing):
        """Lends it to nobody yet."""
        self.thing = thing
        self.users = 0
        self.retired = False

    @property
    def is_returned(self) -> bool:
        """Whether it is time to close the thing."""
        return self.retired and not self.users


class Lease:
    """A version of a model for the duration of a `with` block; it stays loaded meanwhile.

    Attributes:
      name: the model's name.
      version: number.
      servable: the loaded version.
      request_logger: takes logs of the model's requests; None if it has no `logging_config`.
    """

    __slots__ = ("_changed", "_logger", "_servable", "name", "request_logger", "servable", "version")

    def __init__(
        self,
        name: str,
        version: int,
        servable: Lent[Servable],
        logger: Lent[RequestLogger] | None,
        changed: threading.Condition,
    ):
        """Counts the lease; `__exit__` takes it back.

        Args:
          name: the model's name.
          version: number.
          servable: the loaded version.
          logger: of the model's requests, if any.
          changed: the owner's lock, which the caller holds; is notified when something retired has been given back.
        """
        self.name = name
        self.version = version
        self.servable = servable.thing
        self.request_logger = None if logger is None else logger.thing
        self._servable = servable
        self._logger = logger
        self._changed = changed
        servable.users += 1
        if logger is not None:
            logger.users += 1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        servable, logger = self._servable, self._logger
        with self._changed:
            servable.users -= 1
            returned = servable.is_returned
            if logger is not None:
                logger.users -= 1
                returned = returned or logger.is_returned
            if returned:
                self._changed.notify_all()
