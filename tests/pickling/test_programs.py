"""What a program defines, however it is started, comes back from pickles, from workers and in other interpreters."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(180)

PROGRAM = '''
import collections, copy, dataclasses, enum, functools, multiprocessing, pickle, subprocess, sys, threading, typing
import flowfn as ff

FACTOR, LOCK = 2, threading.Lock()

def double(x): return FACTOR * x
def plain_fib(n): return n if n < 2 else plain_fib(n - 1) + plain_fib(n - 2)
@functools.lru_cache(maxsize=None)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@dataclasses.dataclass
class Scale:
    by: int
    def __call__(self, x): return self.by * x
    def method(self, x): return self(x)
    @classmethod
    def thrice(cls, x): return cls(3)(x)
    @staticmethod
    def fourfold(x): return Scale(4)(x)
class Shifted(Scale):
    def __call__(self, x): return super().__call__(x) + 1
@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    by: int
    def __call__(self, x): return self.by * x
class Meta(type): pass
class Metered(metaclass=Meta):
    def __call__(self, x): return x + 7
    def __repr__(self): return "Metered"
class Color(enum.Enum):
    RED = 1
    def paint(self, x): return self.value, x
class Point(typing.NamedTuple):
    x: int
    y: int
Pair = collections.namedtuple("Pair", "a b")
class Numbers:
    def __len__(self): return 4
    def __getitem__(self, i): return i * FACTOR
class Stream:
    def __iter__(self): return iter(range(4))
@ff.stage.each
def plus(by, source):
    for x in source: yield x + by
@ff.stage
def pairs(source):
    for x in source: yield x; yield x
@ff.stage.order
def backwards(n): return range(n)[::-1]
@ff.stage.group(size="k")
def sums(k, source):
    for block in source: yield sum(block)
@ff.stage.expand
def odd(source):
    for x in source:
        if x % 2: yield x
@ff.stage.composite
def twice(flow): return ff.pipe(flow, plus(1), plus(1))
def adding(n):
    def inner(x): return x + n
    return inner
def from_epoch(epoch): return range(epoch, 4)
def locked(x):
    with LOCK: return x
def noisy(x, rng): return x + int(rng.integers(100))
def kinds(x): return isinstance(x, Scale), isinstance(Color.RED, Color)
def wrapping(f):
    @functools.wraps(f)
    def wrapper(*a): return f(*a)
    return wrapper
@wrapping
def wrapped(x): return -x

FLOWS = {
    "function": lambda: ff.pipe(range(4), ff.map(double)),
    "lambda": lambda: ff.pipe(range(4), ff.map(lambda x: FACTOR * x)),
    "recursive": lambda: ff.pipe(range(8), ff.map(plain_fib)),
    "cached": lambda: ff.pipe(range(8), ff.map(fib)),
    "callable": lambda: ff.pipe(range(4), ff.map(Scale(3))),
    "derived": lambda: ff.pipe(range(4), ff.map(Shifted(3))),
    "slots": lambda: ff.pipe(range(4), ff.map(Slotted(3))),
    "metaclass": lambda: ff.pipe(range(4), ff.map(Metered())),
    "bound method": lambda: ff.pipe(range(4), ff.map(Scale(5).method)),
    "class method": lambda: ff.pipe(range(4), ff.map(Scale.thrice)),
    "static method": lambda: ff.pipe(range(4), ff.map(Scale.fourfold)),
    "enum": lambda: ff.pipe(range(4), ff.map(Color.RED.paint)),
    "partial": lambda: ff.pipe(range(4), ff.map(functools.partial(lambda a, b: a + b, 2))),
    "named tuple": lambda: ff.pipe([Point(1, 2), Point(3, 4)], ff.map(lambda p: p.x)),
    "other named tuple": lambda: ff.pipe([Pair(1, 2)], ff.map(lambda p: p.b)),
    "closure": lambda: ff.pipe(range(4), ff.map(adding(3))),
    "wrapped": lambda: ff.pipe(range(4), ff.map(wrapped)),
    "own each": lambda: ff.pipe(range(4), plus(3)),
    "own stream": lambda: ff.pipe(range(4), pairs()),
    "own order": lambda: ff.pipe(range(4), backwards()),
    "own group": lambda: ff.pipe(range(4), sums(2)),
    "own expand": lambda: ff.pipe(range(4), odd()),
    "own composite": lambda: ff.pipe(range(4), twice()),
    "any callable": lambda: ff.pipe(range(4), lambda stream: (x for x in stream)),
    "own sequence": lambda: ff.pipe(Numbers(), ff.map(double)),
    "own iterable": lambda: ff.pipe(Stream(), ff.map(double)),
    "own source": lambda: ff.pipe(from_epoch, ff.map(double)).set_epoch(1),
    "random": lambda: ff.pipe(range(4), ff.shuffle(), ff.map(noisy, rng=True)).reset_state(3).set_epoch(2),
    "collation": lambda: ff.pipe(range(4), ff.batch(2, collate=lambda xs: tuple(xs))),
    "guard": lambda: ff.pipe(range(4), ff.guard(ff.map(lambda x: 1 // x), then=lambda x, error: -1)),
    "inside": lambda: ff.pipe([[1, 2], [3]], ff.inside(ff.map(double))),
    "several": lambda: ff.concat(ff.pipe(range(2), ff.map(double)), ff.pipe(range(2), ff.map(lambda x: -x))),
    "per process": lambda: ff.pipe(range(4), ff.map(functools.partial(lambda p, x: p() * x, ff.per_process(lambda: 3)))),
    "nested": lambda: ff.pipe(range(3), ff.flat_map(lambda n: ff.pipe(range(n), ff.map(double)))),
    "instances": lambda: ff.pipe(range(3), ff.map(Scale), ff.map(kinds)),
}
READS = "import pickle, sys; loaded = pickle.load(sys.stdin.buffer); print([list(flow) for flow in loaded]); pickle.dumps(loaded)"

def wrong():
    """What comes back otherwise than it was, here, in copies, from workers and in another interpreter."""
    expected = {name: list(make()) for name, make in FLOWS.items()}
    for name, make in FLOWS.items():
        flow = make()
        again = pickle.loads(pickle.dumps(flow))
        if (list(again), repr(again)) != (expected[name], repr(flow)):
            yield name, "pickled"
        for copied in (copy.copy(make()), copy.deepcopy(make())):
            if list(copied) != expected[name]:
                yield name, "copied"
        if list(ff.pipe(make(), ff.prefetch(2, processes=2))) != expected[name]:
            yield name, "workers"
    data = pickle.dumps([make() for make in FLOWS.values()])
    there = subprocess.run([sys.executable, "-P", "-c", READS], input=data, capture_output=True, timeout=90)
    if there.stdout.decode().strip() != str(list(expected.values())):
        yield "elsewhere", there.stdout.decode() + there.stderr.decode()[-500:]
    if pickle.loads(pickle.dumps(ff.pipe(range(4), ff.map(double)))).part.arguments["f"] is not double:
        yield "double", "is another"
    for stage in (plus(1), ff.map(double), ff.compose(plus(1), ff.map(double)), ff.map(fib), ff.map(Color.RED.paint)):
        if pickle.loads(pickle.dumps(stage)) != stage:
            yield str(stage), "another stage"
    if pickle.loads(pickle.dumps(ff.map(locked))).arguments["f"] is not locked:
        yield "locked", "went by value"

def tell(queue, flows):
    queue.put([*wrong(), *(name for (name, make), flow in zip(FLOWS.items(), flows) if list(flow) != list(make()))])

if __name__ == "__main__":
    method = sys.argv[1]
    if method == "here":
        print([*wrong()])
    else:
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        child = context.Process(target=tell, args=(queue, [make() for make in FLOWS.values()]))
        child.start()
        print(queue.get())
        child.join()
'''


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "program.py").write_text(PROGRAM)
    return folder


HOW = {
    "script": ["package/program.py", "here"],
    "module": ["-m", "package.program", "here"],
    "text": ["-c", PROGRAM, "here"],
    "runpy": ["-c", "import runpy; runpy.run_path('package/program.py', run_name='__main__')", "here"],
    "fork": ["package/program.py", "fork"],
    "spawn": ["package/program.py", "spawn"],
    "forkserver": ["package/program.py", "forkserver"],
    "spawned from a module": ["-m", "package.program", "spawn"],
}


def printed(arguments, folder):
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=160,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.everywhere if how == "script" else ()) for how in HOW]
)
def test_what_a_script_defines_comes_back_and_goes_to_workers(how, program):
    assert printed(HOW[how], program) == "[]"
