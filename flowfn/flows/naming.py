"""What the sources of a flow are called: by the names that a mix gives them, or by their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from flowfn.kinds.nodes import Node

Name: TypeAlias = "str | int"


def source_names(root: Node) -> Mapping[int, Name]:
    """What each source in a tree is called, by its place.

    A source in a mix with names is called by them, mixes in mixes "web/en"; others have their numbers in the tree, from
    left to right. Where several have one name, their numbers are added to it. A source that stands in a tree twice has
    one name; the numbers of `enumerate` are no source.
    """
    above: dict[int, str] = {}  # by source, in the order of the tree
    places: dict[int, int] = {}
    for node, path in _leaves(root, "", set()):
        above.setdefault(id(node.part), path)
        places[node.place] = id(node.part)
    numbers = {one: number for number, one in enumerate(above)}
    shared = Counter(above.values())
    names: dict[int, Name] = {}
    for place, one in places.items():
        path, number = above[one], numbers[one]
        names[place] = number if not path else path if shared[path] == 1 else f"{path}/{number}"
    return names


def _leaves(node: Node, path: str, seen: set[int]) -> Iterator[tuple[Node, str]]:
    """The sources of a tree, each with the names above it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if not node.sources and not node.only_counts:
        yield node, path
    given = node.part.arguments["names"] if node.names_sources else ()
    named = list(given) != list(range(len(given)))
    for number, source in enumerate(node.sources):
        name = f"{given[number]}" if named else ""
        yield from _leaves(source, "/".join(filter(None, (path, name))), seen)
