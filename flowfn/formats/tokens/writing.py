"""Writing files of nothing but tokens: those of documents, one behind the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from flowfn import rules
from flowfn.formats.arrays.npy import header_for
from flowfn.formats.tokens.layouts import DTYPE, LLM_C, llm_c_header
from flowfn.showing import brief
from flowfn.storage.files import file_path, is_url
from flowfn.storage.writing import shown, written_whole

MOST_OF_LLM_C = 2**31 - 1
"""How many tokens a file of llm.c has at most: their number is an int32."""


def tokens_of(value: Any, dtype: np.dtype, number: int, who: str) -> np.ndarray:
    """A document, or a part of one, as tokens of a dtype.

    Raises:
        TypeError: it is no row of numbers.
        ValueError: a number among them is none of that dtype.
    """
    try:
        given = np.asarray(value)
    except ValueError:  # a ragged list
        given = np.empty((0, 0), object)
    if not given.size and given.ndim == 1:
        return np.empty(0, dtype)
    if given.ndim != 1 or given.dtype.kind not in ("iu" if dtype.kind in "iu" else "iuf"):
        raise TypeError(
            f"{who}(): datapoints are rows of tokens, integers on one axis, but number {number} is {brief(value)}; "
            "select and map it before"
        )
    if dtype.kind in "iu" and given.dtype != dtype:
        bounds = np.iinfo(dtype)
        for token in (int(given.min()), int(given.max())):
            if not bounds.min <= token <= bounds.max:
                raise ValueError(
                    f"{who}(): datapoint {number} has the token {token}, and {dtype} goes from {bounds.min} to "
                    f"{bounds.max}; give another dtype"
                )
    return given.astype(dtype, copy=False)


_HEAD_STYLE = rules.one_of("llm.c", None)


@rules.checked(dtype=DTYPE, header=_HEAD_STYLE, overwrite=rules.boolean)
def write_tokens(path: Any, flow: Any, dtype: Any, *, header: str | None = None, overwrite: bool = False) -> None:
    """Write the tokens of all datapoints, one behind the other, to a file of nothing but tokens.

    Datapoints are rows of tokens of any lengths (arrays, or lists of integers), each with the token that ends it, if
    there is to be one. A path that ends in .npy makes an .npy file of one axis; `header="llm.c"` writes that of llm.c,
    for the dtypes uint16 and uint32; else there is nothing but tokens, as in the files of nanoGPT. A bar is shown; the
    file appears at `path` when it is whole.

    Raises:
        FileExistsError: there is something at `path` already, and `overwrite` is not given.
        TypeError: a datapoint is no row of integers.
        ValueError: a token is none of that dtype; or there are too many for the header.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/train.bin"
    >>> write_tokens(path, [[5, 6, 0], [7, 0]], "uint16")
    >>> np.fromfile(path, "<u2").tolist()
    [5, 6, 0, 7, 0]
    """
    final, kind = file_path(path, "write_tokens"), np.dtype(dtype)
    begin = _beginning(final, kind, header)
    if is_url(final):
        raise ValueError(f"write_tokens(): it must be a local one, as files are mapped into memory, got {path!r}")
    with (
        shown(flow, "write_tokens") as datapoints,
        written_whole(final, overwrite, "write_tokens") as beside,
        open(beside, "wb", 1 << 20) as file,
    ):
        file.write(begin(0))
        count = sum(write_row(file, tokens_of(one, kind, at, "write_tokens")) for at, one in enumerate(datapoints))
        file.seek(0)
        file.write(begin(count))


def write_row(file: BinaryIO, tokens: np.ndarray) -> int:
    """Write tokens, and say how many they are."""
    file.write(np.ascontiguousarray(tokens).data if tokens.size else b"")
    return len(tokens)


def _beginning(path: str, dtype: np.dtype, header: str | None) -> Callable[[int], bytes]:
    """What stands before so many tokens."""
    if header is None:
        npy = path.lower().endswith(".npy")
        return (lambda count: header_for(dtype, (count,))) if npy else lambda count: b""
    if dtype not in LLM_C.values():
        raise ValueError(f"write_tokens(): tokens of llm.c are uint16 or uint32, got {dtype}")

    def of_llm_c(count: int) -> bytes:
        if count > MOST_OF_LLM_C:
            raise ValueError(
                f"write_tokens(): a file of llm.c has at most {MOST_OF_LLM_C} tokens, got {count}; write several"
            )
        return llm_c_header(dtype, count)

    return of_llm_c
