"""What is read on both sides where another library is compared, and how both are made comparable."""

import numpy as np

RNG = np.random.default_rng(0)
ROWS = [(np.full(2, i, np.float32), i, i / 2, str(i)) for i in range(7)]
COLUMNS = {"x": [*range(10)], "y": [str(i) for i in range(10)]}
SEQUENCES = [np.arange(n) for n in (1, 3, 2, 5, 4, 3)]
odd = lambda x: x % 2 == 1  # functions of both


def plain(value):
    """Tensors and arrays as lists, so that both sides can be compared."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "tolist"):
        return type(value)(plain(one) for one in value)
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "numpy"):  # a tensor
        return plain(value.numpy())
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def untupled(value):
    """Without what tells tuples from lists, in which forms libraries differ."""
    return [untupled(one) for one in value] if isinstance(value, (list, tuple)) else value


def listed(source):
    return [plain(one) for one in source]
