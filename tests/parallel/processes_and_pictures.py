"""What processes hold, and flows of pictures whose workers come to grief."""

import contextlib
import gc
import multiprocessing.resource_tracker
import os
import re
import signal
import tempfile
import threading
import time
from pathlib import Path

import loky.backend.resource_tracker
import numpy as np
import pytest
from waiting import children, eventually

import flowfn as ff
from flowfn.testing import left_behind

counts = pytest.mark.parametrize("n", [1, 2, 4])


# What is looked at


def lives(pid):
    """Whether there is such a process, and not only its exit status for its parent to fetch."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill(*pids, by=signal.SIGKILL):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, by)


def shared_memory(pid):
    """The inodes of the nameless shared memory that a process has mapped or open."""
    found = set()
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        found.update(int(line.split()[4]) for line in lines if "/memfd:" in line)
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("/memfd:"):
                    found.add(os.stat(f"/proc/{pid}/fd/{descriptor}").st_ino)
    return found


def names_of(*pids):
    """The named shared memory and semaphores that these processes made."""
    return [name for name in os.listdir("/dev/shm") if any(re.search(rf"\b{pid}\b", name) for pid in pids)]


def holdings():
    """How much of everything this process holds."""
    maps = Path("/proc/self/maps").read_text()
    return left_behind() | {
        "processes": len(children(os.getpid())),
        "shared": len(shared_memory(os.getpid())) + maps.count("/dev/shm/"),
        "names": len(names_of(os.getpid())),
        "files": sum(len(files) for _, _, files in os.walk(tempfile.gettempdir())),
    }


def shut_down():
    """It ends too, even if a test has not."""
    thread = threading.Thread(target=ff.shut_down, daemon=True)
    thread.start()
    thread.join(15)
    assert not thread.is_alive()
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def settled(tmp_path_factory):
    """What is opened once for the life of a process is open, and temporary files are made where they are seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)
        for tracker in (multiprocessing.resource_tracker, loky.backend.resource_tracker):
            tracker.ensure_running()
        list(ff.pipe(range(3), ff.map(abs), ff.prefetch(1, processes=1)))
        yield


@pytest.fixture(autouse=True)
def nothing_left_behind(settled):
    """After every test, and `shut_down`, there is no more of anything than there was."""
    shut_down()
    before = holdings()
    yield
    shut_down()
    assert eventually(lambda: all(count <= before[kind] for kind, count in holdings().items())), (before, holdings())


# What is iterated


def picture(number, rng):
    """A datapoint that takes a while; four of them make a batch that goes through shared memory."""
    time.sleep(0.001)
    return {"number": number, "picture": rng.integers(256, size=(160, 160), dtype=np.uint8)}


def turned(batch):
    return {"number": batch["number"], "picture": batch["picture"].swapaxes(1, 2)}


def seekable(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.map(function, rng=True), ff.batch(4))


def shuffled(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.shuffle(), ff.map(function, rng=True), ff.batch(4), ff.map(turned))


def streamed(function=picture, size=160):
    """Stages of every kind, on both sides of one that sees the whole stream."""
    return ff.pipe(
        range(1000, 1000 + size),
        ff.filter(bool),
        ff.map(function, rng=True),
        ff.shuffle_buffer(6),
        ff.batch(4),
        ff.flat_map(lambda batch: [batch, turned(batch)][: 1 + int(batch["number"].sum()) % 2]),
    )


def filtered(function=picture, size=160):
    return ff.pipe(range(1000, 1000 + size), ff.filter(bool), ff.map(function, rng=True), ff.batch(4))


def still_works(n):
    """Whether the workers are usable."""
    return list(ff.pipe(range(20), ff.map(float), ff.prefetch(2, processes=n))) == [float(x) for x in range(20)]
