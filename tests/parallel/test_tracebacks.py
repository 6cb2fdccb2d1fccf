"""A traceback from a worker shows what it shows without workers: file,
line and text of functions that no worker has a file of."""

import concurrent.futures
import linecache
import multiprocessing
import os
import pickle
import subprocess
import sys
import traceback

import pytest

import flowfn as ff
from flowfn.parallel.crossing.transport import dumped

pytestmark = [pytest.mark.everywhere, pytest.mark.timeout(120)]

WAYS = {"one process": {"processes": 1}, "processes": {"processes": 2}}

CELL = """
import contextlib
import warnings
import flowfn as ff

def plain(x):
    return 1 / x  # plain

nameless = lambda x: 1 / x  # nameless

def outer(x):
    def inner(y):
        return 1 / y  # inner
    return inner(x)

class Inverse:
    def __call__(self, x):
        return self.of(x)  # the call

    @staticmethod
    def of(x):
        return 1 / x  # of a class

@ff.stage.each
def inverses(source):
    for x in source:
        yield 1 / x  # a stage

def chained(x):
    try:
        return 1 / x  # the cause
    except ZeroDivisionError as error:
        raise ValueError("above") from error  # the effect

def grouped(x):
    errors = []
    for _ in range(2):
        try:
            1 / x  # in a group
        except ZeroDivisionError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("all", errors)  # the group

def several(
    x,
):
    return (
        1
        / x  # over lines
    )

def make():
    return 1 / 0  # made once

per_process = ff.per_process(make)

def of_process(x):
    return per_process()

def collate(xs):
    return 1 / 0  # collated

def drawn(x, rng):
    return 1 / 0  # drawn

STAGES = {
    "plain": (ff.map(plain), ["# plain"]),
    "nameless": (ff.map(nameless), ["# nameless"]),
    "inner": (ff.map(outer), ["return inner(x)", "# inner"]),
    "class": (ff.map(Inverse()), ["# the call", "# of a class"]),
    "stage": (inverses(), ["# a stage"]),
    "chained": (ff.map(chained), ["# the cause", "# the effect", "direct cause"]),
    "grouped": (ff.map(grouped), ["# in a group", "# the group"]),
    "several": (ff.map(several), ["in several"]),
    "per process": (ff.map(of_process), ["return per_process()", "# made once"]),
    "collated": (ff.batch(2, collate=collate), ["# collated"]),
    "drawn": (ff.map(drawn, rng=True), ["# drawn"]),
}
"""
CELL_FILE = "/tmp/no_such_kernel_77/1234567.py"


@pytest.fixture(scope="module")
def cell():
    """What a cell of a notebook defines: its text is in nobody's file, but known to this process."""
    linecache.cache[CELL_FILE] = len(CELL), None, CELL.splitlines(keepends=True), CELL_FILE
    names = {"__name__": "__main__"}
    exec(compile(CELL, CELL_FILE, "exec"), names)
    yield names
    del linecache.cache[CELL_FILE]


NAMES = [line.split('"')[1] for line in CELL.splitlines() if line.startswith('    "')]


def shown(flow):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        list(flow)
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_a_cells_functions_are_shown_as_without_workers(cell, name, way):
    stage, lines = cell["STAGES"][name]
    text = shown(ff.pipe([2, 1, 0], stage, ff.prefetch(2, **WAYS[way])))
    remote = text[
        : text.index("The above exception was the direct cause of the following exception", text.rindex('"""'))
    ]
    for line in lines:
        assert line in remote
    ours = [line for line in traceback_lines(shown(ff.pipe([2, 1, 0], stage))) if CELL_FILE in line]
    assert ours
    assert set(ours) <= set(traceback_lines(remote))


def traceback_lines(text):
    return [line.strip(" |+-") for line in text.splitlines()]


def test_an_executor_whose_workers_have_no_such_file_shows_it_too(cell):
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        text = shown(ff.pipe([2, 1, 0], cell["STAGES"]["stage"][0], ff.prefetch(2, executor=executor)))
    assert f'File "{CELL_FILE}", line' in text
    assert "yield 1 / x  # a stage" in text.split("direct cause")[0]


def test_a_pickle_takes_the_lines_along_to_where_there_is_no_such_file(cell):
    data = pickle.dumps(ff.pipe([0], ff.map(cell["plain"]), ff.map(cell["nameless"])))
    program = (
        "import pickle, sys, traceback\ntry: list(pickle.load(sys.stdin.buffer))\nexcept ZeroDivisionError: "
        "traceback.print_exc()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], input=data, capture_output=True, timeout=60)
    assert f'File "{CELL_FILE}", line 7, in plain\n    return 1 / x  # plain' in done.stderr.decode()


def test_what_is_shown_of_a_file_that_is_there_stays(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def one(x):\n    return x\n\ndef two(x):\n    return 1 / x\n")
    names = {"__name__": "__main__"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    linecache.getlines(str(path))
    pickle.loads(pickle.dumps(ff.map(names["two"])))
    assert linecache.getlines(str(path)) == path.read_text().splitlines(keepends=True)
    assert linecache.cache[str(path)][1] is not None  # a change of the file is still seen


def test_source_is_found_by_what_looks_for_it_in_a_worker(cell):
    def look(function):
        import linecache

        code = function.__code__
        return linecache.getline(code.co_filename, code.co_firstlineno)

    source = ff.pipe([cell["plain"], cell["outer"]], ff.map(look), ff.prefetch(2, processes=2))
    assert list(source) == ["def plain(x):\n", "def outer(x):\n"]


SCRIPT = """
import sys, traceback, warnings
import flowfn as ff

def warned(x):
    warnings.warn("look here")
    return x

def wrong(x):
    return 1 / x  # wrong

def set_up():
    return 1 / 0  # set up

if __name__ == "__main__":
    list(ff.pipe(range(2), ff.map(warned), ff.prefetch(2, processes=1)))
    ff.shut_down()
    for stages in ([ff.map(wrong), ff.prefetch(2, processes=2)], [ff.map(abs), ff.prefetch(2, processes=2, setup=set_up)]):
        try:
            list(ff.pipe([0], *stages))
        except ZeroDivisionError as error:
            print("".join(traceback.format_exception(error)))
"""


@pytest.mark.parametrize("arguments", [["own_script.py"], ["-m", "own_script"]], ids=" ".join)
def test_a_script_is_shown_in_tracebacks_and_warnings_of_its_workers(arguments, tmp_path):
    (tmp_path / "own_script.py").write_text(SCRIPT)
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    file = tmp_path / "own_script.py"
    assert f'File "{file}", line 10, in wrong\n    return 1 / x  # wrong' in done.stdout
    assert f'File "{file}", line 13, in set_up\n    return 1 / 0  # set up' in done.stdout
    assert f"{file}:6: UserWarning: look here" in done.stderr
    assert 'warnings.warn("look here")' in done.stderr


def test_a_tree_is_the_same_bytes_each_time(cell):
    node = ff.pipe([1], *(stage for stage, _ in cell["STAGES"].values())).node
    assert dumped(node) == dumped(node)
