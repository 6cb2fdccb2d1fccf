"""flowfn: a functional generator-combinator toolkit for feeding data to models.

Write the pipeline as one serial sentence; random access, exact resume, reproducible randomness and parallel speed come
with it, and never change what comes out.
"""

# composing
from flowfn.flows.stages import compose, pipe, stage  # isort: skip

# sources
from flowfn.flows.sources import flow, from_arrays  # isort: skip
from flowfn.vocabulary.making import fake, files  # isort: skip
from flowfn.vocabulary.receiving import from_queue  # isort: skip

# one datapoint at a time
from flowfn.vocabulary.transform import enumerate as enumerate  # isort: skip
from flowfn.vocabulary.transform import filter as filter  # isort: skip
from flowfn.vocabulary.transform import filter_map, flat_map, map_component, per_process, seeded, select, tap  # isort: skip
from flowfn.vocabulary.transform import map as map  # isort: skip

# batches
from flowfn.vocabulary.batching import batch, collate, unbatch, window  # isort: skip
from flowfn.vocabulary.bucketing import batch_by_key, batch_by_length, shape_of  # isort: skip
from flowfn.datapoints.collating import as_list, stack  # isort: skip
from flowfn.vocabulary.multiples import pad_to_multiple  # isort: skip
from flowfn.vocabulary.nesting import inside  # isort: skip
from flowfn.vocabulary.packing.cutting import split_long, with_ends  # isort: skip
from flowfn.vocabulary.planning import batch_by_cost  # isort: skip
from flowfn.vocabulary.packing.balanced import balanced_fit  # isort: skip
from flowfn.vocabulary.packing.packers import best_fit, concat_then_split, first_fit  # isort: skip
from flowfn.vocabulary.packing.segments import cu_seqlens  # isort: skip
from flowfn.vocabulary.packing.sequences import pack  # isort: skip
from flowfn.datapoints.padding import pad  # isort: skip
from flowfn.vocabulary.rebatching import rebatch  # isort: skip

# which, and when
from flowfn.vocabulary.ordering import sample, shard, shuffle, skip, split, subset, take  # isort: skip
from flowfn.vocabulary.ordering import slice as slice  # isort: skip
from flowfn.vocabulary.repeating import cycle, epoch_of, repeat, repeat_each  # isort: skip
from flowfn.vocabulary.streaming import interleave, scan, shuffle_buffer, take_while, unique  # isort: skip

# several sources
from flowfn.vocabulary.combining import concat, mix, quotas, zip_components  # isort: skip
from flowfn.vocabulary.mixing.schedules import phases  # isort: skip
from flowfn.vocabulary.combining import zip as zip  # isort: skip

# when a stage fails
from flowfn.vocabulary.guarding import guard  # isort: skip
from flowfn.kinds.tallies import Dropped  # isort: skip

# held fast
from flowfn.vocabulary.keeping.caching import cache, freeze  # isort: skip
from flowfn.vocabulary.keeping.storing import cache_to  # isort: skip

# in parallel
from flowfn.parallel import WorkerDied, prefetch, shut_down, warm_up  # isort: skip

# held and iterated
from flowfn.flows.flow import Flow  # isort: skip
from flowfn.flows.iterating import FlowIterator  # isort: skip

from flowfn.pickling.homes import publish as _publish  # isort: skip

_publish(__name__, globals())


def _as_html(shown: Flow) -> str | None:
    from flowfn.seeing.looking.notebooks import as_html

    return as_html(shown)


Flow._as_html = staticmethod(_as_html)


__version__ = "0.1.0"

# map, filter, zip, enumerate and slice are left out, so that `from flowfn import *` hides no builtin
__all__ = [
    "Dropped",
    "Flow",
    "FlowIterator",
    "Look",
    "Origin",
    "Profile",
    "Speed",
    "WorkerDied",
    "as_list",
    "balance",
    "balanced_fit",
    "batch",
    "batch_by_cost",
    "batch_by_key",
    "batch_by_length",
    "best_fit",
    "cache",
    "cache_to",
    "check_inputs",
    "collate",
    "compose",
    "concat",
    "concat_then_split",
    "cu_seqlens",
    "cycle",
    "describe",
    "describe_state",
    "epoch_of",
    "explain",
    "fake",
    "files",
    "filter_map",
    "first_fit",
    "flat_map",
    "flow",
    "freeze",
    "from_arrays",
    "from_queue",
    "guard",
    "inside",
    "interleave",
    "look",
    "map_component",
    "mix",
    "monitor",
    "origins",
    "pack",
    "pad",
    "pad_to_multiple",
    "per_process",
    "phases",
    "pipe",
    "prefetch",
    "print_datapoint",
    "profile",
    "progress",
    "quotas",
    "rebatch",
    "repeat",
    "repeat_each",
    "replay",
    "sample",
    "scan",
    "seeded",
    "select",
    "shape_of",
    "shard",
    "shuffle",
    "shuffle_buffer",
    "shut_down",
    "skip",
    "speed",
    "split",
    "split_long",
    "stack",
    "stage",
    "subset",
    "take",
    "take_while",
    "tap",
    "tune",
    "unbatch",
    "unique",
    "warm_up",
    "window",
    "with_ends",
    "zip_components",
]

# seeing, which no worker needs: imported when it is first asked for
_SEEING = {*__all__} - globals().keys()


def __getattr__(name: str) -> object:
    if name in _SEEING:
        from flowfn import seeing

        return globals().setdefault(name, getattr(seeing, name))
    from flowfn.flows.translating import no_name

    raise no_name(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_SEEING})
