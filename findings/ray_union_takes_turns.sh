#!/usr/bin/env bash
# ray[data] 2.60.0, Python 3.11: in which order do rows of a.union(b) come, with execution_options.preserve_order?
#
# Guess: those of a, then those of b: "the order of the blocks in the datasets is preserved, as is the relative ordering between the
# datasets passed in the argument list", says the documentation of union; without preserve_order, as they are ready.
# Seen: a block of a, a block of b, a block of a, and so on, until one has no more: preserve_order makes the operator take turns. Only if
# each is of one block does b come behind a. Materialized data sets come one after the other without preserve_order, and take turns with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "ray[data]==2.60.0"
RAY_TMPDIR="$work" timeout 300 "$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import ray

ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
options = ray.data.DataContext.get_current().execution_options


def rows(blocks, materialized=False):
    parts = [ray.data.range(6, override_num_blocks=blocks) for _ in range(2)]
    parts = [part.materialize() for part in parts] if materialized else parts
    return [row["id"] for row in parts[0].union(parts[1]).iter_rows()]


seen = {}
for kept in (True, False):
    options.preserve_order = kept
    seen |= {(kept, *how): rows(*how) for how in ((1, False), (3, False), (3, True))}
print(f"ray {ray.__version__}, by (preserve_order, blocks, materialized): {seen}")
one_after_the_other, by_turns = [*range(6), *range(6)], [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5]
right = {(True, 1, False): one_after_the_other, (True, 3, False): by_turns, (True, 3, True): by_turns}
raise SystemExit({how: seen[how] for how in right} != right)
PYTHON
