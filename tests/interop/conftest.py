"""Programs that the tests start need their frameworks at once, and are collected by nobody."""

from functools import cache

import pytest
from forking import Program, written

from flowfn import formats

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


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The paths of eight tar files of two samples each."""
    folder = tmp_path_factory.mktemp("shards")
    samples = [{"cls": i, "txt": str(i)} for i in range(16)]
    formats.write_webdataset(folder / "part-{shard:02d}.tar", samples, shard_size=2)
    return sorted(map(str, folder.glob("*.tar")))


@pytest.fixture(scope="module")
def ray():
    pytest.importorskip("ray.data")
    import ray

    ray.init(address="local", num_cpus=2, logging_level="ERROR", log_to_driver=False, include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    yield ray
    ray.shutdown()
