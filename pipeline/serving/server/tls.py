"""Credentials for encrypted gRPC connections."""

from __future__ import annotations

import os
import ssl
import tempfile

import grpc

from pipeline.config_files import ConfigError
from pipeline.serving.server.config_files import TlsSettings


def check_certificate(settings: TlsSettings, path: str) -> None:
    """Makes sure that key and certificates can be used. gRPC itself finds out when the first client comes.

    Args:
      settings: what is used.
      path: the file that it comes from, for the message.

    Raises:
      ConfigError: if they cannot.
    """
    # The standard library only reads keys from files. Nobody else may read this one, and it is gone at once.
    file, name = tempfile.mkstemp(prefix="certificate-")
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(settings.server_cert.rstrip() + b"\n" + settings.server_key)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(name, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None)
            if reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(f"{path}: server_key does not belong to server_cert") from None
            raise ConfigError(f"{path}: server_key and server_cert cannot be used: {reason or error}") from None
    finally:
        os.unlink(name)
    if settings.custom_ca is not None:
        try:
            # Comments, which need not be ASCII, stand between the certificates.
            text = settings.custom_ca.decode("ascii", "ignore")
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"{path}: custom_ca cannot be used: {getattr(error, 'reason', None) or error}") from None


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Returns what a gRPC server needs to encrypt, and to ask clients for certificates if the settings say so."""
    return grpc.ssl_server_credentials(
        [(settings.server_key, settings.server_cert)],
        root_certificates=settings.custom_ca,
        require_client_auth=settings.client_verify,
    )
