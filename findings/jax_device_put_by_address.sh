#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2, numpy 2.4.6), Python 3.11, on the CPU: does jax.device_put copy a NumPy array?
#
# Guess: always, since arrays of JAX do not change; or, if not, the same for all arrays of one dtype and shape.
# Seen: it depends on the address. An array whose first byte lies at a multiple of 64 is looked into, so what is written into it later
# changes the array of JAX; at 16, 32 or 48 bytes behind one it is copied. What NumPy allocates in large pieces begins 16 bytes behind
# a page and is always copied (38 MB: some 17 ms instead of 0.04); rows of a memory map or of shared memory may be either.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import jax
import numpy as np


def placed(offset):
    """A thousand float32 zeros whose first byte lies so many bytes behind a multiple of 64."""
    memory = np.zeros(4000 + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + 4000].view(np.float32)


def after_writing(array):
    """The first number of the array of JAX, when NumPy's was written to afterwards."""
    put = jax.block_until_ready(jax.device_put(array))
    array.flat[0] = 7
    return float(put.ravel()[0])


seen = {offset: after_writing(placed(offset)) for offset in (0, 16, 32, 48)}
large = np.zeros((64, 3, 224, 224), np.float32)
print(f"jax {jax.__version__}: the first number, by where the memory begins: {seen}; NumPy's own: {large.ctypes.data % 64} behind 64")
raise SystemExit(seen != {0: 7.0, 16: 0.0, 32: 0.0, 48: 0.0} or large.ctypes.data % 64 != 16 or after_writing(large) != 0)
PYTHON
