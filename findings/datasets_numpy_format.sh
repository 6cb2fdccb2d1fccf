#!/usr/bin/env bash
# datasets 5.2.0, Python 3.11: has a column the same dtype in a row and in a batch of a Dataset in the format "numpy"?
#
# Guess: yes, that of its feature: dataset[0]["x"] is dataset[:1]["x"][0].
# Seen: a number of a row keeps the dtype of its feature; an array (so, the column of a batch, and a list in a row) becomes int64 or
# float32, whatever the feature says. So a float64 column loses half of its digits in batches, and has all of them in rows, and
# loaders that ask for several rows at once (__getitems__) get the batch's.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
HF_HOME="$work/home" "$work/venv/bin/python" - <<'PYTHON'
import datasets

features = datasets.Features({"x": datasets.Value("float64"), "i": datasets.Value("int8")})
made = datasets.Dataset.from_dict({"x": [0.1], "i": [1]}, features=features).with_format("numpy")
ways = {"a row": made[0], "a batch": made[:1], "__getitems__": made.__getitems__([0])[0]}
seen = {way: (str(got["x"].dtype), str(got["i"].dtype)) for way, got in ways.items()}
print(f"datasets {datasets.__version__}: the dtypes of float64 and int8: {seen}; {ways['a row']['x']} is {ways['a batch']['x'][0]}")
right = {"a row": ("float64", "int8"), "a batch": ("float32", "int64"), "__getitems__": ("float32", "int64")}
raise SystemExit(seen != right)
PYTHON
