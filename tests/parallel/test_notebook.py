"""A notebook that edits, reloads, changes directory and interrupts: in every cell, workers agree with serial.

Run as a program, this file executes the notebook in a folder and prints what its cells said.
"""

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.long, pytest.mark.together, pytest.mark.timeout(400)]

PROLOGUE = r'''
import decimal, importlib, os, sys, time, traceback, warnings
from pathlib import Path
import numpy as np
import flowfn as ff

WAYS = [{}, {"threads": 2}, {"processes": 2}, {"processes": 1}]


def outcome(flow):
    """What comes of a pass: its outputs, or the error that ended it."""
    try:
        return repr(list(flow))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def prefetched(flow, way):
    return ff.pipe(flow, ff.prefetch(2, **way))


def compare(make, expected=None, ways=WAYS):
    """Say where workers do not do what this process does; `make` is a flow, or a function that makes one."""
    flow = make if isinstance(make, ff.Flow) else make()
    here = outcome(flow.run(epoch=0))
    if expected is not None and here != repr(expected):
        print(f"disagrees: serially there is {here}, it should be {expected!r}")
    for way in ways:
        there = outcome(prefetched(flow, way).run(epoch=0))
        if there != here:
            print(f"disagrees: {way} gives {there}, serially there is {here}")


def write(path, text):
    """Write a file that is newer than it was, however coarse the clock of files is."""
    path = Path(path)
    before = path.stat().st_mtime if path.exists() else 0
    path.write_text(text)
    os.utime(path, (max(time.time(), before + 10),) * 2)
    importlib.invalidate_caches()


sys.dont_write_bytecode = True
sys.path.insert(0, os.getcwd())
write("mine.py", "import theirs\nSIZE = 1\ndef f(x): return ('first', SIZE, x)\ndef g(x): return theirs.h(x)\n")
write("theirs.py", "FACTOR = 1\ndef h(x): return x * FACTOR\n")
import mine, theirs
'''

CELLS = {
    "functions of a cell": """
        SCALE = 2

        def scaled(x):
            return x * SCALE

        def noisy(x, rng):
            return x + int(rng.integers(100))

        @ff.stage.each
        def shifted(by, source):
            for x in source:
                yield x + by

        compare(ff.pipe(range(6), ff.map(scaled)), [0, 2, 4, 6, 8, 10])
        compare(ff.pipe(range(6), ff.map(lambda x: scaled(x) + 1)))
        compare(ff.pipe(range(6), ff.shuffle(), ff.map(noisy, rng=True), shifted(3), ff.filter(lambda x: x % 2), ff.batch(2)))
    """,
    "a global of the notebook is set": """
        SCALE = 3
        compare(ff.pipe(range(3), ff.map(scaled)), [0, 3, 6])
    """,
    "a function is redefined": """
        before = ff.pipe(range(3), ff.map(scaled))

        def scaled(x):
            return x * SCALE + 100

        compare(ff.pipe(range(3), ff.map(scaled)), [100, 103, 106])
        compare(before, [0, 3, 6])
    """,
    "a class is defined": """
        class Point:
            unit = "mm"

            def __init__(self, x):
                self.x = x

            def __repr__(self):
                return f"{self.x} {self.unit}"

        compare(ff.pipe(range(2), ff.map(Point)))
        assert all(type(p) is Point for p in ff.pipe(range(2), ff.map(Point), ff.prefetch(1, processes=2)))
    """,
    "a class is redefined": """
        class Point:
            unit = "km"

            def __init__(self, x):
                self.x = x + 1

            def __repr__(self):
                return f"<{self.x} {self.unit}>"

        compare(ff.pipe(range(2), ff.map(Point)))
        assert all(type(p) is Point for p in ff.pipe(range(2), ff.map(Point), ff.prefetch(1, processes=2)))
        Point.unit = "m"
        compare(ff.pipe(range(2), ff.map(Point)))
    """,
    "a module": """
        compare(ff.pipe([0, 1], ff.map(mine.f)), [("first", 1, 0), ("first", 1, 1)])
    """,
    "a global of a module is set": """
        mine.SIZE = 64
        compare(ff.pipe([0], ff.map(mine.f)), [("first", 64, 0)])
        compare(ff.pipe([0], ff.map(lambda x: mine.SIZE + x)), [64])
    """,
    "a function of a module is replaced": """
        held = theirs.h
        theirs.h = lambda x: x - 1
        compare(ff.pipe([1], ff.map(mine.g)), [0])
        theirs.h = held
        compare(ff.pipe([1], ff.map(mine.g)), [1])
    """,
    "a module is edited and not reloaded": """
        write("mine.py", "import theirs\\nSIZE = 2\\ndef f(x): return ('second', SIZE, x)\\ndef g(x): return theirs.h(x)\\n")
        compare(ff.pipe([0], ff.map(mine.f)), [("first", 64, 0)])
    """,
    "a module is edited and not reloaded, and workers are new": """
        ff.shut_down()
        compare(ff.pipe([0], ff.map(mine.f)), [("first", 64, 0)])
    """,
    "a module is reloaded": """
        from mine import f as of_before
        importlib.reload(mine)
        compare(ff.pipe([0], ff.map(mine.f)), [("second", 2, 0)])
        compare(ff.pipe([0], ff.map(lambda x: mine.f(x))), [("second", 2, 0)])
    """,
    "a function from before the reload": """
        compare(ff.pipe([0], ff.map(of_before)), [("first", 2, 0)])
    """,
    "a module that a module imports is reloaded": """
        write("theirs.py", "FACTOR = 5\\ndef h(x): return x * FACTOR + 1\\n")
        importlib.reload(theirs)
        compare(ff.pipe([1], ff.map(mine.g)), [6])
    """,
    "autoreload is switched on": """
        %load_ext autoreload
        %autoreload 2
        compare(ff.pipe([1], ff.map(mine.g)), [6])
        write("mine.py", "import theirs\\nSIZE = 3\\ndef f(x): return ('third', SIZE, x)\\ndef g(x): return -theirs.h(x)\\n")
    """,
    "a module is reloaded by autoreload": """
        compare(ff.pipe([0], ff.map(mine.f)), [("third", 3, 0)])
        compare(ff.pipe([1], ff.map(mine.g)), [-6])
        write("theirs.py", "FACTOR = 7\\ndef h(x): return x * FACTOR\\n")
    """,
    "a module that a module imports is reloaded by autoreload": """
        compare(ff.pipe([1], ff.map(mine.g)), [-7])
        %autoreload 0
    """,
    "os.chdir": """
        write("here.txt", "above")
        Path("below").mkdir()
        write("below/here.txt", "below")
        compare(ff.pipe(["here.txt"], ff.map(lambda path: Path(path).read_text())), ["above"])
        os.chdir("below")
        compare(ff.pipe(["here.txt"], ff.map(lambda path: Path(path).read_text())), ["below"])
        compare(ff.pipe([0], ff.map(lambda x: os.path.basename(os.getcwd()))), ["below"])
    """,
    "os.chdir back": """
        os.chdir("..")
        compare(ff.pipe(["here.txt"], ff.map(lambda path: Path(path).read_text())), ["above"])
    """,
    "os.environ": """
        os.environ["OF_MINE"] = "1"
        compare(ff.pipe([0], ff.map(lambda x: os.environ.get("OF_MINE"))), ["1"])
        os.environ["OF_MINE"] = "2"
        compare(ff.pipe([0], ff.map(lambda x: os.environ.get("OF_MINE"))), ["2"])
        del os.environ["OF_MINE"]
        compare(ff.pipe([0], ff.map(lambda x: os.environ.get("OF_MINE"))), [None])
    """,
    "sys.path": """
        Path("late").mkdir()
        write("late/late_module.py", "def g(x): return x + 1\\n")
        sys.path.insert(0, os.path.abspath("late"))
        import late_module
        compare(ff.pipe([0], ff.map(late_module.g)), [1])
        compare(ff.pipe([0], ff.map(lambda x: importlib.import_module("late_module").g(x))), [1])
    """,
    "np.seterr": """
        before = np.seterr(divide="raise")
        compare(ff.pipe([0.0], ff.map(lambda x: np.float64(1) / x)))
        compare(ff.pipe([0], ff.map(lambda x: np.geterr()["divide"])), ["raise"])
        np.seterr(**before)
        compare(ff.pipe([0], ff.map(lambda x: np.geterr()["divide"])), ["warn"])
    """,
    "np.errstate": """
        with np.errstate(over="raise"):
            compare(ff.pipe([0], ff.map(lambda x: np.geterr()["over"])), ["raise"])
        compare(ff.pipe([0], ff.map(lambda x: np.geterr()["over"])), ["warn"])
    """,
    "decimal": """
        decimal.getcontext().prec = 5
        compare(ff.pipe([3], ff.map(lambda x: str(1 / decimal.Decimal(x)))), ["0.33333"])
        decimal.getcontext().prec = 28
        compare(ff.pipe([3], ff.map(lambda x: str(1 / decimal.Decimal(x)))), ["0." + "3" * 28])
    """,
    "warnings": """
        def warning(x):
            warnings.warn("of mine", UserWarning)
            return x

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compare(ff.pipe([0], ff.map(warning)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compare(ff.pipe([0], ff.map(warning)), [0])
    """,
    "what libraries hold": """
        import csv

        def prepare():
            csv.field_size_limit(10**8)

        prepare()
        compare(ff.pipe([0], ff.map(lambda x: csv.field_size_limit())), [10**8], [{**way, "setup": prepare} for way in WAYS[2:]])
    """,
    "an error names the cell and its line": '''
        def inverse(x):
            held = 1
            return held / (x - 2)

        def frames(flow):
            """(file, number, text) of the lines of `inverse` in the traceback of an error."""
            try:
                list(flow)
            except ZeroDivisionError as error:
                told = "".join(traceback.format_exception(error)).splitlines()
                return [(line.strip(), told[at + 1].strip()) for at, line in enumerate(told) if line.endswith("in inverse")]

        here = frames(ff.pipe(range(4), ff.map(inverse)))
        assert here[0][1] == "return held / (x - 2)", here
        for way in WAYS:
            there = frames(prefetched(ff.pipe(range(4), ff.map(inverse)), way))
            if not there or there[0] != here[0]:
                print(f"disagrees: with {way} the traceback has {there}, serially it has {here}")
    ''',
    "a pass is left, and gone on with elsewhere": """
        flow = ff.pipe(range(20), ff.shuffle(), ff.map(noisy, rng=True))
        whole = list(flow.run(epoch=0))
        for way in WAYS:
            for datapoint in (iterator := prefetched(flow, way).run(epoch=0)):
                if iterator.position == 7:
                    break
            for other in [*WAYS, None]:
                fresh = ff.pipe(range(20), ff.shuffle(), ff.map(noisy, rng=True), ff.prefetch(2, **other) if other else None)
                if list(fresh.load_state_dict(iterator.state_dict())) != whole[7:]:
                    print(f"disagrees: left with {way}, gone on with {other}")
    """,
    "the end": """
        ff.shut_down()
        compare(ff.pipe(range(3), ff.map(scaled)), [100, 103, 106])
        ff.shut_down()
        print("children:", len(__import__("multiprocessing").active_children()))
    """,
}
"""What is done in each cell; it prints where workers disagree."""

INTERRUPTED = """
    def slow(x):
        time.sleep(0.02)
        return x * SCALE

    slow_flow = ff.pipe(range(3000), ff.map(slow), ff.prefetch(4, **{way}))
    state, got = None, []
    for datapoint in (iterator := iter(slow_flow)):
        got.append(datapoint)
        if len(got) == 5:
            Path("under way").touch()
"""

GONE_ON = """
    state = iterator.state_dict()
    with iter(ff.pipe(range(3000), ff.map(slow), ff.prefetch(4, **{way})).load_state_dict(state)) as rest:
        got += [next(rest) for _ in range(5)]
    if got != [x * SCALE for x in range(len(got))] or len(got) < 10:
        print(f"disagrees: interrupted and gone on there is {got}")
    compare(ff.pipe(range(6), ff.map(scaled)), [100, 103, 106, 109, 112, 115])
"""

WAYS = {
    "threads": {"threads": 2},
    "two processes": {"processes": 2},
    "a process": {"processes": 1},
    "a thread": {},
    "no workers": None,
}


def cells():
    """All cells by name, the last one last."""
    found = {name: textwrap.dedent(source).strip() for name, source in CELLS.items()}
    last, end = found.popitem()
    for name, way in WAYS.items():
        for cell, source in ((f"interrupted, {name}", INTERRUPTED), (f"gone on with, {name}", GONE_ON)):
            text = textwrap.dedent(source).strip().replace("{way}", repr(way))
            found[cell] = text.replace(", ff.prefetch(4, **None)", "")
    return {**found, last: end}


def execute(folder):
    """Execute the notebook, and print what every cell said, as JSON; in the end,
    what is left of the kernel's processes."""
    import nbformat
    from nbclient import NotebookClient

    names = {name: number for number, name in enumerate(cells(), 1)}
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in [PROLOGUE.strip(), *cells().values()]]
    )
    client = NotebookClient(notebook, timeout=60, allow_errors=True, resources={"metadata": {"path": folder}})
    interrupted, started = {number for name, number in names.items() if name.startswith("interrupted")}, []

    async def interrupt(marker, until):
        while not marker.exists() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        marker.unlink(missing_ok=True)
        await client.km.interrupt_kernel()

    def on_cell_execute(cell, cell_index):
        if cell_index in interrupted:
            started.append(asyncio.ensure_future(interrupt(Path(folder, "under way"), time.monotonic() + 30)))

    def on_cell_complete(cell, cell_index):
        processes.update({child.pid: child for child in psutil.Process().children(recursive=True)})

    processes = {}
    client.on_cell_execute, client.on_cell_complete = on_cell_execute, on_cell_complete
    client.execute()
    said = {
        name: [told for output in notebook.cells[number].outputs for told in lines(output)]
        for name, number in names.items()
    }
    said["the prologue"] = [told for output in notebook.cells[0].outputs for told in lines(output)]
    _, left = psutil.wait_procs(processes.values(), timeout=10)
    said["left behind"] = [" ".join(process.cmdline()) for process in left]
    print(json.dumps(said))


def lines(output):
    """What a cell's output says."""
    if output.output_type == "error":
        return [f"{output.ename}: {output.evalue}"]
    return output.text.splitlines() if output.output_type == "stream" else [str(output.get("data"))]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    homes = {name: str(folder / "home") for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    environment = {
        **os.environ,
        **homes,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONWARNINGS": "ignore",
    }
    (folder / "work").mkdir()
    done = subprocess.run(
        [sys.executable, __file__, str(folder / "work")],
        env=environment,
        timeout=360,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("cell", cells())
def test_in_every_cell_workers_agree_with_serial(said, cell):
    assert said["the prologue"] == []
    expected = {"the end": ["children: 0"], "interrupted": ["KeyboardInterrupt: "]}.get(cell.partition(",")[0], [])
    assert said[cell] == expected


def test_nothing_is_left_of_the_kernel_and_its_workers(said):
    assert said["left behind"] == []


if __name__ == "__main__":
    execute(sys.argv[1])
