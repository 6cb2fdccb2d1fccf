"""Functions that fail on some datapoints, and stages that are guarded."""

from sources import Stream

import flowfn as ff

SETTINGS = (None, ff.prefetch(2), ff.prefetch(3, threads=2), ff.prefetch(3, processes=1), ff.prefetch(3, processes=2))


LOCAL = SETTINGS[:3]


SOURCES = (lambda items: items, lambda items: ff.flow(Stream(items)))


def bad(datapoint):
    if datapoint % 7 == 3:
        raise ValueError(f"bad {datapoint}")
    return datapoint * 10


def noisy(datapoint, rng):
    number = int(rng.integers(1 << 30))
    bad(datapoint)
    return datapoint, number


def some(datapoint):
    for number in range(datapoint % 4):
        if datapoint % 7 == 3 and number == 1:
            raise ValueError(f"bad {datapoint}")
        yield datapoint, number


def minus(datapoint, error):
    return -1


@ff.stage.expand
def doubled(source, *, rngs):
    for datapoint, rng in zip(source, rngs):
        yield bad(datapoint)
        yield int(rng.integers(1000))


def passed(flow):
    """(what came out, the error that ended it, iterator.dropped)."""
    iterator, given, ended = iter(flow), [], None
    try:
        given.extend(iterator)
    except Exception as error:
        ended = error
    return given, ended, iterator.dropped


def raised(flow):
    _, error, _ = passed(flow)
    assert error is not None
    return error


# Which errors


def failing():
    yield from range(5)
    raise ValueError("source")
