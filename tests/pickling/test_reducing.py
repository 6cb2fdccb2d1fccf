"""What a program defines is in workers what it is here, and stays what it is here, whatever comes back from them."""

import os
import subprocess
import sys
import time

import pytest

import flowfn as ff

pytestmark = pytest.mark.timeout(240)

PROGRAM = '''
import abc, dataclasses, collections, contextvars, enum, functools, typing
import flowfn as ff
from sentinels import MISSING, is_missing

@functools.singledispatch
def show(x): return "any"
@show.register(int)
def _(x): return "int", show(str(x))
@show.register(str)
def _(x): return "str"
class Showing:
    @functools.singledispatchmethod
    def show(self, x): return "any"
    @show.register
    def _(self, x: int): return "int"
class Color(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1
class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
class Labelled(int, enum.Enum):
    ONE = 1, "one"
    def __new__(cls, value, label):
        made = int.__new__(cls, value)
        made._value_, made.label = value, label
        return made
class Mask(enum.IntFlag):
    A = 1
    B = 2
    BOTH = 3
class Slots:
    __slots__ = ("a", "__hidden")
    def __init__(self, a): self.a, self.__hidden = a, -a
    def hidden(self): return self.__hidden
class Text:
    __slots__ = "a"
class Derived(Slots):
    __slots__ = ()
class Open(Slots): pass
@dataclasses.dataclass(slots=True)
class SlotData:
    a: int = 3
class Outer:
    @dataclasses.dataclass
    class Inner:
        a: int
        b: list = dataclasses.field(default_factory=list)
class Lazy:
    @functools.cached_property
    def once(self): return [self]
UserId = typing.NewType("UserId", int)
P = typing.ParamSpec("P")
def typed(x: UserId) -> UserId: return UserId(x)
def called(f: typing.Callable[P, int], *a: P.args) -> int: return f(*a)
DEPTH = contextvars.ContextVar("DEPTH", default=1)
DEPTH.set(7)
OWN = object()
Pair = collections.namedtuple("Pair", "a b", defaults=[2])
class Point(typing.NamedTuple):
    x: int
    y: int = 2
class Shape(abc.ABC):
    __slots__ = ("a",)
    @property
    @abc.abstractmethod
    def area(self): ...
class Square(Shape):
    __slots__ = ()
    area = 4
Shape.register(int)

CASES = {
    "generic function": lambda x: (show(x), show(2.5), sorted(kind.__name__ for kind in show.registry), show.__name__),
    "generic method": lambda x: (Showing().show(x), Showing().show("a")),
    "aliases": lambda x: (Color.CRIMSON is Color.RED, Color["CRIMSON"], list(Color), list(Color.__members__)),
    "what a member was given": lambda x: (Planet.EARTH.mass, Planet.EARTH.radius, Planet((5.9, 6.3))),
    "members of another kind": lambda x: (Labelled.ONE + 1, Labelled.ONE.label, Labelled(1)),
    "flags": lambda x: (Mask.A | Mask.B, Mask.BOTH, Mask["BOTH"], list(Mask)),
    "slots": lambda x: [hasattr(made, "__dict__") for made in (Slots(1), Text(), Derived(1), Open(1), SlotData())],
    "hidden slots": lambda x: (Slots(x).hidden(), Derived(x).hidden(), Open(x).hidden()),
    "slots of data": lambda x: (SlotData(), SlotData(x), dataclasses.asdict(SlotData())),
    "qualified names": lambda x: (repr(Outer.Inner(x)), str(Outer.Inner), Outer.Inner.__qualname__),
    "fields": lambda x: [one.default is dataclasses.MISSING for one in dataclasses.fields(Outer.Inner)],
    "cached property": lambda x: (lambda lazy: lazy.once is lazy.once)(Lazy()),
    "new type": lambda x: (typed(x), str(UserId), UserId.__supertype__),
    "parameters": lambda x: (called(abs, -1), str(P)),
    "context variable": lambda x: DEPTH.get(),
    "sentinel of a module": lambda x: (is_missing(MISSING), is_missing(OWN)),
    "named tuples": lambda x: (Pair(x), Point(x), Point._field_defaults),
    "abstract": lambda x: (isinstance(x, Shape), isinstance("", Shape), Square().area, hasattr(Square(), "__dict__")),
}
BACK = {
    "members": lambda x: [Color.CRIMSON, Planet.EARTH, Labelled.ONE, Mask.BOTH],
    "instances": lambda x: (Outer.Inner(x), Point(x), SlotData(x)),
    "sentinels": lambda x: (OWN, MISSING, dataclasses.MISSING),
    "classes": lambda x: (Color, Slots, Outer, Point),
}

def through(function, **options):
    return list(ff.pipe(range(3), ff.map(function), *[ff.prefetch(2, **options)] * bool(options)))

def wrong():
    expected = {name: function(0) for name, function in CASES.items()}
    (found,) = ff.pipe([0], ff.map(lambda x: {name: function(x) for name, function in CASES.items()}), ff.prefetch(1, processes=2))
    yield from ((name, expected[name], found[name]) for name in CASES if repr(expected[name]) != repr(found[name]))
    (back,) = ff.pipe([0], ff.map(lambda x: [function(x) for function in BACK.values()]), ff.prefetch(1, processes=2))
    for name, function, others in zip(BACK, BACK.values(), back):
        for here, there in zip(function(0), others):
            same = here is there if name in ("members", "sentinels", "classes") else type(here) is type(there) and here == there
            if not same:
                yield name, here, there

class Kept:
    count, heard = 0, []
    def tell(self): return NUMBER
    def hear(self, x): HEARD.append(x); Kept.count += 1; Kept.heard = [x]; return self
class Inherits(Kept):
    def tell(self): return super().tell() + 1
NUMBER, HEARD = 1, []

def changed():
    """What is another in the program's own classes, once they have come back."""
    global NUMBER
    before = {kind: dict(vars(kind)) for kind in (Kept, Inherits)}
    back = through(lambda x: Inherits().hear(x), processes=2)
    for kind, held in before.items():
        yield from (name for name in held if vars(kind).get(name) is not held[name])
    NUMBER = 2
    back[0].hear(9)
    if (back[0].tell(), Kept().tell(), HEARD, Kept.count, Kept.heard) != (3, 2, [9], 1, [9]):
        yield back[0].tell(), Kept().tell(), HEARD, Kept.count, Kept.heard
    Kept.count, Kept.tell = 50, lambda self: 10
    if through(lambda x: (Kept.count, Inherits().tell()), processes=2) != [(50, 11)] * 3:
        yield "workers have the old class"
    list(ff.pipe([Inherits()] * 3, ff.map(lambda kept: kept), ff.prefetch(2, processes=2)))
    if (Kept.count, Inherits().tell()) != (50, 11):
        yield "what went there and back"

if __name__ == "__main__":
    print([*wrong(), *changed()])
'''


def test_what_a_script_defines_is_in_workers_what_it_is_here_and_stays_here_what_it_was(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "sentinels.py").write_text("MISSING = object()\ndef is_missing(x): return x is MISSING\n")
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_workers_hash_text_alike():
    def hashed(x):
        time.sleep(0.05)
        return os.getpid(), hash("text"), list({"a", "b", "c", "dd", "ee"})

    made = list(ff.pipe(range(40), ff.map(hashed), ff.prefetch(4, processes=2)))
    assert len({pid for pid, _, _ in made}) == 2
    assert len({str(hashes) for _, *hashes in made}) == 1
