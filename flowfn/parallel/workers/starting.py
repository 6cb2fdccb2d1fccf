"""What a process needs to start another, where its surroundings are poor; and what is missing where it cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

STREAMS = ("stdin", "stdout", "stderr")


@contextlib.contextmanager
def possible() -> Iterator[None]:
    """Let a process be started: with standard streams that can be written to, from a directory that is there.

    Raises:
        RuntimeError: it cannot be; the message says what is missing.
    """
    try:
        with _streams(), _existing_directory():
            yield
    except (OSError, UnboundLocalError) as error:  # loky may forget the first over the second
        raise RuntimeError(
            f"prefetch(): a worker process cannot be started: {_shortage(error)}; prefetch with threads= needs none"
        ) from error


def occupy_descriptors() -> None:
    """Open nowhere what is closed of the standard streams' descriptors, so that nothing else gets their numbers,
    and is taken for them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(nowhere, number)
                os.close(nowhere)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Others write what is still in the standard streams, and pass their descriptors on:
    what is closed is nowhere meanwhile."""
    occupy_descriptors()
    lacking = [name for name in STREAMS if getattr(getattr(sys, name), "closed", True)]
    kept = {name: getattr(sys, name) for name in lacking}
    with contextlib.ExitStack() as stack:
        for name in lacking:
            setattr(sys, name, stack.enter_context(open(os.devnull, "r+")))
        try:
            yield
        finally:
            for name, stream in kept.items():
                setattr(sys, name, stream)


@contextlib.contextmanager
def _existing_directory() -> Iterator[None]:
    """Where the working directory has been removed, start from the root, and be in the removed one again."""
    try:
        os.getcwd()
    except OSError:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(os.sep)
            yield
        finally:
            os.fchdir(here)
            os.close(here)
    else:
        yield


def _shortage(error: BaseException) -> str:
    """What was not there, as far as the error that it led to says."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    if cause is None:
        return f"{type(error).__name__}: {error}"
    if cause.errno in (errno.EMFILE, errno.ENFILE):
        return f"no descriptors are left ({cause}); raise the limit of open files (ulimit -n)"
    if cause.errno in (errno.EAGAIN, errno.ENOMEM):
        return (
            f"the system gives no more processes or memory ({cause}; ulimit -u, ulimit -v, and what its container "
            "may use)"
        )
    if cause.errno in (errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EACCES, errno.ENOSYS):
        return (
            f"semaphores cannot be made ({cause}); on Linux /dev/shm must be there, be writable and have room "
            "(docker run --shm-size)"
        )
    return str(cause)


def look_for_memory() -> None:
    """In a worker: loky asks psutil now and then how large it is, which fails where /proc is not to be seen."""
    from loky import process_executor

    if process_executor._USE_PSUTIL:
        try:
            process_executor._get_memory_usage(os.getpid())
        except Exception:  # whatever psutil lacks
            process_executor._USE_PSUTIL = False
