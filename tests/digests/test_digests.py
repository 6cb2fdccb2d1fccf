"""The key of a pipeline: another for whatever could change a datapoint, the same on every day and in every process."""

import importlib
import itertools
import shutil
import subprocess
import sys
import textwrap
import threading
from types import ModuleType

import numpy as np
import pytest

import flowfn as ff
from flowfn.digests import codes
from flowfn.digests.pipelines import pipeline_key

pytestmark = pytest.mark.everywhere

PRELUDE = """
import abc, collections, dataclasses, enum, functools, math, operator, random, re, typing
import numpy as np
import flowfn as ff
"""


def module(text):
    """A program of somebody's own, run anew."""
    made = ModuleType("program")
    exec(compile(PRELUDE + textwrap.dedent(text), "program.py", "exec"), made.__dict__)
    return made


def key(text, version="", seed=0):
    return pipeline_key(ff.flow(module(text).flow), seed, version).hex()


def mapped(expression, before=""):
    return f"{textwrap.dedent(before)}\nflow = ff.pipe(range(3), ff.map({expression}))"


HELPER = """
    FACTOR = {}
    def helper(x):
        return x * FACTOR
    def f(x):
        return [helper(y) for y in x]
"""
METHODS = """
    class Tool:
        LIMIT = {limit}
        def __init__(self, n):
            self.n = n
        def __call__(self, x):
            return x + self.n{plus}
        @property
        def twice(self):
            return 2 * {twice}
"""
STAGE = """
    @ff.stage.each
    def scale(factor, source):
        for x in source:
            yield x * factor{}
    flow = ff.pipe(range(3), scale({}))
"""
DATACLASS = """
    @dataclasses.dataclass
    class Record:
        size: int = {}
        def __call__(self, x):
            return x * self.size
"""

# Programs in a row differ in one thing each
DIFFERENT = {
    "constant": [
        mapped("lambda x: x + 1"),
        mapped("lambda x: x + 2"),
        mapped("lambda x: x + 1.0"),
        mapped("lambda x: x + True"),
    ],
    "body": [
        mapped("lambda x: x + 1"),
        mapped("lambda x: x - 1"),
        mapped("lambda x: (x, 1)"),
        mapped("lambda x: [x, 1]"),
    ],
    "name": [mapped("lambda x: math.sin(x)"), mapped("lambda x: math.cos(x)"), mapped("math.sin"), mapped("math.cos")],
    "attribute": [mapped("lambda x: x.real"), mapped("lambda x: x.imag")],
    "default": [mapped("lambda x, y=1: x + y"), mapped("lambda x, y=2: x + y")],
    "keyword default": [mapped("lambda x, *, y=1: x + y"), mapped("lambda x, *, y='1': x + y")],
    "closure": [
        mapped(f"(lambda n: lambda x: x + n)({n})")
        for n in (1, 2, "'1'", "[1]", "(1,)", "{1}", "{1: 1}", "None", "len", "np")
    ],
    "function in a closure": [mapped(f"(lambda g: lambda x: g(x))(lambda x: x + {n})") for n in (1, 2)],
    "global": [
        mapped("lambda x: x + N", f"N = {n}")
        for n in (1, 2, "np.int64(1)", "np.ones(2)", "np.ones(2, 'f4')", "np.ones((2, 1))")
    ],
    "global of a helper": [mapped("f", HELPER.format(n)) for n in (1, 2)],
    "inner function": [
        mapped("f", f"def f(x):\n    def g(y):\n        return y + {n}\n    return g(x)") for n in (1, 2)
    ],
    "comprehension": [mapped(f"lambda x: [y + {n} for y in x]") for n in (1, 2)],
    "set": [mapped(f"lambda x: x in {s}") for s in ("{'a', 'b'}", "{'a', 'c'}", "('a', 'b')")],
    "frozenset": [mapped("lambda x: x in S", f"S = frozenset({s})") for s in ("'ab'", "'ac'", "[1]", "['1']")],
    "exception handling": [
        mapped("f", f"def f(x):\n    try:\n        return 1 / x\n    except {e}:\n        return 0")
        for e in ("ZeroDivisionError", "ValueError")
    ],
    "partial": [
        mapped(f"functools.partial({p})")
        for p in ("operator.add, 1", "operator.add, 2", "operator.mul, 1", "pow, exp=1", "pow, exp=2")
    ],
    "itemgetter": [mapped(f"operator.itemgetter({n})") for n in (0, 1, "0, 1")],
    "ufunc": [
        mapped("np.sin"),
        mapped("np.cos"),
        mapped("np.vectorize(lambda x: x)"),
        mapped("np.vectorize(lambda x: x + 1)"),
    ],
    "method of a builtin": [
        mapped(m)
        for m in ("'abc'.find", "'abd'.find", "'abc'.index", "{'a': 1}.get", "{'a': 2}.get", "str.upper", "str.lower")
    ],
    "pattern": [mapped(f"re.compile({p}).match") for p in ("'a'", "'b'", "'a', re.I")],
    "callable object": [
        mapped(f"Tool({n})", METHODS.format(limit=limit, plus=plus, twice=twice))
        for n, limit, plus, twice in [
            (1, 5, "", "1"),
            (2, 5, "", "1"),
            (1, 6, "", "1"),
            (1, 5, " + 1", "1"),
            (1, 5, "", "2"),
        ]
    ],
    "bound method": [
        mapped(f"Tool({n}).f", "class Tool:\n    def __init__(self, n): self.n = n\n    def f(self, x): return x")
        for n in (1, 2)
    ],
    "base class": [
        mapped("B()", f"class A:\n    def __call__(self, x): return {r}\nclass B(A): pass") for r in ("x", "[x]")
    ],
    "metaclass": [
        mapped(
            "lambda x: B.n", f"class M(type):\n    @property\n    def n(cls): return {n}\nclass B(metaclass=M): pass"
        )
        for n in (1, 2)
    ],
    "slots": [
        mapped(
            f"C({n})",
            "class C:\n    __slots__ = 'n'\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return "
            "self.n",
        )
        for n in (1, 2)
    ],
    "dataclass": [mapped("Record()", DATACLASS.format(n)) for n in (1, 2)] + [mapped("Record(3)", DATACLASS.format(1))],
    "enum": [mapped("lambda x: Color(x)", f"class Color(enum.Enum):\n    RED = {n}") for n in (1, 2)],
    "namedtuple": [
        mapped("lambda x: Pair(x, x)", f"Pair = collections.namedtuple('Pair', {f!r})") for f in ("a b", "a c")
    ],
    "abstract class": [
        mapped(
            "B().f",
            "class A(abc.ABC):\n    @abc.abstractmethod\n    def f(self, x): ...\nclass B(A):\n    def f(self, x): "
            f"return {r}",
        )
        for r in ("x", "1")
    ],
    "recursion": [mapped("f", f"def f(x): return g(x - 1) if x else {n}\ndef g(x): return f(x)") for n in (1, 2)],
    "cached function": [mapped("f", f"@functools.lru_cache\ndef f(x): return x + {n}") for n in (1, 2)],
    "cached property": [
        mapped(
            "C().f",
            f"class C:\n    @functools.cached_property\n    def n(self): return {n}\n    def f(self, x): return self.n",
        )
        for n in (1, 2)
    ],
    "wrapped function": [
        mapped(
            "f",
            "def twice(g):\n    @functools.wraps(g)\n    def h(x): return g(g(x))\n    return h\n@twice\ndef f(x): "
            f"return x + {n}",
        )
        for n in (1, 2)
    ],
    "generic class": [
        mapped("C()", f"T = typing.TypeVar('T')\nclass C(typing.Generic[T]):\n    def __call__(self, x): return {n}")
        for n in (1, 2)
    ],
    "seeded": [mapped(f"ff.seeded(lambda x: x + {n}), rng=True") for n in (1, 2)],
    "per process": [mapped("lambda x: tool()", f"tool = ff.per_process(lambda: {n})") for n in (1, 2)],
    "stage": [
        STAGE.format("", 1),
        STAGE.format("", 2),
        STAGE.format(" + 1", 1),
        STAGE.format("", 1).replace("stage.each", "stage.stream"),
    ],
    "plain callable": [f"flow = ff.pipe(range(3), lambda iterator: (x + {n} for x in iterator))" for n in (1, 2)],
    "argument": [
        "flow = ff.batch(2, range(9))",
        "flow = ff.batch(3, range(9))",
        "flow = ff.batch(2, range(9), drop_remainder=True)",
    ],
    "order": [
        "flow = ff.skip(1, ff.map(str, range(3)))",
        "flow = ff.map(str, ff.skip(1, range(3)))",
        "flow = ff.map(str, ff.take(2, range(3)))",
    ],
    "array argument": [f"flow = ff.subset(np.array({i}), range(9))" for i in ([1, 2], [1, 3], [[1], [2]][0])],
    "function of a module": [
        mapped(f)
        for f in ("random.choice", "random.seed", "np.random.rand", "lambda x: random.random()", "len", "re.escape")
    ],
    "guard": [
        f"flow = ff.pipe([1], ff.guard(ff.map(str), {p}))"
        for p in ("retry=1", "retry=2", "retry=1, then=lambda x, e: 0", "retry=1, then=lambda x, e: 1")
    ],
    "name of a stage": [
        f"flow = ff.map(lambda x, rng: rng.random(), range(3), rng=True{n})" for n in ("", ", name='a'", ", name='b'")
    ],
    "shared flow": [
        "a = ff.shuffle(range(9))\nflow = ff.zip(a, a)",
        "flow = ff.zip(ff.shuffle(range(9)), ff.shuffle(range(9)))",
    ],
    "branches": ["flow = ff.concat([1], [2, 3])", "flow = ff.concat([1, 2], [3])", "flow = ff.concat([2, 3], [1])"],
    "rank": [f"flow = ff.shard({rank}, {world}, range(9))" for rank, world in [(0, 2), (1, 2), (0, 3)]],
    "frozen seed": [f"flow = ff.freeze(ff.shuffle(range(9)), seed={n})" for n in (0, 1)],
    "flow in a closure": [f"flow = ff.flat_map((lambda inner: lambda x: inner)(ff.flow([{n}])), [1])" for n in (1, 2)],
    "source": [
        f"flow = {source}"
        for source in (
            *(
                "[1]",
                "['1']",
                "[1.0]",
                "[True]",
                "[[1]]",
                "[(1,)]",
                "(1,)",
                "range(1, 2)",
                "[1, 1]",
                "[b'1']",
                "[None]",
                "[{1: 1}]",
                "[{1}]",
                "[]",
            ),
            *(
                "{1: 2}.keys()",
                "{1: 2}.items()",
                "{1: 2}.values()",
                "lambda: [1]",
                "lambda: [2]",
                "lambda rng: [1]",
                "functools.partial(iter, [1])",
            ),
            *(
                "np.array([1])",
                "np.array([1.0])",
                "np.array(['1'])",
                "np.array([[1]])",
                "np.array([1], '>i8')",
                "[np.array([1])]",
                "[np.int64(1)]",
            ),
            *(
                "ff.from_arrays(np.array([1]))",
                "ff.from_arrays(x=np.array([1]))",
                "ff.from_arrays(y=np.array([1]))",
                "ff.fake((1,), 1)",
                "ff.fake((2,), 1)",
            ),
            *(
                "np.array([(1, 2)], 'i4,i4')",
                "np.array([(1, 3)], 'i4,i4')",
                "np.array([1], 'M8[s]')",
                "np.array([1], 'M8[ms]')",
                "np.array([None, 1])",
            ),
        )
    ],
    "late datapoint": [f"flow = [[str(i), i] for i in range(9999)] + [['9999', {n}]]" for n in (1, 2)],
    "late row": [
        f"array = np.zeros((4000, 3000), np.uint8)\narray[3999, 2999] = {n}\nflow = array[::2] if {n} > 2 else array"
        for n in (1, 2, 3)
    ],
}

SAME = {
    "where it stands": [
        mapped("f", "def f(x):\n    return x + 1"),
        mapped("f", "\n\n\ndef f(x):\n    # a comment\n    return (x\n        + 1)"),
    ],
    "annotations": [mapped("f", "def f(x): return x"), mapped("f", "def f(x: int) -> int: return x")],
    "other globals": [mapped("lambda x: N", "N = 1"), mapped("lambda x: N", "N = 1\nUNUSED = 2")],
    "a list however it was made": ["flow = [['a', 0], ['b', 1]]", "flow = [[name, i] for i, name in enumerate('ab')]"],
    "strings however they were made": [
        "flow = ['ab' * 2, 'abab']",
        "flow = [''.join(['a', 'bab']), ''.join(['ab', 'ab'])]",
    ],
    "the order of a set": [mapped("lambda x: x in S", "S = {8, 0, 16}"), mapped("lambda x: x in S", "S = {16, 8, 0}")],
    "how an array lies": [
        "flow = np.arange(6).reshape(2, 3)",
        "flow = np.asfortranarray(np.arange(6).reshape(2, 3))",
        "flow = np.arange(12)[::2].reshape(2, 3) // 2",
    ],
    "prefetch": [
        "flow = ff.map(str, range(3))",
        "flow = ff.pipe(range(3), ff.prefetch(2), ff.map(str), ff.prefetch(2, threads=2))",
    ],
    "seed and epoch of the flow": [
        "flow = ff.shuffle(range(9))",
        "flow = ff.shuffle(range(9)).reset_state(3).set_epoch(2)",
    ],
    "a list that holds itself": [
        mapped("lambda x: held", "held = [1]\nheld.append(held)"),
        mapped("lambda x: held", "held = [1, 2]\nheld[1] = held"),
    ],
}


@pytest.mark.parametrize("programs", DIFFERENT.values(), ids=DIFFERENT)
def test_whatever_could_change_a_datapoint_changes_the_key(programs):
    keys = list(map(key, programs))
    assert len(set(keys)) == len(keys)
    assert list(map(key, programs)) == keys


@pytest.mark.parametrize("programs", SAME.values(), ids=SAME)
def test_what_changes_no_datapoint_does_not_change_the_key(programs):
    assert len(set(map(key, programs))) == 1


def test_all_cases_differ_from_each_other():
    programs = list(dict.fromkeys(itertools.chain.from_iterable(DIFFERENT.values())))
    assert len(set(map(key, programs))) == len(programs)


def test_seed_and_version_count():
    program = mapped("str")
    assert (
        len(
            {
                key(program),
                key(program, seed=1),
                key(program, version="1"),
                key(program, version="2"),
                key(program, seed=1, version="1"),
            }
        )
        == 5
    )


def test_a_function_that_has_run_has_the_key_that_it_had():
    made = module(mapped("f", HELPER.format(2)))
    before = pipeline_key(made.flow, 0, "")
    for _ in range(1000):
        made.f([1, 2.0, "3"])
    assert pipeline_key(made.flow, 0, "") == before


def test_a_key_is_the_same_once_an_object_of_a_class_has_been_pickled():
    made = module(
        """
        import flowfn as ff

        class Scaled:
            def __init__(self, factor):
                self.factor = factor

            def of(self, x):
                return self.factor * x

        flow = ff.pipe([1, 2], ff.map(Scaled(3).of))
        """
    )
    before = pipeline_key(made.flow, 0, "")
    made.Scaled(3).__reduce_ex__(2)
    assert "__slotnames__" in vars(made.Scaled)
    assert pipeline_key(made.flow, 0, "") == before


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_the_key_is_the_same_in_every_process(seed):
    names = [
        "global of a helper",
        "set",
        "frozenset",
        "callable object",
        "dataclass",
        "enum",
        "source",
        "guard",
        "pattern",
        "generic class",
        "function of a module",
    ]
    programs = [program for name in names for program in DIFFERENT[name][:30]]
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_digests import key; print(*map(key, "
        "eval(sys.stdin.read())))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(__file__).rpartition("/")[0]],
        input=repr(programs),
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ran.stdout.split() == list(map(key, programs))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Write a module of one's own, and import it anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            return __import__(name)
        finally:
            sys.dont_write_bytecode = before

    return write


@pytest.mark.parametrize(
    "program",
    [
        mapped("lambda x: own_tools.f(x)", "import own_tools"),
        mapped("own_tools.f", "import own_tools"),
        mapped("f", "from own_tools import f"),
        mapped("f", "def f(x):\n    import own_tools as tools\n    return tools.f(x)"),
        mapped("f", "def f(x):\n    from own_tools import f\n    return f(x)"),
        mapped("(lambda tools: lambda x: tools.f(x))(own_tools)", "import own_tools"),
        mapped("functools.partial(lambda tools, x: tools.f(x), own_tools)", "import own_tools"),
    ],
)
def test_a_module_of_ones_own_counts_by_what_is_used_of_it(own_module, program):
    text = "import own_more\nN = {n}\nUNUSED = {unused}\ndef f(x): return own_more.g(x) + N"
    own_module("own_more", "def g(x): return x + 1")
    own_module("own_tools", text.format(n=1, unused=1))
    first = key(program)
    own_module("own_tools", text.format(n=1, unused=2))
    assert (key(program) == first) == ("partial" not in program)
    own_module("own_tools", text.format(n=2, unused=1))
    assert key(program) != first
    own_module("own_more", "def g(x): return x + 2")
    own_module("own_tools", text.format(n=1, unused=1))
    assert key(program) != first
    own_module("own_more", "def g(x): return x + 1")
    own_module("own_tools", text.format(n=1, unused=1))
    assert key(program) == first


def test_modules_that_import_each_other_have_a_key(own_module, tmp_path):
    (tmp_path / "own_two.py").write_text("import own_one\ndef two(x): return own_one.one(x - 1)")
    own_module("own_one", "import own_two\ndef one(x): return own_two.two(x) if x else 0")
    assert key(mapped("lambda x: own_one.one(x)", "import own_one")) == key(
        mapped("lambda x: own_one.one(x)", "import own_one")
    )


class Lines:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index


class Stream:
    def __iter__(self):
        return iter([1])


class Foreign(Stream):
    def reset_state(self):
        pass


LOCK = threading.Lock()


def locked(x):
    with LOCK:
        return x


def behind(x):
    return locked(x)


class Holder:
    def __init__(self):
        self.generator = (x for x in [1])

    def __call__(self, x):
        return x


UNKNOWN = [
    (lambda: ff.flow(Lines()), "flow(Lines) (an object of type Lines)"),
    (lambda: ff.flow(Stream()), "flow(Stream) (an object of type Stream)"),
    (lambda: ff.flow(Foreign()), "flow(Foreign) (an object of type Foreign)"),
    (lambda: ff.flow(iter([1])), "flow(list_iterator) (an object of type list_iterator)"),
    (lambda: ff.pipe([1], ff.map(locked)), "LOCK of locked of map(locked) (an object of type lock)"),
    (
        lambda: ff.pipe([1], ff.map(behind), ff.batch(2)),
        "LOCK of locked of behind of map(behind) (an object of type lock)",
    ),
    (lambda: ff.pipe([1], ff.map(Holder())), "(an object of type generator)"),
    (lambda: ff.flow([Holder()]), "(an object of type generator)"),
]


@pytest.mark.parametrize(("make", "what"), UNKNOWN)
def test_what_cannot_be_told_from_outside_wants_a_version(make, what, tmp_path):
    with pytest.raises(TypeError) as raised:
        ff.cache_to(tmp_path, make())
    assert str(raised.value).startswith("cache_to(): datapoints depend on ")
    assert str(raised.value).endswith(
        f'{what}, whose content cannot be told from outside; give version="..." and change it whenever that content '
        "changes"
    )
    assert len({pipeline_key(make(), 0, version) for version in "aab"}) == 2


def test_under_a_version_the_rest_still_counts():
    keys = {
        pipeline_key(ff.pipe(source, ff.map(f)), 0, "1")
        for source in (Lines(), Stream(), [1])
        for f in (locked, behind, str)
    }
    assert len(keys) == 9


def test_what_is_kept_upstream_counts_by_its_key(tmp_path):
    def make(data, path="a", version=""):
        return ff.map(str, ff.cache_to(tmp_path / path, ff.flow(data), version=version))

    assert pipeline_key(make([1]), 0, "") == pipeline_key(make([1], "b"), 0, "")
    assert (
        len(
            {
                pipeline_key(make(*args), 0, "")
                for args in [([1],), ([2],), ([1], "a", "v"), (Lines(), "a", "v"), (Lines(), "a", "w")]
            }
        )
        == 5
    )


def test_memory_maps_count_by_what_is_in_them(tmp_path):
    keys = set()
    for value in (1, 2, 1):
        mapped_file = np.memmap(tmp_path / str(len(keys)), np.uint8, "w+", shape=(100, 3))
        mapped_file[57] = value
        keys.add(pipeline_key(ff.flow(mapped_file), 0, ""))
    assert len(keys) == 2
    assert pipeline_key(ff.flow(np.asarray(mapped_file)), 0, "") in keys


def test_what_lies_between_the_fields_of_a_structured_array_does_not_count():
    dtype = np.dtype([("a", "u1"), ("b", "f8")], align=True)
    keys = set()
    for filling in (0, 255):
        array = np.full(dtype.itemsize * 2, filling, np.uint8).view(dtype)
        array["a"], array["b"] = 1, 2.0
        keys.add(pipeline_key(ff.flow(array), 0, ""))
    assert len(keys) == 1


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed modules."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    codes.installed.cache_clear()
    yield folder
    codes.installed.cache_clear()


def release(site, version, **files):
    told = site / "own_tools.dist-info"
    shutil.rmtree(told, ignore_errors=True)
    told.mkdir()
    for name, text in {
        "METADATA": f"Metadata-Version: 2.1\nName: own-tools\nVersion: {version}\n",
        "top_level.txt": "own_lib",
        **files,
    }.items():
        (told / name).write_text(text)
    importlib.invalidate_caches()
    codes.installed.cache_clear()
    return codes.installed("own_lib.part")


def test_what_is_installed_counts_by_its_version(site):
    (site / "own_lib.py").write_text("def f(x): return x")
    assert release(site, "1.0") == release(site, "1.0", RECORD="own_lib.py,sha256=1,") != release(site, "1.1")
    assert "1.0" in release(site, "1.0")


def test_what_is_installed_from_a_folder_counts_by_its_files_too(site):
    (site / "own_lib.py").write_text("def f(x): return x")
    first, second = (
        release(site, "1.0", RECORD=f"own_lib.py,sha256={n},", **{"direct_url.json": "{}"}) for n in (1, 2)
    )
    assert None is not first != second is not None


def test_what_no_distribution_owns_is_ones_own(site):
    (site / "own_lib.py").write_text("def f(x): return x")
    assert codes.installed("own_lib") is None
    assert codes.installed("__main__") is codes.installed("no_such_module") is codes.installed("") is None


def test_the_standard_library_and_flowfn_are_installed():
    assert (
        codes.installed("math")
        == codes.installed("os.path")
        == codes.installed("json")
        == f"{sys.version_info[0]}.{sys.version_info[1]}"
    )
    assert codes.installed("flowfn.flows.stages") == "flowfn"
    assert np.__version__ in codes.installed("numpy.linalg")
