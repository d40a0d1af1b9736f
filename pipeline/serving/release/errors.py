"""What a release is refused with."""

from __future__ import annotations


class ReleaseError(RuntimeError):
    """A release that was not made. The message says why, and that nothing has changed if nothing has."""
