"""Downloads over a real socket: whole, cut, resumed, altered, refused."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from pipeline.datasets.download import DownloadError, download

CONTENT = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_complete_file_is_not_asked_for_again(file_server, tmp_path: Path) -> None:
    file_server.content = CONTENT
    for _ in range(2):
        assert download(file_server.url, tmp_path / "file", SHA256).read_bytes() == CONTENT
    assert file_server.ranges == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cut_connection_is_resumed_at_once(file_server, tmp_path: Path) -> None:
    file_server.content, file_server.cut_after = CONTENT, 100_000
    assert download(file_server.url, tmp_path / "file", SHA256).read_bytes() == CONTENT
    assert file_server.ranges == [None, "bytes=100000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(file_server, tmp_path: Path) -> None:
    file_server.content, file_server.cut_after = CONTENT, 100_000
    with pytest.raises(DownloadError, match=r"ended after 100000 of 300000 bytes.*100000 bytes are kept"):
        download(file_server.url, tmp_path / "file", SHA256, attempts=1)
    assert not (tmp_path / "file").exists()
    assert download(file_server.url, tmp_path / "file", SHA256, attempts=1).read_bytes() == CONTENT
    assert file_server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("kept", [CONTENT[:1000], CONTENT])
@pytest.mark.parametrize("honours_ranges", [True, False])
def test_any_part_is_completed_by_any_server(file_server, tmp_path: Path, kept: bytes, honours_ranges: bool) -> None:
    file_server.content, file_server.honours_ranges = CONTENT, honours_ranges
    (tmp_path / "file.part").write_bytes(kept)
    assert download(file_server.url, tmp_path / "file", SHA256).read_bytes() == CONTENT


def test_a_wrong_hash_names_both_and_leaves_nothing(file_server, tmp_path: Path) -> None:
    file_server.content = CONTENT + b"!"
    received = hashlib.sha256(CONTENT + b"!").hexdigest()
    with pytest.raises(DownloadError, match=rf"300001 bytes\) has SHA-256 {received}; expected {SHA256}"):
        download(file_server.url, tmp_path / "file", SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_named(refusing_url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"{refusing_url}: .*refused"):
        download(refusing_url, tmp_path / "file", SHA256)
    assert list(tmp_path.iterdir()) == []
