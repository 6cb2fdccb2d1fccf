"""What this interpreter can do."""

import sys


def threads_compute_at_once() -> bool:
    """Whether Python code runs in several threads at once: no global lock is held, on a free-threaded interpreter in
    which nothing that was imported has asked for it.

    >>> threads_compute_at_once() in (True, False)
    True
    """
    return not getattr(sys, "_is_gil_enabled", lambda: True)()
