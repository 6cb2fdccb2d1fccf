"""What does each step towards an efficient pipeline bring? From a folder, from one large file, and over ranks.

The pipelines are those of examples/efficient.md: 2000 JPEG files of 430x350 made from scikit-learn's photographs, which
are read, decoded, augmented as for ImageNet and batched by 64. All are in the system's memory by then, so what a disk
would add is not in the figures. With `--page` they are written into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from measuring import Contestant, Finding, command_line, consume, fastest, shown, table, write_json
from measuring import as_json as found
from photographs import path_of, written

import flowfn as ff
from flowfn.formats import read_lmdb, write_lmdb
from flowfn.image import augment, decode_image, fbresnet_train, read_image

PAGE = Path(__file__).parents[2] / "examples" / "efficient.md"
MARKS = "<!-- measured -->\n", "<!-- end of what was measured -->\n"
SIZE, WORKERS = 64, 2


def read_bytes(path: str) -> bytes:
    """A file as it is."""
    return Path(path).read_bytes()


def from_files(paths: list[str], *stages: Any) -> Any:
    """Read at random."""
    return ff.pipe(paths, ff.shuffle(), ff.map(read_image), augment(fbresnet_train()), ff.batch(SIZE), *stages)


def from_database(database: str, order: Any, *stages: Any) -> Any:
    """Read one file, the JPEG files in it decoded where the rest is done."""
    made = ff.map(decode_image), augment(fbresnet_train()), ff.batch(SIZE)
    return ff.pipe(read_lmdb(database), order, *made, *stages)


def steps(paths: list[str], database: str) -> dict[str, tuple[str, Any]]:
    """The pipelines: how each is called in the findings, what is written for it on the page, and itself."""
    files = ff.pipe(paths, ff.shuffle())
    return {
        "files: only read": ("`map(read_bytes)`", ff.pipe(files, ff.map(read_bytes))),
        "files: and decoded": ("`map(read_image)`", ff.pipe(files, ff.map(read_image))),
        "files: and augmented": ("`augment(fbresnet_train())`", ff.pipe(files, ff.map(read_image), augment(fbresnet_train()))),
        "files: and batched": ("`batch(64)`", from_files(paths)),
        "files: by two threads": ("`prefetch(4, threads=2)`", from_files(paths, ff.prefetch(4, threads=WORKERS))),
        "files: by two processes": ("`prefetch(4, processes=2)`", from_files(paths, ff.prefetch(4, processes=WORKERS))),
        "one file: only read, in order": ("`read_lmdb(path)`", read_lmdb(database)),
        "one file: only read, at random": ("`shuffle()`", ff.pipe(read_lmdb(database), ff.shuffle())),
        "one file: only read, through a buffer": ("`shuffle_buffer(1000)`", ff.pipe(read_lmdb(database), ff.shuffle_buffer(1000))),
        "one file: all, at random, by two processes": (
            "`shuffle(), ..., prefetch(4, processes=2)`",
            from_database(database, ff.shuffle(), ff.prefetch(4, processes=WORKERS)),
        ),
        "one file: all, through a buffer, by two processes": (
            "`shuffle_buffer(1000), ..., prefetch(4, processes=2)`",
            from_database(database, ff.shuffle_buffer(1000), ff.prefetch(4, processes=WORKERS)),
        ),
    }  # fmt: skip


# Ranks


RANK = """
import sys
sys.path[:0] = [{here!r}]
from efficient import from_files
import flowfn as ff

rank, world, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
flow = ff.pipe(paths, ff.shuffle(), ff.shard(rank, world))
flow = from_files(flow, ff.prefetch(4, processes=1))
next(iter(flow))
print("ready", flush=True)
sys.stdin.readline()
images = sum(len(batch) for batch in flow)
print(images, flush=True)
"""


def of_ranks(paths: list[str], world: int) -> float:
    """Images a second of all ranks together, each a program of its own with one worker."""
    code = RANK.format(here=str(Path(__file__).parent))
    command = [sys.executable, "-c", code]
    programs = [
        subprocess.Popen(
            [*command, str(rank), str(world), *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    try:
        for program in programs:
            program.stdout.readline()  # type: ignore[union-attr]
        began = perf_counter()
        for program in programs:
            program.stdin.write("\n")  # type: ignore[union-attr]
            program.stdin.flush()  # type: ignore[union-attr]
        images = sum(int(program.stdout.readline()) for program in programs)  # type: ignore[union-attr]
        return images / (perf_counter() - began)
    finally:
        for program in programs:
            program.communicate()


# The question


@contextmanager
def photographs(count: int) -> Iterator[tuple[list[str], str]]:
    """A folder of photographs, and an LMDB file of the same."""
    with tempfile.TemporaryDirectory(prefix="flowfn-efficient-") as folder:
        written(folder, count)
        paths = [path_of(folder, number) for number in range(count)]
        database = os.path.join(folder, "photographs.lmdb")
        write_lmdb(database, ff.pipe(paths, ff.shuffle(), ff.map(read_bytes)))
        yield paths, database


def benchmark(quick: bool) -> list[Finding]:
    """Images a second of every step."""
    count, rounds = (64, 1) if quick else (2000, 4)
    with photographs(count) as (paths, database):
        todo = steps(paths, database)
        contestants: dict[str, Contestant] = {}
        for name, (_, flow) in todo.items():
            run: Callable[[], object] = lambda flow=flow: consume(flow)  # type: ignore[misc]
            contestants[name] = Contestant(run, count)
            consume(flow)  # workers are there, and files in memory
        times = fastest(contestants, rounds)
        findings = [
            Finding(name, f"{todo[name][0]}, {shown(1e6 * seconds)} µs each", 1 / seconds, "images/s")
            for name, seconds in times.items()
        ]
        ff.shut_down()
        for world in (1, 2):
            best = max(of_ranks(paths, world) for _ in range(min(rounds, 2)))
            said = f"`shard(rank, {world})`, each with `prefetch(4, processes=1)`"
            findings.append(Finding(f"{world} rank{'s' * (world > 1)}", said, best, "images/s"))
    return findings


def onto_page(findings: list[Finding], text: str) -> str:
    """The page with these figures."""
    rows = ["| step | what is written | images a second |", "|---|---|---|"]
    for finding in findings:
        what = re.match(r"(`.*`)", finding.measured)
        assert what is not None
        assert finding.result is not None
        rows.append(f"| {finding.question} | {what[1]} | {finding.result:,.0f} |")
    before, rest = text.split(MARKS[0])
    return before + MARKS[0] + "\n".join(rows) + "\n" + MARKS[1] + rest.split(MARKS[1])[1]


def main() -> None:
    """As the command line asks."""
    parser = command_line(__doc__)
    parser.add_argument("--page", action="store_true", help="write the figures into examples/efficient.md")
    given = parser.parse_args()
    findings = benchmark(given.quick)
    print(table(findings))
    if given.page:
        PAGE.write_text(onto_page(findings, PAGE.read_text(encoding="utf8")), encoding="utf8")
    if given.json:
        write_json(given.json, [found(finding) for finding in findings])


if __name__ == "__main__":
    main()
