"""`python -m flowfn state.json`: what saved states say, in words."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from flowfn.seeing import describe_state


def main(arguments: Sequence[str] | None = None) -> int:
    """Describe the states in files; returns 1 if one cannot be, else 0."""
    parser = argparse.ArgumentParser(prog="python -m flowfn", description="Say what saved states are, in words.")
    parser.add_argument("files", nargs="+", metavar="state.json", help="a state, or anything of JSON that holds some")
    failed = 0
    for path in parser.parse_args(arguments).files:
        try:
            describe_state(path)
        except BrokenPipeError:  # whoever reads this has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, ValueError) as error:
            print(f"{path}: {str(error).removeprefix('describe_state(): ')}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
