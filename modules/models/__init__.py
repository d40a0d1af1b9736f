"""Recommenders: one family a file, all under the contract in `base`."""
