"""What a script defines is called alike whether the file is run or imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import flowfn as ff
from flowfn.pickling import scripts

SCRIPT = """
    import dataclasses, functools, json, logging, multiprocessing, sys
    import flowfn as ff

    log = logging.getLogger(__name__)

    def augment(x, by=1):
        log.debug("%s in %s", x, __name__)
        return x

    @functools.lru_cache
    def remembered(x):
        return x

    class Scale:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            return x

        def apply(self, x):
            return x

        @classmethod
        def made(cls, x):
            return x

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int

        def moved(self, by):
            return Point(self.x + by)

    def point(x):
        return Point(x)

    @ff.stage.each
    def doubled(source):
        for x in source:
            yield x

    FLOWS = {
        "a function": ff.pipe(range(9), ff.map(augment)),
        "a lambda": ff.pipe(range(9), ff.map(lambda x: x)),
        "a partial": ff.pipe(range(9), ff.map(functools.partial(augment, by=2))),
        "a function with a cache": ff.pipe(range(9), ff.map(remembered)),
        "an object": ff.pipe(range(9), ff.map(Scale(2))),
        "a bound method": ff.pipe(range(9), ff.map(Scale(2).apply)),
        "a class method": ff.pipe(range(9), ff.map(Scale.made)),
        "a class": ff.pipe(range(9), ff.map(Point)),
        "a stage": ff.pipe(range(9), doubled),
        "a source": ff.pipe([augment, Scale, Point(1)], ff.map(str)),
    }

    def tell():
        from flowfn.digests.pipelines import pipeline_key
        from flowfn.flows.states import fingerprint
        def about(flow):
            return [fingerprint(flow), iter(flow).state_dict()["order"], pipeline_key(flow, 0, "").hex()]
        print(json.dumps({name: about(flow) for name, flow in FLOWS.items()}), flush=True)

    def kept(folder):
        made = list(ff.pipe(range(3), ff.map(point), ff.cache_to(folder)))
        print(json.dumps([[type(one) is Point, one.x] for one in made]), flush=True)

    def worked(folder):
        flow = ff.pipe(range(3), ff.map(point), ff.cache_to(folder), ff.prefetch(1, processes=1))
        print(json.dumps([[type(one) is Point, one.x] for one in flow]), flush=True)

    if __name__ == "__main__":
        if sys.argv[1] == "spawn":
            child = multiprocessing.get_context("spawn").Process(target=tell)
            child.start()
            child.join()
        else:
            globals()[sys.argv[1]](*sys.argv[2:])
"""
WAYS = {
    "run by its path": ["package/trainer.py", "tell"],
    "run as a module": ["-m", "package.trainer", "tell"],
    "run by runpy": ["-c", "import sys, runpy; runpy.run_path('package/trainer.py', run_name='__main__')", "tell"],
    "run under pdb": ["-m", "pdb", "-c", "continue", "-c", "quit", "package/trainer.py", "tell"],
    "profiled": ["-m", "cProfile", "-o", os.devnull, "package/trainer.py", "tell"],
    "in a child, run by its path": ["package/trainer.py", "spawn"],
    "in a child, run as a module": ["-m", "package.trainer", "spawn"],
    "imported": ["-c", "from package.trainer import tell; tell()"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a package, and in it a script."""
    made = tmp_path_factory.mktemp("scripts")
    (made / "package").mkdir()
    (made / "package" / "__init__.py").touch()
    (made / "package" / "trainer.py").write_text(dedent(SCRIPT))
    (made / "alone.py").write_text(dedent(SCRIPT))
    return made


def told(folder, *words):
    """What a program prints, as the JSON that it is."""
    path = os.pathsep.join(
        [str(folder), *filter(None, [os.environ.get("PYTHONPATH"), str(Path(ff.__file__).parents[1])])]
    )
    run = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        input="",
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith(("{", "["))]
    assert lines, run.stderr
    return json.loads(lines[0])


@pytest.fixture(scope="module")
def imported(folder):
    """What is told of the script where it is imported."""
    return told(folder, *WAYS["imported"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "imported"])
def test_fingerprints_orders_and_cache_keys_are_those_of_the_imported_file(folder, imported, way):
    assert told(folder, *WAYS[way]) == imported


@pytest.mark.timeout(300)
def test_the_name_is_that_of_the_file_and_its_packages(folder, imported):
    assert "package.trainer.augment" in imported["a function"][0]
    assert "package.trainer.Scale.apply" in imported["a bound method"][0]
    assert "alone.augment" in told(folder, "alone.py", "tell")["a function"][0]
    assert told(folder, "alone.py", "tell") == told(folder, "-c", "from alone import tell; tell()")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", ["script", "module", "worker"])
def test_what_was_kept_of_the_scripts_classes_is_of_those_that_the_reader_has(folder, tmp_path, first):
    ways = {
        "script": ["package/trainer.py", "kept", str(tmp_path)],
        "module": ["-c", f"from package.trainer import kept; kept({str(tmp_path)!r})"],
        "worker": ["-m", "package.trainer", "worked", str(tmp_path)],
    }
    for way in (first, *ways, first):
        assert told(folder, *ways[way]) == [[True, 0], [True, 1], [True, 2]], way
    assert len([one for one in tmp_path.iterdir() if one.is_dir()]) == 1  # one key


def test_where_there_is_no_file_the_name_stays(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.delattr(main, "__file__", raising=False)
    function = eval("lambda x: x", {"__name__": "__main__"})
    assert scripts.name() == "__main__"
    assert scripts.home(function) == "__main__"


def test_an_installed_program_has_the_name_that_it_is_installed_by(tmp_path):
    function = eval(
        "lambda x: x", {"__name__": "__mp_main__", "__package__": "package", "__file__": str(tmp_path / "__main__.py")}
    )
    assert scripts.home(function) == "package.__main__"
    assert scripts.home(len) == "builtins"
