"""The folders of a model's versions: how they are found, which of them a policy chooses, when they have changed."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import tensorflow as tf

from pipeline.serving.messages import file_system_storage_path_source_pb2

Policy: TypeAlias = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
"""TensorFlow Serving's message: `latest`, `all` or `specific` versions."""

Fingerprint: TypeAlias = frozenset[tuple[str, ...]]

_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a policy chooses among the versions that are there.

    Attributes:
      complete: versions to load.
      incomplete: versions it would choose as well, were they there whole.
      missing: versions it names that are not there.
    """

    complete: frozenset[int]
    incomplete: frozenset[int]
    missing: frozenset[int] = frozenset()


def version_number(folder: str) -> int | None:
    """Returns the version that a folder's name stands for, or None if it stands for none.

    TensorFlow Serving takes what `absl::SimpleAtoi<int64>` takes: decimal digits with or without a sign, leading
    zeros, blanks around.
    """
    match = _INTEGER.fullmatch(folder)
    if not match:
        return None
    version = int(match[1])
    return version if -(2**63) <= version < 2**63 else None


def find_versions(
    base_path: str, duplicate: Callable[[int, str, str], None] = lambda version, used, ignored: None
) -> dict[int, str]:
    """Finds the version folders below a base path, whole or not.

    Args:
      base_path: local or remote folder.
      duplicate: is told of a version with two folders, like `7` and `007`: version, the folder's name that counts, the
        other.

    Returns:
      Version to folder.

    Raises:
      OSError, tf.errors.OpError: if the base path is not there or cannot be read.
    """
    if not tf.io.gfile.exists(base_path):
        raise FileNotFoundError(f"there is no folder {base_path}")
    versions: dict[int, str] = {}
    # Some remote file systems list all descendants, with their paths.
    names = os.listdir(base_path) if os.path.isdir(base_path) else tf.io.gfile.listdir(base_path)
    for name in sorted({name.split("/", 1)[0] for name in names}):
        version = version_number(name)
        if version is None:
            continue
        if version in versions:
            duplicate(version, name, os.path.basename(versions[version]))
        versions[version] = os.path.join(base_path, name)
    return versions


def has_model_file(folder: str) -> bool:
    """Whether a version folder holds a SavedModel's main file, without which it is not looked at."""
    return any(tf.io.gfile.exists(os.path.join(folder, name)) for name in _MODEL_FILES)


def choose(policy: Policy, found: Mapping[int, str], is_complete: Callable[[int], bool]) -> Choice:
    """Applies a version policy.

    Args:
      policy: TensorFlow Serving's; if it says nothing, the latest version is chosen.
      found: versions that are there, whole or not.
      is_complete: tells of such a version whether it is there whole.
    """
    kind = policy.WhichOneof("policy_choice")
    if kind == "specific":
        wanted = frozenset(policy.specific.versions)
        candidates, limit = sorted(wanted & found.keys()), len(wanted)
    else:
        wanted = frozenset()
        candidates = sorted(found, reverse=True)
        limit = len(found) if kind == "all" else max(policy.latest.num_versions, 1)
    complete: set[int] = set()
    incomplete: set[int] = set()
    for version in candidates:
        if len(complete) == limit:
            break
        (complete if is_complete(version) else incomplete).add(version)
    return Choice(frozenset(complete), frozenset(incomplete), wanted - found.keys())


def fingerprint(folder: str) -> Fingerprint:
    """Returns something that changes when any file of a folder is written again, added or removed.

    Raises:
      OSError, tf.errors.OpError: if the folder cannot be read.
    """
    files: list[tuple[str, ...]] = []
    if "://" in folder:
        for parent, _, names in tf.io.gfile.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                remote = tf.io.gfile.stat(path)
                files.append((path, str(remote.mtime_nsec), str(remote.length)))
        return frozenset(files)
    for parent, _, names in os.walk(folder):  # TensorFlow's file systems know local times to the second only.
        for name in names:
            path = os.path.join(parent, name)
            try:
                local = os.stat(path)
            except FileNotFoundError:
                continue  # It went away meanwhile.
            files.append((path, str(local.st_ino), str(local.st_mtime_ns), str(local.st_size)))
    return frozenset(files)
