"""The gRPC client, the local model server and the requests that warm a model up."""
