"""Errors that cross between processes are what they were: type, text, attributes, notes, whatever their classes do."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import io
import json
import multiprocessing
import pickle
import re
import sqlite3
import subprocess
import threading
import traceback
from functools import partial

import numpy as np
import pytest

import flowfn as ff
from flowfn.parallel.crossing.errors import Portable, Shown

pytestmark = pytest.mark.timeout(120)


class Keyword(Exception):
    """Its constructor needs a keyword."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Several(Exception):
    """Its constructor needs more than its `args`."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.two = two


class Prefixed(Exception):
    """Its constructor changes what it is given."""

    def __init__(self, text):
        super().__init__(f"prefix: {text}")


class Slotted(Exception):
    __slots__ = ("__hidden", "level")

    def __init__(self, level):
        self.level, self.__hidden = level, 2 * level


class Forgetful(Exception):
    """What it is pickled as leaves out its attributes."""

    def __init__(self, text, level=1):
        super().__init__(text)
        self.level = level

    def __reduce__(self):
        return Forgetful, self.args


class Changeling(Exception):
    """What it is pickled as is another error."""

    def __reduce__(self):
        return ValueError, ("something else",)


class Sour(Exception):
    def __reduce__(self):
        raise ZeroDivisionError("not me")


class Late(Exception):
    """Unpickling it fails."""

    def __setstate__(self, state):
        raise ZeroDivisionError("not here")


class Endless(Exception):
    """Unpickling it never ends."""

    def __setstate__(self, state):
        threading.Event().wait()


class Holding(Exception):
    """It holds what cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock, self.level = threading.Lock(), 3


class Closing(Exception):
    """It holds what cannot be pickled, and makes it anew."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()

    def __reduce__(self):
        return Closing, self.args


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    level: int

    def __str__(self):
        return f"frozen at {self.level}"


class Stubborn(Exception):
    """It lets nobody set an attribute."""

    def __setattr__(self, name, value):
        raise TypeError("no")


class Secretive(Exception):
    """It lets nobody look at it."""

    def __getattribute__(self, name):
        raise TypeError("no")


class OfPath(OSError):
    """An OSError whose constructor is its own."""

    def __init__(self, path):
        super().__init__(2, "no such thing", path)
        self.path = path


class Named(ExceptionGroup):
    """A group whose constructor is its own."""

    def __new__(cls, errors):
        return super().__new__(cls, "named", errors)

    def derive(self, errors):
        return Named(errors)


class OddNotes(Exception):
    __notes__ = "not a list"


class OddExceptions(Exception):
    """No group, but with an attribute of that name."""

    def __init__(self, text):
        super().__init__(text)
        self.exceptions = 3


class Text(str):
    """A text of one's own."""


def nested(depth=12):
    """Errors in errors, each with something that cannot travel."""
    error = Holding("innermost")
    for number in range(depth):
        outer = Holding(f"level {number}")
        outer.inner, error = error, outer
    raise error


def numbered(error):
    error.errno = 77
    return error


def nonsense():
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("nonsense")


def torch_mismatch():
    import torch

    torch.zeros(2) @ torch.zeros(3)


RAISED = {
    "keyword": lambda: raised(Keyword(code=3)),
    "several": lambda: raised(Several(1, 2)),
    "prefixed": lambda: raised(Prefixed("a")),
    "slotted": lambda: raised(Slotted(3)),
    "forgetful": lambda: raised(Forgetful("text", level=5)),
    "changeling": lambda: raised(Changeling("me")),
    "sour": lambda: raised(Sour("a")),
    "late": lambda: raised(Late("a")),
    "endless": lambda: raised(Endless("a")),
    "holding": lambda: raised(Holding("a")),
    "closing": lambda: raised(Closing("a")),
    "frozen": lambda: raised(Frozen(3)),
    "stubborn": lambda: raised(Stubborn("a")),
    "odd notes": lambda: raised(OddNotes("a")),
    "odd exceptions": lambda: raised(OddExceptions("a")),
    "of path": lambda: raised(OfPath("a.jpg")),
    "named group": lambda: raised(Named([Keyword(code=1), OfPath("b")])),
    "group": lambda: raised(ExceptionGroup("all", [ValueError(1), ExceptionGroup("some", [Several(1, 2)])])),
    "nested": nested,
    "lock among args": lambda: raised(ValueError("a", print, 3)),
    "two files": lambda: raised(FileNotFoundError(2, "No", "one", "", "two")),
    "no errno": lambda: raised(OSError("only text")),
    "errno set by hand": lambda: raised(numbered(OSError("only text"))),
    "blocking": lambda: raised(BlockingIOError(11, "wait", 7)),
    "text of one's own": lambda: raised(ValueError(Text("a"))),
    "open": lambda: io.FileIO("/no/such/file"),
    "decode": lambda: b"\xff".decode(),
    "encode": lambda: "\ud800".encode(),
    "key": lambda: {}["a 'quoted' key"],
    "syntax": lambda: compile("a b", "file.py", "exec"),
    "module": lambda: __import__("no_such_module"),
    "attribute": lambda: [].nothing,
    "name": lambda: no_such_name,  # noqa: F821
    "index": lambda: [][1],
    "json": lambda: json.loads("{"),
    "command": lambda: subprocess.run(["false"], check=True),
    "database": nonsense,
    "pattern": lambda: re.compile("("),
    "stack": lambda: np.stack([np.zeros(2), np.zeros(3)]),
    "axis": lambda: np.zeros(2).sum(axis=5),
    "ufunc": lambda: np.add("a", 1),
    "memory": lambda: np.zeros(1 << 57, np.uint8),
    "warning": lambda: raised(UserWarning("as an error")),
    "recursion": lambda: raised(RecursionError("too deep")),
    **({"torch": torch_mismatch} if importlib.util.find_spec("torch") else {}),
}
ENDS = {
    "exit": lambda: raised(SystemExit({"status": 3})),
    "interrupt": lambda: raised(KeyboardInterrupt("now")),
    "generator": lambda: raised(GeneratorExit("now")),
    "base group": lambda: raised(BaseExceptionGroup("all", [KeyboardInterrupt(), Keyword(code=1)])),
}


def raised(error):
    raise error


def at_three(cause, number):
    if number == 3:
        cause()
    return number


def state(error):
    return BaseException.__dict__["__dict__"].__get__(error)


def text(error):
    return str(error)


def seen(flow):
    """What one sees of the error that a flow raises: its type, text, fields, attributes, notes."""
    got = []
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        got.extend(flow)
    error = caught.value
    attributes = {name: plain(value) for name, value in state(error).items() if name not in ("__notes__", "__flowfn__")}
    names = ("args", "errno", "filename", "filename2", "code", "name", "level", "path", "msg", "exceptions")
    fields = [plain(getattr(error, name, None)) for name in names]
    return error, (got, type(error), text(error), fields, attributes, state(error).get("__notes__"))


def plain(value):
    """Something as it can be compared."""
    if isinstance(value, BaseException):
        return type(value), text(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return re.sub("0x[0-9a-f]+", "0x", repr(value))


def processes():
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as executor:
        yield executor


elsewhere = pytest.fixture(scope="module")(processes)


@pytest.mark.parametrize("way", ["thread", "threads", "one process", "processes", "executor"])
@pytest.mark.parametrize("name", [*RAISED, *ENDS])
def test_an_error_is_the_same_wherever_it_is_raised(name, way, elsewhere):
    work = ff.pipe(range(6), ff.map(partial(at_three, {**RAISED, **ENDS}[name])))
    stage = {
        "thread": ff.prefetch(1),
        "threads": ff.prefetch(2, threads=2),
        "one process": ff.prefetch(2, processes=1),
        "processes": ff.prefetch(2, processes=2),
        "executor": ff.prefetch(2, executor=elsewhere),
    }[way]
    _, serial = seen(work)
    error, told = seen(ff.pipe(work, stage))
    assert told == serial
    assert serial[0] == [0, 1, 2]
    if name in RAISED:
        (note,) = told[-1]
        assert re.search(r"in map\(.*\), its datapoint 3 \(input 3\), seed 0, epoch 0", note)
        assert type(raised_again(ff.pipe(work, stage), error)) is type(error)
    if "process" in way or way == "executor":
        shown = "".join(traceback.format_exception(error.__cause__))
        assert "in at_three" in shown
        assert "cause()" in shown


def raised_again(flow, error):
    with pytest.raises(type(error)) as caught:
        ff.replay(flow, error)
    return caught.value


@pytest.mark.parametrize("n", [1, 2])
def test_an_error_that_lets_nobody_look_at_it_comes_from_workers_too(n):
    work = ff.pipe(range(6), ff.map(partial(at_three, lambda: raised(Secretive("a")))), ff.prefetch(2, processes=n))
    got = []
    try:
        got.extend(work)
    except Exception as error:  # pytest would look at it
        kind, args = type(error), BaseException.__dict__["args"].__get__(error)
    assert (got, kind, args) == ([0, 1, 2], Secretive, ("a",))


@pytest.mark.parametrize("n", [1, 2])
def test_what_an_error_came_from_is_in_its_text(n):
    def chained(number):
        try:
            {}[number]
        except KeyError as error:
            raise ValueError("above") from error

    def during(number):
        try:
            {}[number]
        except KeyError:
            raise ValueError("above")  # noqa: B904

    for work, joint in ((chained, "the direct cause"), (during, "During handling of the above exception, another")):
        with pytest.raises(ValueError, match="above") as caught:
            list(ff.pipe(range(6), ff.map(work), ff.prefetch(2, processes=n)))
        shown = "".join(traceback.format_exception(caught.value))
        assert "KeyError: 0" in shown
        assert joint in shown
        assert "{}[number]" in shown


def test_what_cannot_travel_is_stood_in_for_by_what_it_looks_like():
    error = Holding("a")
    again = pickle.loads(pickle.dumps(Portable(error)))
    assert (type(again), str(again), again.level) == (Holding, "a", 3)
    assert isinstance(again.lock, Shown)
    assert repr(again.lock) == repr(error.lock)
    made = ValueError("a", threading.Lock())
    assert str(pickle.loads(pickle.dumps(Portable(made)))) == str(made)
    assert hasattr(pickle.loads(pickle.dumps(Portable(Closing("a")))).lock, "acquire")


def test_errors_in_an_error_travel_and_a_circle_ends_where_it_closes():
    error, other = Forgetful("outer", level=2), Keyword(code=4)
    error.itself, error.other, other.back = error, other, error
    again = pickle.loads(pickle.dumps(Portable(error)))
    assert (type(again), str(again), again.level) == (Forgetful, "outer", 2)
    assert (type(again.other), str(again.other), again.other.code) == (Keyword, "code 4", 4)
    assert repr(again.itself) == repr(again.other.back) == repr(error)


class Live(Exception):
    """Its text hangs on what cannot travel."""

    def __init__(self):
        self.file = io.StringIO("live")
        self.made_by = lambda: threading.Lock()
        self.lock = threading.Lock()

    def __str__(self):
        return f"{self.file.getvalue()} {self.lock.locked()}"


def test_an_error_whose_text_hangs_on_what_cannot_travel_says_what_it_said():
    error = Live()
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(Portable(error)))
    assert isinstance(again, Live)
    assert type(again).__name__ == "Live"
    assert (str(again), again.__notes__) == ("live False", ["a note"])


def test_an_error_whose_class_cannot_travel_is_one_that_says_the_same():
    class Homebound(Exception):
        lock = threading.Lock()

    error = Homebound("a")
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(Portable(error)))
    assert (type(again), str(again), again.__notes__) == (RuntimeError, "Homebound: a", ["a note"])


def test_a_stop_iteration_of_a_function_is_an_error_in_every_engine():
    def stops(number):
        return next(iter(())) if number == 3 else number

    flow = ff.pipe(range(6), ff.map(stops))
    _, serial = seen(flow)
    for stage in (ff.prefetch(2), ff.prefetch(2, threads=2), ff.prefetch(2, processes=1), ff.prefetch(2, processes=2)):
        _, told = seen(ff.pipe(flow, stage))
        assert told == serial


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("n", [1, 2])
def test_what_was_dropped_has_the_error_that_it_has_in_serial(name, n):
    work = ff.pipe(range(6), ff.guard(ff.map(partial(at_three, RAISED[name])), then="drop"))

    def dropped(flow):
        iterator = iter(flow)
        assert list(iterator) == [0, 1, 2, 4, 5]
        return [(one.index, type(one.error), text(one.error), one.datapoint) for one in iterator.dropped]

    assert dropped(ff.pipe(work, ff.prefetch(2, processes=n))) == dropped(work)


@ff.stage.each
def refusing(source):
    """A stage that cannot begin."""
    raise OSError("no such device")
    yield from source


@pytest.mark.parametrize("ahead", [None, ff.prefetch(2), ff.prefetch(2, threads=2), ff.prefetch(2, processes=1)])
def test_a_stage_that_fails_before_it_reads_is_named(ahead):
    flow = ff.pipe(range(3), refusing(), ahead)
    with pytest.raises(OSError, match="no such device") as caught:
        list(flow)
    assert "in refusing(), before its first datapoint" in caught.value.__notes__[0]
