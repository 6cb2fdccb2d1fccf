"""Megatron-LM's documents (.bin and .idx), and slices of them as GPT is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.skipping import never_ends
from flowfn.flows.sources import ArraysNode, Source
from flowfn.formats.joining.several import together
from flowfn.formats.tokens.documents import Documents, Sequences
from flowfn.formats.tokens.files import rows_of_files, stamp_of
from flowfn.formats.tokens.indexes import DocumentIndex, prefix_of
from flowfn.formats.tokens.megatron_writing import write_megatron
from flowfn.formats.tokens.slices import Slices, refuse_modes, slice_file
from flowfn.showing import as_called, brief
from flowfn.storage.files import file_path, flow_of, is_url
from flowfn.storage.finding import paths_of

__all__ = ["read_megatron", "write_megatron"]


@rules.checked(length=rules.optional(rules.positive), segments=rules.boolean, sequences=rules.boolean)
def read_megatron(
    prefixes: Any, length: int | None = None, *, order: Any = None, segments: bool = False, sequences: bool = False
) -> Flow[Any]:
    """A flow of the documents in PREFIX.bin and PREFIX.idx, as Megatron-LM has them, or of slices across them.

    Without `length`, a datapoint is a document, an array of its tokens; with `sequences=True` it is one of the
    sequences that documents are made of, and of a multimodal index a dict of its "tokens" and its "mode" (an int).

    With `length`, documents stand one behind the other, and a datapoint is a slice of `length` tokens and one more,
    which is the first of the next slice: an array (length + 1,), as GPTDataset cuts them. What is left over at the end
    is left out. `order` says which documents stand there, and in which order: numbers of documents in an array, a
    list, or a flow that is gone through once, pipe(range(n), shuffle(), repeat(2)) for two epochs; with
    `sequences=True` they are numbers of sequences (what GPTDataset calls documents). With `segments=True`, datapoints
    are lists of the tokens, their segment ids (1 for the first document in the slice, 2 for the next) and their
    positions in these, from 0 on (int32), as those of `pack`.

    Files are mapped into memory: datapoints are read-only, and views wherever tokens lie together; `batch` right after
    slices (or after `shuffle`, `shard`, `take`) gathers a whole batch at once. `prefixes` is one, or a list of them,
    with or without the suffix of either file; it may have patterns and ranges in braces. Slices do not cross from one
    to the next.

    Raises:
        ValueError: an index is none, or a damaged one, or of other tokens; it has modes, and not sequences are read;
            `order` is for several prefixes, or has numbers of no documents; no slice is so long.
        FileNotFoundError: there are no such files.

    The format: https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py

    >>> import tempfile
    >>> prefix = tempfile.mkdtemp() + "/text"
    >>> write_megatron(prefix, [[5, 6, 7, 0], [8, 0], [9, 0]], "uint16")
    >>> read_megatron(prefix)[1].tolist()
    [8, 0]
    >>> [row.tolist() for row in read_megatron(prefix, 3)]
    [[5, 6, 7, 0], [0, 8, 0, 9]]
    >>> [row.tolist() for row in read_megatron(prefix, 3, order=[2, 0], segments=True)[0]]
    [[9, 0, 5, 6], [1, 1, 2, 2], [0, 1, 0, 1]]
    """
    found = _prefixes(prefixes)
    if length is None and (order is not None or segments):
        raise ValueError("read_megatron(): order and segments are of slices; give length, too")
    if order is not None and len(found) > 1:
        raise ValueError(f"read_megatron(): order is of the documents of one prefix, got {len(found)} prefixes")
    given = {"length": length, "order": order, "segments": segments or None, "sequences": sequences or None}
    words = {name: brief(value) for name, value in given.items() if value is not None}
    text = as_called("read_megatron", repr(prefixes), **words)
    if length is None:
        kind = Sequences if sequences else Documents
        return flow_of(together([kind(one, "read_megatron") for one in found], "read_megatron"), "read_megatron", text)
    slices = _slices(found, length, _document_numbers(order), segments, sequences)
    return Flow(Source(slices, ArraysNode, name="read_megatron", shown=text))


def _slices(found: list[str], length: int, order: np.ndarray | None, segments: bool, sequences: bool) -> Any:
    if order is not None or segments:
        parts = [Slices(one, length, order, segments, sequences, "read_megatron") for one in found]
        return together(parts, "read_megatron")
    first = DocumentIndex(found[0], "read_megatron")
    refuse_modes(first)
    stamps = [stamp_of(f"{one}.bin") for one in found]
    files = [slice_file(one, first.dtype, length, "read_megatron", stamp) for one, stamp in zip(found, stamps)]
    return rows_of_files(files, "read_megatron")


def _document_numbers(order: Any) -> np.ndarray | None:
    """The numbers of documents, of whatever says them one after the other."""
    if order is None:
        return None
    if isinstance(order, Flow) and never_ends(order.node):
        raise ValueError(
            "read_megatron(): order must come to an end, got an endless flow; write repeat(n) for n epochs"
        )
    numbers = order.run(seed=order.seed, epoch=order.epoch) if isinstance(order, Flow) else order
    made = numbers if isinstance(numbers, np.ndarray) else np.array(list(numbers))
    if made.ndim != 1 or (made.size and made.dtype.kind not in "iu"):
        raise TypeError(f"read_megatron(): order must be numbers of documents, got {made.dtype} {made.shape}")
    return made.astype(np.int64)


def _prefixes(prefixes: Any) -> list[str]:
    """The prefixes that are meant, of which both files must be there."""
    several = list(prefixes) if isinstance(prefixes, (list, tuple)) else [prefixes]
    indexes = [f"{prefix_of(file_path(one, 'read_megatron'))}.idx" for one in several]
    for path in filter(is_url, indexes):
        raise ValueError(f"read_megatron(): files are mapped into memory, so each must be a local one, got {path!r}")
    return [path.removesuffix(".idx") for path in paths_of(indexes, "read_megatron")]
