"""Lhotse's cuts as a source, and batches of its samplers; with lhotse 1.33.0."""

import json
import random
from itertools import islice

import numpy as np
import pytest

import flowfn as ff

lhotse = pytest.importorskip("lhotse")
pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore")]
testing = pytest.importorskip("lhotse.testing.dummies")


def eager():
    return testing.DummyManifest(lhotse.CutSet, begin_id=0, end_id=30)


@pytest.fixture
def lazy(tmp_path):
    path = str(tmp_path / "cuts.jsonl")
    eager().to_file(path)
    return lambda: lhotse.CutSet.from_jsonl_lazy(path)


def ids(cuts):
    return [int(cut.id[-4:]) for cut in cuts]


def test_cuts_in_memory_are_read_by_index():
    flow = ff.flow(eager())
    assert flow.seekable
    assert flow[7].id == "dummy-mono-cut-0007"
    assert ids(flow) == list(range(30))
    assert sorted(ids(ff.shuffle(flow))) == list(range(30))
    assert flow[3] == eager()[3]


def test_lazy_cuts_are_iterated(lazy):
    """They have a length and an index, but `cuts[i]` reads them from the beginning (lhotse 1.33.0, cut/set.py), each
    time in another order if they were shuffled: read by index, some would come twice, and others never."""
    flow = ff.flow(lazy())
    assert not flow.seekable
    assert len(flow) == 30
    assert ids(flow) == ids(flow) == list(range(30))
    shuffled = lazy().shuffle(rng=random.Random(0), buffer_size=10)
    assert ids(shuffled[i] for i in range(30)) != ids(shuffled)
    assert sorted(ids(ff.flow(shuffled))) == list(range(30))
    iterator = iter(ff.pipe(flow, ff.shuffle_buffer(8)))
    first = ids(islice(iterator, 11))
    again = iter(ff.pipe(ff.flow(lazy()), ff.shuffle_buffer(8)))
    again.load_state_dict(json.loads(json.dumps(iterator.state_dict())))
    assert sorted(first + ids(again)) == list(range(30))


def test_filtered_lazy_cuts_have_no_length(lazy):
    flow = ff.flow(lazy().filter(lambda cut: int(cut.id[-4:]) % 2))
    assert ids(flow) == list(range(1, 30, 2))


def sampled(epoch):
    """Batches of cuts of at most 4 seconds, in the order of the epoch."""
    sampler = lhotse.dataset.DynamicCutSampler(eager(), max_duration=4, shuffle=True, seed=3, world_size=1, rank=0)
    sampler.set_epoch(epoch)
    return sampler


def summed(cuts):
    """What a data set of Lhotse does: one batch of the cuts of a sampler."""
    return {"ids": np.array(ids(cuts)), "seconds": sum(cut.duration for cut in cuts)}


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_sampler_is_a_function_of_the_epoch(epoch):
    """A sampler is an iterator that begins anew, and its order is that of its `set_epoch`."""
    flow = ff.pipe(sampled, ff.map(summed))
    whole = list(flow.run(epoch=epoch))
    assert [batch["ids"].tolist() for batch in whole] == [ids(cuts) for cuts in sampled(epoch)]
    assert sorted(np.concatenate([batch["ids"] for batch in whole])) == list(range(30))
    assert [b["ids"].tolist() for b in flow.run(epoch=0)] != [b["ids"].tolist() for b in flow.run(epoch=1)]
    iterator = flow.run(epoch=epoch)
    for _ in range(3):
        next(iterator)
    again = iter(ff.pipe(sampled, ff.map(summed)))
    again.load_state_dict(json.loads(json.dumps(iterator.state_dict())))
    assert [b["ids"].tolist() for b in again] == [b["ids"].tolist() for b in whole[3:]]


class Speech:
    """A data set as many libraries have it: a length, and an index."""

    def __init__(self):
        self.cuts = testing.DummyManifest(lhotse.CutSet, begin_id=0, end_id=6, with_data=True)

    def __len__(self):
        return len(self.cuts)

    def __getitem__(self, index):
        return {"audio": self.cuts[index].load_audio(), "id": self.cuts[index].id}


def test_audio_is_the_same_in_workers():
    flow = ff.pipe(Speech(), ff.shuffle(), ff.batch(2))
    right = list(flow)
    assert right[0]["audio"].dtype == np.float32
    for one, other in zip(ff.pipe(flow, ff.prefetch(2, processes=2)), right, strict=True):
        assert one["id"] == other["id"]
        assert one["audio"].tobytes() == other["audio"].tobytes()
