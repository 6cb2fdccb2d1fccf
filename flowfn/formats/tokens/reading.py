"""Files of nothing but tokens, as rows of one length: nanoGPT's, llm.c's, .npy files, and Megatron-LM's .bin."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.sources import ArraysNode, Source
from flowfn.formats.tokens.files import RowShape, TokenFile, rows_of_files, stamp_of
from flowfn.formats.tokens.layouts import DTYPE, layout_of
from flowfn.formats.tokens.writing import write_tokens
from flowfn.storage.files import call, is_url
from flowfn.storage.finding import paths_of

__all__ = ["read_tokens", "write_tokens"]


@rules.checked(
    dtype=rules.optional(DTYPE),
    length=rules.positive,
    stride=rules.optional(rules.positive),
    header=rules.optional(rules.natural),
)
def read_tokens(
    paths: Any, dtype: Any, length: int, *, stride: int | None = None, header: int | None = None
) -> Flow[np.ndarray]:
    """A flow of rows of `length` tokens from files of nothing but tokens, each an array (length,) of that dtype.

    Rows are `stride` tokens apart (`length`, if it is not given): `length=2049, stride=2048` gives rows of which the
    first 2 048 tokens are inputs, and the last 2 048 what comes next. Files are mapped into memory: rows are read-only
    views, and `batch` right after (or after `shuffle`, `shard`, `take`) gathers a whole batch at once. A row lies
    within one file; what is left over at the end of each, less than a row, is left out.

    An .npy file of one axis, and a file of llm.c (256 int32, then uint16 or uint32), are known by their first bytes,
    and say of what `dtype` they are: it may be None. Others begin with the first token (nanoGPT's, Megatron-LM's .bin),
    or after `header` bytes. Tokens are little-endian, unless the dtype says otherwise (">u2").

    `paths` is a path, a glob pattern, a range in braces ("shard-{000..102}.bin"), or a list of them. All files are of
    one layout, that of the first; of the others only the sizes are looked at, until a row of them is wanted.

    Raises:
        ValueError: a file has no whole tokens of that dtype, or others than its header says; none has a row.
        FileNotFoundError: there is no such file.

    The layouts: https://github.com/karpathy/nanoGPT, https://github.com/karpathy/llm.c (dev/data/data_common.py).

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/train.bin"
    >>> np.arange(10, dtype="<u2").tofile(path)
    >>> [row.tolist() for row in read_tokens(path, "uint16", 4)]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    >>> read_tokens(path, "uint16", 4, stride=3)[2].tolist()
    [6, 7, 8, 9]
    """
    found = paths_of(paths, "read_tokens")
    for path in filter(is_url, found):
        raise ValueError(f"read_tokens(): files are mapped into memory, so each must be a local one, got {path!r}")
    stamps = list(map(stamp_of, found))
    kind = None if dtype is None else np.dtype(dtype)
    layout = layout_of(found[0], stamps[0][0], kind, header, "read_tokens")
    shape = RowShape(length, length if stride is None else stride)
    files = [TokenFile(path, stamp, layout, shape, "read_tokens") for path, stamp in zip(found, stamps)]
    text = call("read_tokens", paths, dtype, length, stride=(stride, None), header=(header, None))
    return Flow(Source(rows_of_files(files, "read_tokens"), ArraysNode, name="read_tokens", shown=text))
