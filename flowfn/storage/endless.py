"""Flows that a file has room for: those that end, as far as that can be told before anything is read."""

from __future__ import annotations

import itertools
import math
from typing import Any

from flowfn.flows.flow import Flow
from flowfn.flows.sources import flow as as_flow
from flowfn.kinds.groups import Group
from flowfn.kinds.nodes import Each, Node
from flowfn.kinds.streams import Expand
from flowfn.pickling.homes import is_ours

_ENDING = frozenset({"slice", "take", "take_while"})
"""Stages of the library that can end although their source does not."""


def finite(flow: Any, who: str) -> Flow[Any]:
    """A flow (or what `flowfn.flow` takes) that is to be written; `who` is the function that writes.

    Raises:
        TypeError: it is no source.
        ValueError: it never ends.

    >>> from flowfn.vocabulary.repeating import cycle
    >>> finite(cycle([1]), "write_x")
    Traceback (most recent call last):
    ValueError: write_x(): the flow must have an end, but pipe(flow([1]), cycle()) is endless; take(n) makes it finite
    """
    source = as_flow(flow, who)
    if endless(source.node):
        raise ValueError(f"{who}(): the flow must have an end, but {source!r} is endless; take(n) makes it finite")
    return source


def endless(node: Node) -> bool:
    """Whether a node surely never ends: it says so, or nothing between it and an endless source can end by itself."""
    length = node.length_or_none()
    if length is not None:
        return length == math.inf
    if not node.sources:
        return isinstance(node.part.object, (itertools.count, itertools.cycle))
    ours = is_ours(node.part.definition.function.__module__)
    if node.part.name in _ENDING or not (ours or isinstance(node, (Each, Group, Expand))):
        return False
    return (any if node.part.name == "concat" else all)(map(endless, node.sources))
