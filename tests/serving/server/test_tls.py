"""Encrypted connections: the server proves who it is, and asks its clients to if it is told so."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.config_files import ConfigError
from pipeline.serving.server.options import ServerOptions
from pipeline.serving.server.server import ModelServer
from tests.serving.saved_models import export_half_plus_two, publish
from tests.serving.server.servers import PLAIN_CHANNEL, Stubs, connected, request, running_server


class Authority:
    """An authority that signs certificates for an hour."""

    def __init__(self, name: str):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extension = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self._name, self._key, extension, critical=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Returns key and certificate for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return text, self._sign(subject, key, address, critical=False)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, critical: bool
    ) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(extension, critical)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def write_config(path: Path, key: bytes, certificate: bytes, authority: bytes | None = None) -> Path:
    fields = [("server_key", key), ("server_cert", certificate)]
    if authority is not None:
        fields.append(("custom_ca", authority))
    lines = [f'{name}: "{value.decode()}"'.replace("\n", "\\n") for name, value in fields]
    path.write_text("\n".join([*lines, f"client_verify: {str(authority is not None).lower()}"]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    publish(export_half_plus_two(folder / "model"), folder / "half", 1)
    return folder / "half"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("test")


def serving(model: Path, config: Path):
    return running_server(model_base_path=str(model), model_name="half", ssl_config_file=str(config))


def ask(address: str, credentials: grpc.ChannelCredentials) -> Sequence[float]:
    with grpc.secure_channel(address, credentials, PLAIN_CHANNEL) as channel:
        response = Stubs(channel).prediction.Predict(request("half", x=[[2.0]]), timeout=10)
        return response.outputs["y"].float_val


def test_clients_that_trust_the_authority_are_served(model: Path, authority: Authority, tmp_path: Path):
    config = write_config(tmp_path / "ssl", *authority.issue("server"))
    with serving(model, config) as server:
        assert list(ask(server.address, grpc.ssl_channel_credentials(authority.certificate))) == [3.0]

        stranger = grpc.ssl_channel_credentials(Authority("stranger").certificate)
        with pytest.raises(grpc.RpcError) as distrusted:
            ask(server.address, stranger)
        assert distrusted.value.code() is grpc.StatusCode.UNAVAILABLE

        with connected(server.address) as stubs, pytest.raises(grpc.RpcError) as plain:
            stubs.prediction.Predict(request("half", x=[[2.0]]), timeout=10)
        assert plain.value.code() is grpc.StatusCode.UNAVAILABLE


def test_clients_may_have_to_prove_who_they_are(model: Path, authority: Authority, tmp_path: Path):
    config = write_config(tmp_path / "ssl", *authority.issue("server"), authority.certificate)
    with serving(model, config) as server:
        known = grpc.ssl_channel_credentials(authority.certificate, *authority.issue("client"))
        assert list(ask(server.address, known)) == [3.0]
        for proof in ((), Authority("stranger").issue("client")):
            with pytest.raises(grpc.RpcError) as refused:
                ask(server.address, grpc.ssl_channel_credentials(authority.certificate, *proof))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_key_of_another_certificate_is_refused_at_the_start(model: Path, authority: Authority, tmp_path: Path):
    key, _ = authority.issue("one")
    _, certificate = authority.issue("other")
    config = write_config(tmp_path / "ssl", key, certificate)
    with pytest.raises(ConfigError, match="server_key does not belong to server_cert"):
        ModelServer(ServerOptions(port=0, model_base_path=str(model), ssl_config_file=str(config)))
