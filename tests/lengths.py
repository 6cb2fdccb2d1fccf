"""Lengths like those of real texts, and what they cost."""

import numpy as np

CAPACITY = 8192
"""The longest there are, in tokens."""


def log_normal(n):
    """Of web pages: the median is 403, a quarter is longer than 800."""
    draw = np.random.Generator(np.random.PCG64(1))
    return np.clip(np.exp(draw.normal(6, 1, n)), 1, CAPACITY).astype(np.int64)


def bimodal(n):
    """Of chats, and of one document to four of them."""
    draw = np.random.Generator(np.random.PCG64(2))
    document = draw.random(n) < 0.2
    return np.clip(np.exp(np.where(document, draw.normal(8, 0.7, n), draw.normal(5.3, 0.6, n))), 1, CAPACITY).astype(
        np.int64
    )


SHAPES = [log_normal, bimodal]


def attention(n):
    """The work of a model that is as dear by its attention as by all else at 4096 tokens."""
    return n + n * n / 4096
