"""Where each record of a TFRecord file begins: found in the file, or in another beside it,
as NVIDIA DALI's tfrecord2idx writes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn.formats.tfrecord.framing import AROUND, begins, checksums
from flowfn.storage.files import ReadablePieces, is_url, open_file
from flowfn.storage.writing import written_whole

IDX_SUFFIX = ".idx"
"""What the name of an index has behind that of its file."""


def record_index(path: str, pieces: ReadablePieces, save: bool, who: str) -> np.ndarray:
    """Where each record of a file begins, and where the last one ends.

    With `save` it is read from beside the file, if it is of a file of this length, and else written there.

    Raises:
        ValueError: the file is torn.
        OSError: the index cannot be written.
    """
    starts = saved(path + IDX_SUFFIX, pieces.size, who) if save else None
    if starts is None:
        starts = begins(pieces, f"{who}(): {path}", checksums(f"{who}()"))
        if save and not is_url(path):
            with written_whole(path + IDX_SUFFIX, True, who) as beside, open(beside, "w", encoding="ascii") as file:
                file.writelines(f"{start} {end - start}\n" for start, end in zip(starts.tolist(), starts[1:].tolist()))
    return starts


def saved(path: str, size: int, who: str) -> np.ndarray | None:
    """What an index says, or None if there is none, or none of a file of so many bytes."""
    try:
        with open_file(path, who=f"{who}()") as file:
            pairs: Any = np.array(file.read().split(), np.int64).reshape(-1, 2)
    except (FileNotFoundError, ValueError, OverflowError):
        return None
    ends = pairs.sum(1)
    found = np.concatenate([pairs[:1, 0], ends]) if len(pairs) else np.zeros(1, np.int64)
    fits = found[0] == 0 and found[-1] == size and (pairs[:, 1] >= AROUND).all() and (pairs[1:, 0] == ends[:-1]).all()
    return found if fits else None
