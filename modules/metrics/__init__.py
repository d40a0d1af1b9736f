"""Ranking metrics for TensorFlow Model Analysis."""
