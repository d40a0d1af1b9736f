"""BeamConfig: the arguments it yields, and what it refuses."""

import pydantic
import pytest

from pipeline.beam_config import BeamConfig


def test_the_default_is_the_direct_runner_in_this_process():
    config = BeamConfig()
    assert config.pipeline_arguments() == ("--direct_running_mode=in_memory", "--direct_num_workers=1")
    assert config.in_process and not config.ships_code


def test_an_argument_replaces_the_direct_runners_default():
    config = BeamConfig(arguments=("--direct_running_mode=multi_processing",))
    assert config.pipeline_arguments() == ("--direct_num_workers=1", "--direct_running_mode=multi_processing")
    assert not config.in_process


def test_worker_processes_of_the_direct_runner():
    config = BeamConfig(parallelism=3)
    assert config.pipeline_arguments() == ("--direct_running_mode=multi_processing", "--direct_num_workers=3")
    assert config.brings_code and not config.in_process
    assert BeamConfig(parallelism=1).pipeline_arguments() == BeamConfig().pipeline_arguments()


def test_flink_arguments():
    config = BeamConfig(
        runner="flink",
        endpoint="localhost:8081",
        parallelism=2,
        environment_type="EXTERNAL",
        environment_config="localhost:50000",
        setup_file="setup.py",
    )
    assert config.pipeline_arguments() == (
        "--runner=FlinkRunner",
        "--flink_master=localhost:8081",
        "--parallelism=2",
        "--environment_type=EXTERNAL",
        "--environment_config=localhost:50000",
        "--setup_file=setup.py",
    )
    assert config.ships_code and not config.in_process


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"runner": "flink"}, "needs beam.endpoint"),
        ({"runner": "dataflow", "project": "p", "region": "r"}, "needs beam.temp_location"),
        ({"runner": "direct", "endpoint": "a:1"}, "beam.endpoint means nothing"),
        ({"runner": "portable", "endpoint": "a:1", "environment_type": "EXTERNAL"}, "needs beam.environment_config"),
        ({"setup_file": "setup.py", "worker_image": "image"}, "exclude each other"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        BeamConfig(**fields)
