"""What a worker runs is what this process would run: its modules as they are now, its settings, and what is set up."""

import ast
import builtins
import codecs
import contextlib
import copy
import csv
import decimal
import importlib
import itertools
import locale
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import types
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import flowfn as ff
from flowfn.parallel.crossing.transport import dumped
from flowfn.parallel.tasks.versions import Ledger, outdated, version_of

pytestmark = pytest.mark.timeout(120)

EVERYWHERE = [{}, {"threads": 2}, {"processes": 2}, {"processes": 1}]
numbers = itertools.count()


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """Write a module of one's own, and import or reload it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written = []

    def edit(name, text, load=True):
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(text))
        os.utime(
            file, (time.time() + 2 * len(written),) * 2
        )  # or what a worker compiled in this second counts as current
        written.append(name.partition(".")[0])
        importlib.invalidate_caches()
        if load:
            return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)
        return None

    yield edit
    for name in [name for name in sys.modules if name.partition(".")[0] in written]:
        del sys.modules[name]


@pytest.fixture
def name():
    return f"own_module_{next(numbers)}"


def agree(make, settings=({"processes": 2}, {"processes": 1})):
    """Whether workers give what this process gives."""
    here = list(make())
    for setting in settings:
        assert list(ff.pipe(make(), ff.prefetch(2, **setting))) == here, setting
    return copy.deepcopy(here)


# Modules


MODULE = """
    import contextvars, functools
    import numpy as np

    SIZE = 1
    TABLE = {"a": [1, 2]}
    LARGE = np.arange(300_000)

    class Config:
        scale = 1
        def __init__(self): self.value = 1
        def method(self): return ("old", self.scale, self.value)

    CONFIG = Config()

    def helper(): return "old"
    def f(x, extra=1): return ("old", SIZE, TABLE, int(LARGE[5]), int(LARGE[6]), helper(), CONFIG.method(), extra, cached(x), later(x))
    def later(x): return DEPTH.get(), show(x)

    @functools.lru_cache
    def cached(x): return ("old", SIZE)

    @functools.singledispatch
    def show(x): return "any"
    DEPTH = contextvars.ContextVar("DEPTH", default=1)
"""


def changed(module):
    """Ways in which a module changes while a program runs."""

    def rebound():
        module.SIZE = 64

    def inside():
        module.TABLE["a"].append(3)

    def element():
        module.LARGE[5] = 7

    def swapped():
        module.LARGE[[5, 6]] = module.LARGE[[6, 5]]

    def attribute():
        module.CONFIG.value = 2

    def of_the_class():
        module.Config.scale = 3

    def patched():
        module.helper = lambda: "patched"

    def method():
        module.Config.method = lambda self: "patched"

    def defaults():
        module.f.__defaults__ = (2,)

    def cleared():
        module.cached = lambda x: "not cached"

    def set_in_context():
        module.DEPTH.set(7)

    def registered():
        module.show.register(int, lambda x: "int")

    return [
        rebound, inside, element, swapped, attribute, of_the_class, patched, method, defaults, cleared,
        set_in_context, registered
    ]  # fmt: skip


@pytest.mark.parametrize("way", range(12), ids=[change.__name__ for change in changed(None)])
def test_what_was_set_in_a_module_is_so_in_workers(edit, name, way):
    module = edit(name, MODULE)
    before = agree(lambda: ff.pipe([0, 1], ff.map(module.f)))
    changed(module)[way]()
    module.cached.cache_clear() if hasattr(module.cached, "cache_clear") else None
    after = agree(lambda: ff.pipe([0, 1], ff.map(module.f)))
    assert after != before
    agree(lambda: ff.pipe([0, 1], ff.map(lambda x: module.f(x))))


def test_an_edited_module_that_was_reloaded_is_so_in_workers(edit, name):
    module = edit(name, MODULE)
    agree(lambda: ff.pipe([0], ff.map(module.f)))
    module = edit(name, MODULE.replace('"old"', '"new"').replace("SIZE = 1", "SIZE = 2"))
    assert agree(lambda: ff.pipe([0], ff.map(module.f)))[0][:2] == ("new", 2)
    assert agree(lambda: ff.pipe([0], ff.map(lambda x: module.helper())))[0] == "new"


def test_an_edited_module_that_was_not_reloaded_is_as_it_was_in_workers_too(edit, name):
    module = edit(name, MODULE)
    edit(name, MODULE.replace('"old"', '"new"'), load=False)
    ff.shut_down()  # those that start now would import the new one
    assert agree(lambda: ff.pipe([0], ff.map(module.f)))[0][0] == "old"


def test_a_function_that_is_new_in_a_module_is_found_in_workers(edit, name):
    module = edit(name, "def f(x): return x\n")
    agree(lambda: ff.pipe([0], ff.map(module.f)))
    module = edit(name, "def f(x): return x\ndef g(x): return x + 1\n")
    assert agree(lambda: ff.pipe([0], ff.map(module.g))) == [1]


@pytest.mark.parametrize(
    "use",
    ["from {other} import g\ndef f(x): return g(x)", "import {other}\ndef f(x): return {other}.g(x)",
     "def f(x):\n    import {other}\n    return {other}.g(x)", "def f(x):\n    from {other} import g\n    return g(x)"],
    ids=["a name of it", "the module", "imported in the function", "a name, imported in the function"],
)  # fmt: skip
def test_modules_that_a_module_uses_count(edit, name, use):
    other = f"{name}_other"
    edit(other, "SIZE = 1\ndef g(x): return ('old', SIZE)\n")
    module = edit(name, use.format(other=other))
    assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [("old", 1)]
    sys.modules[other].SIZE = 2
    if "    " not in use:  # what a function imports when it runs, workers import as well: it cannot be sent there
        assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [("old", 2)]
    edit(other, "SIZE = 3\ndef g(x): return ('new', SIZE)\n")
    module = edit(name, use.format(other=other))
    assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [("new", 3)]


def test_a_module_that_only_workers_import_is_the_file_of_now(edit, name):
    other = f"{name}_other"
    edit(other, "def g(x): return 'old'\n", load=False)
    module = edit(name, f"def f(x):\n    import {other}\n    return {other}.g(x)\n")
    flow = ff.pipe([0], ff.map(module.f), ff.prefetch(1, processes=2))
    assert list(flow) == ["old"]
    assert other not in sys.modules
    edit(other, "def g(x): return 'new, and longer'\n", load=False)
    assert list(flow) == ["new, and longer"]
    assert other not in sys.modules


def test_what_workers_can_neither_import_nor_be_sent_is_said(edit, name):
    module = edit(name, "import threading\nLOCK, SIZE = threading.Lock(), 1\ndef f(x):\n    with LOCK: return SIZE\n")
    flow = ff.pipe([0], ff.map(module.f), ff.prefetch(1, processes=2))
    assert list(flow) == [1]
    module.SIZE = 2
    with pytest.warns(
        RuntimeWarning, match=rf"another version of {name} than this process holds.*cannot be sent.*setup="
    ):
        list(flow)
    list(flow)  # once is enough


def test_modules_in_packages_count(edit, name):
    edit(f"{name}.__init__", "", load=False)
    module = edit(f"{name}.inner", "SIZE = 1\ndef f(x): return SIZE\n")
    assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [1]
    module.SIZE = 2
    assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [2]
    package = sys.modules[name]
    assert agree(lambda: ff.pipe([0], ff.map(lambda x: package.inner.f(x)))) == [2]
    module.SIZE = 3
    assert agree(lambda: ff.pipe([0], ff.map(lambda x: package.inner.f(x)))) == [3]


STAGES = """
    import functools
    import flowfn as ff

    WORD = "old"

    @ff.stage.each
    def each(source):
        for x in source: yield WORD

    @ff.stage.expand
    def twice(source):
        for x in source:
            yield WORD
            yield x

    class Callable:
        def __call__(self, x): return WORD
        def method(self, x): return WORD

    def f(prefix, x): return prefix + WORD
    def collate(values): return WORD
    def make(): return WORD
    def source(): yield WORD
"""


@pytest.mark.parametrize(
    "make",
    [
        lambda module: module.each([0]),
        lambda module: module.twice([0]),
        lambda module: ff.map(module.Callable(), [0]),
        lambda module: ff.map(module.Callable().method, [0]),
        lambda module: ff.map(lambda x: module.make(), [0]),
        lambda module: ff.batch(2, [0], collate=module.collate),
        lambda module: ff.map(__import__("functools").partial(module.f, "<"), [0]),
        lambda module: ff.pipe(module.source, ff.map(lambda x: x + module.WORD)),
        lambda module: ff.filter(lambda x: module.WORD == "old" or x, [0, 1]),
    ],
    ids=["each", "expand", "callable", "method", "in a lambda", "collate", "partial", "source", "filter"],
)
def test_whatever_refers_to_a_module_counts(edit, name, make):
    module = edit(name, STAGES)
    before = agree(lambda: make(module))
    module.WORD = "new"
    after = agree(lambda: make(module))
    assert before != after


def test_datapoints_of_a_class_that_was_edited_do_in_workers_what_they_do_here(edit, name):
    text = "class Record:\n    def __init__(self, x): self.x = x\n    def area(self): return ('old', self.x)\n"
    module = edit(name, text)

    def records():
        yield module.Record(1)

    assert agree(lambda: ff.pipe(records, ff.map(lambda record: record.area()))) == [("old", 1)]
    module = edit(name, text.replace("old", "new"))
    assert agree(lambda: ff.pipe(records, ff.map(lambda record: record.area()))) == [("new", 1)]
    module.Record.area = lambda self: "patched"
    assert agree(lambda: ff.pipe(records, ff.map(lambda record: record.area()))) == ["patched"]
    there = list(ff.pipe(records, ff.map(lambda record: record), ff.prefetch(1, processes=2)))
    assert type(there[0]) is module.Record


def test_a_module_that_has_no_file_goes_to_workers_whole(name):
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec("SIZE = 1\ndef f(x): return SIZE\n", module.__dict__)
        assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [1]
        module.SIZE = 2
        assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [2]
    finally:
        del sys.modules[name]


def test_workers_of_somebodys_executor_run_what_this_process_would(edit, name):
    module = edit(name, "SIZE = 1\ndef f(x): return SIZE\n")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        flow = ff.pipe([0, 1], ff.map(module.f), ff.prefetch(1, executor=executor))
        assert list(flow) == [1, 1]
        module.SIZE = 2
        assert list(flow) == [2, 2]


def test_workers_stay_as_long_as_nothing_changes(edit, name):
    module = edit(name, "import os\nCOUNT = [0]\ndef f(x):\n    COUNT[0] += 1\n    return os.getpid()\n")
    flow = ff.pipe([0], ff.map(module.f), ff.prefetch(1, processes=1))
    assert len({pid for _ in range(5) for pid in flow}) == 1


SLOW = """
    import os, time
    VALUE, FOLDER = 0, ""
    def f(x):
        if x:
            time.sleep(0.003)  # or many would go together
            open(f"{FOLDER}/{x}", "w").close()
            return VALUE
        deadline = time.monotonic() + 30
        while len(os.listdir(FOLDER)) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(os.listdir(FOLDER))
"""


@pytest.mark.alone
@pytest.mark.parametrize("setting", [{"processes": 2}, {"processes": 3, "timeout": 40}], ids=str)
@pytest.mark.parametrize("grown", [False, True], ids=["first pass", "later pass"])
def test_a_slow_datapoint_does_not_hold_up_workers_that_lack_something(edit, name, tmp_path, setting, grown):
    module = edit(name, SLOW)
    flow = ff.pipe(range(100), ff.map(module.f), ff.prefetch(90, **setting))
    for value in range(1 + grown):
        module.VALUE, folder = value + 1, tmp_path / str(value)
        folder.mkdir()
        module.FOLDER = str(folder)
        outputs = list(flow)
    assert outputs[0] >= 10
    assert outputs[1:] == [module.VALUE] * 99


def test_threads_look_for_what_changed_at_the_same_time(monkeypatch):
    """`importlib.invalidate_caches` drops finders that are None one by one, and fails where another thread has (Python 3.13)."""
    missing = [f"/nowhere/{number}.zip" for number in range(300)]
    monkeypatch.setattr(sys, "path_importer_cache", sys.path_importer_cache.copy())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def look(_):
        for _ in range(20):
            sys.path_importer_cache.update(dict.fromkeys(missing))
            assert outdated(()) == []

    try:
        with ThreadPoolExecutor(4) as executor:
            assert len(list(executor.map(look, range(4)))) == 4
    finally:
        sys.setswitchinterval(interval)


THINGS = """
    import abc, array, collections, contextvars, csv, dataclasses, datetime, decimal, enum, fractions, functools, itertools, json, logging
    import operator, os, pathlib, queue, random, re, struct, threading, types, typing, uuid, weakref
    import numpy as np

    class Meta(type): pass
    class Made(metaclass=Meta): pass
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def f(self): ...
    class Concrete(Abstract):
        def f(self): return 1
    class Color(enum.Enum): RED = 1
    @dataclasses.dataclass
    class Data: x: list = dataclasses.field(default_factory=list)
    class Named(typing.NamedTuple): x: int = 1
    class Generic(typing.Generic[typing.TypeVar("T")]):
        @property
        def p(self): return 1
        @functools.cached_property
        def c(self): return 2
    def wrapped(f): return functools.wraps(f)(lambda *a: f(*a))
    @wrapped
    def decorated(x): return {"a", "b", x}

    THINGS = [
        re.compile("a+"), logging.getLogger("x"), pathlib.Path("a/b"), datetime.datetime(2020, 1, 1), decimal.Decimal("1.5"),
        fractions.Fraction(1, 3), Made, Concrete(), Color.RED, Data(), Named(), Generic(), decorated, list[int], int | str,
        functools.partial(max, 1), functools.lru_cache(decorated), contextvars.ContextVar("x"), threading.Lock(), threading.local(),
        np.dtype([("a", int)]), np.random.default_rng(0), {"a", "b", ("c", 1), None, 3.5}, frozenset(["x", "y"]), os.environ,
        collections.defaultdict(list, a=[1]), collections.Counter("abc"), collections.deque([1], 3), weakref.WeakValueDictionary(),
        array.array("i", [1]), bytearray(b"x"), operator.itemgetter(1), struct.Struct("<i"), uuid.UUID(int=1), random.Random(0),
        queue.Queue(), itertools.count(3), json, types.SimpleNamespace(a=1), object(), ValueError("x"), csv.excel, np.add, np.float32(1),
        np.array(["a", None, 1], object), np.ma.masked_array([1, 2], [0, 1]), np.arange(300_000), float("nan"), ..., "x".upper, Meta,
    ]
    def f(x): return THINGS
"""


def test_what_did_not_change_is_the_same_in_every_process(edit, name):
    module = edit(name, THINGS)
    code = (
        f"import {name} as m; from flowfn.parallel.tasks.versions import version_of; print([version_of(lambda: "
        "x)[0] for x in m.THINGS])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-B", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for seed in range(2)
    ]  # fmt: skip
    assert told[0] == told[1]
    assert "b''" not in told[0]
    here = [version_of(lambda: x)[0] for x in module.THINGS]
    assert [
        str(thing) for thing, one, other in zip(module.THINGS, here, ast.literal_eval(told[0])) if one != other
    ] == []
    pids = ff.pipe([0], ff.map(lambda x: (module.f, os.getpid())[1]), ff.prefetch(1, processes=1))
    before = list(ff.pipe([0], ff.map(lambda _: os.getpid()), ff.prefetch(1, processes=1)))
    assert list(pids) == before


def test_what_a_console_leaves_in_the_builtins_changes_no_module(edit, name, monkeypatch):
    module = edit(name, "import os\ndef f(x): return os.getpid() if __builtins__ else 0\n")
    flow = ff.pipe([0], ff.map(lambda x: (module.f(x), bool(module.__builtins__))[0]), ff.prefetch(1, processes=1))
    before = list(flow)
    monkeypatch.setattr(builtins, "_", object(), raising=False)
    assert list(flow) == before


def test_what_libraries_name_is_not_looked_for_in_modules(edit, name):
    module = edit(name, "modules = linecache = types = sum\ndef f(x): return x\n")
    ledger = Ledger()
    dumped((lambda x: module.f(x), module.f), ledger)
    assert set(ledger.named) == {(name, ""), (name, "f")}
    assert ledger.names == {"f"}


# Settings


def _warns(_):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default", UserWarning)
        with contextlib.suppress(FutureWarning):
            warnings.warn("deprecated", FutureWarning, stacklevel=1)
            return len(told)
    return "raised"


def _divides(_):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [str(np.float64(1) / np.float64(0)), np.geterr()["divide"]]
    except FloatingPointError:
        return "raised"


@contextlib.contextmanager
def _in_folder(path):
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _set(read, write, value):
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


@contextlib.contextmanager
def _item(mapping, key, value):
    mapping[key] = value
    try:
        yield
    finally:
        del mapping[key]


@contextlib.contextmanager
def _with_filter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextlib.contextmanager
def _temporary(folder):
    before, tempfile.tempdir = tempfile.tempdir, folder
    yield
    tempfile.tempdir = before


@contextlib.contextmanager
def _in_tokyo():
    with _item(os.environ, "TZ", "JST-9"):
        time.tzset()
        yield
    time.tzset()


def _some_locale():
    for name in ("C.UTF-8", "C.utf8", "en_US.UTF-8", "C"):
        with contextlib.suppress(locale.Error):
            before = locale.setlocale(locale.LC_ALL)
            locale.setlocale(locale.LC_ALL, name)
            locale.setlocale(locale.LC_ALL, before)
            if name != before:
                return name
    return "C"


def _set_items(held):
    return lambda items: held.__setitem__(slice(None), items)


SET = {
    "directory": (lambda: _in_folder("/"), lambda _: os.getcwd()),
    "a variable": (lambda: _item(os.environ, "FLAG_OF_A_TEST", "1"), lambda _: os.environ.get("FLAG_OF_A_TEST")),
    "path": (lambda: _set(lambda: list(sys.path), _set_items(sys.path), ["/there", *sys.path]), lambda _: sys.path[0]),
    "arguments": (lambda: _set(lambda: list(sys.argv), _set_items(sys.argv), ["me", "x"]), lambda _: list(sys.argv)),
    "recursion": (lambda: _set(sys.getrecursionlimit, sys.setrecursionlimit, 3456), lambda _: sys.getrecursionlimit()),
    "digits": (lambda: _set(sys.get_int_max_str_digits, sys.set_int_max_str_digits, 5000),
    lambda _: sys.get_int_max_str_digits()),
    "np.seterr": (lambda: np.errstate(divide="raise"), _divides),
    "np.seterr with a function": (lambda: np.errstate(divide="call", call=lambda *_: None), _divides),
    "decimal": (lambda: decimal.localcontext(decimal.Context(prec=7)), lambda _: str(decimal.Decimal(1) / 3)),
    "filters of warnings": (_with_filter, _warns),
    "csv": (lambda: _set(csv.field_size_limit, csv.field_size_limit, 10**8), lambda _: csv.field_size_limit()),
    "sockets": (lambda: _set(socket.getdefaulttimeout, socket.setdefaulttimeout, 7.0),
    lambda _: socket.getdefaulttimeout()),
    "np.set_printoptions": (lambda: np.printoptions(precision=2), lambda _: str(np.array([1.23456]))),
    "temporary folder": (lambda: _temporary("/"), lambda _: tempfile.tempdir),
    "time zone": (_in_tokyo, lambda _: time.strftime("%H %Z", time.localtime(0))),
    "locale": (
        lambda: _set(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name),
        _some_locale()),
        lambda _: locale.setlocale(locale.LC_ALL),
    ),
}  # fmt: skip


@pytest.mark.parametrize("setting", SET)
def test_settings_of_this_process_are_those_of_its_workers(setting):
    scope, look = SET[setting]
    before = agree(lambda: ff.pipe([0], ff.map(look)), EVERYWHERE)
    with scope():
        there = agree(lambda: ff.pipe([0], ff.map(look)), EVERYWHERE)
        assert there != before
    assert agree(lambda: ff.pipe([0], ff.map(look)), EVERYWHERE) == before


def test_a_variable_that_was_deleted_is_gone_in_workers():
    os.environ["FLAG_OF_A_TEST"] = "1"
    agree(lambda: ff.pipe([0], ff.map(lambda _: os.environ.get("FLAG_OF_A_TEST"))))
    del os.environ["FLAG_OF_A_TEST"]
    assert agree(lambda: ff.pipe([0], ff.map(lambda _: os.environ.get("FLAG_OF_A_TEST")))) == [None]


def test_workers_keep_the_number_of_threads_that_prefetch_names(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    count = ff.map(lambda _: os.environ["OMP_NUM_THREADS"])
    assert list(ff.pipe([0], count, ff.prefetch(1, processes=2))) == ["1"]
    assert list(ff.pipe([0], count, ff.prefetch(1, processes=2, worker_threads=None))) == ["7"]


def test_a_module_found_on_a_path_that_is_new_is_imported_in_workers(edit, name):
    list(ff.pipe([0], ff.map(str), ff.prefetch(1, processes=2)))
    module = edit(name, "def f(x): return x + 1\n")
    assert agree(lambda: ff.pipe([0], ff.map(module.f))) == [1]


def test_a_filter_for_warnings_of_a_module_that_workers_import_later_waits_for_it(edit, name):
    module = edit(
        name,
        "import warnings\nclass Mine(UserWarning): pass\ndef f(x):\n    warnings.warn('mine', Mine)\n    return x\n",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", module.Mine)
        assert agree(lambda: ff.pipe([0, 1], ff.map(module.f))) == [0, 1]
        warnings.simplefilter("error", module.Mine)
        for setting in EVERYWHERE:
            with pytest.raises(module.Mine):
                list(ff.pipe([0, 1], ff.map(module.f), ff.prefetch(2, **setting)))


# Setup


def _registers():
    codecs.register_error("tests.mine", lambda error: ("?", error.end))


def _replaced(_):
    return "café".encode("ascii", "tests.mine")


def test_a_setup_is_called_first_in_each_worker():
    flow = ff.pipe(range(20), ff.map(_replaced), ff.prefetch(2, processes=2, setup=_registers))
    assert list(flow) == [b"caf?"] * 20
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        assert list(ff.pipe([0], ff.map(_replaced), ff.prefetch(1, executor=executor, setup=_registers))) == [b"caf?"]
    with pytest.raises(LookupError):
        list(ff.pipe([0], ff.map(_replaced), ff.prefetch(1, processes=2)))


def test_a_setup_is_called_once_in_a_worker(tmp_path):
    def note():
        with open(tmp_path / str(os.getpid()), "a") as file:
            file.write("called\n")

    pids = {
        pid
        for _ in range(3)
        for pid in ff.pipe(range(50), ff.map(lambda _: os.getpid()), ff.prefetch(2, processes=2, setup=note))
    }
    calls = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {calls[str(pid)] for pid in pids} == {"called\n"}


def test_workers_with_another_setup_are_others():
    def pids(setup):
        return set(ff.pipe(range(8), ff.map(lambda _: os.getpid()), ff.prefetch(2, processes=1, setup=setup)))

    def one():
        return 1

    def same_again():
        def one():
            return 1

        return one

    def other():
        return 2

    assert pids(one) == pids(one) == pids(same_again())
    assert len(pids(one) | pids(other) | pids(None)) == 3


@pytest.mark.parametrize(
    "error", [OSError(2, "no such file", "a.cfg"), KeyError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_setup_raises_is_raised_here_and_says_so(error, workers):
    working = []

    def fails():
        if not os.path.exists(working[0]):
            raise error

    working.append("/nowhere")
    flow = ff.pipe(range(4), ff.map(float), ff.prefetch(1, processes=workers, setup=fails))
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            list(flow)
        assert str(raised.value) == str(error)
        if isinstance(error, Exception):
            assert any("setup=fails" in note and "calls first" in note for note in raised.value.__notes__)
        assert "fails" in str(raised.value.__cause__)
    working[0] = "/"
    assert list(flow) == [0.0, 1.0, 2.0, 3.0]


def test_what_a_setup_sets_stays_whatever_is_set_here(tmp_path):
    def prepare():
        np.seterr(divide="raise")
        os.environ["FLAG_OF_A_TEST"] = "worker"

    def look(_):
        return [np.geterr()["divide"], os.environ["FLAG_OF_A_TEST"], os.getcwd()]

    flow = ff.pipe([0], ff.map(look), ff.prefetch(1, processes=1, setup=prepare))
    assert list(flow) == [["raise", "worker", os.getcwd()]]
    with _in_folder(tmp_path), np.errstate(divide="ignore"), _item(os.environ, "FLAG_OF_A_TEST", "here"):
        assert list(flow) == [["raise", "worker", str(tmp_path)]]


def test_workers_that_are_warm_have_been_set_up(tmp_path):
    def note():
        (tmp_path / "called").touch()

    ff.warm_up(1, setup=note)
    list(ff.pipe([0], ff.map(str), ff.prefetch(1, processes=1, setup=note)))
    assert (tmp_path / "called").exists()


def test_a_prefetch_within_a_worker_sets_that_worker_up():
    inner = ff.pipe([0, 1], ff.map(_replaced), ff.prefetch(1, processes=2, setup=_registers))
    assert list(ff.pipe(inner, ff.map(bytes), ff.prefetch(1, processes=1))) == [b"caf?"] * 2


def test_the_setup_is_named_by_explain(capsys):
    ff.explain(ff.pipe([0], ff.map(str), ff.prefetch(1, processes=2, setup=_registers)))
    assert (
        "each worker of prefetch(1, processes=2, setup=_registers) calls _registers() first" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threads": 2, "setup": str}, "setup must be a function of nothing that each worker process calls first"),
        ({"setup": str}, "setup must be"),
        ({"processes": 2, "setup": 3}, "setup must be"),
    ],
    ids=str,
)
def test_a_setup_that_nobody_would_call_is_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ff.prefetch(2, **options)


def test_a_setup_that_cannot_be_sent_is_named():
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="setup cannot be sent to a worker process"):
        list(ff.pipe([0], ff.map(str), ff.prefetch(1, processes=1, setup=lambda: lock.acquire())))


def test_context_variables_are_those_of_this_process_in_threads():
    from contextvars import ContextVar

    mine = ContextVar("mine", default="unset")
    mine.set("set")
    assert agree(lambda: ff.pipe(range(5), ff.map(lambda _: mine.get())), [{}, {"threads": 2}]) == ["set"] * 5
