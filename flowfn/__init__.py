"""flowfn: a functional generator-combinator toolkit for feeding data to models.

Write the pipeline as one serial sentence; random access, exact resume, reproducible randomness and parallel speed come
with it, and never change what comes out.
"""

# composing
from flowfn.stages import compose, pipe, stage  # isort: skip

# sources
from flowfn.sources import flow, from_arrays  # isort: skip

# one datapoint at a time
from flowfn.transform import enumerate as enumerate  # isort: skip
from flowfn.transform import filter as filter  # isort: skip
from flowfn.transform import filter_map, flat_map, map_component, per_process, select  # isort: skip
from flowfn.transform import map as map  # isort: skip

# batches
from flowfn.batching import as_list, batch, stack, unbatch  # isort: skip

# which, and when
from flowfn.ordering import cycle, repeat, shard, shuffle, shuffle_buffer, skip, split, subset, take  # isort: skip
from flowfn.ordering import slice as slice  # isort: skip

# several sources
from flowfn.combining import concat, zip_components  # isort: skip
from flowfn.combining import zip as zip  # isort: skip

# held fast
from flowfn.caching import cache, freeze  # isort: skip

# in parallel
from flowfn.parallel import prefetch, shut_down  # isort: skip

# seeing
from flowfn.failures import replay  # isort: skip
from flowfn.flows import Flow  # isort: skip
from flowfn.iterating import FlowIterator  # isort: skip
from flowfn.seeing import explain  # isort: skip

__version__ = "0.1.0"

# map, filter, zip, enumerate and slice are left out, so that `from flowfn import *` hides no builtin
__all__ = [
    "Flow",
    "FlowIterator",
    "as_list",
    "batch",
    "cache",
    "compose",
    "concat",
    "cycle",
    "explain",
    "filter_map",
    "flat_map",
    "flow",
    "freeze",
    "from_arrays",
    "map_component",
    "per_process",
    "pipe",
    "prefetch",
    "repeat",
    "replay",
    "select",
    "shard",
    "shuffle",
    "shuffle_buffer",
    "shut_down",
    "skip",
    "split",
    "stack",
    "stage",
    "subset",
    "take",
    "unbatch",
    "zip_components",
]
