"""What is made of segment ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowfn import rules

_SEGMENT_IDS = rules.Rule(
    "integers of shape (length,), or (rows, length)",
    lambda value: np.asarray(value).dtype.kind in "iu",
    lambda value, others: np.ndim(value) in (1, 2),
)


@rules.checked(segment_ids=_SEGMENT_IDS, padding=rules.boolean)
def cu_seqlens(segment_ids: Any, *, padding: bool = True) -> tuple[np.ndarray, int]:
    """The cumulative lengths of the segments of a packed row, or of a batch of rows laid end to end, and the longest.

    `segment_ids` (length,) or (rows, length) are as `pack` gives them. What comes out is `cu_seqlens`, int32 of shape
    (segments + 1,), from 0 to the number of elements, and `max_seqlen`, an int, as `flash_attn_varlen_func` of
    FlashAttention (https://github.com/Dao-AILab/flash-attention) takes them for queries and keys of shape (elements,
    heads, size): segment i lies from `cu_seqlens[i]` to `cu_seqlens[i + 1]`. No segment goes on in the next row.

    Each stretch of padding is a segment of its own, so that elements stay where they are: `tokens.reshape(-1)`. Without
    `padding` there is none among them: the elements are `tokens[segment_ids > 0]`.

    Raises:
        TypeError, ValueError: these are no segment ids.

    >>> cu_seqlens([[1, 1, 2, 0], [1, 1, 1, 1]])
    (array([0, 2, 3, 4, 8], dtype=int32), 4)
    >>> cu_seqlens([[1, 1, 2, 0], [1, 1, 1, 1]], padding=False)
    (array([0, 2, 3, 7], dtype=int32), 4)
    """
    ids = np.asarray(segment_ids)
    begins = np.ones(ids.shape, bool)
    begins[..., 1:] = ids[..., 1:] != ids[..., :-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=ids.size)
    if not padding:
        lengths = lengths[ids.reshape(-1)[starts] > 0]
    ends = np.zeros(len(lengths) + 1, np.int32)
    lengths.cumsum(out=ends[1:])
    return ends, int(lengths.max(initial=0))
