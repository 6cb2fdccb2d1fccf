"""What is asked from the command line: `flowfn explain train.py:make_flow`.

parsing   what was asked     targets   the flow that is meant     answering   what is said to it
"""

from flowfn.commands.parsing import main

__all__ = ["main"]
