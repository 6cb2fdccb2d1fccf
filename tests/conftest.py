"""What holds for all tests, whoever starts them."""

import doctest
import gc
import inspect
import os
import random
import signal
from collections import defaultdict
from itertools import chain
from types import FunctionType

import pytest

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a job in the background ignores interrupts, and so would what tests start

os.environ |= {"RAY_worker_niceness": "0"}  # otherwise 15: who shares a busy machine waits for Ray's workers for ever


def pytest_addoption(parser):
    parser.addoption("--deal", metavar="K/N", default="0/1", help="of each test the cases that fall to hand K of N")
    parser.addoption(
        "--turn",
        metavar="K/N",
        default="0/1",
        help="of each test an Nth of its cases, and at least one",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Let each case have its turn, and hands share those of each test; what hangs on the version of Python is tried
    by each."""
    if passing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"named by an address, so otherwise in every run: {passing[0]}")
    (hand, hands), (turn, most) = (map(int, config.getoption(name).split("/")) for name in ("deal", "turn"))
    if hands == most == 1:
        return
    tests, files, kept = defaultdict(list), defaultdict(list), set()
    for item in items:
        if item.get_closest_marker("everywhere"):
            kept.add(item)
        elif item.get_closest_marker("together"):
            files[item.nodeid.partition("::")[0]].append(item)
        else:
            tests[item.nodeid.partition("[")[0]].append([item])
    tests.update((name, [all_of_it]) for name, all_of_it in files.items())
    for name, cases in tests.items():
        cards = random.Random(name)
        cards.shuffle(cases)  # every third case might be of one setting
        turns = min(most, len(cases))
        cases = cases[turn % turns :: turns]
        kept.update(chain.from_iterable(cases[(hand + cards.randrange(hands)) % hands :: hands]))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = filter(kept.__contains__, items)


@pytest.fixture(scope="module", autouse=True)
def what_is_alive_stays():
    """Collections of garbage, of which each check of the laws asks for two,
    pass over what was there before a module's tests."""
    gc.collect()
    gc.freeze()


_says_it_is_from = doctest.DocTestFinder._from_module


def _is_defined_in(finder, module, value):
    """Examples run in the file where they stand; what is public says that it is found elsewhere."""
    stage = getattr(value, "definition", None)
    parts = vars(value).values() if isinstance(value, type) else [value, stage and stage.function]
    names = [part.__globals__ for part in map(inspect.unwrap, parts) if isinstance(part, FunctionType)]
    ours = [one for one in names if str(one.get("__name__")).partition(".")[0] == "flowfn"]
    return any(one is vars(module) for one in ours) if ours else _says_it_is_from(finder, module, value)


doctest.DocTestFinder._from_module = _is_defined_in
