"""Prefetching: what is upstream runs elsewhere and ahead of time, and what comes out is the same.

plan          cuts the tree of a prefetch into stretches that may run in workers, and what has to run here
spread        stands in the tree for a stretch: blocks go to workers, outputs come back in order
task          what a worker does with a block
pool          the workers
prefetching   the stage
"""

from flowfn.parallel.pool import shut_down
from flowfn.parallel.prefetching import prefetch

__all__ = ["prefetch", "shut_down"]
