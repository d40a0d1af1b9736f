"""How fast models are served: latency and throughput beside the direct call of the SavedModel."""
