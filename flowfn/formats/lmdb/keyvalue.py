"""LMDB: datapoints under their numbers in one file, which is mapped into memory;
tensorpack's files are read, and read ours.

tensorpack's LMDBSerializer keeps datapoint i under the key "{:08}".format(i) and the list of the keys under `__keys__`;
so do we. LMDB believes what stands in a file: its lengths and its datapoints are checked here, its pages are not.
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.blocks import Block, ints
from flowfn.digests.pipelines import pipeline_identity
from flowfn.extras import needed
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator
from flowfn.formats.encoding.payloads import hasty, packed_datapoint, payload_of, reader_of_all, unpacker
from flowfn.formats.joining.several import open_paths
from flowfn.formats.lmdb.environments import Environment, Growing, environment, is_database
from flowfn.formats.lmdb.listings import KEY_LIST, NUMBER, STATE, Listed, Numbered, chosen_keys, listed, own_keys
from flowfn.storage.damage import Unreadable
from flowfn.storage.endless import finite
from flowfn.storage.files import Opened, call, file_path, flow_of, is_url
from flowfn.storage.writing import resumable, resumed, shown

TRANSACTION_BYTES, TRANSACTION_SECONDS = 1 << 25, 10.0
"""Bytes, or seconds, after which what waits is written."""
OVERHEAD = 1 << 7
"""Bytes of memory that a datapoint takes beside its own while it waits."""
SEVERAL = 64
"""How many small payloads are looked at together."""

KEYS_RULE = rules.Rule(
    'a template such as "{:0>8d}", a list of keys, or None',
    lambda value: value is None or (isinstance(value, Sequence) and not isinstance(value, bytes)),
    lambda value, others: (
        value is None or isinstance(value, str) or all(isinstance(key, (str, bytes)) for key in value)
    ),
)


@rules.checked(
    keys=KEYS_RULE, decode=rules.optional(rules.function), with_keys=rules.boolean, allow_pickle=rules.boolean
)
def read_lmdb(
    path: Any,
    *,
    keys: Any = None,
    decode: Callable[[bytes], Any] | None = None,
    with_keys: bool = False,
    allow_pickle: bool = False,
) -> Flow[Any]:
    """A flow of the datapoints in an LMDB database: a file, or a folder with `data.mdb` in it.

    `path` may be a glob pattern, a range in braces ("part-{00..07}.lmdb"), or a list of paths,
    whose datapoints come one after the other.

    What `write_lmdb` and tensorpack's LMDBSerializer wrote comes out as it went in, but for arrays, which cannot be
    written to. In other databases, `decode` makes a datapoint of the bytes of a value (`decode=bytes` gives them as
    they are). Every datapoint is found by its key, so the flow can be shuffled, and its order is that of `keys`: a
    list, a template for their numbers ("{:0>8d}"), or else what the database lists under `__keys__`, or else the order
    of the database. `with_keys=True` gives (key, datapoint).

    tensorpack writes pickles unless it is told otherwise; they are read with `allow_pickle=True`, and only if it is
    known where they come from, as they can run code. The same goes for the database itself: LMDB trusts its pages.
    Databases within the database, and several values under one key (dupsort), are refused.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, truncated or no LMDB database; a datapoint cannot be decoded, or is a pickle.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/words.lmdb"
    >>> write_lmdb(path, [["one", 1], ["two", 2]])
    >>> words = read_lmdb(path)
    >>> words[1], list(read_lmdb(path, keys=["00000001"], with_keys=True))
    (['two', 2], [(b'00000001', ['two', 2])])
    """
    for module in ("lmdb", "msgpack") if decode is None else ("lmdb",):
        needed(module, "read_lmdb()", extra="lmdb")
    entries = open_paths(
        path, "read_lmdb", lambda one: Entries(one, "read_lmdb", keys, decode, with_keys, allow_pickle), folders=True
    )
    options = {
        "keys": (keys, None),
        "decode": (decode, None),
        "with_keys": (with_keys, False),
        "allow_pickle": (allow_pickle, False),
    }
    return flow_of(
        entries, "read_lmdb", call("read_lmdb", path if isinstance(path, (list, tuple)) else os.fspath(path), **options)
    )


@rules.checked(encode=rules.optional(rules.function), overwrite=rules.boolean, resume=rules.boolean)
def write_lmdb(
    path: Any, flow: Any, *, overwrite: bool = False, resume: bool = False, encode: Callable[[Any], bytes] | None = None
) -> None:
    """Write the datapoints of a flow to an LMDB database in one file, and show a bar.

    They may hold None, numbers, strings, bytes, lists, tuples, dicts, sets and arrays, and are written as msgpack
    (arrays as msgpack-numpy does it: tensorpack reads them with TENSORPACK_SERIALIZE=msgpack). `encode` makes the bytes
    of a datapoint instead: `encode=pickle.dumps` for anything, and for files that tensorpack reads as it is;
    `encode=bytes` for what is bytes already.

    The file is at `path` when it is whole. With `resume=True` an unfinished one stays there as `path` + ".part", and
    the next call with the same flow goes on behind what has been written, at most some 10 seconds or 32 MiB earlier
    than it broke off, as exactly as any state of a flow (one writer at a time). The map grows as it is needed.

    Raises:
        FileExistsError: there is a file, and `overwrite` is False.
        TypeError: a datapoint holds something else.
        ValueError: with `resume`, what is there is of another flow, or of functions that have changed since.

    >>> import tempfile
    >>> import numpy as np
    >>> path = tempfile.mkdtemp() + "/images.lmdb"
    >>> write_lmdb(path, [{"image": np.zeros((2, 2), "uint8"), "label": 7}])
    >>> read_lmdb(path)[0]
    {'image': array([[0, 0],
           [0, 0]], dtype=uint8), 'label': 7}
    """
    for module in ("lmdb", "msgpack") if encode is None else ("lmdb",):
        needed(module, "write_lmdb()", extra="lmdb")
    if is_url(file_path(path, "write_lmdb")):
        raise ValueError(f"write_lmdb(): LMDB maps its file into memory, so it must be a local one, got {path!r}")
    source = finite(flow, "write_lmdb")
    origin = pipeline_identity(source, encode) if resume else None
    with (
        shown(source, "write_lmdb") as datapoints,
        resumable(path, overwrite, "write_lmdb", resume=resume) as beside,
        Growing(beside, "write_lmdb") as database,
    ):
        _put_all(database, datapoints, encode, origin)


def _put_all(
    database: Growing, datapoints: FlowIterator[Any], encode: Callable[[Any], bytes] | None, origin: str | None
) -> None:
    """Put datapoints under their numbers, some at a time, and what belongs to them."""
    begun, count = _noted(database.get(STATE)), 0
    if begun:
        count = resumed(datapoints, begun, str(origin), database.path, "write_lmdb")
    elif origin:  # what is there was killed when it was nearly whole, and nobody knows of which flow it is
        database.clear()
    waiting: list[tuple[bytes, bytes]] = []
    size, since = 0, time.monotonic()
    for datapoint in datapoints:
        waiting.append(
            (NUMBER.format(count).encode(), payload_of(encode or packed_datapoint, datapoint, count, "write_lmdb"))
        )
        size += len(waiting[-1][1]) + OVERHEAD
        count += 1
        if size >= TRANSACTION_BYTES or time.monotonic() - since > TRANSACTION_SECONDS:
            state = {"count": count, "state": datapoints.state_dict(), "origin": origin} if origin else None
            database.put(waiting, {STATE: json.dumps(state).encode()})
            waiting, size, since = [], 0, time.monotonic()
    numbers = [NUMBER.format(number).encode() for number in range(count)] if encode in (None, pickle.dumps) else None
    keys = {} if numbers is None else {KEY_LIST: pickle.dumps(numbers) if encode else packed_datapoint(numbers)}
    database.put(waiting, {**keys, STATE: None})  # at once, so that there is a state as long as anything is missing


def _noted(text: Any) -> Any:
    """What was noted of how far an unfinished file has come."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return "damaged"


class Entries(Opened):
    """The datapoints in an LMDB database, by their places in the order of its keys."""

    def __init__(
        self, path: Any, who: str, keys: Any, decode: Callable[[bytes], Any] | None, with_keys: bool, allow_pickle: bool
    ) -> None:
        for module in ("lmdb", "msgpack") if decode is None else ("lmdb",):
            needed(module, f"{who}()", extra="lmdb")
        if is_url(path):
            raise ValueError(
                f"{who}(): LMDB maps its file into memory, so it must be a local one, got {path!r}; copy it here first"
            )
        super().__init__(path, who)
        self.keys, self.decode, self.with_keys, self.allow_pickle = keys, decode, with_keys, allow_pickle
        self._listing: Numbered | Listed | None = None

    def stamped(self) -> str:
        """The file itself, where the path is of a folder."""
        return os.path.join(self.path, "data.mdb") if os.path.isdir(self.path) else self.path

    def open(self) -> Environment:
        """This process's environment, which all who read the file share, as LMDB wants it."""
        return environment(self.stamped(), self.who)

    @property
    def listing(self) -> Numbered | Listed:
        """The keys, looked up when they are first wanted."""
        if self._listing is None:
            self._listing = self._looked_up()
        return self._listing

    def _looked_up(self) -> Numbered | Listed:
        database: Environment = self.handle
        own = database.get(KEY_LIST)
        entries = database.entries - (own is not None)
        if self.keys is not None:
            return chosen_keys(self.keys, entries)
        try:
            listing = own_keys(bytes(own), entries, self.allow_pickle) if own is not None else None
        except Unreadable as error:
            raise self._error_for("the list of keys", error) from error
        if listing is not None and listing.count > entries:
            raise database.corrupt(f"{listing.count} keys are listed, and it has {entries} entries")
        return listing or self._gone_through(database)

    def _gone_through(self, database: Environment) -> Listed:
        """The keys as they come, which are as many as there are said to be."""
        there = list(islice(database, database.entries + 1))
        if len(there) != database.entries:
            raise database.corrupt(f"it says that it has {database.entries} entries, and {len(there)} are found")
        return listed((key for key in there if key != KEY_LIST), in_order=True)

    def __len__(self) -> int:
        return self.listing.count

    def __getitem__(self, index: int) -> Any:
        index = self.within(index)
        database: Environment = self.handle
        key = self.listing.key(index)
        try:
            datapoint = self._carefully(database.transaction.get(key))
        except database.errors as error:
            raise database.error_for("cannot be read", error) from error
        except Unreadable as error:
            raise self._found_again(range(index, index + 1)) or error from None
        return (key, datapoint) if self.with_keys else datapoint

    def __getitems__(self, indices: Sequence[int]) -> Iterator[Any]:
        return self.each(np.asarray(indices, np.int64))

    def each(self, block: Block) -> Iterator[Any]:
        """The datapoints at the indices of a block; those that follow one another, in one go through the file."""
        return iter((self[int(block[0])],)) if len(block) == 1 else self._each(block)

    def _each(self, block: Block) -> Iterator[Any]:
        if not len(block):
            return
        for end in (block[0], block[-1]) if isinstance(block, range) else (block.min(), block.max()):
            self.within(int(end))
        database: Environment = self.handle
        with database.clearly("cannot be read"):
            datapoints = self._decoded(database, self._payloads(database, block))
            try:
                yield from zip(self.listing.keys(block), datapoints) if self.with_keys else datapoints
            except Exception as error:
                if isinstance(error, database.errors) or (
                    self.decode is not None and not isinstance(error, Unreadable)
                ):
                    raise
                raise self._found_again(block) or error from None

    def _payloads(self, database: Environment, block: Block) -> Iterator[Any]:
        """What is at these places."""
        listing = self.listing
        if (
            listing.sorted
            and block[-1] - block[0] == len(block) - 1
            and (type(block) is range or bool((np.diff(block) == 1).all()))
        ):
            return islice(database.following(listing.key(int(block[0]))), len(block))
        return map(database.transaction.get, listing.keys(block))

    def _decoded(self, database: Environment, payloads: Iterator[Any]) -> Iterator[Any]:
        """What payloads are made into; where they are many and small, without a call of Python for each."""
        if self.decode is not None or (self.allow_pickle and not database.small):
            return map(self._carefully, payloads)
        if not self.allow_pickle:
            return map(hasty(False), payloads)
        several = iter(lambda: list(islice(payloads, SEVERAL)), [])
        return chain.from_iterable(map(reader_of_all(some, True), some) for some in several)

    @property
    def _carefully(self) -> Callable[[Any], Any]:
        """What reads a payload, and says what is wrong with it."""
        return unpacker(self.allow_pickle) if self.decode is None else _of_bytes(self.decode)

    def _found_again(self, block: Block) -> ValueError | None:
        """The error for the first of these places that cannot be read."""
        for index, key in zip(ints(block), self.listing.keys(block)):
            payload = self.handle.get(key)
            if payload is None:
                return ValueError(
                    f"{self.who}(): {self.path} has nothing under the key {key!r}, which is to be datapoint {index}"
                )
            try:
                self._carefully(payload)
            except Unreadable as error:
                return self._error_for(f"datapoint {index} (key {key!r})", error)
        return None

    def _error_for(self, what: str, error: ValueError) -> ValueError:
        hint = "; for values of another form, give decode=" if self.decode is None else ""
        return ValueError(f"{self.who}(): {what} of {self.path} cannot be read: {error}{hint}")

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if isinstance(self._listing, Listed):  # too large to travel; whoever reads looks for himself
            state["_listing"] = None
        return state


def _of_bytes(decode: Callable[[bytes], Any]) -> Callable[[Any], Any]:
    """A user's function, which gets bytes of its own."""

    def read(payload: Any) -> Any:
        if payload is None:
            raise Unreadable("there is nothing")
        if is_database(payload):
            raise Unreadable("it is a database of its own, which is not read; copy what is in it to a file of its own")
        return decode(bytes(payload))

    return read
