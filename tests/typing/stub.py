"""Hold `flowfn/__init__.pyi` to the code: `python tests/typing/stub.py` compares it with what can
be imported (mypy's stubtest)."""

import sys
from pathlib import Path

from flowfn.flows.definitions import NOT_GIVEN

HERE = Path(__file__).parent


def main() -> int:
    from mypy import stubtest

    # The source of a word has a default that stands for "not given", and is no source. Of a value whose class cannot be
    # found stubtest knows no type, so it compares everything else.
    type(NOT_GIVEN).__module__ = "nowhere"
    options = [
        "--concise",
        "--mypy-config-file",
        str(HERE.parents[1] / "pyproject.toml"),
        "--allowlist",
        str(HERE / "allowlist.txt"),
    ]
    return stubtest.test_stubs(stubtest.parse_options([*options, "flowfn"]))


if __name__ == "__main__":
    sys.exit(main())
