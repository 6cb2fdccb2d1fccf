"""Processes, programs, and waiting for them: with limits, and without sleeping for longer than is needed."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path


def eventually(holds, seconds=10.0):
    """Whether something holds, now or within some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def children(pid="self"):
    """The child processes of all threads of a process that have not ended, but for trackers and fork servers, which stay."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, listing.read_text().split())
    commands = {child: command_of(child) for child in found}
    return [
        child
        for child, command in commands.items()
        if command and not re.search(rb"resource_tracker|forkserver", command)
    ]


def command_of(pid):
    """What a process was started as; nothing if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def command(body, tmp_path, *arguments):
    """The command that runs a program."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    return [sys.executable, "-W", "error", str(script), *map(str, arguments)]


def run_script(body, tmp_path, *arguments, timeout=40, **keywords):
    """What became of a program, and what it wrote."""
    return subprocess.run(
        command(body, tmp_path, *arguments), capture_output=True, text=True, timeout=timeout, **keywords
    )


def in_child(run):
    """Fork, and run something in the child; the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(20)
    status = 1
    with contextlib.suppress(BaseException):
        run()
        status = 0
    os._exit(status)


def ended_well(pid):
    return os.waitpid(pid, 0)[1] == 0
