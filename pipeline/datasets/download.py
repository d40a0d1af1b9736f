"""Downloads of archives: resumed where they broke off, and checked against a SHA-256 before use."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

_BLOCK_BYTES = 1 << 16


class DownloadError(RuntimeError):
    """An archive that could not be had, or is not the one expected. The message says from where and why."""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def verify_checksum(path: Path, sha256: str, source: str) -> None:
    """Removes the file and fails if it is not the one expected.

    Raises:
      DownloadError: naming the source, the hash expected and the hash received.
    """
    received = sha256_of(path)
    if received != sha256:
        size = path.stat().st_size
        path.unlink()
        raise DownloadError(f"{source} ({size} bytes) has SHA-256 {received}; expected {sha256}. The file was removed.")


def download(
    url: str,
    path: Path,
    sha256: str,
    *,
    timeout_seconds: float = 5.0,
    attempts: int = 5,
    console: Console | None = None,
) -> Path:
    """Downloads one file; a complete file that is there already is used as it is.

    Bytes go to `<path>.part`, which is kept when the connection breaks, so that the next attempt, in this call or in a
    later one, asks only for what is missing (`Range`, RFC 9110 section 14).

    Args:
      url: where to get it.
      path: the file to write; it appears only when whole and verified.
      sha256: 64 hexadecimal digits.
      timeout_seconds: patience for the connection, and for each block of bytes.
      attempts: connections to make, as long as each brings something new. A server that sends nothing is asked once.
      console: where progress is shown. None: nowhere.

    Returns:
      `path`.

    Raises:
      DownloadError: if the server cannot be reached, or if what it sent has another hash (then it is removed).
    """
    if path.is_file() and sha256_of(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=console is None) as progress:
        task = progress.add_task(path.name, total=None)
        for attempt in range(1, attempts + 1):
            before = _size(part)
            try:
                _receive(url, part, timeout_seconds, progress, task)
                break
            except (OSError, http.client.HTTPException) as error:
                if attempt == attempts or _size(part) <= before:
                    kept = f" ({_size(part)} bytes are kept for the next attempt)" if _size(part) else ""
                    raise DownloadError(f"{url}: {_reason(error)}{kept}") from error
    verify_checksum(part, sha256, url)
    part.replace(path)
    return path


def _receive(url: str, part: Path, timeout_seconds: float, progress: Progress, task: TaskID) -> None:
    """Appends to `part` what it lacks. Raises OSError or HTTPException if the connection ends before that."""
    offset = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=timeout_seconds)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return  # Nothing is missing; whether it is the right file, its hash will tell.
        raise
    with response:
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if not resumes:
            offset = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            raise http.client.HTTPException(
                f"asked for the bytes from {offset} on, received {response.headers.get('Content-Range')!r}"
            )
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length is not None else None
        progress.update(task, total=total, completed=offset)
        with part.open("ab" if resumes else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                progress.advance(task, len(block))
    # Reading blocks from a connection that was cut ends like reading a whole file does, hence the look at the size.
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection ended after {_size(part)} of {total} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__
