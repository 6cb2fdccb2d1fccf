"""Every word of the vocabulary, with work for it in flowfn and by hand: the lines of the table of costs.

A line is made when it is measured. Both sides do the same job; a test compares what they give. Where a word costs more
than by hand, the reason stands beside it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, cycle, islice, takewhile
from typing import NamedTuple

import by_hand
import numpy as np
import races
from more_itertools import unique_everseen
from races import (
    BATCHES,
    COLUMN,
    DICTS,
    IMAGES,
    IN_LISTS,
    LENGTHS,
    LISTS,
    NUMBERS,
    PARTS,
    SEQUENCES,
    TUPLES,
    N,
    Race,
    add_one,
    against,
    batches,
    calls,
    race,
)
from tqdm import tqdm

import flowfn as ff


class Case(NamedTuple):
    """A line of the table: a word, what is compared, the race, and why the word is dearer, where it is."""

    word: str
    compared: str
    make: Callable[[], Race]
    reason: str = ""
    per: str = "datapoint"


NOT_PER_DATAPOINT: Mapping[str, str] = {
    "Dropped": "the record of a datapoint that a guarded stage dropped",
    "Look": "what `look` returns",
    "Origin": "what `origins` returns",
    "Profile": "what `profile` returns",
    "Speed": "what `speed` returns",
    "balance": "looks at a plan, on lengths",
    "check_inputs": "looks for a fault, and is left out when it is found",
    "compose": "puts stages together, once",
    "describe": "looks at a few datapoints",
    "describe_state": "looks at a state",
    "explain": "looks at none",
    "look": "looks at a few datapoints, after every stage",
    "monitor": "counts outputs, and says that it costs nothing that can be felt",
    "origins": "looks at one output, afterwards",
    "phases": "a schedule, which `mix` asks",
    "print_datapoint": "prints; `tap` calls it",
    "profile": "reads a flow, and says what it costs to time it",
    "quotas": "looks at an iterator, when it is asked",
    "replay": "makes one datapoint again, after an error",
    "shut_down": "ends idle workers",
    "speed": "reads a flow, as any loop does",
    "tune": "reads flows, and says what to write",
    "warm_up": "starts workers",
    "WorkerDied": "an error",
}

COUNTED = "reading the source and counting what comes through costs some 12 ns, once for all stages"
INDEXED = "indices are mapped in blocks, datapoints are looked up one by one, and counted"
RESUMES = "it notes with each input where a pass could go on from"
BATCH = "some 1 µs for each batch: an output at the end of a pipeline, put together in the form of its datapoints"
TURNS = "sources and rounds take turns in a generator, by a table of indices, so that any of it can be read by index"
HELD = "where the oldest datapoint that waits can be read again is noted, so that a state holds none of them"
ROOMS = "lengths may be tuples, all of which have to fit, and what is too long is told"
SIZES = [32, 64, 96, 128]
HALF = np.arange(0, N, 2)[::-1]
CUT = slice(1000, 9000)

COMPOSING = (
    Case(
        "pipe",
        "a pass over an empty list through `map`",
        races.beginning,
        "a pass is bound to its tree, seed and epoch, and knows how to resume: some 10 µs, once a pass",
        "pass",
    ),
    Case(
        "stage",
        "a stage of one's own that calls `f(x)`",
        lambda: race(partial(by_hand.mapped, add_one), races.own_stage()),
        COUNTED,
    ),
    Case(
        "Flow",
        "`flow[i]` through `map`",
        races.at_an_index,
        "every index begins a pass of its own; `flow[i:j]` begins one for all of them",
        "index",
    ),
    Case(
        "FlowIterator",
        "`for x in flow` through `map`",
        lambda: batches(partial(by_hand.mapped, add_one), ff.map(add_one)),
        "the end of a pipeline is a method in Python, where errors are told and a state can be had: some 40 ns for "
        "each output",
        "output",
    ),
)

SOURCES = (
    Case("flow", "a list", lambda: race(iter), COUNTED),
    Case(
        "flow",
        "a generator function",
        lambda: against(lambda: by_hand.mapped(add_one, NUMBERS), ff.flow(lambda: by_hand.mapped(add_one, NUMBERS))),
        COUNTED,
    ),
    Case(
        "from_arrays",
        "rows of two arrays",
        lambda: against(lambda: by_hand.rows(COLUMN, COLUMN), ff.from_arrays(COLUMN, COLUMN)),
        "each row is made by a call, at its index",
    ),
    Case("from_arrays", "rows of two arrays in batches of 64", races.rows_in_batches, BATCH),
    Case(
        "from_queue",
        "put into a `SimpleQueue` and taken out",
        races.out_of_a_queue,
        "it waits for a moment at a time, so that it can be interrupted, and takes what is equal to the sentinel for "
        "it",
    ),
    Case("files", "500 files, listed in natural order", races.listed_files, per="file"),
    Case(
        "fake",
        "3 x 8 floats, drawn by index",
        lambda: against(lambda: by_hand.made_up((3, 8), 2000), ff.fake((3, 8), 2000), 2000, same="count"),
    ),
)

TRANSFORM = (
    Case("map", "`f(x)`", lambda: race(partial(by_hand.mapped, add_one), ff.map(add_one)), COUNTED),
    Case(
        "map",
        "`f(x, rng)`, random numbers by index",
        lambda: race(
            partial(by_hand.mapped_at_random, races.with_noise), ff.map(races.with_noise, rng=True), same="count"
        ),
    ),
    Case(
        "map_component",
        "of a list",
        lambda: race(partial(by_hand.component_mapped, add_one, 0), ff.map_component(add_one, 0), source=LISTS),
        COUNTED,
    ),
    Case(
        "map_component",
        "of a tuple",
        lambda: race(partial(by_hand.tuple_component_mapped, add_one), ff.map_component(add_one, 0), source=TUPLES),
        "tuples of any length and class are taken apart and made again",
    ),
    Case(
        "map_component",
        "of a dict",
        lambda: race(partial(by_hand.component_mapped, add_one, "x"), ff.map_component(add_one, "x"), source=DICTS),
        COUNTED,
    ),
    Case(
        "filter",
        "half is kept",
        lambda: race(partial(by_hand.filtered, races.is_even), ff.filter(races.is_even)),
        RESUMES,
    ),
    Case(
        "filter_map",
        "half is kept",
        lambda: race(partial(by_hand.filter_mapped, races.even_or_none), ff.filter_map(races.even_or_none)),
        RESUMES,
    ),
    Case(
        "flat_map",
        "ten outputs for each input",
        lambda: race(partial(by_hand.flat_mapped, races.ten_from), ff.flat_map(races.ten_from), units=10 * N),
        "each input has an index from which a seed is drawn, should `f` return a flow",
        "output",
    ),
    Case(
        "select",
        "two of a list",
        lambda: race(by_hand.swapped, ff.select([1, 0]), source=LISTS),
        "any components of any form, and an error that says what there is",
    ),
    Case(
        "select",
        "two of a dict",
        lambda: race(partial(by_hand.with_keys, ["x", "y"]), ff.select(["x", "y"]), source=DICTS),
        "any components of any form, and an error that says what there is",
    ),
    Case("enumerate", "a list", lambda: race(enumerate, ff.enumerate()), "it is `zip` with a flow of positions"),
    Case("tap", "`f(x)`", lambda: race(partial(by_hand.tapped, races.nothing), ff.tap(races.nothing)), COUNTED),
    Case(
        "scan",
        "a running total",
        lambda: race(partial(by_hand.scanned, races.running_total, 0), ff.scan(races.running_total, 0)),
        "it looks whether `f` has returned a pair",
    ),
    Case(
        "seeded",
        "`f(x)` that uses `random`",
        lambda: race(
            partial(by_hand.seeded, races.with_hidden_noise),
            ff.map(ff.seeded(races.with_hidden_noise), rng=True),
            source=NUMBERS[:1000],
            same="count",
        ),
        "threads take turns, and the generator of the datapoint is made first",
    ),
    Case(
        "per_process",
        "a resource that is there",
        lambda: calls(functools.cache(dict), ff.per_process(dict), times=1000),
        "it looks whether this process was forked from the one that made it",
        "call",
    ),
    Case(
        "guard",
        "`map`, where nothing fails",
        lambda: race(
            partial(by_hand.guarded, add_one, ValueError, -1), ff.guard(ff.map(add_one), then=lambda x, error: -1)
        ),
        "each datapoint and its index are remembered until they are answered, whatever the stage, and counted for the "
        "budget",
    ),
)

BATCHING = (
    Case(
        "batch",
        "64 lists of two ints",
        lambda: batches(partial(by_hand.batched, 64), ff.batch(64), source=LISTS),
        BATCH,
    ),
    Case(
        "batch",
        "64 dicts of three ints",
        lambda: batches(partial(by_hand.batched_dicts, 64), ff.batch(64), source=DICTS),
        "it looks whether all dicts have the same keys",
    ),
    Case(
        "batch",
        "64 images of 28 x 28",
        lambda: batches(partial(by_hand.batched_bare, 64, stacked=np.stack), ff.batch(64), source=IMAGES),
        "it looks whether all are of one form and shape, to say which is not",
    ),
    Case("batch", "64 ints as a list", lambda: batches(partial(by_hand.chunks, 64), ff.batch(64, collate=None)), BATCH),
    Case("stack", "64 ints", lambda: calls(np.array, ff.stack, NUMBERS[:64]), per="call"),
    Case(
        "stack",
        "64 images of 28 x 28",
        lambda: calls(np.stack, ff.stack, IMAGES[:64]),
        "it looks whether all are of one shape, to say which are not",
        "call",
    ),
    Case("as_list", "64 ints", lambda: calls(list, ff.as_list, NUMBERS[:64]), "a function around `list`", "call"),
    Case(
        "pad",
        "32 sequences of 1 to 128",
        lambda: calls(by_hand.padded, ff.pad(0), SEQUENCES[:32]),
        "it looks whether the value fits the dtype, and which axes differ",
        "call",
    ),
    Case(
        "collate",
        "lists of 64 ints",
        lambda: batches(partial(map, np.array), ff.collate(), source=IN_LISTS),
        BATCH,
        "batch",
    ),
    Case(
        "inside",
        "`map` over lists of 64",
        lambda: batches(
            partial(map, lambda xs: [add_one(x) for x in xs]),
            ff.inside(ff.map(add_one)),
            source=IN_LISTS,
            units=64 * len(IN_LISTS),
        ),
        "a pass begins for each list: some 15 µs, which its elements share",
        "element",
    ),
    Case(
        "unbatch",
        "batches of 100 lists",
        lambda: race(by_hand.unbatched, ff.unbatch(), source=BATCHES, units=N),
        "batches of any form are taken apart",
    ),
    Case(
        "rebatch",
        "from 100 to 64",
        lambda: batches(partial(by_hand.rebatched, 64), ff.rebatch(64), source=[one for one, _ in BATCHES]),
        f"some 6 µs for each batch: any form, and {HELD}",
        "batch read",
    ),
    Case(
        "batch_by_key",
        "64 images by shape",
        lambda: batches(partial(by_hand.batched_by, np.shape, 64), ff.batch_by_key(np.shape, 64), source=IMAGES),
        HELD,
    ),
    Case(
        "shape_of", "an image", lambda: calls(np.shape, ff.shape_of(), IMAGES[0]), "an object around `np.shape`", "call"
    ),
    Case(
        "batch_by_length",
        "32 of each of 4 buckets",
        lambda: batches(
            partial(by_hand.batched_by_length, SIZES, 32),
            ff.batch_by_length(len, boundaries=SIZES, sizes=[32] * 4),
            source=SEQUENCES,
        ),
        "one rule for sizes, tokens and both; " + HELD,
    ),
    Case(
        "batch_by_length",
        "at most 2048 tokens",
        lambda: batches(
            partial(by_hand.batched_by_tokens, 2048), ff.batch_by_length(len, tokens=2048), source=SEQUENCES
        ),
        "one rule for sizes, tokens and both; " + HELD,
    ),
    Case(
        "batch_by_cost",
        "steps of 512 on 8 ranks",
        lambda: race(
            partial(by_hand.shared_by_cost, 8, 512),
            ff.batch_by_cost(np.square, ranks=8, size=512, collate=None),
            source=SEQUENCES,
            chunked=False,
            same="count",
        ),
        "two ways are tried and the better is improved, and " + HELD,
    ),
    Case(
        "window", "16 ints, from each on", lambda: batches(partial(by_hand.windows, 16), ff.window(16)), BATCH, "window"
    ),
    Case(
        "pack",
        "1 to 128 tokens into rows of 512",
        lambda: batches(partial(by_hand.packed, 512), ff.pack(512), source=SEQUENCES),
        "what the packer gives is checked, any form is packed, and " + HELD,
    ),
    Case(
        "split_long",
        "1000 tokens in parts of 256",
        lambda: calls(by_hand.in_parts, ff.split_long(256), np.arange(1000)),
        "it looks which components are sequences, and whether they are equally long",
        "call",
    ),
    Case(
        "with_ends",
        "1000 tokens",
        lambda: calls(by_hand.between_ends, ff.with_ends(1, 2), np.arange(1000)),
        "it looks which components are sequences, and whether the ends fit the dtype",
        "call",
    ),
    Case(
        "cu_seqlens",
        "8 rows of 512, 4 segments in each",
        lambda: calls(
            by_hand.cumulated, ff.cu_seqlens, np.arange(4, dtype=np.int32).repeat(128) + np.ones((8, 1), int)
        ),
        "its argument is checked",
        "call",
    ),
    Case(
        "first_fit",
        "1 to 128 tokens into rows of 512",
        lambda: batches(
            lambda lengths: by_hand.fitted(lengths, 512, 64, False), partial(ff.first_fit, capacity=512), source=LENGTHS
        ),
        ROOMS,
    ),
    Case(
        "best_fit",
        "1 to 128 tokens into rows of 512",
        lambda: batches(
            lambda lengths: by_hand.fitted(lengths, 512, 64, True), partial(ff.best_fit, capacity=512), source=LENGTHS
        ),
        ROOMS,
    ),
    Case(
        "balanced_fit",
        "1 to 128 tokens into rows of 512, by hand those of best fit",
        lambda: race(
            lambda lengths: by_hand.fitted(lengths, 512, 64, True),
            partial(ff.balanced_fit, capacity=512, ranks=8),
            source=LENGTHS,
            chunked=False,
            same="nothing",
        ),
        "whole windows at a time, in arrays",
    ),
    Case(
        "concat_then_split",
        "1 to 128 tokens into rows of 512",
        lambda: batches(
            lambda lengths: by_hand.laid_end_to_end(lengths, 512),
            partial(ff.concat_then_split, capacity=512),
            source=LENGTHS,
        ),
        "it cuts by a loop that knows no special case, and is read as a stage here",
    ),
    Case(
        "pad_to_multiple",
        "10 000 to 16 000",
        lambda: race(partial(by_hand.filled_up, 16_000), ff.pad_to_multiple(16_000), units=16_000),
        "there is a place for the mask in any form; " + TURNS,
    ),
)

ORDERING = (
    Case("shuffle", "a list", lambda: race(by_hand.shuffled, ff.shuffle(), same="count"), INDEXED),
    Case(
        "shuffle",
        "a list, `window=100`",
        lambda: race(partial(by_hand.shuffled_nearby, 100), ff.shuffle(window=100), same="count"),
        "it is computed from the index by two networks, without a table",
    ),
    Case(
        "shuffle_buffer",
        "1000 of them",
        lambda: race(partial(by_hand.shuffled_in_a_buffer, 1000), ff.shuffle_buffer(1000), same="count"),
        "its draws are the same in every version of Python and numpy",
    ),
    Case(
        "take", "most of a list", lambda: race(lambda source: islice(source, 9000), ff.take(9000), units=9000), COUNTED
    ),
    Case(
        "skip",
        "some of a list",
        lambda: race(lambda source: islice(source, 1000, None), ff.skip(1000), units=9000),
        COUNTED,
    ),
    Case(
        "slice",
        "every second of a list",
        lambda: race(lambda source: islice(source, 0, None, 2), ff.slice(None, None, 2), units=5000),
        INDEXED,
    ),
    Case(
        "shard",
        "a fourth of a list",
        lambda: race(lambda source: islice(source, 1, None, 4), ff.shard(1, 4), units=2500),
        INDEXED,
    ),
    Case(
        "subset", "half of a list", lambda: race(partial(by_hand.at, HALF), ff.subset(HALF), units=len(HALF)), INDEXED
    ),
    Case("split", "the larger part of a list", races.parted, INDEXED),
    Case("repeat", "a list 3 times", lambda: race(partial(by_hand.rounds, 3), ff.repeat(3), units=3 * N), TURNS),
    Case("repeat_each", "twice", lambda: race(partial(by_hand.copies, 2), ff.repeat_each(2), units=2 * N), INDEXED),
    Case(
        "cycle",
        "a list 3 times",
        lambda: race(lambda source: islice(cycle(source), 3 * N), ff.cycle(), ff.take(3 * N), units=3 * N),
        TURNS,
    ),
    Case(
        "epoch_of",
        "15 000 of 10 000",
        lambda: race(lambda source: islice(cycle(source), 15_000), ff.epoch_of(15_000), units=15_000, same="count"),
        TURNS,
    ),
    Case("sample", "with replacement", lambda: race(partial(by_hand.sampled, N), ff.sample(N), same="count"), INDEXED),
    Case(
        "sample",
        "without replacement",
        lambda: race(partial(by_hand.sampled, N, replacement=False), ff.sample(N, replacement=False), same="count"),
        INDEXED,
    ),
    Case(
        "sample",
        "weighted",
        lambda: race(partial(by_hand.sampled, N, weights=COLUMN), ff.sample(N, weights=COLUMN), same="count"),
        INDEXED,
    ),
    Case(
        "take_while",
        "most of a list",
        lambda: race(partial(takewhile, lambda x: x < 9000), ff.take_while(lambda x: x < 9000), units=9000),
        COUNTED,
    ),
    Case("unique", "half of a list", lambda: race(unique_everseen, ff.unique(), source=NUMBERS[:5000] * 2), COUNTED),
    Case(
        "interleave",
        "16 ranges of ten at a time",
        lambda: race(
            partial(by_hand.interleaved, races.ten_from, 16),
            ff.interleave(races.ten_from),
            source=NUMBERS[:1000],
            units=N,
        ),
        "how far each has come is counted, so that a pass can go on from anywhere",
    ),
)

SEVERAL = (
    Case("concat", "three lists", lambda: against(lambda: chain(*PARTS), ff.concat(*PARTS)), TURNS),
    Case(
        "zip",
        "two lists",
        lambda: against(lambda: zip(NUMBERS, NUMBERS), ff.zip(NUMBERS, NUMBERS)),
        COUNTED + ", and for each source",
    ),
    Case(
        "zip_components",
        "two lists of lists",
        lambda: against(lambda: by_hand.components_joined(LISTS, LISTS), ff.zip_components(LISTS, LISTS)),
        "any number of sources, and any form, which has to be the same",
    ),
    Case("mix", "two lists, 3 to 1", lambda: races.mixed(partial(by_hand.mixed, (0, 0, 1, 0))), TURNS),
    Case(
        "mix",
        "two lists, 3 to 1, `random=True`",
        lambda: races.mixed(partial(by_hand.mixed_at_random, (3, 1)), "nothing", random=True),
        TURNS,
    ),
    Case(
        "mix",
        "two generators, 3 to 1",
        lambda: races.mixed(partial(by_hand.mixed, (0, 0, 1, 0)), streams=True),
        "what each source has given is counted, so that a mix of others can go on from there",
    ),
    Case(
        "mix",
        "two lists, 3 to 1, `unit=len`",
        lambda: races.mixed_by_units(),
        "each datapoint is measured in a stage of its own, and who has had its share waits, so that no source is a "
        "datapoint from it",
    ),
)

HELD_FAST = (
    Case(
        "cache",
        "lists of two ints, a later pass",
        lambda: races.kept_in_memory(True),
        "what comes out has containers of its own, of any form and depth",
    ),
    Case(
        "cache",
        "lists of two ints, the first pass",
        lambda: races.kept_in_memory(False),
        "each is looked for by its index, made if it is missing, and kept as it will be given: read-only",
    ),
    Case(
        "cache_to",
        "an image and an int, a later pass",
        lambda: races.kept_in_files(True),
        "each is found by its index, and its checksum is compared",
    ),
    Case(
        "cache_to",
        "an image and an int, the first pass",
        lambda: races.kept_in_files(False),
        "the source is read through once for the key; each is written with its checksum, and read as it will be given",
    ),
    Case("freeze", "a list", lambda: race(iter, ff.freeze()), COUNTED),
)

IN_PARALLEL = (
    Case(
        "prefetch",
        "batches of 64 ints by a thread",
        races.in_a_thread,
        "outputs bring along where a pass would go on from them",
        "batch",
    ),
    Case(
        "prefetch",
        "two threads, `f` takes 0.1 ms",
        races.in_threads,
        "outputs bring along where a pass would go on from them",
    ),
    Case("prefetch", "two processes, `f` takes 0.1 ms", races.in_processes),
)

SEEING = (
    Case(
        "progress",
        "tqdm around a list",
        lambda: race(lambda source: tqdm(source, file=io.StringIO()), ff.progress(file=io.StringIO())),
    ),
)

CASES = (*COMPOSING, *SOURCES, *TRANSFORM, *BATCHING, *ORDERING, *SEVERAL, *HELD_FAST, *IN_PARALLEL, *SEEING)
