"""Names of shards: patterns with the number of the shard, and how many there are."""

from __future__ import annotations

import os
import string
from typing import Any

from flowfn.rules import Rule

PATTERN = Rule(
    "a path, as in 'train-{shard:05d}.tar'",
    lambda value: isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str),
    lambda value, others: os.fspath(value) != "",
)


def shard_name(pattern: str, **numbers: int) -> str:
    """The name of one shard.

    >>> shard_name("train-{shard:03d}-of-{shards:03d}.tar", shard=7, shards=12)
    'train-007-of-012.tar'
    """
    return pattern.format(**numbers)


def counts_shards(pattern: Any, who: str, *also: str) -> bool:
    """Whether there is a place for the number of the shard in a pattern; `also` are other names that may be in it.

    Raises:
        ValueError: there is anything else in braces.

    >>> counts_shards("{shard:05d}.tar", "write_webdataset"), counts_shards("all.tar", "write_webdataset")
    (True, False)
    """
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        fits = fields <= {"shard", *also} and shard_name(pattern, shard=0, **dict.fromkeys(also, 1)) != ""
    except (ValueError, IndexError, KeyError):
        fits = False
    if not fits:
        named = " and ".join(f"{{{name}}}" for name in ("shard", *also))
        raise ValueError(
            f"{who}(): pattern must be a path in which braces stand only for {named}, as in "
            f"'train-{{shard:05d}}.tar', got {pattern!r}; "
            "write {{ and }} for braces"
        )
    return "shard" in fields and shard_name(pattern, shard=0, **dict.fromkeys(also, 1)) != shard_name(
        pattern, shard=1, **dict.fromkeys(also, 1)
    )
