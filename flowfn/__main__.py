"""`python -m flowfn`, and `flowfn`: pipelines looked into from the command line."""

import sys

from flowfn.commands import main

if __name__ == "__main__":
    sys.exit(main())
