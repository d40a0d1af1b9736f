"""The pipeline on Kubeflow Pipelines: compiled, submitted, scheduled."""
