"""Flows to be given to loaders, and what they give by themselves."""

from itertools import chain

import numpy as np

import flowfn as ff
from flowfn.interop import to_torch


def noisy(x, rng):
    return np.array([x, rng.random()])


def source():
    yield from range(17)


FLOWS = {
    "seekable": lambda: ff.pipe(range(17), ff.shuffle(), ff.map(noisy, rng=True)),
    "a stream": lambda: ff.pipe(source, ff.shuffle_buffer(5), ff.map(noisy, rng=True)),
}


def jitter(x, rng):
    """A number that tells the datapoint, and an input of a tiny model."""
    return x, x / 16 + rng.random(dtype="f4")


def passes(pair):
    return pair[1] > 0.2


def flow_of(kind="seekable", *stages):
    return ff.pipe(FLOWS[kind](), *stages, to_torch())


def batched(kind="seekable"):
    return flow_of(kind, ff.batch(3))


def plain(iterable):
    return [batch.tolist() for batch in iterable]


def records(iterable):
    """What is in batches, in an order of its own."""
    return sorted(chain.from_iterable(plain(iterable)))


def serial(flow, epochs):
    return [plain(flow.run(epoch=epoch)) for epoch in epochs]
