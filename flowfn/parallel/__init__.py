"""Prefetching: what is upstream runs elsewhere and ahead of time, and what comes out is the same.

prefetching   the stage;  background: one thread that runs ahead
plan          cuts the tree of a prefetch into stretches that may run in workers, and what has to run here
spread        stands in the tree for a stretch;  work: one pass over it, blocks go to workers, outputs come back in order
kept          stands in the tree for all of it, where one worker runs it as a pass of its own
readers       workers that read what a stage opens;  supply: what goes along with tasks of the nodes that stay here
crew          who does the work, and how much of it at a time
flight        the tasks that are out: sent, waited for, sent again when their worker has ended
links         how a task gets to a thread, a worker process, or somebody's executor
workers       the worker processes;  pool: those of this process, kept warm
serving       what a worker process does with a task;  task: what any worker does with it
program       what a worker is told before its first task;  surroundings: settings it takes over;  versions: of one's own modules
transport     how values cross;  slots: the shared memory in which large arrays do
"""

from flowfn.parallel.flight import WorkerDied
from flowfn.parallel.pool import shut_down, warm_up
from flowfn.parallel.prefetching import prefetch

__all__ = ["WorkerDied", "prefetch", "shut_down", "warm_up"]
