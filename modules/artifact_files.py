"""Names of the JSON files that components leave beside their artifacts, for whoever reads a run without TensorFlow."""

TRAINING_REPORT = "training.json"
"""Beside the ModelRun: model, learning curve and validation metric."""
VERDICT_FILE = "verdict.json"
"""Beside the ModelEvaluation: metrics by slice, and why the gate refused."""
PLANTED_RESPONSES = "responses.json"
"""Beside the PlantedResponses: how a model answers to the effects planted in a synthetic world, by user."""
