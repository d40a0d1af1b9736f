"""Warm-up requests: TensorFlow Serving replays them while it loads a model, so no client pays for the first call."""

from __future__ import annotations

import os

import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from modules import features
from modules.catalogue import Catalogue
from modules.features import ColumnTable, Role
from modules.models import export

WARM_UP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")

_HISTORY_TITLES = 3
_CANDIDATES = 10
_BATCH_SIZES = (1, 8)


def write_warm_up_requests(saved_model: str, columns: ColumnTable, catalogue: Catalogue) -> None:
    """Writes requests to each signature that clients use: with and without a history, alone and in a batch.

    Args:
      saved_model: folder of the SavedModel, which gets the file `assets.extra/tf_serving_warmup_requests`.
      columns: roles of the raw columns.
      catalogue: where the titles of the requests come from.
    """
    titles = [bytes(item_id) for item_id in catalogue.item_ids[:_CANDIDATES]]
    example = tf.train.Example()
    if columns.history_of(Role.ITEM_ID) is not None:
        values = titles[:_HISTORY_TITLES]
        example.features.feature[features.HISTORY_ITEM_IDS].bytes_list.value.extend(values)
    examples = [example.SerializeToString(), tf.train.Example().SerializeToString()]

    requests = [_request("similar", {export.ITEM_IDS: titles[:1]})]
    for batch_size in _BATCH_SIZES:
        batch = (examples * batch_size)[:batch_size]
        requests.append(_request("serving_default", {export.EXAMPLES: batch}))
        requests.append(
            _request("rank", {export.EXAMPLES: batch, export.CANDIDATE_IDS: [titles for _ in range(batch_size)]})
        )
    path = os.path.join(saved_model, WARM_UP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def _request(signature: str, inputs: dict[str, list]) -> predict_pb2.PredictRequest:
    # The name is empty on purpose: the server runs the requests on whichever model it loads.
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(signature_name=signature))
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, dtype=tf.string))
    return request
