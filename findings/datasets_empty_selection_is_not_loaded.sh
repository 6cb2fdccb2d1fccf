#!/usr/bin/env bash
# datasets 5.2.0, Python 3.11: does a data set without rows come back from save_to_disk() and load_from_disk()?
#
# Guess: yes, with its features and no rows.
# Seen: what filter() has left empty does, but what select([]) or from_dict() of empty lists has not: for these save_to_disk() writes no
# Arrow file, and a state.json that names none, and load_from_disk() ends with "IndexError: list index out of range".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile datasets==5.2.0 numpy==2.4.6
HF_HOME="$work/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$work/venv/bin/python" -W ignore - "$work" <<'PYTHON'
import os
import sys

import datasets

two = datasets.Dataset.from_dict({"a": [1, 2]})
empty = {
    "filter": two.filter(lambda row: False),
    "select": two.select([]),
    "from_dict": datasets.Dataset.from_dict({"a": []}, features=two.features),
}
seen = {}
for name, one in empty.items():
    folder = os.path.join(sys.argv[1], name)
    one.save_to_disk(folder)
    files = sum(entry.endswith(".arrow") for entry in os.listdir(folder))
    try:
        seen[name] = files, len(datasets.load_from_disk(folder))
    except IndexError as error:
        seen[name] = files, str(error)
print(f"datasets {datasets.__version__}: Arrow files, and rows or the error: {seen}")
lost = (0, "list index out of range")
raise SystemExit(seen != {"filter": (1, 0), "select": lost, "from_dict": lost})
PYTHON
