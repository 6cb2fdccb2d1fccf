"""Prefetching: what is upstream runs elsewhere and ahead of time, and what comes out is the same.

prefetching   the stage                          spread      stands in the tree for a stretch
kept          stands for all of it, in one worker   read_ahead  what a stage opens, read by workers
crew          who does the work, how much at a time
work          one pass over a stretch            handout     its tasks     cursor  where it stands     counts  of guards
flight        tasks that are out                 links       how one gets to a thread, a worker, somebody's executor

clusters      what may be asked of executors over machines

tasks         what there is to do                crossing   how values get there and back       workers    who does it

The way of a task, there and back:

    plan ─▶ spread ─▶ handout: some indices ─▶ flight ─▶ links ─▶ transport ═▶ (a worker) answering ─▶ task: the stages
                                                                                                         │
    outputs, in order ◀─ work: cursor, counts ◀─ flight: or sent again ◀─ links ◀═ transport: arrays stay in slots
"""

from flowfn.parallel.flight import WorkerDied
from flowfn.parallel.prefetching import prefetch
from flowfn.parallel.workers.pool import shut_down, warm_up

__all__ = ["WorkerDied", "prefetch", "shut_down", "warm_up"]
