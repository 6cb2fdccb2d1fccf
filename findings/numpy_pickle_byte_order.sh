#!/usr/bin/env bash
# numpy 2.4.6, Python 3.11: does a pickle of an array keep its dtype?
#
# Guess: yes, to the order of bytes: dtype('>f4') itself does, and so does an array of it.
# Seen: an array of '>f4' whose rows lie in a row keeps it; a strided view of the same array comes back as '<f4' (its values are right,
# its bytes have been turned around), and an array of '>f16' does so however it lies. So what a program sees through tobytes(), a
# memory view or dtype.str hangs on whether an array went through another process.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import pickle

import numpy as np

single, long = np.arange(4, dtype=">f4"), np.arange(4, dtype=">f16")
arrays = {"the dtype": single, "in a row": single, "strided": single[::2], "long": long}
seen = {name: pickle.loads(pickle.dumps(value.dtype if name == "the dtype" else value, 5)) for name, value in arrays.items()}
told = {name: value.str if isinstance(value, np.dtype) else value.dtype.str for name, value in seen.items()}
same = all(np.array_equal(value, arrays[name]) for name, value in seen.items() if name != "the dtype")
print(f"numpy {np.__version__}: {told}; values are {'the same' if same else 'others'}")
raise SystemExit(not same or told != {"the dtype": ">f4", "in a row": ">f4", "strided": "<f4", "long": "<f16"})
PYTHON
