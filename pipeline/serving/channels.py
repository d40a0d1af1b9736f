"""How a gRPC connection to a model server is made, kept and explained when it fails."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from pipeline.serving.deadlines import Deadline
from pipeline.serving.errors import ServingError

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # A model server is a neighbour, never behind the proxy to the outside.
    ("grpc.initial_reconnect_backoff_ms", 100),  # Who waits for a server to start wants to know soon.
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # A connection of its own: what happens to another client's is not ours.
    # A dead peer is noticed even if it never closes the connection. TensorFlow Serving keeps gRPC's default of
    # cutting off who pings more often than every five minutes, so this waits longer, and never pings when idle.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_NO_CONNECTION = ("failed to connect", "errors resolving", "DNS resolution failed")


@dataclasses.dataclass(frozen=True)
class TlsOptions:
    """An encrypted connection.

    Attributes:
      certificate_authority_file: PEM certificates of the authorities that may vouch for the server; None for those that
        this machine trusts.
      certificate_file: PEM certificate of this client, for servers that ask for one; goes with `key_file`.
      key_file: its PEM private key.
      server_name: name in the server's certificate, if it is not the address's host.

    Raises:
      ValueError: if one of certificate and key is given without the other.
    """

    certificate_authority_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError(
                f"received certificate_file={self.certificate_file!r} and key_file={self.key_file!r}; "
                "expected both or neither"
            )

    def grpc_credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
          OSError: if one cannot be read, or is no certificate or key.
        """
        self.ssl_context()  # gRPC itself does not say what is wrong with a file.
        authorities, key, certificate = (
            None if path is None else Path(path).read_bytes()
            for path in (self.certificate_authority_file, self.key_file, self.certificate_file)
        )
        return grpc.ssl_channel_credentials(authorities, key, certificate)

    def ssl_context(self) -> ssl.SSLContext:
        """Reads the files, for REST.

        Raises:
          OSError: if one cannot be read, or is no certificate or key.
        """
        for path in (self.certificate_authority_file, self.certificate_file, self.key_file):
            if path is not None:
                Path(path).read_bytes()  # Unlike the errors of `ssl`, this one names the file.
        authorities = self.certificate_authority_file
        try:
            context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
        except ssl.SSLError as error:
            raise OSError(f"{authorities} holds no PEM certificate ({error.reason or error})") from error
        if self.certificate_file is not None and self.key_file is not None:
            try:
                context.load_cert_chain(str(self.certificate_file), str(self.key_file))
            except ssl.SSLError as error:
                raise OSError(
                    f"{self.certificate_file} and {self.key_file} are no PEM certificate and its key "
                    f"({error.reason or error})"
                ) from error
        return context


def open_channel(module: Any, address: str, tls: TlsOptions | None) -> Any:
    """Opens a channel; nothing is sent before the first request.

    Args:
      module: `grpc` for a blocking channel, `grpc.aio` for an asynchronous one.
      address: the server, as `host:port`.
      tls: how to encrypt; None not to.

    Raises:
      OSError: if a file of `tls` cannot be read.
    """
    if tls is None:
        return module.insecure_channel(address, options=_OPTIONS)
    options: list[tuple[str, Any]] = [*_OPTIONS]
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return module.secure_channel(address, tls.grpc_credentials(), options=options)


def check_metadata(metadata: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Returns request metadata as gRPC takes it.

    Raises:
      ValueError: naming a key that is not in lower case, or a value that is no printable ASCII.
    """
    pairs = tuple((metadata or {}).items())
    for key, value in pairs:
        if not key or key != key.lower() or not key.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"metadata: received the key {key!r}; expected lower-case letters, digits and -_.")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"metadata[{key!r}]: expected printable ASCII")  # Not the value: it may be a secret.
    return pairs


def explain(code: grpc.StatusCode, details: str, address: str, deadline: Deadline) -> ServingError:
    """Returns the error of a call that failed.

    Args:
      code: its status.
      details: what gRPC or the server say.
      address: the server, as `host:port`.
      deadline: the deadline of the call.
    """
    message = details
    if code is grpc.StatusCode.UNAVAILABLE and details.startswith(_NO_CONNECTION):
        message = f"no server answers at this address; is it running? Tried for {deadline.elapsed:.1f} s ({details})"
    elif code is grpc.StatusCode.UNAVAILABLE:
        message = f"{details} (tried for {deadline.elapsed:.1f} s)"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and details in ("", "Deadline Exceeded"):
        message = f"no answer within {deadline.seconds:g} s"
    return ServingError(code, message, address)
