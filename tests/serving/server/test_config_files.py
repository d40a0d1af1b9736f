"""The server's configuration files: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config_files import ConfigError
from pipeline.serving.server.config_files import (
    BatchingParameters,
    MonitoringSettings,
    TlsSettings,
    read_batching_parameters,
    read_model_server_config,
    read_monitoring_config,
    read_tls_config,
    single_model_config,
)

KEY, CERTIFICATE, AUTHORITY = (f"-----BEGIN {kind}-----\nTUFSUVVFRQ==\n" for kind in ("KEY", "CERTIFICATE", "CA"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "file.config"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def quoted(pem: str) -> str:
    return '"' + pem.replace("\n", "\\n") + '"'


def test_a_model_config_file_says_all_that_tensorflow_serving_knows(write: Callable[[str], Path]):
    path = write("""
      model_config_list {
        config {
          name: "recommender" base_path: "/models/recommender" model_platform: "tensorflow"
          model_version_policy { specific { versions: 3 versions: 4 } }
          version_labels { key: "stable" value: 3 }
          version_labels { key: "canary" value: 4 }
          logging_config {
            log_collector_config { type: "tfrecord" filename_prefix: "/logs/requests" }
            sampling_config { sampling_rate: 0.5 }
          }
        }
        config { name: "other" base_path: "gs://models/other" model_platform: "tensorflow" }
      }
    """)
    recommender, other = read_model_server_config(path).model_config_list.config
    assert list(recommender.model_version_policy.specific.versions) == [3, 4]
    assert dict(recommender.version_labels) == {"stable": 3, "canary": 4}
    assert recommender.logging_config.sampling_config.sampling_rate == 0.5
    assert (other.name, other.base_path) == ("other", "gs://models/other")


def test_an_empty_model_config_file_configures_nothing(write: Callable[[str], Path]):
    assert read_model_server_config(write("")).WhichOneof("config") is None


def test_a_single_model_is_configured_as_a_list_of_one():
    assert single_model_config("m", "/models/m").WhichOneof("config") == "model_config_list"
    (config,) = single_model_config("m", "/models/m").model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("m", "/models/m", "tensorflow")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model_config_list {\n  config { nam: 'm' }\n}", r"line 2, column 12: not a ModelServerConfig.*named \"nam\""),
        ("model_config_list { config { name: 3 } }", "line 1, column 36: not a ModelServerConfig.*Expected string"),
        ("model_config_list { config { name: 'm'", "line 1.*not a ModelServerConfig"),
        ("custom_model_config {}", "custom_model_config is not supported; expected model_config_list"),
    ],
)
def test_errors_tell_file_line_column_and_field(write: Callable[[str], Path], text: str, complaint: str):
    path = write(text)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_model_server_config(path)
    assert str(raised.value).startswith(str(path))


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"missing cannot be read: No such file"):
        read_model_server_config(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"no-such-scheme://models cannot be read: .*no-such-scheme"):
        read_model_server_config("no-such-scheme://models")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary is not a text file: invalid start byte at byte 0"):
        read_model_server_config(binary)


def test_remote_files_are_read_too(write: Callable[[str], Path]):
    path = write('model_config_list { config { name: "m" } }')
    assert read_model_server_config(f"file://{path}").model_config_list.config[0].name == "m"


def test_batching_parameters_default_to_those_of_tensorflow_serving(write: Callable[[str], Path]):
    parameters = read_batching_parameters(write(""))
    assert parameters == BatchingParameters(
        max_batch_size=1000,
        batch_timeout_micros=0,
        max_enqueued_batches=10,
        num_batch_threads=os.cpu_count() or 1,
        allowed_batch_sizes=(),
        pad_variable_length_inputs=False,
        enable_large_batch_splitting=False,
        max_execution_batch_size=None,
        thread_pool_name="batch_threads",
    )
    assert parameters.rows_per_batch == 1000


def test_every_batching_parameter_is_read(write: Callable[[str], Path]):
    parameters = read_batching_parameters(
        write("""
          max_batch_size { value: 64 } batch_timeout_micros { value: 1500 } max_enqueued_batches { value: 7 }
          num_batch_threads { value: 3 } thread_pool_name { value: "batches" } allowed_batch_sizes: 8
          allowed_batch_sizes: 16 pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
          max_execution_batch_size { value: 16 }
        """)
    )
    assert parameters == BatchingParameters(64, 1500, 7, 3, (8, 16), True, True, 16, "batches")
    assert parameters.rows_per_batch == 16


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; received 0"),
        ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be positive; received 0"),
        ("num_batch_threads { value: -1 }", "num_batch_threads must be positive; received -1"),
        ("batch_timeout_micros { value: -5 }", "batch_timeout_micros must not be negative; received -5"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [4, 4, 8]", r"ascending; received \[4, 4, 8\]"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [0, 8]", r"positive and ascending; received \[0, 8\]"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "must equal max_batch_size, which is 8; received 4",
        ),
        ("allowed_batch_sizes: 4", "must equal max_batch_size, which is 1000; received 4"),
        (
            "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 9 }",
            "max_execution_batch_size must be at most max_batch_size, which is 8; received 9",
        ),
        ("max_batch_size: 8", "line 1, column 17: not a BatchingParameters in text format"),
        ("batch_size { value: 8 }", 'has no field named "batch_size"'),
    ],
)
def test_batching_parameters_that_tensorflow_serving_refuses_are_refused(
    write: Callable[[str], Path], text: str, complaint: str
):
    path = write(text)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_batching_parameters(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", MonitoringSettings(False, "/monitoring/prometheus/metrics")),
        ("prometheus_config { enable: true }", MonitoringSettings(True, "/monitoring/prometheus/metrics")),
        ('prometheus_config { enable: true path: "/metrics" }', MonitoringSettings(True, "/metrics")),
    ],
)
def test_monitoring_is_off_unless_enabled(write: Callable[[str], Path], text: str, settings: MonitoringSettings):
    assert read_monitoring_config(write(text)) == settings


def test_a_metrics_path_must_be_one(write: Callable[[str], Path]):
    with pytest.raises(ConfigError, match="must begin with a slash; received 'metrics'"):
        read_monitoring_config(write('prometheus_config { enable: true path: "metrics" }'))


def test_keys_and_certificates_are_in_the_file_itself(write: Callable[[str], Path]):
    text = f"server_key: {quoted(KEY)} server_cert: {quoted(CERTIFICATE)}"
    assert read_tls_config(write(text)) == TlsSettings(KEY.encode(), CERTIFICATE.encode())
    text += f" custom_ca: {quoted(AUTHORITY)} client_verify: true"
    settings = read_tls_config(write(text))
    assert settings == TlsSettings(KEY.encode(), CERTIFICATE.encode(), AUTHORITY.encode(), True)
    assert "TUFSUVVFRQ==" not in repr(settings).replace(repr(CERTIFICATE.encode()), "").replace(
        repr(AUTHORITY.encode()), ""
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (f"server_cert: {quoted(CERTIFICATE)}", "server_key must hold a PEM block.*received nothing"),
        (f"server_key: {quoted(KEY)}", "server_cert must hold a PEM block.*received nothing"),
        (f"server_key: 'TUFSUVVFRQ==' server_cert: {quoted(CERTIFICATE)}", "received 12 characters without one"),
        (f"server_key: {KEY.splitlines()[1]}", "line 1, column 13: not a SSLConfig in text format$"),
        (
            f"server_key: {quoted(KEY)} server_cert: {quoted(CERTIFICATE)} client_verify: true",
            "client_verify needs custom_ca",
        ),
    ],
)
def test_no_error_shows_a_key(write: Callable[[str], Path], text: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_tls_config(write(text))
    assert "TUFSUVVFRQ" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_with_splitting_the_last_allowed_size_is_that_of_a_run():
    def splitting(*sizes: int) -> BatchingParameters:
        return BatchingParameters(
            max_batch_size=128,
            max_execution_batch_size=32,
            enable_large_batch_splitting=True,
            allowed_batch_sizes=sizes,
        )

    assert splitting(8, 32).rows_per_batch == 32
    with pytest.raises(ValueError, match="must equal max_execution_batch_size, which is 32; received 128"):
        splitting(8, 128)
