#!/usr/bin/env bash
# opencv-python-headless 4.12.0.88, numpy 2.2.6, Python 3.11: what becomes of an array of int64?
#
# Guess: OpenCV 4 has no 64-bit integers, so it is refused, as uint32 is; or it comes out as int64.
# Seen: it is taken for int32 by cutting off the upper half, without a word: a flip alone makes the label 2**40 + 1 the label 1, and
# 2**31 the label -2**31. int64 is what numpy makes of labels by default (np.unique's inverse, np.zeros(..., int)).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opencv-python-headless==4.12.0.88 numpy==2.2.6
"$work/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np

labels = np.array([[7, 2**31, 2**40 + 1]])
made = cv2.flip(labels, 1)
try:
    unsigned = str(cv2.flip(labels.astype(np.uint32), 1).dtype)
except (TypeError, cv2.error):
    unsigned = "refused"
seen = [str(made.dtype), made.tolist(), unsigned]
print(f"OpenCV {cv2.__version__}: a flip of {labels.dtype} {labels.tolist()} is {seen[0]} {seen[1]}; uint32 is {seen[2]}")
raise SystemExit(seen != ["int32", [[1, -(2**31), 7]], "refused"])
PYTHON
