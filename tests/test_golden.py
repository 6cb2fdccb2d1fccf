"""The order of streams is a promise, and so are fingerprints and keys:
these digests change with a major version only."""

import functools
import re
import sys
from hashlib import blake2b

import numpy as np
import pytest

import flowfn as ff
from flowfn import formats, image
from flowfn.digests.pipelines import Digest, pipeline_key
from flowfn.flows.states import fingerprint
from flowfn.pickling.homes import PUBLIC, public

pytestmark = pytest.mark.everywhere

GOLDEN = {
    "shuffle, table": (lambda: ff.pipe(range(1000), ff.shuffle()), "ef358f0c1347d3d7"),
    "shuffle, network": (lambda: ff.pipe(range(10**6), ff.shuffle(), ff.take(1000)), "77fdf80f5333b3c0"),
    "shuffle, window": (lambda: ff.pipe(range(1000), ff.shuffle(window=64)), "e456576efb4d6a59"),
    "shuffle_buffer": (lambda: ff.pipe(range(1000), ff.shuffle_buffer(64)), "04b75b92ee9964ee"),
    "shuffle_buffer, reuse": (lambda: ff.pipe(range(1000), ff.shuffle_buffer(64, reuse=3)), "7a0e120a30ec39b5"),
    "split": (lambda: ff.split(range(1000), 0.3)[0], "a8d1f0c8a8f4f2c0"),
    "sample": (lambda: ff.pipe(range(1000), ff.sample(500)), "dea8c985013157dc"),
    "sample, huge": (lambda: ff.pipe(range(10**12), ff.sample(500)), "d62c99b25e341814"),
    "sample, weights": (lambda: ff.pipe(range(100), ff.sample(500, weights=range(100))), "c1de3582bfd8d673"),
    "sample, once each": (lambda: ff.pipe(range(1000), ff.sample(500, replacement=False)), "cc3a24df5d38ea00"),
    "sample, weights, once each": (
        lambda: ff.pipe(range(100), ff.sample(90, weights=range(100), replacement=False)),
        "5950dd2ede3d88d0",
    ),
    "mix": (
        lambda: ff.mix(range(700), range(1000, 1300), range(2000, 2100), weights=[0.7, 0.2, 0.1], until="all"),
        "159f83590594acb9",
    ),
    "mix, many weights": (
        lambda: ff.mix(range(700), range(1000, 1300), weights=[31415926535, 27182818284], until="cycle_all"),
        "c0751ba209bd05f2",
    ),
    "mix, random": (lambda: ff.mix(range(700), range(1000, 1300), weights=[2, 1], random=True), "9dc0fb53c92bc042"),
    "mix, random, by length": (
        lambda: ff.mix(range(70), range(1000, 1030), weights="length", random=True, until="all"),
        "899d7a58440047c5",
    ),
    "mix, random, scheduled": (
        lambda: ff.mix(range(700), range(1000, 1300), weights=_ramp, random=True),
        "37b3137ef15a9ed3",
    ),
    "rounds": (lambda: ff.pipe(range(100), ff.shuffle(), ff.repeat(3)), "7856804878f0da99"),
    "epochs of one's own": (lambda: ff.pipe(range(100), ff.shuffle(), ff.epoch_of(150)), "4cdb49cc6ca96917"),
    "interleave": (lambda: ff.pipe(range(50), ff.interleave(_shuffled, cycle=5, block=2)), "a45c6a9c8fef9c26"),
    "flat_map": (lambda: ff.pipe(range(50), ff.flat_map(_shuffled)), "82e77a55da671701"),
    "inside": (
        lambda: ff.pipe(range(50), ff.batch(5, collate=None), ff.inside(ff.shuffle(), ff.map(_bits, rng=True))),
        "02c9aa1cbf1a4b04",
    ),
    "raw bits": (lambda: ff.pipe(range(100), ff.map(_bits, rng=True)), "88db944122ab6c25"),
    "raw bits of a component": (
        lambda: ff.pipe([[i] for i in range(100)], ff.map_component(_bits, 0, rng=True)),
        "aa69e385dc9dfd66",
    ),
    "raw bits of filters": (
        lambda: ff.pipe(range(100), ff.filter(_coin, rng=True), ff.filter_map(_even_bits, rng=True)),
        "18bf928e56d9d5c3",
    ),
    "raw bits below a filter": (
        lambda: ff.pipe(range(100), ff.filter(_odd), ff.flat_map(_twice), ff.map(_bits, rng=True)),
        "32e702b96987bd7a",
    ),
    "raw bits below a shard": (
        lambda: ff.pipe(range(100), ff.shuffle(), ff.shard(1, 3), ff.map(_bits, rng=True)),
        "88f02579d05c5a9b",
    ),
    "raw bits of a callable source": (lambda: ff.flow(_drawn), "054b03a8925cc8e1"),
    "raw bits under guard": (
        lambda: ff.pipe(range(100), ff.guard(ff.map(_sometimes, rng=True), retry=1, then="drop")),
        "85d6f0c11af281dd",
    ),
    "training": (
        lambda: ff.pipe(
            range(1000), ff.shuffle(), ff.shard(0, 2), ff.map(_bits, rng=True), ff.batch(32, collate=ff.as_list)
        ),
        "23418e9f15d3c394",
    ),
    "validation": (
        lambda: ff.pipe(ff.split(range(1000), 0.9, 0.1)[1], ff.batch(32, collate=ff.as_list, drop_remainder=True)),
        "eb28dd33d29559f2",
    ),
    "text": (
        lambda: ff.pipe(range(300), ff.shuffle(), ff.map(_text), ff.batch_by_length(len, tokens=64, collate=None)),
        "2e2c020f2a560d16",
    ),
    "buckets": (
        lambda: ff.pipe(
            range(300),
            ff.map(_text),
            ff.shuffle_buffer(30),
            ff.batch_by_length(len, boundaries=[4, 8, 16], sizes=[8, 4, 2], collate=None),
        ),
        "241e0a0f5c7e1a05",
    ),
    "keys": (
        lambda: ff.pipe(range(300), ff.shuffle(), ff.batch_by_key(_last_digit, 7, collate=None)),
        "b365e39d456c039c",
    ),
    "packed": (
        lambda: ff.pipe(range(300), ff.shuffle(), ff.map(_text), ff.pack(32), ff.map(_lists)),
        "222866c85535ec20",
    ),
    "packed, best fit": (
        lambda: ff.pipe(range(300), ff.shuffle(), ff.map(_text), ff.pack(32, how=ff.best_fit), ff.map(_lists)),
        "dacc4b05d5afc1a9",
    ),
    "packed for ranks": (
        lambda: ff.pipe(
            range(300),
            ff.shuffle(),
            ff.map(_text),
            ff.pack(32, how=functools.partial(ff.balanced_fit, ranks=4, rows=2, window=90)),
            ff.map(_lists),
        ),
        "3d513855f2fece85",
    ),
    "shared by cost": (
        lambda: ff.pipe(
            range(300), ff.shuffle(), ff.map(_text), ff.batch_by_cost(_work, ranks=4, length=len, size=40, collate=None)
        ),
        "734f950d4ad33758",
    ),
    "batches by cost": (
        lambda: ff.pipe(
            range(300), ff.map(_text), ff.batch_by_cost(_work, ranks=4, tokens=64, window=90, collate=None)
        ),
        "c2451e5531338ea2",
    ),
    "microbatches by cost": (
        lambda: ff.pipe(
            range(300),
            ff.map(_text),
            ff.batch_by_cost(_work, ranks=2, tokens=64, window=90, microbatches=3, padded=False, collate=None),
        ),
        "d47834cb95ed62b8",
    ),
    "windows": (
        lambda: ff.pipe(range(300), ff.shuffle(window=9), ff.window(5, step=2, collate=None), ff.shuffle_buffer(10)),
        "af71267b3654e3c4",
    ),
    "ranks": (lambda: ff.pipe(range(101), ff.shuffle(), ff.pad_to_multiple(8), ff.shard(3, 4)), "f13ac7a75ab8d018"),
    "streams": (
        lambda: ff.pipe(
            ff.flow(_drawn), ff.filter(_odd), ff.repeat_each(2), ff.shuffle_buffer(10), ff.repeat(2), ff.take(150)
        ),
        "374115fe39c536d9",
    ),
    "corpora": (
        lambda: ff.pipe(
            ff.mix(
                {"a": ff.shuffle(range(90)), "b": ff.pipe(range(50), ff.filter(_odd))},
                weights=[2, 1],
                tag="of",
                until="all",
            ),
            ff.shuffle_buffer(9),
        ),
        "1214df0099679ec1",
    ),
    "a frozen branch": (
        lambda: ff.zip(
            ff.shuffle(range(100)), ff.freeze(ff.shuffle(range(100)), seed=3), ff.cache(ff.sample(100, range(9)))
        ),
        "a36a2b93ff79ca24",
    ),
}


def _bits(x, rng):
    return (x, int(rng.bit_generator.random_raw()))


def _odd(x):
    return x % 2


def _twice(x):
    return [x, x]


def _work(n):
    return n + n * n / 8


def _ramp(step):
    return [1000, step]


def _shuffled(x):
    return ff.shuffle(range(100 * x, 100 * x + x % 7))


def _coin(x, rng):
    return int(rng.bit_generator.random_raw()) % 3 > 0


def _even_bits(x, rng):
    drawn = int(rng.bit_generator.random_raw())
    return None if drawn % 2 else (x, drawn)


def _drawn(rng):
    return iter(rng.bit_generator.random_raw(100).tolist())


def _sometimes(x, rng):
    drawn = int(rng.bit_generator.random_raw())
    if x % 5 == 0:
        raise OSError("not today")
    return x, drawn


def _text(x):
    return [x] * (1 + x * 7 % 16)


def _last_digit(x):
    return x % 10


def _lists(arrays):
    return [array.tolist() for array in arrays]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_order_of_streams_is_kept(name):
    make, golden = GOLDEN[name]
    given = [list(make().run(seed=7, epoch=epoch)) for epoch in (0, 1)]
    assert blake2b(repr(given).encode(), digest_size=8).hexdigest() == golden


NAMED = {
    "collations": (
        lambda: ff.pipe(
            [[1], [2, 3]] * 4, ff.batch(2, collate=ff.pad(0)), ff.batch(4, collate=ff.as_list), ff.collate(ff.stack)
        ),
        "source[8] > batch(size=2, drop_remainder=False, collate=pad(value=0, axis=None, length=None, multiple=1, "
        "mask=False, lengths=False)) > "
        "batch(size=4, drop_remainder=False, collate=flowfn.as_list) > collate(how=flowfn.stack) #df9ae5bc3ceee46c",
        "f88b6157fe315e2ad0181bef89c5e2c4",
    ),
    "packing": (
        lambda: ff.pipe(range(20), ff.shuffle(), ff.pack(4, how=ff.first_fit)),
        "source[20] > shuffle(window=None) > pack(length=4, how=flowfn.first_fit, value=0, drop_remainder=False) "
        "#62136082efb9b4fc",
        "67de292cf801c0721c718889ab0ce440",
    ),
    "augmentors": (
        lambda: ff.pipe(
            np.zeros((3, 8, 8, 3), np.uint8),
            image.augment(image.sequence([image.flip(horizontal=True), image.to_uint8()]), 0),
        ),
        "source[3] > augment(augmentors=[sequence(augmentors=[flip(horizontal=True, vertical=False, probability=0.5), "
        "to_uint8()])], "
        "index=0, image=None, mask=None, coords=None, boxes=None, labels=None, min_visible=0.0, channels=None, "
        "boxes_forma... #d2df720b2caab4ef",
        "26a125f80187b60fb3bc3661e4c9ae60",
    ),
    "errors": (
        lambda: ff.pipe([b""], ff.guard(ff.map(image.decode_image), errors=ff.WorkerDied, then="drop")),
        "source[1] > guard(stage=map(f=flowfn.image.decode_image, rng=False), errors=flowfn.WorkerDied, retry=0, then='"
        "drop', budget=None) #4b10ad7d0d5372e8",
        "be703b67789a18b6100d8cc0c7042036",
    ),
    "branches": (
        lambda: ff.mix(ff.freeze(range(9), seed=1), ff.fake((2, 3), size=4), weights=[1, 2], until="all"),
        "[source[9] > freeze(seed=1) + source[4]] > mix(names=[0, 1], weights=[1, 2], until='all', random=False) "
        "#d5a6afd8b3198d0a",
        "86610db00bafee364c89b0788e46b39b",
    ),
    "functions of other packages": (
        lambda: ff.pipe(["a.jsonl"], ff.flat_map(formats.read_jsonl)),
        "source[1] > flat_map(f=flowfn.formats.read_jsonl, rng=False) #59d8804ffee5e7bc",
        "b57957c68d2c4bce1d842bf644bd3dcf",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_fingerprints_and_keys_do_not_depend_on_where_files_lie(name, monkeypatch):
    make, words, key = NAMED[name]
    taken_in = []
    feed = Digest.feed
    monkeypatch.setattr(Digest, "feed", lambda self, *words: (taken_in.append(words), feed(self, *words))[1])
    made = pipeline_key(make(), 0, "").hex()
    assert fingerprint(make()) == words
    named = {found for found in re.findall(r"flowfn(?:\.\w+)*", str(taken_in)) if found not in PUBLIC}
    assert all(public(found) + "." + found.rpartition(".")[2] == found for found in named)
    if sys.version_info[:2] == (3, 11):  # keys hold code, which every version of Python writes in its own way
        assert made == key
