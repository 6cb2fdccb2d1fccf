"""Programs that the tests start need their frameworks at once, and are collected by nobody."""

from functools import cache

import pytest
from forking import Program, written

collect_ignore_glob = ["[!t]*.py", "t[!e]*.py"]


@pytest.fixture(scope="module")
def program(request, tmp_path_factory):
    """What a module of tests calls its `PROGRAM`, to be run and killed again and again."""
    program = Program(request.module.PROGRAM, tmp_path_factory.mktemp("program"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """What a run writes down that nothing interrupts: for each batch what it was and its loss, then the weights."""

    @cache
    def run(**arguments):
        folder = tmp_path_factory.mktemp("whole")
        program.ran(folder=str(folder), name="whole", **arguments)
        return written(folder / "whole.jsonl")

    return run
