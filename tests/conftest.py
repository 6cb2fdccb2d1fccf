"""What holds for all tests, whoever starts them."""

import gc
import signal

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores interrupts, and so would what tests start


@pytest.fixture(scope="module", autouse=True)
def what_is_alive_stays():
    """Collections of garbage, of which each check of the laws asks for two, pass over what was there before a module's tests."""
    gc.collect()
    gc.freeze()
