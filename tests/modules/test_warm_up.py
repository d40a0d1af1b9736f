"""Warm-up requests: what TensorFlow Serving replays must run on the model they lie beside."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2


def test_every_request_runs_on_the_model(served):
    path = served.directory / "model" / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert 0 < len(records) <= 1000
    batch_sizes: dict[str, set[int]] = {}
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert not request.model_spec.name and not request.model_spec.HasField("version")
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        outputs = served.call_raw(signature, **inputs)
        (batch_size,) = {len(value) for value in inputs.values()}
        assert all(len(value) == batch_size for value in outputs.values())
        assert np.isfinite(outputs["scores"]).all()
        batch_sizes.setdefault(signature, set()).add(batch_size)
        if signature == "serving_default":
            histories = [
                list(tf.train.Example.FromString(example).features.feature["history_item_ids"].bytes_list.value)
                for example in inputs["examples"]
            ]
            assert histories[0] and (batch_size == 1 or not histories[1])
    assert batch_sizes == {"serving_default": {1, 8}, "rank": {1, 8}, "similar": {1}}
