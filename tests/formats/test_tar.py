"""Tar shards: what webdataset and tar write is read, what is written here they read,
and nothing in a tar file does harm."""

import gzip
import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flowfn as ff
from flowfn.formats.tar import index as shards
from flowfn.formats.tar import writing as tar_writing
from flowfn.formats.tar.extensions import IMAGES
from flowfn.formats.tar.headers import BLOCK_SIZE
from flowfn.formats.tar.index import INDEX_SUFFIX
from flowfn.formats.tar.reading import read_webdataset
from flowfn.formats.tar.writing import write_webdataset
from flowfn.storage.finding import braces
from flowfn.testing import check, same

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
SAMPLES = [
    {
        "__key__": f"train/n{number:03d}",
        "txt": f"Ärger {number}",
        "cls": number,
        "json": {"boxes": [[1, 2, 3, 4]], "name": "Tür", "none": None},
        "npy": np.arange(number, dtype=np.float32).reshape(1, -1),
        "npz": {"a": np.array([number]), "b": np.zeros((2, 0), np.int8)},
        "left.png": IMAGE + np.uint8(number),
        "bin": bytes([number]) * number,
    }
    for number in range(7)
]


def packed(path, *files, form=tarfile.PAX_FORMAT, mode="w"):
    """A tar file of (name, bytes), or of TarInfos."""
    with tarfile.open(path, mode, format=form) as archive:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                archive.addfile(file)
            else:
                about = tarfile.TarInfo(file[0])
                about.size = len(file[1])
                archive.addfile(about, io.BytesIO(file[1]))
    return str(path)


def texts(flow):
    return [(sample["__key__"], sample["txt"]) for sample in flow]


def both(path, **options):
    """What is read by index and what is read as a stream, which has to be the same."""
    indexed, streamed = list(read_webdataset(path, **options)), list(read_webdataset(path, index=False, **options))
    assert same(indexed, streamed)
    return indexed


def refusals(path, words):
    for index in (None, False):
        with pytest.raises(ValueError, match=words) as caught:
            list(read_webdataset(path, index=index))
        assert str(path) in str(caught.value)


# What comes back


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tgz", "{shard:02d}.tar", "{shard:02d}.tar.gz"])
def test_what_was_written_comes_back(tmp_path, name):
    write_webdataset(tmp_path / name, SAMPLES, shard_size=3 if "{" in name else None)
    flow = read_webdataset(
        tmp_path / ("*" + name.partition(".")[2].join(["", ""]) if "{" not in name else "*"), images=True
    )
    assert same(list(flow), SAMPLES)
    assert flow.seekable is (not name.endswith(("gz",)))


def test_samples_are_read_by_index_and_as_a_stream_alike(tmp_path):
    write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=2)
    assert same(both(tmp_path / "*.tar", images=True), SAMPLES)
    flow = read_webdataset(tmp_path / "*.tar")
    assert (len(flow), flow[6]["cls"], flow[-7]["cls"]) == (7, 6, 0)
    with pytest.raises(IndexError):
        flow[7]


def test_only_named_components_are_read(tmp_path):
    write_webdataset(tmp_path / "a.tar", SAMPLES)
    assert both(tmp_path / "a.tar", components=["CLS", "left.png"], decode=False)[2].keys() == {
        "__key__",
        "cls",
        "left.png",
    }


def test_decoding_can_be_left_out_or_replaced(tmp_path):
    write_webdataset(tmp_path / "a.tar", SAMPLES[3:4])
    assert both(tmp_path / "a.tar", decode=False, components=["cls", "txt"]) == [
        {"__key__": "train/n003", "txt": "Ärger 3".encode(), "cls": b"3"}
    ]
    (sample,) = both(
        tmp_path / "a.tar",
        decode={"png": len, "left.png": lambda data: data[:4], "cls": float},
        components=["cls", "left.png"],
    )
    assert sample == {"__key__": "train/n003", "cls": 3.0, "left.png": b"\x89PNG"}


def test_compressed_components_are_unpacked(tmp_path):
    sample = {"__key__": "a", "json.gz": {"x": 1}, "npy.gz": np.arange(3), "gz": b"as it is", "dat.gz": b"bytes"}
    write_webdataset(tmp_path / "a.tar", [sample])
    assert same(both(tmp_path / "a.tar"), [sample])
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert gzip.decompress(archive.extractfile("a.json.gz").read()) == b'{"x": 1}'


def test_images_stay_bytes_unless_they_are_asked_for(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"png": IMAGE, "jpg": b"\xff\xd8"}])
    assert both(tmp_path / "a.tar")[0]["jpg"] == b"\xff\xd8"
    assert same(both(tmp_path / "a.tar", images=True, components=["png"])[0]["png"], IMAGE)
    with pytest.raises(ValueError, match=r"a\.tar: 000000000\.jpg cannot be read as jpg"):
        list(read_webdataset(tmp_path / "a.tar", images=True))


def test_arrays_that_come_out_can_be_written_to(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"npy": np.zeros(3), "npz": {"x": np.zeros(3)}}])
    (sample,) = both(tmp_path / "a.tar")
    sample["npy"][0] = sample["npz"]["x"][0] = 1


# The laws


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_the_laws_hold(tmp_path, ending):
    write_webdataset(f"{tmp_path}/{{shard}}.{ending}", [{"cls": number} for number in range(12)], shard_size=5)
    check(lambda: read_webdataset(f"{tmp_path}/*.{ending}"))


@pytest.mark.long
@pytest.mark.timeout(180)
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_the_laws_hold_in_processes(tmp_path, ending):
    write_webdataset(f"{tmp_path}/{{shard}}.{ending}", [{"cls": number} for number in range(12)], shard_size=5)
    check(lambda: read_webdataset(f"{tmp_path}/*.{ending}"), workers=[{"processes": 2}])


def test_shuffling_reads_only_what_it_gives(tmp_path, monkeypatch):
    write_webdataset(tmp_path / "a.tar", [{"bin": bytes(10_000)} for _ in range(100)])
    flow = read_webdataset(tmp_path / "a.tar")
    read = []
    pieces = shards.ReadablePieces.read
    monkeypatch.setattr(
        shards.ReadablePieces, "read", lambda self, offset, length: read.append(length) or pieces(self, offset, length)
    )
    assert sorted(sample["__key__"] for sample in ff.take(5, ff.shuffle(source=flow)))
    assert len(flow) == 100
    assert read.count(10_000) == 5


def test_flows_over_shards_pickle_small(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"cls": number} for number in range(2000)])
    flow = read_webdataset(tmp_path / "a.tar")
    list(flow)
    pickled = pickle.dumps(flow)
    assert len(pickled) < 2000
    assert pickle.loads(pickled)[1999]["cls"] == 1999


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "OPEN_SHARDS", 2)
    write_webdataset(tmp_path / "{shard}.tar", [{"cls": number} for number in range(9)], shard_size=1)
    flow = read_webdataset(tmp_path / "*.tar")
    assert sorted(sample["cls"] for sample in ff.pipe(flow, ff.shuffle(), ff.prefetch(2, threads=4))) == list(range(9))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_for_itself(tmp_path):
    write_webdataset(tmp_path / "a.tar", [{"cls": number} for number in range(3)])
    flow = read_webdataset(tmp_path / "a.tar")
    assert flow[0]["cls"] == 0
    child = os.fork()
    if not child:
        os._exit(flow[2]["cls"] if flow[1]["cls"] == 1 else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert flow[1]["cls"] == 1


def test_a_flow_of_paths_is_read_in_its_order(tmp_path):
    write_webdataset(tmp_path / "{shard}.tar", [{"cls": number} for number in range(6)], shard_size=2)
    paths = ff.pipe(ff.files(str(tmp_path / "*.tar")), ff.shard(1, 2))
    flow = read_webdataset(paths)
    assert [sample["cls"] for sample in flow] == [2, 3]
    with pytest.raises(ValueError, match="a flow of paths is streamed"):
        read_webdataset(paths, index=True)


def test_the_repr_is_the_call(tmp_path):
    path = write(tmp_path, {"cls": 1})
    assert repr(read_webdataset(path, images=True)) == f"read_webdataset({path!r}, images=True)"
    assert (
        repr(ff.batch(2, read_webdataset(path, index=False)))
        == f"pipe(read_webdataset({path!r}, index=False), batch(2))"
    )


def write(folder, *samples):
    write_webdataset(folder / "a.tar", samples)
    return str(folder / "a.tar")


# Other programs


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_webdataset_reads_what_is_written_here(tmp_path):
    write_webdataset(tmp_path / "{shard:02d}.tar", SAMPLES, shard_size=3)
    found = list(wds.WebDataset(str(tmp_path / "{00..02}.tar"), shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in found] == [sample["__key__"] for sample in SAMPLES]
    for ours, theirs in zip(SAMPLES, found):
        assert all(same(ours[key], theirs[key]) for key in ours)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_what_webdataset_writes_is_read(tmp_path, ending):
    with wds.ShardWriter(str(tmp_path / f"%04d.{ending}"), maxcount=3, verbose=0) as writer:
        for sample in SAMPLES:
            writer.write(sample)
    found = list(read_webdataset(tmp_path / "*", images=True))
    assert same([{key: sample[key] for key in ours} for ours, sample in zip(SAMPLES, found)], SAMPLES)


@pytest.mark.parametrize(
    "options", [["--format=ustar"], ["--format=gnu"], ["--format=pax"], ["--format=v7"], ["-j"], ["-J"], ["-z"]]
)
def test_what_tar_packs_is_read(tmp_path, options):
    long = "deep/" * 12 if options != ["--format=v7"] else ""
    folder = tmp_path / "in" / long
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / ("b" * (90 if long else 9) + ".txt")).write_text("two" * 1000)
    (folder / ".hidden.txt").write_text("hidden")
    (folder / "README").write_text("no extension")
    path = tmp_path / {"-j": "a.tar.bz2", "-J": "a.tar.xz", "-z": "a.tgz"}.get(options[0], "a.tar")
    subprocess.run(["tar", "-c", *options, "--sort=name", "-f", str(path), "-C", str(tmp_path / "in"), "."], check=True)
    with pytest.warns(
        UserWarning, match=r"a\..* leaves out './.*\.hidden\.txt' at byte \d+, and whatever else begins with a dot"
    ):
        found = texts(read_webdataset(path))
    assert found == [(f"./{long}a", "one"), (f"./{long}{'b' * (90 if long else 9)}", "two" * 1000)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_form(tmp_path, form):
    names = ["x/" * 40 + "y" * 60 + ".txt", "short.txt"] + ["z" * 300 + "ü.txt"] * (form != tarfile.USTAR_FORMAT)
    path = packed(tmp_path / "a.tar", *((name, name.encode()) for name in names), form=form)
    assert texts(both(path)) == [(name[:-4], name) for name in names]


def test_tar_reads_long_names_written_here(tmp_path):
    key = "ö" * 200 + "/" + "x" * 120
    path = write(tmp_path, {"__key__": key, "txt": "here"})
    with tarfile.open(path) as archive:
        assert archive.getnames() == [key + ".txt"]
    assert texts(both(path)) == [(key, "here")]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore:.*leaves out 'a.d/bare':UserWarning"
)
def test_extensions_are_told_apart_as_webdataset_does(tmp_path):
    names = [
        "a/b.c.JPG",
        "a.d/b.jpg",
        "a.d/bare",
        "__meta__.json",
        "__meta__/x.txt",
        "._a.jpg",
        "a.d/.b.jpg",
        "ends.",
        "x.tar.gz",
    ]
    path = packed(tmp_path / "a.tar", *((name, b"?") for name in names))
    ours = [[*sample] for sample in both(path, decode=False)]
    theirs = [
        [key for key in sample if key not in ("__url__", "__local_path__")]
        for sample in wds.WebDataset(path, shardshuffle=False)
    ]
    assert ours == [keys for keys in theirs if keys != ["__key__", ""]]
    assert [keys[1:] for keys in ours] == [["c.jpg"], ["jpg"], ["json"], ["tar.gz"]]


# Paths


def test_braces_stand_for_ranges_and_lists():
    assert list(braces("s-{0009..0011}.tar")) == ["s-0009.tar", "s-0010.tar", "s-0011.tar"]
    assert list(braces("{a,b}{2..0}")) == ["a2", "a1", "a0", "b2", "b1", "b0"]
    assert list(braces("{x}/{}")) == ["{x}/{}"]


def test_paths_are_patterns_ranges_lists_and_names_as_they_are(tmp_path, monkeypatch):
    for name in ("s-1.tar", "s-2.tar", "s-10.tar", "{odd,name}.tar"):
        packed(tmp_path / name, (f"{name.partition('.')[0]}.txt", b""))
    monkeypatch.chdir(tmp_path)

    def keys(paths):
        return [sample["__key__"] for sample in read_webdataset(paths)]

    assert (
        keys("s-*.tar")
        == keys("s-{1,2,10}.tar")
        == keys(["s-1.tar", "s-[2-9].tar", tmp_path / "s-10.tar"])
        == ["s-1", "s-2", "s-10"]
    )
    assert keys("{odd,name}.tar") == ["{odd,name}"]


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"read_webdataset\(\): no file matches '.*s-1.tar'"):
        read_webdataset(tmp_path / "s-{0..3}.tar" if packed(tmp_path / "s-0.tar") else "")
    with pytest.raises(FileNotFoundError, match=r"read_webdataset\(\): no file matches .* it is a folder: write '"):
        read_webdataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"write_webdataset\(\): the folder '.*' does not exist"):
        write_webdataset(tmp_path / "none" / "a.tar", SAMPLES)
    with pytest.raises(TypeError, match=r"read_webdataset\(\): paths must be a path, a pattern, a URL, a list of them"):
        read_webdataset(7)
    for options in ({"components": []}, {"components": "jpg"}, {"decode": "pil"}, {"index": 1}, {"images": None}):
        with pytest.raises((TypeError, ValueError), match=rf"read_webdataset\(\): {next(iter(options))} must be"):
            read_webdataset(tmp_path / "s-0.tar", **options)


# The index beside a shard


def test_a_saved_index_is_used(tmp_path, monkeypatch):
    write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=4, save_index=True)
    assert sorted(os.listdir(tmp_path)) == ["0.tar", "0.tar" + INDEX_SUFFIX, "1.tar", "1.tar" + INDEX_SUFFIX]
    monkeypatch.setattr(shards, "scanned", lambda *given: pytest.fail("it was looked for again"))
    assert same(list(read_webdataset(tmp_path / "*.tar", images=True)), SAMPLES)


def test_an_index_is_saved_when_asked_for(tmp_path, monkeypatch):
    write_webdataset(tmp_path / "a.tar", SAMPLES)
    read_webdataset(tmp_path / "a.tar", save_index=True)
    monkeypatch.setattr(shards, "scanned", lambda *given: pytest.fail("it was looked for again"))
    assert same(list(read_webdataset(tmp_path / "a.tar", images=True)), SAMPLES)
    with pytest.raises(ValueError, match="save_index=True needs an index"):
        read_webdataset(tmp_path / "a.tar", index=False, save_index=True)


@pytest.mark.parametrize(
    "damage",
    [lambda index: index[:-1], lambda index: b"", lambda index: index[:60] + b"\1" + index[61:], lambda i: i * 2],
)
def test_a_damaged_index_is_not_believed(tmp_path, damage):
    write_webdataset(tmp_path / "a.tar", SAMPLES, save_index=True)
    beside = tmp_path / ("a.tar" + INDEX_SUFFIX)
    beside.write_bytes(damage(beside.read_bytes()))
    assert same(list(read_webdataset(tmp_path / "a.tar", images=True)), SAMPLES)


def test_the_index_of_another_file_is_not_believed(tmp_path):
    write_webdataset(tmp_path / "a.tar", SAMPLES[:3], save_index=True)
    write_webdataset(tmp_path / "b.tar", SAMPLES[3:])
    os.replace(tmp_path / "b.tar", tmp_path / "a.tar")
    assert same(list(read_webdataset(tmp_path / "a.tar", images=True)), SAMPLES[3:])


def test_a_shard_that_was_replaced_is_noticed(tmp_path):
    path = write(tmp_path, {"cls": 1})
    flow = read_webdataset(path)
    write_webdataset(path, [{"cls": 2}, {"cls": 3}], overwrite=True)
    with pytest.raises(ValueError, match=r"a\.tar has changed since it was opened"):
        flow[0]


# Damaged and hostile files


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (0, "is empty"),
        (100, "is cut off, or no tar file: it ends within a header at byte 0"),
        (BLOCK_SIZE + 20, "is cut off: it ends within 'a.txt', whose 700 bytes begin at byte 512"),
        (BLOCK_SIZE + 1024, "is cut off, or no tar file: it ends at byte 1536 without the blocks of zeros"),
        (4 * BLOCK_SIZE - 1, "it ends within a header at byte 1536"),
    ],
)
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_file_that_is_cut_off_says_where(tmp_path, keep, words, ending):
    path = packed(tmp_path / "a.tar", ("a.txt", b"x" * 700), ("b.txt", b"y"))
    cut = Path(path).read_bytes()[:keep]
    if ending == "tar":
        (tmp_path / "cut.tar").write_bytes(cut)
        refusals(tmp_path / "cut.tar", words)
    else:
        (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(cut))
        with pytest.raises(ValueError, match=words):
            list(read_webdataset(tmp_path / "cut.tar.gz"))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_file_that_is_damaged_or_cut_off_says_so(tmp_path, mode):
    path = packed(tmp_path / f"a.tar.{mode[2:]}", ("a.bin", np.random.default_rng(0).bytes(50_000)), mode=mode)
    whole = Path(path).read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:2000] + bytes(200) + whole[2200:]):
        Path(path).write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.tar\.\w+ is (damaged or )?cut off"):
            list(read_webdataset(path))


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>" * 500)
    refusals(tmp_path / "a.tar", "is no tar file: its first header has a wrong checksum")
    (tmp_path / "b.tar").write_bytes(gzip.compress(b"?"))
    with pytest.raises(ValueError, match=r"b\.tar is compressed, so it can only be read in order: pass index=False"):
        read_webdataset(tmp_path / "b.tar")


def test_a_damaged_header_says_where(tmp_path):
    path = packed(tmp_path / "a.tar", ("a.txt", b"x"), ("b.txt", b"y"))
    whole = bytearray(Path(path).read_bytes())
    whole[2 * BLOCK_SIZE + 3] ^= 1
    Path(path).write_bytes(whole)
    refusals(path, "the header at byte 1024 has a wrong checksum")


def member(name, kind, **fields):
    about = tarfile.TarInfo(name)
    about.type = kind
    for field, value in fields.items():
        setattr(about, field, value)
    return about


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "holds a symbolic link, 'b.txt' at byte 1024"),
        (tarfile.LNKTYPE, "holds a hard link"),
        (tarfile.CHRTYPE, "holds a device"),
        (tarfile.BLKTYPE, "holds a device"),
        (tarfile.FIFOTYPE, "holds a pipe"),
        (tarfile.GNUTYPE_SPARSE, "holds a sparse file"),
        (b"?", "unknown kind"),
    ],
)
def test_what_is_no_regular_file_is_refused(tmp_path, kind, words):
    refusals(packed(tmp_path / "a.tar", ("a.txt", b"x"), member("b.txt", kind, linkname="/etc/passwd")), words)


@pytest.mark.parametrize(
    "name", ["../a.txt", "/etc/a.txt", "a/../../b.txt", "a/..", "..\\a.txt", "C:\\a.txt", "\\\\server\\a.txt"]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    refusals(packed(tmp_path / "a.tar", (name, b"x")), "a file whose name leads out of the folder")


@pytest.mark.parametrize("name", ["a..b/c.txt", "...a/c.txt", "./c.txt", "ab:/c.txt"])
def test_names_that_only_look_like_it_are_read(tmp_path, name):
    assert texts(both(packed(tmp_path / "a.tar", (name, b"x")))) == [(name[:-4], "x")]


@pytest.mark.parametrize("size", [10**9, 8**11 - 1, 2**62, 256**10])
def test_absurd_sizes_set_no_memory_aside(tmp_path, size):
    about = member("a.bin", tarfile.REGTYPE, size=size)
    if size < 256**10:
        header = about.tobuf(tarfile.GNU_FORMAT)
    else:
        header = bytearray(member("a.bin", tarfile.REGTYPE, size=2**40).tobuf(tarfile.GNU_FORMAT))
        header[125:136] = size.to_bytes(11, "big")
        header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    (tmp_path / "a.tar").write_bytes(bytes(header) + b"little" * 100)
    refusals(tmp_path / "a.tar", f"it ends within 'a.bin', whose {size} bytes begin at byte 512")


@pytest.mark.parametrize(
    ("field", "words"),
    [(b"\xff" * 12, "is said to have"), (b"-0000000001\0", "is said to have"), (b"7x000000000\0", "is said to have")],
)
def test_sizes_that_are_no_sizes_are_refused(tmp_path, field, words):
    header = bytearray(member("a.bin", tarfile.REGTYPE).tobuf())
    header[124:136] = field
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    refusals(tmp_path / "a.tar", words)


@pytest.mark.parametrize(
    "records",
    [b"9999 path=x\n", b"x path=x\n", b"12 path=abcd", b"6 path\n", b"20 size=-99999999999\n", b"10 size=9e\n"],
)
def test_extended_headers_that_make_no_sense_are_refused(tmp_path, records):
    extended = member("pax", tarfile.XHDTYPE, size=len(records)).tobuf() + records.ljust(BLOCK_SIZE, b"\0")
    (tmp_path / "a.tar").write_bytes(extended + member("a.txt", tarfile.REGTYPE).tobuf() + bytes(1024))
    refusals(tmp_path / "a.tar", "is damaged")


def test_an_absurdly_long_name_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(
        member("@", tarfile.GNUTYPE_LONGNAME, size=2**33 - 1).tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    )
    refusals(tmp_path / "a.tar", "the extended header at byte 0 is said to have 8589934591 bytes")


def test_one_extension_twice_in_a_sample_is_refused(tmp_path):
    refusals(
        packed(tmp_path / "a.tar", ("a.txt", b"x"), ("a.TXT", b"y")), r"holds two files a\.txt one after the other"
    )


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize("extension", ["pyd", "pkl", "pickle", "pyd.gz"])
def test_nothing_is_unpickled_unless_it_is_allowed(tmp_path, extension):
    data = pickle.dumps(Bomb())
    path = packed(
        tmp_path / "a.tar",
        (f"a.{extension}", gzip.compress(data) if extension.endswith("gz") else data),
        ("b.cls", b"7"),
    )
    refusals(
        path, r"a\.py?[dk]\S* cannot be read as \S+: it is a pickle|a\.pickle cannot be read as pickle: it is a pickle"
    )
    assert both(path, decode=False)[1]["cls"] == b"7"


def test_pickles_are_read_where_it_is_allowed(tmp_path):
    path = write(tmp_path, {"pyd": {1, 2}, "cls": 3})
    assert both(path, allow_pickle=True)[0]["pyd"] == {1, 2}


@pytest.mark.parametrize("extension", ["npy", "npz"])
def test_arrays_of_objects_are_not_unpickled(tmp_path, extension):
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], object)) if extension == "npy" else np.savez(file, np.array([Bomb()], object))
    refusals(
        packed(tmp_path / "a.tar", (f"a.{extension}", file.getvalue())), f"a.{extension} cannot be read as {extension}"
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b"\xff\xfe"),
        ("a.cls", b"seven"),
        ("a.cls", b"9" * 10_000),
        ("a.json", b"{"),
        ("a.json", b"[" * 100_000),
        ("a.npy", b""),
        (
            "a.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 17 + b",), }\n",
        ),
        ("a.npz", b"PK\x03\x04?"),
        ("a.json.gz", b"no gzip"),
    ],
)
def test_a_component_that_is_not_what_it_is_called_says_which(tmp_path, name, data):
    refusals(
        packed(tmp_path / "a.tar", (name, data)),
        rf"a\.tar: {name} cannot be read as {name[2:]}: .*decode=False gives its bytes",
    )


def test_an_error_of_ones_own_decoder_keeps_its_type(tmp_path):
    path = write(tmp_path, {"cls": 3})
    with pytest.raises(ZeroDivisionError) as caught:
        list(read_webdataset(path, decode={"cls": lambda data: 1 / 0}))
    assert any("decode['cls']" in note and "000000000.cls" in note for note in caught.value.__notes__)


@pytest.mark.filterwarnings("ignore:.*damaged.tar leaves out:UserWarning", "ignore:.*damaged.tar has:UserWarning")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_over_or_refused_in_words(tmp_path, data):
    form = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    path = packed(
        tmp_path / "whole.tar", *((name, b"7") for name in ("a.txt", "a.cls", "n" * 150 + ".txt", "b.json")), form=form
    )
    whole = bytearray(Path(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 9 * BLOCK_SIZE - 1))
        whole[at] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # a header that claims to be whole
            start = at // BLOCK_SIZE * BLOCK_SIZE
            header = whole[start : start + BLOCK_SIZE]
            whole[start + 148 : start + 156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for index in (None, False):
        try:
            list(read_webdataset(damaged, index=index))
        except ValueError as error:
            assert "damaged.tar" in str(error)  # noqa: PT017


# Writing


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in ("a.tar.gz", "b.tar.gz"):
        write_webdataset(tmp_path / name, SAMPLES)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_shards_have_at_most_so_many_bytes(tmp_path):
    write_webdataset(
        tmp_path / "{shard}.tar",
        [{"bin": bytes(size)} for size in (3000, 3000, 9000, 100, 100)],
        shard_bytes=8 * BLOCK_SIZE,
    )
    sizes = [[len(sample["bin"]) for sample in read_webdataset(path)] for path in ff.files(str(tmp_path / "*.tar"))]
    assert sizes == [[3000], [3000], [9000], [100, 100]]


def test_a_flow_of_nothing_gives_an_empty_file(tmp_path):
    write_webdataset(tmp_path / "{shard}.tar", [])
    assert os.listdir(tmp_path) == ["0.tar"]
    assert list(read_webdataset(tmp_path / "0.tar")) == list(read_webdataset(tmp_path / "0.tar", index=False)) == []


def test_existing_files_are_replaced_only_when_told(tmp_path):
    write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=1, save_index=True)
    (tmp_path / "x.tar").write_bytes(b"another's")
    os.remove(tmp_path / "0.tar")
    with pytest.raises(FileExistsError, match=r"write_webdataset\(\): '.*\d.tar' exists; pass overwrite=True"):
        write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=4)
    write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=4, overwrite=True)
    assert {"0.tar", "1.tar", "x.tar"} == {name for name in os.listdir(tmp_path) if name.endswith(".tar")}
    assert same(list(read_webdataset(tmp_path / "{0..1}.tar", images=True)), SAMPLES)


def test_a_failure_leaves_nothing_behind(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"old")

    def fail(number):
        if number == 7:
            raise KeyError("mine")
        return {"cls": number}

    with pytest.raises(KeyError, match="mine"):
        write_webdataset(
            tmp_path / "{shard}.tar", ff.map(fail, range(9)), shard_size=2, overwrite=True, save_index=True
        )
    assert os.listdir(tmp_path) == ["0.tar"]
    assert (tmp_path / "0.tar").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["0.tar", "2.tar", "4.tar"])
def test_shards_are_not_mixed_with_those_that_another_has_written_meanwhile(tmp_path, name):
    def samples():
        for number in range(9):
            yield {"cls": number}
        (tmp_path / name).write_bytes(b"theirs")

    with pytest.raises(FileExistsError, match=rf"{name}' exists; pass overwrite=True"):
        write_webdataset(tmp_path / "{shard}.tar", samples(), shard_size=2, save_index=True)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"theirs"


def test_shards_without_their_index_are_not_left(tmp_path, monkeypatch):
    def full(index, path):
        raise OSError("full")

    monkeypatch.setattr(tar_writing, "save_index", full)
    with pytest.raises(OSError, match="full"):
        write_webdataset(tmp_path / "{shard}.tar", SAMPLES, shard_size=2, save_index=True)
    assert os.listdir(tmp_path) == []


def test_arrays_may_have_any_name(tmp_path):
    arrays = {name: np.arange(3) for name in ("file", "save", "allow_pickle", "arr_0", "a/b")}
    write_webdataset(tmp_path / "a.tar", [{"npz": arrays}])
    assert same(read_webdataset(tmp_path / "a.tar")[0]["npz"], arrays)


@pytest.mark.parametrize(
    ("sample", "error", "words"),
    [
        ([1, 2], TypeError, r"datapoints must be dicts .*map\(lambda"),
        ({"cls": "x"}, TypeError, "'x' cannot be written as 'cls'; it has to be an integer"),
        ({"npy": [1]}, TypeError, "it has to be an array"),
        ({"npz": np.zeros(2)}, TypeError, "it has to be a dict of arrays"),
        ({"npy": np.array([None])}, TypeError, "would have to be pickled"),
        ({"txt": 1}, TypeError, "it has to be a string"),
        ({"json": {1, 2}}, TypeError, "cannot be written as 'json'"),
        ({"png": [1]}, TypeError, "it has to be an array"),
        ({"png": np.zeros((2, 2, 7), np.uint8)}, TypeError, "cannot be written as 'png'"),
        ({"dat": 1}, TypeError, "it has to be bytes"),
        ({"JPG": b""}, ValueError, "an extension is in lower case"),
        ({"a/b": b""}, ValueError, "must be a key and an extension"),
        ({7: b""}, TypeError, "must be extensions"),
        ({"__key__": "v1.0/a", "txt": "x", "cls": 1.5}, TypeError, "1.5 cannot be written as 'cls'"),
        ({"__key__": "a.b", "txt": "x"}, ValueError, "a key has no dot in its last part"),
        ({"__key__": "../a", "txt": "x"}, ValueError, "no '..'"),
        ({"__key__": "/a", "txt": "x"}, ValueError, "no slash in front"),
        ({"__key__": 7, "txt": "x"}, TypeError, "__key__ must be a string"),
        ({"__key__": "a"}, ValueError, "datapoint 'a' has no components"),
        ({"__key__": "before", "txt": "x"}, ValueError, "two datapoints of a file have the key 'before'"),
    ],
)
def test_samples_that_could_not_be_read_again_are_refused(tmp_path, sample, error, words):
    with pytest.raises(error, match=words):
        write_webdataset(tmp_path / "a.tar", [{"__key__": "before", "txt": "y"}, {"txt": "between"}, sample])
    assert os.listdir(tmp_path) == []
    write_webdataset(tmp_path / "{shard}.tar", [{"__key__": "a", "cls": 1}, {"__key__": "a", "cls": 2}], shard_size=1)
    assert [one["cls"] for one in both(tmp_path / "*.tar")] == [1, 2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("a.tar", {"shard_size": 3}), "pattern must say where the number of the shard goes"),
        (("{}.tar", {}), "braces stand only for {shard}"),
        (("{shard:q}.tar", {}), "braces stand only for {shard}"),
        (("{shard}{what}.tar", {}), "braces stand only for {shard}"),
        (("a.tar.bz2", {}), "must end with .tar or .tar.gz"),
        (("a.tar.gz", {"save_index": True}), "save_index=True needs local files that are not compressed"),
        (("{shard}.tar", {"shard_size": 0}), "shard_size must be a positive integer or None, got 0"),
        (("", {}), "pattern must be a path"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, given, words):
    pattern, options = given
    with pytest.raises(ValueError, match=words):
        write_webdataset(pattern and str(tmp_path / pattern), SAMPLES, **options)


def test_numbers_of_shards_need_not_come_last(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    write_webdataset(str(tmp_path / "{shard}" / "part-{shard:02d}.tar"), [{"cls": 0}, {"cls": 1}], shard_size=1)
    assert [sample["cls"] for sample in read_webdataset(tmp_path / "*" / "part-*.tar")] == [0, 1]


@pytest.mark.parametrize("extension", [e for e in IMAGES if e not in ("jpg", "jpeg", "webp")])
def test_pictures_without_loss_come_back(tmp_path, extension):
    image = IMAGE if extension not in ("pgm", "pbm") else np.full((4, 8), 255, np.uint8)
    path = write(tmp_path, {extension: image})
    found = both(path, images=True)[0][extension]
    assert same(found if image.ndim == 3 else found[..., 0], image)


@pytest.mark.long
@pytest.mark.timeout(180)
def test_processes_share_out_the_shards_of_a_stream(tmp_path):
    def with_process(sample):
        return sample["cls"], os.getpid()

    write_webdataset(tmp_path / "{shard}.tar.gz", [{"cls": number} for number in range(8)], shard_size=2)
    flow = ff.map(with_process, read_webdataset(tmp_path / "*.tar.gz"))
    found = list(ff.prefetch(2, flow, processes=2))
    assert [number for number, _ in found] == list(range(8))
    assert os.getpid() not in {process for _, process in found}
