"""What holds for all tests of what runs elsewhere."""

import pytest
from waiting import children, command_of, eventually

import flowfn as ff


@pytest.fixture(scope="module", autouse=True)
def no_workers_left():
    ff.shut_down()
    before = {*children()}
    yield
    ff.shut_down()
    assert eventually(lambda: before.issuperset(children())), [command_of(pid) for pid in children()]
