#!/usr/bin/env bash
# webdataset 1.0.2, Python 3.11: do shards come in another order in each pass over WebDataset(urls, shardshuffle=100), for which no seed
# is given?
#
# Guess: yes, as samples behind .shuffle(100) do, which is seeded by the time; detshuffle=True is there for who wants it repeated.
# Seen: no. The shards come in one order in every pass, and behind .repeat() in every round, with and without a seed: the shuffle of
# shards is given a seed in any case, and begins with it in each pass. detshuffle=True, which adds the number of the pass to it, is what
# makes them differ.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys
from importlib.metadata import version

import webdataset

urls = [f"{sys.argv[1]}/{i}.tar" for i in range(8)]
for i, url in enumerate(urls):
    with webdataset.TarWriter(url) as tar:
        tar.write({"__key__": str(i), "cls": i})


def passes(**options):
    read = webdataset.WebDataset(urls, **options).decode()
    return [[one["cls"] for one in read] for _ in range(3)]


unseeded, seeded, counted = passes(shardshuffle=100), passes(shardshuffle=100, seed=5), passes(shardshuffle=100, detshuffle=True)
print(f"webdataset {version('webdataset')}: {unseeded=}, {seeded=}, {counted=}")
alike = [len({*map(tuple, orders)}) for orders in (unseeded, seeded, counted)]
raise SystemExit(alike != [1, 1, 3] or sorted(unseeded[0]) != [*range(8)] or unseeded[0] == [*range(8)])
PYTHON
