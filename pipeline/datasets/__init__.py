"""Datasets that `marquee data` can put on disk."""
