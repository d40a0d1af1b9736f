"""`ServerValidator`: starts a model server on a candidate and sends it real requests, before anything is pushed.

It does what TFX's InfraValidator does and emits the same `InfraBlessing`, but needs neither Docker nor Kubernetes, and
looks into the answers.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf
from absl import logging
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from pipeline.serving.answers import AnswerChecker, AnswerError
from pipeline.serving.client import RecommenderClient
from pipeline.serving.process import ServerProcess, ServerProcessError

MODEL_KEY = "model"
EXAMPLES_KEY = "examples"
BLESSING_KEY = "blessing"
MODEL_NAME_KEY = "model_name"
SPLIT_KEY = "split"
NUM_REQUESTS_KEY = "num_requests"
TIMEOUT_SECONDS_KEY = "timeout_seconds"
LARGEST_BATCH_KEY = "largest_batch"
LATENCY_BUDGET_KEY = "latency_budget_milliseconds"
BLESSED_PROPERTY = "blessed"
REASON_PROPERTY = "reason"

# What TFX's Pusher and people look for in the artifact.
_BLESSED_FILE = "INFRA_BLESSED"
_NOT_BLESSED_FILE = "INFRA_NOT_BLESSED"
_VERSION = "1"


class ServerValidatorSpec(ComponentSpec):
    """Inputs, outputs and parameters of `ServerValidator`."""

    PARAMETERS: ClassVar = {
        MODEL_NAME_KEY: ExecutionParameter(type=str),
        SPLIT_KEY: ExecutionParameter(type=str),
        NUM_REQUESTS_KEY: ExecutionParameter(type=int),
        TIMEOUT_SECONDS_KEY: ExecutionParameter(type=float),
        LARGEST_BATCH_KEY: ExecutionParameter(type=int),
        LATENCY_BUDGET_KEY: ExecutionParameter(type=float),
    }
    INPUTS: ClassVar = {
        MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS: ClassVar = {BLESSING_KEY: ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServerValidatorExecutor(base_executor.BaseExecutor):
    """Serves the candidate, asks it, and writes the blessing."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Blesses the model, or says in the custom property `reason` why not. A bad model does not raise.

        The log has the whole reason; the property its first line, without the graph traces that TensorFlow adds.

        Raises:
          ValueError: if the examples have no such split, or no record in it.
        """
        model = artifact_utils.get_single_instance(input_dict[MODEL_KEY])
        blessing = artifact_utils.get_single_instance(output_dict[BLESSING_KEY])
        examples = _read_examples(
            input_dict[EXAMPLES_KEY], exec_properties[SPLIT_KEY], exec_properties[NUM_REQUESTS_KEY]
        )
        reason = _find_fault(
            path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)),
            exec_properties[MODEL_NAME_KEY],
            examples,
            exec_properties,
        )
        if reason:
            logging.error("The model at %s is not blessed: %s", model.uri, reason)
        else:
            logging.info("The model at %s is blessed: it answered %d examples well.", model.uri, len(examples))
        io_utils.write_string_file(os.path.join(blessing.uri, _NOT_BLESSED_FILE if reason else _BLESSED_FILE), "")
        blessing.set_int_custom_property(BLESSED_PROPERTY, 0 if reason else 1)
        blessing.set_string_custom_property(REASON_PROPERTY, reason.split("\n")[0].split(" [[{{")[0])


class ServerValidator(base_component.BaseComponent):
    """Makes sure that a model can be served and answers sensibly.

    Outputs: `blessing`, a standard `InfraBlessing`; its custom property `blessed` is 1 or 0, and `reason` says why not.
    """

    SPEC_CLASS = ServerValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ServerValidatorExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        model_name: str,
        split: str = "test",
        num_requests: int = 16,
        timeout_seconds: float = 120.0,
        largest_batch: int = 64,
        latency_budget_milliseconds: float = 250.0,
    ):
        """Describes the component.

        Args:
          model: the candidate, a `Model`.
          examples: raw `Examples` that the requests are taken from.
          model_name: name to serve the candidate under.
          split: split of the examples to take requests from.
          num_requests: examples to send, at least 1.
          timeout_seconds: time the candidate has to load, and again to answer all requests.
          largest_batch: examples in the largest request.
          latency_budget_milliseconds: what 95 of 100 single requests may take at most.

        Raises:
          ValueError: if a number is not positive.
        """
        numbers = {
            NUM_REQUESTS_KEY: num_requests,
            TIMEOUT_SECONDS_KEY: float(timeout_seconds),
            LARGEST_BATCH_KEY: largest_batch,
            LATENCY_BUDGET_KEY: float(latency_budget_milliseconds),
        }
        for name, value in numbers.items():
            if value <= 0:
                raise ValueError(f"{name} must be positive; received {value!r}")
        super().__init__(
            ServerValidatorSpec(
                **{
                    MODEL_KEY: model,
                    EXAMPLES_KEY: examples,
                    MODEL_NAME_KEY: model_name,
                    SPLIT_KEY: split,
                    **numbers,
                    BLESSING_KEY: types.Channel(type=standard_artifacts.InfraBlessing),
                }
            )
        )


def _read_examples(artifacts: list[types.Artifact], split: str, count: int) -> list[bytes]:
    """Returns the first serialized examples of a split."""
    folder = artifact_utils.get_split_uri(artifacts, split)
    files = sorted(os.path.join(folder, name) for name in fileio.listdir(folder))
    records = itertools.chain.from_iterable(
        tf.data.TFRecordDataset(file, compression_type="GZIP" if file.endswith(".gz") else "").as_numpy_iterator()
        for file in files
    )
    examples = list(itertools.islice(records, count))
    if not examples:
        raise ValueError(f"the split {split!r} at {folder} must hold examples to send; received none")
    return examples


def _find_fault(model_path: str, model_name: str, examples: list[bytes], parameters: Mapping[str, Any]) -> str:
    """Returns what is wrong with the model, in plain words; empty if nothing is."""
    timeout_seconds = parameters[TIMEOUT_SECONDS_KEY]
    with tempfile.TemporaryDirectory(prefix="candidate-") as folder:
        base_path = os.path.join(folder, model_name)
        os.mkdir(base_path)
        version_path = os.path.join(base_path, _VERSION)
        if os.path.isdir(model_path):
            os.symlink(os.path.abspath(model_path), version_path)
        else:
            io_utils.copy_dir(model_path, version_path)
        try:
            with (
                ServerProcess(base_path, model_name, timeout_seconds) as server,
                RecommenderClient(server.address, model_name, timeout_seconds) as client,
            ):
                checker = AnswerChecker(client, timeout_seconds, parameters[LARGEST_BATCH_KEY])
                checker.check(examples)
                checker.check_latency(examples, parameters[LATENCY_BUDGET_KEY])
        except (ServerProcessError, AnswerError) as error:
            return str(error)
    return ""
