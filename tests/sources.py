"""Stand-ins for data and for users' functions, which many tests want."""

import flowfn as ff


class Stream:
    """Data that can only be iterated, anew each time."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


def streamed(data):
    """A flow that can only be read in order, of nobody knows what length."""
    return ff.flow(lambda: iter(data))


def noisy(datapoint, rng):
    """A datapoint, and a random number."""
    return datapoint, int(rng.integers(1 << 40))
