"""The DAG and everything that runs around its components."""
