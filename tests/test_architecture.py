"""Imports run one way: down the list of rooms, those for types and those inside of functions too."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import flowfn as ff

HOUSE = Path(ff.__file__).parent

ROOMS = {
    "__main__": "what is run from the command line",
    "commands": "what is asked from the command line",
    "flowfn": "the public names, and nothing else",
    "testing": "the laws that flows keep",
    "serving": "one flow for trainings in several processes, on one machine and beyond",
    "interop": "flows in other people's loops, and their tensors and tables",
    "datasets": "files as somebody published them",
    "formats": "what is in files of a format",
    "image": "pictures, and what is done to them",
    "storage": "files of whatever content: found, opened, unpacked, written whole",
    "seeing": "what a flow is, where it stands, how fast it is",
    "parallel": "where and when it runs",
    "vocabulary": "stages and sources that users write",
    "digests": "what datapoints depend on, as a key",
    "flows": "what users hold, iterate and save",
    "shelves": "datapoints kept in a folder",
    "kinds": "how outputs come from inputs",
    "datapoints": "datapoints taken apart and put together",
    "pickling": "names of functions and classes, and how they come elsewhere",
    "rules": "what arguments must be",
    "functions": "what is called",
    "blocks": "indices on their way",
    "randomness": "random numbers that depend on what is computed",
    "process": "forks and interrupts of this process",
    "showing": "values in words",
    "extras": "libraries that may be missing",
}
"""Rooms from the roof to the ground, and what belongs into each. A room knows only of those below it."""

WITHIN = {
    "parallel": ["parallel", "workers", "crossing", "tasks"],
    "vocabulary": ["vocabulary", "keeping", "mixing", "packing", "balancing"],
    "formats": [
        "formats",
        "lmdb",
        "tfrecord",
        "tar",
        "tables",
        "tokens",
        "arrays",
        "text",
        "shards",
        "encoding",
        "joining",
    ],
}
"""The same for rooms in rooms; the first is what lies in the room itself."""

STRANGERS = [("parallel", "vocabulary"), ("vocabulary", "parallel")]
"""Rooms that do not know each other, although one is above the other."""


class Arrow(NamedTuple):
    """An import: the module that knows, the module that is known, and where it says so."""

    source: str
    target: str
    line: int


@cache
def modules():
    """All files, by the names of their modules."""
    named = {}
    for path in HOUSE.rglob("*.py"):
        parts = path.relative_to(HOUSE.parent).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


@cache
def arrows():
    """All imports of one of our modules by another."""
    return [
        arrow
        for name, path in modules().items()
        for arrow in _imports(name, ast.parse(path.read_text(encoding="utf8")))
    ]


def _imports(source, tree):
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}, line {node.lineno}: imports say whole names here"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in whole]
        yield from (Arrow(source, name, node.lineno) for name in names if name in modules() and name != source)


def room(module):
    """The room in which a module lies."""
    return (module.split(".") + ["flowfn"])[1] if module != "flowfn" else "flowfn"


def inner(module):
    """The room in that room."""
    name = room(module)
    parts = module.split(".")
    return parts[2] if len(parts) > 2 and parts[2] in WITHIN[name] else name


def told(arrow, why):
    """An arrow in words."""
    path = modules()[arrow.source].relative_to(HOUSE.parent)
    return f"{path}:{arrow.line}: {arrow.source} imports {arrow.target}; {why}"


def test_every_file_is_in_a_room_that_is_on_the_plan():
    lost = [name for name in modules() if room(name) not in ROOMS]
    assert not lost, (
        f"{lost}: which question does that answer? Put it into a room of the plan, or write its room down there: "
        f"{ROOMS}"
    )


def test_imports_run_down_the_plan():
    floor = {name: at for at, name in enumerate(ROOMS)}
    wrong = []
    for arrow in arrows():
        above, below = room(arrow.source), room(arrow.target)
        if above != below and below != "flowfn" and (floor[above] > floor[below] or (above, below) in STRANGERS):
            why = f"{above} ({ROOMS[above]}) knows nothing of {below} ({ROOMS[below]})"
            wrong.append(told(arrow, f"{why}: let {below} hand it over, or find it a room below both"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("outer", WITHIN)
def test_imports_run_down_within_a_room(outer):
    floor = {name: at for at, name in enumerate(WITHIN[outer])}
    wrong = []
    for arrow in arrows():
        if room(arrow.source) == room(arrow.target) == outer:
            above, below = inner(arrow.source), inner(arrow.target)
            if floor[above] > floor[below]:
                wrong.append(told(arrow, f"{outer}.{above} knows nothing of {outer}.{below}"))
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_the_face():
    """Only examples in docstrings, and what makes random pipelines of the public names, do as users do."""
    asking = [told(arrow, "import it from where it lies") for arrow in arrows() if arrow.target == "flowfn"]
    assert not [one for one in asking if "flowfn.testing." not in one], "\n".join(asking)


def test_no_module_imports_itself_by_way_of_others():
    known = {}
    for arrow in arrows():
        known.setdefault(arrow.source, set()).add(arrow.target)
    done, way = set(), []

    def visit(module):
        if module in way:
            raise AssertionError(" imports ".join([*way[way.index(module) :], module]))
        if module not in done:
            way.append(module)
            for target in sorted(known.get(module, ())):
                visit(target)
            done.add(way.pop())

    for module in modules():
        visit(module)


ALIKE = {
    "executor": "of Ray's cluster and of Dask's",
    "GONE": "what is said of either that has gone",
    "OURS": "which of either's options are the pass's",
    "INDEX_SUFFIX": "of the index beside a file",
    "_LAYOUT": "how such an index begins",
    "_HEAD": "how such an index begins",
    "_DIGEST": "how such an index ends",
    "_BYTES": "the rule for a size",
    "_ZEROS": "what is padded with if nothing is said",
    "_sync": "have a file on the disk",
}
"""Names that stand in several modules, since they mean the same there."""


def test_a_name_means_one_thing():
    """What a module defines, for itself or for others, no other module defines: a name is found where it is looked for,
    and what is read about it is true of it wherever it is read."""
    defined = {}
    for module, path in modules().items():
        for name in _defined(ast.parse(path.read_text(encoding="utf8"))):
            defined.setdefault(name, set()).add(module)
    twice = {name: sorted(of) for name, of in defined.items() if len(of) > 1 and not name.startswith("__")}
    assert sorted(twice) == sorted(ALIKE), {name: of for name, of in twice.items() if name not in ALIKE}


def _defined(tree):
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_every_room_has_a_map():
    for package in {path.parent for path in modules().values()} - {HOUSE}:
        text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf8")))
        columns = re.split(r"\n|  +|[;:,] *|\(| and ", text or "")
        lost = [
            name for name in sorted(_names_in(package)) if not any(part.strip().startswith(name) for part in columns)
        ]
        assert not lost or package.name in ("image", "datasets"), f"{package.name}: the map does not show {lost}"


def _names_in(package):
    return {
        path.stem if path.is_file() else path.name
        for path in package.iterdir()
        if path.stem not in ("__init__", "__pycache__")
    }


def test_the_map_of_the_vocabulary_shows_every_word_in_its_file():
    """In the paragraph of the file that it is imported from."""
    text = ast.get_docstring(ast.parse((HOUSE / "vocabulary" / "__init__.py").read_text(encoding="utf8")))
    paragraphs = dict(re.findall(r"^(\w+)  +(.*?)(?=\n\w|\n\n)", text, re.M | re.S))
    lost = [
        alias.name
        for node in ast.parse((HOUSE / "__init__.py").read_text(encoding="utf8")).body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("flowfn.vocabulary.")
        for alias in node.names
        if not re.search(rf"\b{alias.name}\b", paragraphs[node.module.split(".")[2]])
    ]
    assert not lost, f"the map of the vocabulary does not show {lost}"
