"""Stand-ins for data and for users' functions, which many tests want."""

import flowfn as ff


class Stream:
    """Data that can only be iterated, anew each time."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


class Counted:
    """A sequence that notes what is read of it."""

    def __init__(self, n):
        self.n, self.read = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read.append(index)
        return index


def streamed(data):
    """A flow that can only be read in order, of nobody knows what length."""
    return ff.flow(lambda: iter(data))


def noisy(datapoint, rng):
    """A datapoint, and a random number."""
    return datapoint, int(rng.integers(1 << 40))
