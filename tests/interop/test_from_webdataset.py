"""What webdataset does where a row of examples/from_others.md tells of a difference, beside what is done here."""

import io
import operator
import random
import tarfile

import pytest
from beside import odd

import flowfn as ff
import flowfn.formats as formats

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def wds():
    pytest.importorskip("torch")
    return pytest.importorskip("webdataset")


def numbers_in(samples):
    return [one["cls"] for one in samples]


def test_samples_of_webdataset_are_those_but_for_what_begins_with_an_underscore(wds, shards):
    theirs, ours = wds.WebDataset(shards, shardshuffle=False).decode(), formats.read_webdataset(shards)
    bare = lambda one: {key: value for key, value in one.items() if not key.startswith("_")}
    assert [*map(bare, theirs)] == [*map(bare, ours)]
    assert ({"__key__", "__url__"} <= {*next(iter(theirs))}, "__url__" in ours[0]) == (True, False)
    theirs, ours = theirs.to_tuple("cls", "txt"), ff.pipe(ours, ff.select(["cls", "txt"]))
    assert [*theirs] == [*ff.map(lambda one: (*one.values(),), ours)]


def test_a_key_that_comes_again_is_two_samples_in_webdataset(wds, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a.cls", "b.cls", "a.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"1"))
    theirs = wds.WebDataset([str(tmp_path / "a.tar")], shardshuffle=False)
    assert [one["__key__"] for one in theirs] == ["a", "b", "a"]
    with pytest.raises(ValueError, match="in two places"):
        list(formats.read_webdataset(tmp_path / "a.tar"))


def test_shards_come_in_one_order_in_every_pass_of_webdataset(wds, shards):
    """WebDataset(shardshuffle=n) hands a seed, given or not, to a shuffle that begins with it in each pass
    (webdataset 1.0.2, findings/webdataset_shards_in_one_order.sh); detshuffle=True counts the passes."""
    theirs = wds.WebDataset(shards, shardshuffle=8).decode()
    orders = [numbers_in(theirs) for _ in range(3)]
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0]) == [*range(16)]
    counted = wds.WebDataset(shards, shardshuffle=8, detshuffle=True).decode()
    assert numbers_in(counted) != numbers_in(counted)
    ours = ff.pipe(shards, ff.shuffle(), ff.interleave(formats.read_webdataset))
    assert (first := numbers_in(ours)) != numbers_in(ours)
    assert sorted(first) == [*range(16)]


def test_a_seeded_shuffle_of_webdataset_is_one_order(wds, shards):
    seeded = wds.WebDataset(shards, shardshuffle=False).decode().shuffle(8, seed=1)
    assert numbers_in(seeded) == numbers_in(seeded)
    ours = ff.pipe(formats.read_webdataset(shards), ff.shuffle_buffer(8))
    assert numbers_in(ours) != numbers_in(ours)


def test_webdataset_leaves_none_out_and_selects_what_is_filtered_here(wds, shards):
    theirs = wds.WebDataset(shards, shardshuffle=False).decode()
    ours = formats.read_webdataset(shards)
    holed = lambda one: None if one["cls"] == 1 else one
    assert numbers_in(theirs.map(holed)) == [0, *range(2, 16)]
    assert [*ff.map(holed, ours)][1] is None
    theirs = wds.WebDataset(shards, shardshuffle=False).decode()
    assert numbers_in(theirs.select(lambda one: odd(one["cls"]))) == numbers_in(
        ff.filter(lambda one: odd(one["cls"]), ours)
    )


def test_an_epoch_of_webdataset_begins_where_all_begin(wds, shards):
    """with_epoch(n) ends a pass after n samples, and the next pass opens the first shard again (webdataset 1.0.2)."""
    theirs = wds.WebDataset(shards, shardshuffle=False).decode().with_epoch(10)
    ours = ff.pipe(formats.read_webdataset(shards), ff.epoch_of(10))
    assert [numbers_in(theirs) for _ in range(2)] == [[*range(10)], [*range(10)]]
    assert [numbers_in(ours) for _ in range(2)] == [[*range(10)], [*range(10, 16), *range(4)]]


def test_webdataset_draws_shards_again_and_again(wds, shards):
    theirs = wds.WebDataset(shards, resampled=True, shardshuffle=False).decode().slice(32)
    ours = ff.pipe(shards, ff.sample(16), ff.interleave(formats.read_webdataset, cycle=1))
    for drawn in (numbers_in(theirs), numbers_in(ours)):
        assert len(drawn) == 32 > len({*drawn})
        assert all(second == first + 1 for first, second in zip(drawn[::2], drawn[1::2]))


def test_nodes_share_shards_in_webdataset(wds, shards, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    theirs = wds.WebDataset(shards, shardshuffle=False, nodesplitter=wds.split_by_node).decode()
    files = ff.pipe(shards, ff.shard(1, 3), ff.interleave(formats.read_webdataset, cycle=1))
    assert numbers_in(theirs) == numbers_in(files) == [2, 3, 8, 9, 14, 15]
    assert numbers_in(ff.pipe(formats.read_webdataset(shards), ff.shard(1, 3))) == [1, 4, 7, 10, 13]
    with pytest.raises(ValueError, match="explicit nodesplitter"):
        list(wds.WebDataset(shards, shardshuffle=False))


def test_more_workers_than_shards_are_an_error_in_webdataset(wds, shards):
    theirs = wds.WebDataset(shards[:1], shardshuffle=False).decode().map(operator.itemgetter("cls"))
    with pytest.raises(ValueError, match="No samples found"):
        list(wds.WebLoader(theirs, batch_size=None, num_workers=2))
    ours = ff.pipe(formats.read_webdataset(shards), ff.prefetch(2, processes=2))
    assert numbers_in(ours) == [*range(16)]


def test_webdataset_mixes_until_one_or_all_have_ended(wds, shards):
    theirs = wds.WebDataset(shards, shardshuffle=False).decode().map(operator.itemgetter("cls"))
    few = wds.DataPipeline(lambda: iter(range(100, 103)))
    for longest, until in ((False, "first"), (True, "all")):
        turns = wds.RoundRobin([theirs, few], longest=longest)
        assert [*turns] == [*ff.mix(range(16), range(100, 103), until=until)]
        random.seed(1)
        drawn = {*wds.RandomMix([theirs, few], [1, 1], longest=longest)}
        assert (len(drawn) == 19) == (until == "all")


def test_shards_are_cut_as_webdataset_cuts_them(wds, tmp_path):
    with wds.ShardWriter(str(tmp_path / "theirs-%02d.tar"), maxcount=3, verbose=0) as writer:
        for i in range(7):
            writer.write({"__key__": str(i), "cls": i})
    formats.write_webdataset(tmp_path / "ours-{shard:02d}.tar", [{"cls": i} for i in range(7)], shard_size=3)
    for number in range(3):
        theirs, ours = (formats.read_webdataset(tmp_path / f"{who}-{number:02d}.tar") for who in ("theirs", "ours"))
        assert numbers_in(theirs) == numbers_in(ours)
