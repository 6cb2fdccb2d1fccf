"""Writing documents as Megatron-LM has them: PREFIX.bin, the tokens, then PREFIX.idx, without which nobody reads it."""

from __future__ import annotations

import contextlib
import os
from array import array
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.formats.tokens.indexes import DTYPES, index_bytes, prefix_of
from flowfn.formats.tokens.writing import tokens_of, write_row
from flowfn.storage.files import file_path, is_url
from flowfn.storage.writing import shown, written_whole

LONGEST_SEQUENCE = 2**31 - 1
"""How many tokens a sequence has at most."""


def _is_dtype(value: Any) -> bool:
    try:
        return np.dtype(value) in DTYPES.values()
    except TypeError:
        return False


_DTYPE = rules.Rule(
    "one of " + ", ".join(dtype.name for dtype in DTYPES.values()),
    lambda value: isinstance(value, (str, type, np.dtype)),
    lambda value, others: _is_dtype(value),
)


@rules.checked(dtype=_DTYPE, overwrite=rules.boolean)
def write_megatron(prefix: Any, flow: Any, dtype: Any, *, overwrite: bool = False) -> None:
    """Write datapoints as documents to PREFIX.bin and PREFIX.idx, as Megatron-LM has them.

    A datapoint is a document: its tokens (an array, or a list of numbers), or a list of such, its sequences. Each has
    the token that ends it, if there is to be one: GPT is trained across documents. `dtype` is uint16 for
    vocabularies of fewer than 65 500 tokens, else int32, if Megatron-LM is to choose. `prefix` may have the suffix of
    either file. A bar is shown; both files appear when they are whole, that of the index last.

    Raises:
        FileExistsError: one of the files is there already, and `overwrite` is not given.
        TypeError: a datapoint is neither a row of numbers nor a list of such.
        ValueError: a token is none of that dtype; a sequence has more than 2^31 - 1 tokens.

    >>> import tempfile
    >>> prefix = tempfile.mkdtemp() + "/text"
    >>> write_megatron(prefix, [[5, 6, 0], [[7, 8], [9, 0]]], "uint16")
    >>> sorted(os.listdir(os.path.dirname(prefix)))
    ['text.bin', 'text.idx']
    """
    final, kind = prefix_of(file_path(prefix, "write_megatron")), np.dtype(dtype)
    if is_url(final):
        raise ValueError(f"write_megatron(): files are mapped into memory, so it must be a local one, got {prefix!r}")
    lengths, firsts = array("i"), array("q", [0])
    with (
        shown(flow, "write_megatron") as datapoints,
        written_whole(f"{final}.idx", overwrite, "write_megatron") as index,
        written_whole(f"{final}.bin", overwrite, "write_megatron") as beside,
    ):
        with open(beside, "wb", 1 << 20) as file:
            for number, document in enumerate(datapoints):
                for sequence in _sequences_of(document):
                    tokens = tokens_of(sequence, kind, number, "write_megatron")
                    if len(tokens) > LONGEST_SEQUENCE:
                        raise ValueError(
                            f"write_megatron(): sequences have at most {LONGEST_SEQUENCE} tokens, "
                            f"datapoint {number} has {len(tokens)}"
                        )
                    lengths.append(write_row(file, tokens))
                firsts.append(len(lengths))
        with open(index, "wb") as file:
            file.writelines(index_bytes(kind, lengths, firsts))
        if overwrite:  # tokens never lie beside an index of others, not even for a moment
            _sync(beside, index)
            with contextlib.suppress(FileNotFoundError):
                os.remove(f"{final}.idx")


def _sequences_of(document: Any) -> list[Any]:
    """The sequences of a document: itself, if it is a row of numbers."""
    nested = isinstance(document, (list, tuple)) and len(document) > 0 and np.ndim(document[0]) > 0
    return list(document) if nested else [document]


def _sync(*paths: str) -> None:
    """Have files on the disk, as a full one is told here."""
    for path in paths:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
