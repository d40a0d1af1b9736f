"""One glob for all tables, since an ExampleGen is fingerprinted by a single one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pipeline.config_files import ConfigError


def covering_pattern(patterns: Sequence[str]) -> str:
    """Returns one glob that covers all of the globs, since an ExampleGen is fingerprinted by a single one.

    For `interactions.tsv`, `items.tsv` and `users.tsv` this is `*s.tsv`.

    Raises:
      ConfigError: if they are not equally deep.
    """
    columns = [pattern.split("/") for pattern in patterns]
    if len({len(parts) for parts in columns}) > 1:
        raise ConfigError(f"the patterns of the tables must all lie in folders of one depth; received {list(patterns)}")
    return "/".join(_covering_part(parts) for parts in zip(*columns, strict=True))


def _covering_part(parts: Sequence[str]) -> str:
    if len(set(parts)) == 1:
        return parts[0]
    prefix = _common_start(parts)
    suffix = _common_start([part[len(prefix) :][::-1] for part in parts])[::-1]
    return f"{prefix}*{suffix}"


def _common_start(texts: Sequence[str]) -> str:
    """Returns the characters that all texts begin with, up to the first wildcard."""
    same = itertools.takewhile(
        lambda column: len(set(column)) == 1 and column[0] not in "*?[]", zip(*texts, strict=False)
    )
    return "".join(column[0] for column in same)
