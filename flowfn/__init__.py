"""flowfn: a functional generator-combinator toolkit for feeding data to models.

Write the pipeline as one serial sentence; random access, exact resume, reproducible randomness and parallel speed come
with it, and never change what comes out.
"""

from flowfn.batching import as_list, batch, stack, unbatch
from flowfn.caching import cache, freeze
from flowfn.combining import concat, zip, zip_components
from flowfn.failures import replay
from flowfn.flows import Flow, FlowIterator
from flowfn.ordering import (
    cycle,
    repeat,
    shard,
    shuffle,
    shuffle_buffer,
    skip,
    slice,
    split,
    subset,
    take,
)
from flowfn.parallel import prefetch, shut_down
from flowfn.sources import flow, from_arrays
from flowfn.stages import compose, pipe, stage
from flowfn.transform import (
    enumerate,
    filter,
    filter_map,
    flat_map,
    map,
    map_component,
    per_process,
    select,
)

__version__ = "0.1.0"
