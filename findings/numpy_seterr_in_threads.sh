#!/usr/bin/env bash
# numpy 2.2.6 and 1.26.4, Python 3.11: who follows np.seterr?
#
# Guess: np.seterr(divide="raise") is a setting of the process, so a division by zero raises in the threads of a loader too.
# Seen: it is a setting of the thread (1.26) or of its context (2.x). The threads of a ThreadPoolExecutor begin with numpy's defaults,
# so what raises in the main thread gives inf and a warning there. In 2.x a thread that runs within contextvars.copy_context() follows;
# in 1.26 it does not, and has to call np.seterr itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 2.2.6 1.26.4; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "numpy==$version"
    "$work/$version/bin/python" - <<'PYTHON'
import contextvars, warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np

warnings.simplefilter("ignore")
np.seterr(divide="raise")


def divides():
    try:
        return str(np.float64(1) / np.float64(0))
    except FloatingPointError:
        return "raises"


with ThreadPoolExecutor(1) as pool:
    seen = [divides(), pool.submit(divides).result(), pool.submit(contextvars.copy_context().run, divides).result()]
expected = ["raises", "inf", "raises" if np.__version__ == "2.2.6" else "inf"]
print(f"numpy {np.__version__}: main thread {seen[0]}, a pool's thread {seen[1]}, the same within the main thread's context {seen[2]}")
raise SystemExit(seen != expected)
PYTHON
done
