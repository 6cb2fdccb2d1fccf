"""What stands before the tokens of a file: nothing, the header of an .npy file, or that of llm.c.

llm.c (https://github.com/karpathy/llm.c, dev/data/data_common.py): 256 int32 in little-endian order, of which the first
tells the tokenizer, and so the dtype, the second is a version, and the third the number of tokens. What nanoGPT writes
(https://github.com/karpathy/nanoGPT, data/*/prepare.py), and Megatron-LM's .bin, has no header.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import numpy as np

from flowfn import rules
from flowfn.formats.arrays.npy import LONGEST_HEADER, MAGIC, header_of

LLM_C = {(20240520, 1): np.dtype("<u2"), (20240801, 7): np.dtype("<u4")}
"""The tokens of llm.c, by magic number and version: of GPT-2 and of Llama 3."""
LLM_C_HEADER = 1024
"""Bytes of its header."""
INDEX_MAGIC = b"MMIDIDX\0\0"
"""What an index of Megatron-LM begins with."""
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_NPY_MARGIN = 12


def _is_integers(value: Any) -> bool:
    try:
        return np.dtype(value).kind in "iu"
    except TypeError:
        return False


DTYPE = rules.Rule(
    "a dtype of integers",
    lambda value: isinstance(value, (str, type, np.dtype)),
    lambda value, others: _is_integers(value),
)


class TokenLayout(NamedTuple):
    """Of what dtype tokens are, how many bytes stand before them, and what says so ("" if nothing does)."""

    dtype: np.dtype
    start: int
    told: str

    def tokens(self, path: str, size: int, who: str) -> int:
        """How many tokens there are in a file of so many bytes.

        Raises:
            ValueError: the bytes are not those of whole tokens.
        """
        held = size - self.start
        if held < 0 and not size and not self.told:
            return 0
        if held < 0 or held % self.dtype.itemsize:
            behind = f" behind a header of {self.start}" * bool(self.start)
            raise ValueError(
                f"{who}(): {path} has {max(held, 0)} bytes{behind}, which are no whole tokens of {self.dtype}; it is "
                "not whole, or of another dtype"
            )
        return held // self.dtype.itemsize


def layout_of(path: str, size: int, dtype: np.dtype | None, header: int | None, who: str) -> TokenLayout:
    """What stands before the tokens of a file of so many bytes; `header` bytes, if that is given.

    Raises:
        ValueError: it says that its tokens are of another dtype, or more or fewer; or it does not say, and nor does the
            caller.
    """
    if path.lower().endswith(COMPRESSED_SUFFIXES):
        raise ValueError(
            f"{who}(): {path} is compressed, as its name says; decompress it before, to be mapped into memory"
        )
    if header is None:
        with open(path, "rb") as file:
            head = file.read(LLM_C_HEADER)
            if head.startswith(INDEX_MAGIC):
                raise ValueError(f"{who}(): {path} is an index of Megatron-LM; read_megatron reads it")
            if head.startswith(MAGIC):
                head += file.read(LONGEST_HEADER + _NPY_MARGIN - len(head))
        told = _of_npy(head, path, size, who) if head.startswith(MAGIC) else _of_llm_c(head, path, size, who)
        if told is not None:
            if dtype is not None and dtype != told.dtype:
                raise ValueError(
                    f"{who}(): dtype must be that of {path}, whose header ({told.told}) says {told.dtype}, got "
                    f"{dtype}; header=0 reads what is no header"
                )
            return told
    if dtype is None:
        raise ValueError(f"{who}(): {path} does not say of what dtype its tokens are; give dtype")
    return TokenLayout(dtype, header or 0, "")


def llm_c_header(dtype: np.dtype, count: int) -> bytes:
    """The header of a file of llm.c with so many tokens."""
    magic, version = next(key for key, held in LLM_C.items() if held == dtype)
    return struct.pack("<3i", magic, version, count).ljust(LLM_C_HEADER, b"\0")


def _of_npy(head: bytes, path: str, size: int, who: str) -> TokenLayout:
    header = header_of(io.BytesIO(head), f"{who}(): {path}")
    if len(header.shape) != 1 or header.dtype.kind not in "iu":
        raise ValueError(
            f"{who}(): tokens are one row of integers, but {path} holds {header.dtype} {header.shape}; read_npy reads "
            "the rows of an array"
        )
    return _counted(TokenLayout(header.dtype, header.size, ".npy"), header.shape[0], path, size, who)


def _of_llm_c(head: bytes, path: str, size: int, who: str) -> TokenLayout | None:
    magic, version, count = struct.unpack_from("<3i", head.ljust(LLM_C_HEADER, b"\0"))
    dtype: Any = LLM_C.get((magic, version))
    return None if dtype is None else _counted(TokenLayout(dtype, LLM_C_HEADER, "llm.c"), count, path, size, who)


def _counted(layout: TokenLayout, count: Any, path: str, size: int, who: str) -> TokenLayout:
    held = layout.tokens(path, size, who)
    if held != count:
        raise ValueError(
            f"{who}(): {path} should hold {count} tokens, as its header ({layout.told}) says, but there are {held}; it "
            "is damaged, or not whole"
        )
    return layout
