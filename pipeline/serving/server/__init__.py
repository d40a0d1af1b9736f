"""A model server that honours TensorFlow Serving's contract over gRPC and REST; `python -m pipeline.serving.server`."""
