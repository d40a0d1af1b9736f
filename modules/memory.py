"""How much memory a piece of work takes at its peak, within a process that does other work before and after."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MEBIBYTE_IN_KIBIBYTES = 1024.0


@dataclasses.dataclass
class MemoryPeak:
    """Largest rise of resident memory.

    Attributes:
      mebibytes: rise above what the process held at the start, at least 0; None where the system does not tell.
    """

    mebibytes: float | None = None


@contextlib.contextmanager
def watch_memory(interval_seconds: float = 0.05) -> Iterator[MemoryPeak]:
    """Samples the process's resident memory while the block runs.

    The system's own high-water mark is of the whole life of the process, so it says nothing of one fit of many.

    Args:
      interval_seconds: time between two samples.

    Yields:
      What is filled in when the block ends.
    """
    peak = MemoryPeak()
    start = resident_mebibytes()
    if start is None:
        yield peak
        return
    highest = [start]
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(interval_seconds):
            highest[0] = max(highest[0], resident_mebibytes() or 0.0)

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        highest[0] = max(highest[0], resident_mebibytes() or 0.0)
        ended.set()
        thread.join()
        peak.mebibytes = highest[0] - start


def resident_mebibytes() -> float | None:
    """Returns the resident memory of this process in MiB, or None where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return None if kibibytes is None else int(kibibytes) / _MEBIBYTE_IN_KIBIBYTES
