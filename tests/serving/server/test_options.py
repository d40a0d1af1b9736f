"""The server's command line: TensorFlow Serving's flags, and one sentence for what does not go together."""

from __future__ import annotations

import pytest

from pipeline.config_files import ConfigError
from pipeline.serving.server.options import ServerOptions, parse_command_line

MODEL = "--model_base_path=/models/films"


def test_flags_are_those_of_tensorflow_serving():
    options = parse_command_line(
        [
            MODEL,
            "--model_name=films",
            "--port=9000",
            "--rest_api_port=9001",
            "--enable_batching",
            "--enable_model_warmup=false",
            "--allow_version_labels_for_unavailable_models=true",
            "--file_system_poll_wait_seconds=2.5",
            "--max_num_load_retries=0",
        ]
    )
    assert options == ServerOptions(
        model_base_path="/models/films",
        model_name="films",
        port=9000,
        rest_api_port=9001,
        enable_batching=True,
        enable_model_warmup=False,
        allow_version_labels_for_unavailable_models=True,
        file_system_poll_wait_seconds=2.5,
        max_num_load_retries=0,
    )


def test_defaults_are_those_of_tensorflow_serving():
    options = parse_command_line([MODEL])
    assert (options.port, options.rest_api_port, options.model_name) == (8500, None, "default")
    assert (options.enable_batching, options.enable_model_warmup, options.enable_grpc_healthcheck_service) == (
        False,
        True,
        False,
    )
    assert (options.max_num_load_retries, options.load_retry_interval_micros) == (5, 60_000_000)
    assert (options.rest_api_timeout_in_ms, options.max_message_bytes) == (30_000, 2**31 - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a server needs --model_base_path or --model_config_file"),
        ([MODEL, "--batching_parameters_file=f"], "--batching_parameters_file needs --enable_batching"),
        (
            [MODEL, "--model_config_file_poll_wait_seconds=1"],
            "--model_config_file_poll_wait_seconds needs --model_config_file",
        ),
        (
            [MODEL, "--monitoring_config_file=f"],
            "--monitoring_config_file needs --rest_api_port, where the metrics are shown",
        ),
        ([MODEL, "--metrics_path=/m"], "--metrics_path needs --rest_api_port, where the metrics are shown"),
        ([MODEL, "--metrics_path=m", "--rest_api_port=0"], "--metrics_path must begin with a slash; received 'm'"),
        (
            [MODEL, "--metrics_path=/m", "--monitoring_config_file=f", "--rest_api_port=0"],
            "--metrics_path and --monitoring_config_file exclude each other",
        ),
        ([MODEL, "--rest_api_port=8500"], "--rest_api_port must differ from --port; both are 8500"),
        ([MODEL, "--port=70000"], "--port must be between 0 and 65535; received 70000"),
        ([MODEL, "--grace_seconds=-1"], "--grace_seconds must not be negative; received -1.0"),
        ([MODEL, "--max_message_bytes=0"], "--max_message_bytes must be between 1 and 2147483647; received 0"),
        ([MODEL, "--enable_batching=maybe"], "argument --enable_batching: expected true or false; received 'maybe'"),
        ([MODEL, "--port=x"], "argument --port: invalid int value: 'x'"),
        ([MODEL, "--model=x"], "unrecognized arguments: --model=x"),
    ],
)
def test_usage_errors_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        parse_command_line(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m pipeline.serving.server: error: {message}"


def test_both_ports_may_be_picked():
    assert ServerOptions(model_base_path="/m", port=0, rest_api_port=0).rest_api_port == 0
    with pytest.raises(ConfigError, match="must differ"):
        ServerOptions(model_base_path="/m", port=1, rest_api_port=1)


def test_the_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        parse_command_line(["--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert "Example: python -m pipeline.serving.server" in text
    assert all(f"--{name}" in text for name in ServerOptions.__dataclass_fields__)
