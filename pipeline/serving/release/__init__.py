"""Releases: which version carries which label, moving labels on a live server, and the record of such moves."""
