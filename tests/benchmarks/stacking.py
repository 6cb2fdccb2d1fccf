"""How fast is a batch of large arrays stacked in this process?

128 images of 224x224x3, as uint8 (19 MB) and as float32 (77 MB), where nothing but the last batch is alive, and where
some more are, as in a prefetch. The yardsticks: a copy of as many bytes into memory that has been written before, and
`np.stack`, into new memory each time as everybody calls it, into a buffer of one's own, and into as many in turn as
have to be alive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from itertools import cycle, repeat
from typing import Any

import numpy as np
import peers
from measuring import Contestant, Finding, fastest, ratio, report, shown

import flowfn as ff

IMAGES = 128
BATCHES = 8


def stacked(dtype: type, alive: int, quick: bool) -> list[Finding]:
    """flowfn, numpy and torch, turn by turn; as many batches stay alive while the next is made."""
    source: np.ndarray = np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), np.uint8).astype(dtype)
    images, target = [image.copy() for image in source], source.copy()
    makers = {
        "flowfn": ff.pipe(images * BATCHES, ff.batch(IMAGES)),
        "memory copy": _Calls(partial(np.copyto, target, source)),
        "np.stack": _Calls(partial(np.stack, images)),
        "a buffer of one's own": _Calls(partial(np.stack, images, out=target)),
        "buffers of one's own, in turn": _InTurn(images, [source.copy() for _ in range(alive + 1)]),
    }
    if (torch := peers.torch()) is not None:
        makers["torch.stack"] = _Calls(partial(torch.stack, [torch.from_numpy(image) for image in images]))
    contestants = {name: Contestant(partial(deque, batches, alive), BATCHES) for name, batches in makers.items()}
    times = fastest(contestants, 2 if quick else 30)
    gigabytes = {name: source.nbytes / 1e9 / seconds for name, seconds in times.items()}
    told = f"flowfn {shown(gigabytes['flowfn'])} GB/s, memory copy {shown(gigabytes['memory copy'])} GB/s"
    question = f"stacking {shown(source.nbytes / 1e6)} MB of {np.dtype(dtype)}, {alive} alive"
    share = gigabytes["flowfn"] / gigabytes["memory copy"]
    return [
        Finding(f"{question}: share of the bandwidth of a memory copy", told, share, target=">= 0.85"),
        ratio(f"{question}: times as fast as np.stack", times, "np.stack", "flowfn", unit="ms", target=">= 2"),
        ratio(
            f"{question}: times as fast as a buffer of one's own", times, "a buffer of one's own", "flowfn", unit="ms"
        ),
        ratio(
            f"{question}: times as fast as buffers of one's own, in turn",
            times,
            "buffers of one's own, in turn",
            "flowfn",
            unit="ms",
        ),
        ratio(f"{question}: times as fast as torch.stack", times, "torch.stack", "flowfn", unit="ms"),
    ]


class _InTurn:
    """Batches in as many buffers as there are batches alive, and one more."""

    def __init__(self, images: Any, buffers: Any) -> None:
        self.images, self.buffers = images, cycle(buffers)

    def __iter__(self) -> Any:
        return (np.stack(self.images, out=next(self.buffers)) for _ in repeat(None, BATCHES))


class _Calls:
    """What a function returns, again and again."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __iter__(self) -> Any:
        return (self.call() for _ in repeat(None, BATCHES))


def benchmark(quick: bool) -> list[Finding]:
    """All findings."""
    cases: Iterable[tuple[type, int]] = ((np.uint8, 1), (np.uint8, 4), (np.float32, 1))
    return [finding for dtype, alive in cases for finding in stacked(dtype, alive, quick)]


if __name__ == "__main__":
    report(__doc__, benchmark)
