"""The clients over encrypted connections: who is trusted, and who is not."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pipeline.serving.client import TlsOptions
from pipeline.serving.errors import ServingError
from tests.serving.certificates import Authority, KeyPair
from tests.serving.every_client import CLIENTS, ask
from tests.serving.misbehaving_servers import GrpcServer, HttpServer
from tests.serving.test_client_faults import GOOD

JSON = {"outputs": {"item_ids": [["a", "b"]], "scores": [[2.0, 1.0]]}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> dict[str, KeyPair]:
    return {name: authority.issue(name) for name in ("server", "client", "no-address.example")}


@contextlib.contextmanager
def running(client: str, pair: KeyPair, clients_authority: Path | None = None) -> Iterator[str]:
    """Yields the address of an encrypted server of the client's kind, which may ask for the client's certificate."""
    if client == "REST":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        if clients_authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients_authority)
        with HttpServer(lambda path, body: (200, JSON), context) as http_server:
            yield http_server.address
        return
    credentials = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.certificate.read_bytes())],
        None if clients_authority is None else clients_authority.read_bytes(),
        clients_authority is not None,
    )
    with GrpcServer(lambda request, context: GOOD, credentials) as grpc_server:
        yield grpc_server.address


def items(client: str, address: str, **tls: Any) -> list[str]:
    options = {"tls": TlsOptions(**tls), "timeout_seconds": 3.0}
    return [entry.item_id for entry in ask(client, address, "recommend", {}, options=options)]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_the_authority_vouches_for_is_trusted(
    client: str, authority: Authority, pairs: dict[str, KeyPair]
):
    with running(client, pairs["server"]) as address:
        assert items(client, address, certificate_authority_file=authority.certificate) == ["a", "b"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_whose_certificate_has_another_name_is_trusted_by_that_name_only(
    client: str, authority: Authority, pairs: dict[str, KeyPair]
):
    trust = {"certificate_authority_file": authority.certificate}
    with running(client, pairs["no-address.example"]) as address:
        assert items(client, address, **trust, server_name="no-address.example") == ["a", "b"]
        for name in (None, "other.example"):
            with pytest.raises(ServingError, match=f"^{address}: UNAVAILABLE: no server answers"):
                items(client, address, **trust, server_name=name)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_nobody_vouches_for_is_not_talked_to(client: str, pairs: dict[str, KeyPair], tmp_path: Path):
    stranger = Authority(tmp_path, "stranger")
    with running(client, pairs["server"]) as address:
        for trust in ({"certificate_authority_file": stranger.certificate}, {}):
            with pytest.raises(ServingError, match=f"^{address}: UNAVAILABLE: no server answers"):
                items(client, address, **trust)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_may_ask_who_calls(client: str, authority: Authority, pairs: dict[str, KeyPair], tmp_path: Path):
    trust = {"certificate_authority_file": authority.certificate}
    identity = {"certificate_file": pairs["client"].certificate, "key_file": pairs["client"].key}
    stranger = Authority(tmp_path, "stranger").issue("stranger-client")
    with running(client, pairs["server"], authority.certificate) as address:
        assert items(client, address, **trust, **identity) == ["a", "b"]
        for wrong in ({}, {"certificate_file": stranger.certificate, "key_file": stranger.key}):
            with pytest.raises(ServingError, match=f"^{address}: UNAVAILABLE"):
                items(client, address, **trust, **wrong)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_without_encryption_says_so_in_its_error(client: str, pairs: dict[str, KeyPair]):
    with running(client, pairs["server"]) as address, pytest.raises(ServingError) as raised:
        ask(client, address, "recommend", {}, options={"timeout_seconds": 2.0})
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_needs_its_key():
    with pytest.raises(ValueError, match="received certificate_file='a' and key_file=None; expected both or neither"):
        TlsOptions(certificate_file="a")


@pytest.mark.parametrize("client", CLIENTS)
def test_files_that_cannot_be_read_are_named_before_anything_is_sent(client: str, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        items(client, "127.0.0.1:1", certificate_authority_file=tmp_path / "none.pem")
