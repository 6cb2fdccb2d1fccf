#!/usr/bin/env bash
# jax 0.10.2 (jaxlib 0.10.2, numpy 2.4.6), Python 3.11, on the CPU: what does `jax.device_put(x, may_alias=False)` do with an array of NumPy?
#
# Guess: it copies it, wherever it lies: "If False, `x` will be copied", says its documentation.
# Seen: it looks into it as without the argument, if it begins at a multiple of 64 bytes: what is written into it later changes the array
# of JAX. The argument counts for arrays of JAX alone; `jnp.array(x)` copies NumPy's too. (https://github.com/jax-ml/jax/pull/38086)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$work/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np


def after_writing(put):
    """The first number of the array of JAX that `put` makes of zeros, when those were written to afterwards."""
    memory = np.zeros(4000 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    array = memory[start : start + 4000].view(np.float32)
    made = jax.block_until_ready(put(array))
    array[0] = 7
    return float(made[0])


seen = {
    "device_put(x)": after_writing(jax.device_put),
    "device_put(x, may_alias=False)": after_writing(lambda x: jax.device_put(x, may_alias=False)),
    "array(x)": after_writing(jnp.array),
    "device_put(device_put(x), may_alias=False)": after_writing(lambda x: jax.device_put(jax.device_put(x), may_alias=False)),
}
print(f"jax {jax.__version__}: the first number after 7 was written to NumPy's: {seen}")
raise SystemExit([*seen.values()] != [7.0, 7.0, 0.0, 0.0])
PYTHON
