#!/usr/bin/env bash
# datasets 5.2.0, Python 3.11: does interleave_datasets of streams give the rows that it gives of the data sets they are streams of?
#
# Guess: yes; probabilities are not given, so nothing is random, and the stopping strategy is the same.
# Seen: with "first_exhausted" and "all_exhausted_without_replacement", yes. With "all_exhausted" data sets go on to the end of a whole
# round, where streams stop as soon as the last of them has ended: of 10 and 3 rows there are 20 of the one and 19 of the other.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
HF_HOME="$work/home" "$work/venv/bin/python" - <<'PYTHON'
import datasets

parts = [datasets.Dataset.from_dict({"x": [*one]}) for one in (range(10), range(100, 103))]
streams = [part.to_iterable_dataset() for part in parts]
read = lambda of, strategy: [row["x"] for row in datasets.interleave_datasets(of, stopping_strategy=strategy)]
strategies = ["first_exhausted", "all_exhausted_without_replacement", "all_exhausted"]
seen = {strategy: (read(parts, strategy), read(streams, strategy)) for strategy in strategies}
for strategy, (rows, streamed) in seen.items():
    print(f"datasets {datasets.__version__}, {strategy}: {rows}, streamed {streamed}")
more = {strategy: rows[len(streamed) :] for strategy, (rows, streamed) in seen.items()}
alike = all(rows[: len(streamed)] == streamed for rows, streamed in seen.values())
raise SystemExit(not alike or more != {strategies[0]: [], strategies[1]: [], strategies[2]: [100]})
PYTHON
