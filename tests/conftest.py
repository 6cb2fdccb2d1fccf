"""What is alive when a module's tests begin stays: collections of garbage, of which each check of the laws asks for two, pass it over."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def what_is_alive_stays():
    gc.collect()
    gc.freeze()
