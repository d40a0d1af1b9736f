"""Skew: whether the features of served requests are those that the model learned from."""
