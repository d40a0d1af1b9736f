"""Errors on either side of the wire: what a server answers with, and what a client raises."""

from __future__ import annotations

import grpc

MESSAGE_LIMIT = 1024
"""Bytes of an error message that TensorFlow Serving sends before it cuts it off."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class StatusError(Exception):
    """An error that a server answers with.

    Attributes:
      code: gRPC status code.
      message: text, as TensorFlow Serving words it.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def details(self) -> str:
        """The message as it goes over the wire."""
        encoded = self.message.encode("utf-8")
        if len(encoded) <= MESSAGE_LIMIT:
            return self.message
        return encoded[:MESSAGE_LIMIT].decode("utf-8", "ignore") + "...TRUNCATED"


def invalid_argument(message: str) -> StatusError:
    """Returns an INVALID_ARGUMENT error."""
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def status_code(number: int) -> grpc.StatusCode:
    """Returns the gRPC code of a TensorFlow error code; the two number the same errors alike."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


class RequestError(ValueError):
    """A request that cannot be sent. The message names the field, the value received and what was expected."""


class ServingError(RuntimeError):
    """A request that a server did not answer, or answered with an error.

    Attributes:
      code: gRPC status code, e.g. `grpc.StatusCode.NOT_FOUND`.
      message: the server's text, or what is known about its silence.
      address: the server, as `host:port`.
    """

    def __init__(self, code: grpc.StatusCode, message: str, address: str):
        super().__init__(f"{address}: {code.name}: {message}")
        self.code = code
        self.message = message
        self.address = address
