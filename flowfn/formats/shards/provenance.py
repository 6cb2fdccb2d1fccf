"""Of which flow the files of a pattern are, noted beside them: those of another are never taken for one's own.

The note is a file whose name begins with a dot, so that patterns pass over it. It holds the number of files, the seed
and the epoch of the pass, and digests of the flow and of the function that writes, with the code of all functions in
them.
"""

from __future__ import annotations

import contextlib
import json
import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowfn.digests.pipelines import pipeline_identity
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.storage.files import file_path, is_url, open_file, stamp
from flowfn.storage.writing import written_whole


@dataclass(frozen=True)
class Provenance:
    """What fixes the content of files: two that are equal make the same."""

    shards: int
    seed: int
    epoch: int
    flow: str
    write: str

    def differs(self, other: Mapping[str, Any]) -> str | None:
        """How files that are known to be of another origin differ from those of this, if they do."""
        if other.get("shards") != self.shards:
            return f"are {other.get('shards')} files that belong together, and not {self.shards}"
        if (other.get("flow"), other.get("write")) != (self.flow, self.write):
            what = "flow" if other.get("flow") != self.flow else "write"
            return f"are of another {what}, or of functions in it that have changed since"
        if (other.get("seed"), other.get("epoch")) != (self.seed, self.epoch):
            return (
                f"are of seed {other.get('seed')}, epoch {other.get('epoch')}, and not of seed {self.seed}, epoch "
                f"{self.epoch}"
            )
        return None


def origin_of(flow: Flow[Any], write: Any, shards: int) -> Provenance:
    """Where the files come from that `write` makes of the next pass over a flow."""
    return Provenance(shards, flow.seed, flow.epoch, pipeline_identity(flow), pipeline_identity(None, write))


@dataclass(frozen=True)
class Note:
    """The note beside the files of a pattern."""

    path: str
    who: str

    def stale(self, origin: Provenance, there: Sequence[str]) -> list[str]:
        """Those of the files that were there before those of this origin were begun, and are to be written yet.

        Raises:
            ValueError: they are of another origin, or of one that nobody knows.
        """
        content = self._content()
        differs = (
            f"are of a flow that nobody knows: there is no note of it at {self.path!r}"
            if content is None
            else origin.differs(content)
        )
        if differs:
            raise ValueError(
                f"{self.who}(): the files that are there, {there[0]!r} for one, {differs}; resume=True goes on with "
                "what the same call "
                "began: write elsewhere, or pass overwrite=True to write all anew"
            )
        before = (content or {}).get("before", {})
        return [path for path in there if before.get(path) == _stamp(path, self.who)]

    def keep(self, origin: Provenance, before: Sequence[str]) -> None:
        """Note it, and which files are there that are of another."""
        noted = {**asdict(origin), "before": {path: _stamp(path, self.who) for path in before}}
        with written_whole(self.path, True, self.who) as beside, open(beside, "w", encoding="utf-8") as file:
            json.dump(noted, file)

    def remove(self) -> None:
        """Remove it, where there are no files."""
        with contextlib.suppress(OSError):
            if is_url(self.path):
                system, inside = needed("fsspec.core", f"{self.who}()", extra="files").url_to_fs(self.path)
                system.rm(inside)
            else:
                os.remove(self.path)

    def _content(self) -> dict[str, Any] | None:
        try:
            with open_file(self.path, who=f"{self.who}()") as file:
                content = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) and isinstance(content.get("before"), dict) else None


def note_beside(pattern: str, shards: int, who: str) -> Note:
    """The note of the files of a pattern: in the folder that they have in common,
    named as they are, with N for the number.

    >>> os.path.basename(note_beside("/data/train-{shard:03d}-of-{shards:03d}.tar", 8, "write_x").path)
    '.train-N-of-008.tar.flow'
    """
    before, number, behind = _with_count(pattern, shards).partition("\0")
    folder = os.path.dirname(file_path(before + number, who).replace("\0", "N"))
    below = file_path(f"{before}N{behind}" if number else before, who)[len(folder) :]
    below = below.strip("/\\").replace("/", "-").replace("\\", "-").replace("\0", "N")
    return Note(os.path.join(folder, f".{below}.flow") if not is_url(folder) else f"{folder}/.{below}.flow", who)


def _with_count(pattern: str, shards: int) -> str:
    """A pattern with the number of files in its place, and a zero byte, which no path has,
    where the number of one goes."""
    parts = string.Formatter().parse(pattern)
    return "".join(
        text + ("" if name is None else "\0" if name == "shard" else format(shards, form or ""))
        for text, name, form, _ in parts
    )


def _stamp(path: str, who: str) -> list[Any]:
    return list(stamp(path, f"{who}()"))
