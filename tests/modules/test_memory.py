"""The memory that a piece of work takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from modules import memory
from modules.memory import watch_memory


@pytest.mark.skipif(memory.resident_mebibytes() is None, reason="this system does not tell")
def test_the_peak_is_seen_though_it_is_over_at_the_end():
    with watch_memory(interval_seconds=0.01) as peak:
        block = np.ones(64 * 2**20, np.uint8)
        time.sleep(0.1)
        del block
    assert peak.mebibytes is not None
    assert 50 < peak.mebibytes < 200


def test_no_figure_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "missing")
    with watch_memory() as peak:
        pass
    assert peak.mebibytes is None
