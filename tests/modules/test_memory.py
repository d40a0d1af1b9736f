"""The memory that a piece of work takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from modules import memory
from modules.memory import watch_memory


@pytest.mark.skipif(memory.resident_mebibytes() is None, reason="this system does not tell")
def test_the_peak_is_seen_though_it_is_over_at_the_end():
    # In a process of its own: what earlier tests leave behind may be given back to the system at any moment.
    program = textwrap.dedent(
        """
        import time
        from modules.memory import watch_memory

        with watch_memory(interval_seconds=0.01) as peak:
            block = bytearray(b"1") * (64 * 2**20)
            time.sleep(0.2)
            del block
        print(peak.mebibytes)
        """
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert 60 < float(result.stdout) < 80


def test_no_figure_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    with watch_memory() as peak:
        pass
    assert peak.mebibytes is None
