"""Sources of mixes, and what their outputs are looked at with."""

import itertools

import numpy as np
from hypothesis import HealthCheck
from hypothesis import strategies as st

import flowfn as ff

calm = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


UNTIL = ["first", "all", "cycle_all", "forever"]


def rows(*lengths):
    """Lists of so many datapoints, each of which says where it comes from: (source, index)."""
    return [[(source, index) for index in range(length)] for source, length in enumerate(lengths)]


def begin(flow, count=200):
    """The first outputs of a pass of epoch 0."""
    with flow.run(epoch=0) as iterator:
        return list(itertools.islice(iterator, count))


def furthest(sources, weights):
    """How far, over all prefixes, a count of outputs is at most from its share."""
    shares = np.array(weights, float) / sum(weights)
    given = np.cumsum(np.eye(len(weights))[np.asarray(sources, int)], axis=0)
    return np.abs(given - np.arange(1, len(sources) + 1)[:, None] * shares).max(initial=0)


lengths = st.lists(st.sampled_from([0, 1, 1, 2, 3, 7, 20]), min_size=1, max_size=4)


proportions = st.sampled_from([1, 1, 2, 3, 0.1, 0.7, 50, 3.14159])


sources = st.lists(st.tuples(st.sampled_from([0, 1, 1, 2, 3, 8, 60]), proportions), min_size=1, max_size=4)


def noisy(datapoint, rng):
    return (*datapoint, int(rng.integers(1 << 40)))


def rising(step):
    return [1, step % 5, 2]


NAMED = {
    name: [(name, index) for index in range(size)]
    for name, size in (("web", 13), ("code", 6), ("books", 9), ("maths", 1))
}


def mixed(names, form=list, tail=(), workers=None, shuffled=False, **options):
    """A mix of some of the named sources, in that order."""
    inner = {name: ff.pipe(form(NAMED[name]), ff.shuffle_buffer(3, name=name) if shuffled else None) for name in names}
    return ff.pipe(ff.mix(inner, **options), *tail, None if workers is None else ff.prefetch(2, **workers))


def of(name, datapoints):
    return [datapoint for datapoint in datapoints if datapoint[0] == name]
