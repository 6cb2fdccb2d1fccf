"""What holds for all tests, whoever starts them."""

import doctest
import gc
import inspect
import signal
from types import FunctionType

import pytest

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a job in the background ignores interrupts, and so would what tests start


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
