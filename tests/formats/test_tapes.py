"""Tar files of many programs: each is read as what was put in, or named for what it is;
nothing in one is dropped in silence."""

import bz2
import functools
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import pytest

from flowfn.formats.tar import index as shards
from flowfn.formats.tar import reading as tar
from flowfn.formats.tar.headers import BLOCK_SIZE
from flowfn.formats.tar.reading import read_webdataset
from flowfn.formats.tar.tapes import END_MARK
from flowfn.formats.tar.writing import write_webdataset

LONG = "/".join(["x" * 90] * 3) + ".txt"
FILES = {"a.cls": b"7", "a.txt": b"one", "d/b.bin": bytes(range(256)) * 20, "d/b.txt": b"", "d/ümläut ☃.txt": b"three"}
BYTES = os.fsdecode(b"d/\xe9.txt")
"""A name that is no UTF-8."""


def about(name, size=0):
    found = tarfile.TarInfo(name)
    found.size = size
    return found


def member(name, data=b"", form=tarfile.PAX_FORMAT):
    """A member as it stands in a tar file."""
    return about(name, len(data)).tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK_SIZE)


def checked(header):
    """A header with the checksum that it should have."""
    header = bytearray(header)
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 256)
    return bytes(header)


def records(kind=b"x", **fields):
    """An extended header of such records; two underscores stand for a dot."""
    told = b""
    for key, value in fields.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        told += str(len(line) + len(str(len(line) + 2))).encode() + line
    whole = member("PaxHeader", told, tarfile.USTAR_FORMAT)
    return checked(whole[:156] + kind + whole[157:BLOCK_SIZE]) + whole[BLOCK_SIZE:]


def sizeless(whole):
    """A member whose own header says that it has no bytes."""
    return checked(whole[:124] + b"00000000000\0" + whole[136:BLOCK_SIZE]) + whole[BLOCK_SIZE:]


def written(path, *pieces, end=bytes(2 * BLOCK_SIZE)):
    path.write_bytes(b"".join(pieces) + end)
    return path


def both(path, **options):
    """What is read by index, which is also what is read as a stream; with the same warnings."""
    found = []
    for index in (True, False):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found.append((list(read_webdataset(path, index=index, **options)), [str(one.message) for one in said]))
    assert found[0] == found[1]
    return found[0]


def streamed(path):
    return {
        f"{sample['__key__']}.{key}": sample[key]
        for sample in read_webdataset(path, decode=False)
        for key in sample
        if key[0] != "_"
    }


def files(path):
    """The files in a tar file, by their names."""
    samples, said = both(path, decode=False)
    assert said == []
    return {
        f"{sample['__key__']}.{extension}": data
        for sample in samples
        for extension, data in sample.items()
        if extension != "__key__"
    }


def refused(path, words, ways=(True, False)):
    for index in ways:
        with pytest.raises(ValueError, match=words) as caught:
            list(read_webdataset(path, index=index))
        assert str(path) in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    """A folder with files in it, and what is in them."""
    names = {**FILES, LONG: b"long"} | ({BYTES: b"latin"} if sys.platform == "linux" else {})
    for name, data in names.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "in", names


# Programs


def run(*command, check=True):
    return subprocess.run([*map(str, command)], check=check, timeout=60, capture_output=True)


GNU = [
    *(("tar", f"--format={form}") for form in ("gnu", "oldgnu", "pax", "ustar", "v7")),
    *(("tar", f"--format={form}", "--label=a label") for form in ("gnu", "pax")),
    *(("tar", f"--format={form}", "--listed-incremental=STATE") for form in ("gnu", "pax")),
    ("tar", "--format=pax", "--pax-option=comment=for all,globexthdr.name=x"),
    ("tar", "--blocking-factor=1"),
    ("tar", "--blocking-factor=40"),
]
BSD = [("bsdtar", f"--format={form}") for form in ("pax", "gnutar", "ustar", "v7tar") if shutil.which("bsdtar")]


@pytest.mark.parametrize("options", GNU + BSD, ids=" ".join)
def test_what_programs_pack_is_read(options, folder, tmp_path):
    inside, names = folder
    if options[-1].endswith(("ustar", "v7", "v7tar")):  # which have no room for it
        shutil.rmtree(inside / LONG.partition("/")[0])
        del names[LONG]
    words = [option.replace("STATE", str(tmp_path / "state")) for option in options[1:]]
    sort = ["--sort=name"] if options[0] == "tar" else []
    order = sorted(os.listdir(inside)) if sort else sorted(names)
    run(options[0], "-c", "-f", tmp_path / "a.tar", "-C", inside, *words, *sort, *order)
    assert files(tmp_path / "a.tar") == names


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_packs_is_read(form, tmp_path):
    names = {
        name: data
        for name, data in {**FILES, BYTES: b"latin", LONG: b"long"}.items()
        if form != tarfile.USTAR_FORMAT or name != LONG
    }
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name, data in names.items():
            archive.addfile(about(name, len(data)), io.BytesIO(data))
    assert files(tmp_path / "a.tar") == names


@pytest.mark.parametrize("length", [10, 130, 131])
def test_prefixes_of_star_end_where_its_times_begin(length, tmp_path):
    header = bytearray(member("a.txt", b"x", tarfile.USTAR_FORMAT)[:BLOCK_SIZE])
    header[345 : 345 + length] = b"p" * length
    header[476:500], header[508:512] = b"14000000000\0" * 2, b"tar\0"
    path = written(tmp_path / "a.tar", checked(header), b"x".ljust(BLOCK_SIZE, b"\0"))
    assert files(path) == {"p" * length + "/a.txt": b"x"}


def test_sizes_beyond_eight_gigabytes_are_read(tmp_path):
    """Told in base 256, and in an extended header; the file is a hole, but for its headers."""
    size = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        head = about("a.bin", size).tobuf(form)
        with open(tmp_path / "a.tar", "wb") as file:
            file.write(head)
            file.seek(len(head) + size)
            file.write(member("b.cls", b"3") + bytes(2 * BLOCK_SIZE))
        flow = read_webdataset(tmp_path / "a.tar")
        assert (len(flow), flow[1]) == (2, {"__key__": "b", "cls": 3})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"size": 600}, "a.txt"),
        ({"path": "d/é.txt"}, "d/é.txt"),
        ({"path": "", "size": "", "mtime": "1.5"}, "a.txt"),
        ({"hdrcharset": "BINARY", "size": 600, "path": "q.txt"}, "q.txt"),
    ],
)
def test_extended_headers_tell_the_name_and_the_size(fields, name, tmp_path):
    own = member("a.txt", b"x" * 600)
    for whole in (own, sizeless(own)) if fields.get("size") else (own,):
        path = written(tmp_path / "a.tar", records(**fields), whole, member("b.txt", b"y"))
        assert files(path) == {name: b"x" * 600, "b.txt": b"y"}


def test_what_is_said_of_all_members_holds_until_one_says_otherwise(tmp_path):
    for_all, own = records(b"g", path="all.txt", comment="by hand"), member("own.txt", b"x")
    assert files(written(tmp_path / "a.tar", for_all, own)) == {"all.txt": b"x"}
    assert files(written(tmp_path / "a.tar", for_all, records(path=""), own)) == {"own.txt": b"x"}
    assert files(written(tmp_path / "a.tar", for_all, records(path="one.txt"), own, records(b"g", path=""), own)) == {
        "one.txt": b"x",
        "own.txt": b"x",
    }


# What is whole, and not taken


@pytest.mark.parametrize(
    "options",
    [
        ("tar", "-S", "--format=gnu"),
        *(("tar", "-S", "--format=pax", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")),
        *(("bsdtar", "--format=pax") for _ in range(1) if shutil.which("bsdtar")),
    ],
    ids=" ".join,
)
def test_a_sparse_file_is_named_for_what_it_is(options, tmp_path):
    with open(tmp_path / "hole.bin", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    run(options[0], "-c", "-f", tmp_path / "a.tar", "-C", tmp_path, *options[1:], "hole.bin")
    refused(
        tmp_path / "a.tar", r"holds a sparse file, 'hole\.bin' at byte \d+, .*pack it anew \(without -S or --sparse"
    )
    if options[0] == "bsdtar":
        run("bsdtar", "-c", "--no-read-sparse", "-f", tmp_path / "b.tar", "-C", tmp_path, "hole.bin")
        assert files(tmp_path / "b.tar") == {"hole.bin": bytes(1 << 20) + b"end"}


@pytest.mark.parametrize("key", ["SCHILY__realsize", "SUN__holesdata", "GNU__sparse__realsize"])
def test_records_tell_of_sparse_files(key, tmp_path):
    refused(written(tmp_path / "a.tar", records(**{key: "100"}), member("a.txt", b"x")), "holds a sparse file, 'a.txt'")


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_volumes_are_named_for_what_they_are(form, tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(30_000))
    volumes = [tmp_path / f"{number}.tar" for number in range(3)]
    run(
        "tar",
        "-c",
        f"--format={form}",
        "-M",
        "-L",
        20,
        *(f"--file={path}" for path in volumes),
        "-C",
        tmp_path,
        "a.bin",
        check=False,
    )
    refused(volumes[0], r"it ends within 'a\.bin', .* if it is the first of several volumes, pack them as one")
    refused(
        volumes[1],
        r"holds a part of a file that begins in another volume, '.*a\.bin.*pack it anew \(without --multi-volume\)",
    )


OTHERS = {
    "lz4": b"\x04\x22\x4d\x18",
    "lzip": b"LZIP\x01",
    "lzop": b"\x89LZO\0",
    "compress": b"\x1f\x9d\x90",
    "a zip file": b"PK\x03\x04",
    "a 7-Zip archive": b"7z\xbc\xaf\x27\x1c",
    "a RAR archive": b"Rar!\x1a\x07",
    "a cpio archive": b"070701",
    "an ar archive": b"!<arch>\n",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("size", [0, 2000])
def test_what_is_no_tar_file_is_named_for_what_it_is(what, size, tmp_path):
    refused(written(tmp_path / "a.tar", OTHERS[what] + b"?" * size, end=b""), f"a.tar is no tar file but .*{what}")
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(OTHERS[what] + b"?" * size))
    refused(tmp_path / "b.tar.gz", f"is no tar file but .*{what}", ways=(None,))


@pytest.mark.parametrize(
    "name", ["BZh9.txt", "PK\x03\x04.txt", "LZIP.txt", "070701.txt", "Rar!.txt", "(\u00b5.txt", "]"]
)
def test_a_tar_file_may_begin_with_any_name(name, tmp_path):
    name = name if "." in name else name + "/x.txt"
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert files(written(tmp_path / "a.tar", member(name, b"x", form))) == {name: b"x"}


# What is compressed


def zstd(data):
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(data)


PACKING = {
    "gz": gzip.compress,
    "tbz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": functools.partial(lzma.compress, format=lzma.FORMAT_ALONE),
    "tzst": zstd,
}


@pytest.mark.parametrize("ending", PACKING)
def test_what_is_compressed_is_read_whole_or_refused(ending, tmp_path):
    pack = PACKING[ending]
    whole = b"".join(member(name, data) for name, data in FILES.items()) + bytes(2 * BLOCK_SIZE)
    path = tmp_path / f"a.tar.{ending}"
    for parts in ([whole], [whole[:700], whole[700:]], [whole, b""]):
        for zeros in (b"", bytes(512)):
            path.write_bytes(b"".join(pack(part) + zeros for part in parts))
            assert streamed(path) == FILES
    assert not read_webdataset(path).seekable
    for broken in (
        pack(whole) + b"more",
        pack(whole)[:-3],
        pack(whole[:700]) + pack(whole[700:])[:-5],
        pack(whole[: len(whole) // 2]),
    ):
        path.write_bytes(broken)
        refused(path, r"cut off", ways=(None,))
    path.write_bytes(pack(whole) + pack(whole))
    refused(
        path,
        rf"goes on at byte {len(whole)}, behind the zeros at byte {len(whole) - 2 * BLOCK_SIZE} that mark its end",
        ways=(None,),
    )


def test_zstandard_is_asked_for_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(
        ImportError, match=r'read_webdataset\(\) needs zstandard, which is not installed: pip install "flowfn\[zstd\]"'
    ):
        list(read_webdataset(tmp_path / "a.tar.zst"))


# What stands behind the end


@pytest.mark.parametrize("zeros", [1, 2, 3, 20, 40])
def test_zeros_up_to_a_record_mark_an_end(zeros, tmp_path):
    assert files(written(tmp_path / "a.tar", member("a.txt", b"x"), end=bytes(zeros * BLOCK_SIZE))) == {"a.txt": b"x"}
    assert files(written(tmp_path / "a.tar", end=bytes(zeros * BLOCK_SIZE))) == {}


@pytest.mark.parametrize("zeros", [BLOCK_SIZE, 2 * BLOCK_SIZE, END_MARK, END_MARK + 7])
@pytest.mark.parametrize("more", [b"\n", b"text behind it", member("b.txt", b"y")])
def test_what_stands_behind_the_end_is_refused(zeros, more, tmp_path):
    path = written(tmp_path / "a.tar", member("a.txt", b"x"), end=bytes(zeros) + more)
    refused(
        path,
        rf"a\.tar goes on at byte {2 * BLOCK_SIZE + zeros}, behind the zeros at byte {2 * BLOCK_SIZE} that mark its end",
    )


@pytest.mark.parametrize("zeros", [END_MARK + BLOCK_SIZE, 61_440, 20 << 20])
def test_more_zeros_than_mark_an_end_are_warned_of(zeros, tmp_path):
    path = written(tmp_path / "a.tar", member("a.txt", b"x"), end=bytes(zeros))
    samples, said = both(path)
    assert samples == [{"__key__": "a", "txt": "x"}]
    assert [one[: one.index(", where")] for one in said] == [
        f"read_webdataset(): {path} has {zeros} zeros from byte 1024 on"
    ]


def test_what_tar_adds_to_a_file_is_read_and_what_cat_adds_is_refused(folder, tmp_path):
    inside, _ = folder
    for name, packed in (("a", "a.cls"), ("b", "d/b.bin"), ("c", "d/b.txt")):
        run("tar", "-c", "-f", tmp_path / f"{name}.tar", "-C", inside, packed)
    run("tar", "-A", "-f", tmp_path / "a.tar", tmp_path / "b.tar")
    run("tar", "-r", "-f", tmp_path / "a.tar", "-C", inside, "d/b.txt")
    assert files(tmp_path / "a.tar") == {name: FILES[name] for name in ("a.cls", "d/b.bin", "d/b.txt")}
    joined = (tmp_path / "b.tar").read_bytes() + (tmp_path / "c.tar").read_bytes()
    refused(
        written(tmp_path / "d.tar", joined, end=b""),
        r"goes on at byte 10240, behind the zeros at byte 5632 .*tar --concatenate",
    )


# Samples that are not whole


def torn(path, *names):
    return written(path, *(member(name, b"7") for name in names))


@pytest.mark.parametrize(
    ("names", "key", "first", "second"),
    [
        (("1.cls", "2.cls", "1.txt", "2.txt"), "1", 512, 2560),
        (("a/1.cls", "b/1.cls", "a/1.cls"), "a/1", 512, 2560),
        (("1.cls", "2.cls", "2.txt", "1.TXT"), "1", 512, 3584),
        (("1.cls", "README", "2.cls", ".x.cls", "1.cls"), "1", 512, 4608),
    ],
)
@pytest.mark.filterwarnings("ignore:.*leaves out:UserWarning")
def test_files_of_a_sample_that_are_apart_are_refused(names, key, first, second, tmp_path):
    refused(
        torn(tmp_path / "a.tar", *names),
        f"a.tar holds files of the sample '{key}' in two places, at byte {first} and at byte {second} .*tar "
        "--sort=name",
    )


def test_files_of_a_sample_may_have_others_between_them_that_are_in_none(tmp_path):
    with pytest.warns(UserWarning, match=r"leaves out '\._1\.txt' at byte 1536"):
        (sample,) = read_webdataset(torn(tmp_path / "a.tar", "1.cls", "._1.txt", "__about__/x.txt", "1.txt"))
    assert sample == {"__key__": "1", "cls": 7, "txt": "7"}


@pytest.mark.parametrize(
    ("names", "key"), [(("1.cls", "2.cls", "2.txt"), "1"), (("1.cls", "1.txt", "2.cls"), "2"), (("a/1.cls",), "a/1")]
)
def test_a_sample_without_a_component_that_is_named_is_refused(names, key, tmp_path):
    path = torn(tmp_path / "a.tar", *names)
    for index in (True, False):
        with pytest.raises(
            ValueError, match=rf"a\.tar has no 'txt' for the sample '{key}', whose 'cls' begin at byte \d+; leave comp"
        ):
            list(read_webdataset(path, components=["cls", "TXT"], index=index))
    assert all(sample["cls"] == 7 for sample in both(path, components=["cls"])[0])


def test_a_stream_of_torn_samples_is_refused_where_components_are_named(tmp_path):
    path = torn(tmp_path / "a.tar", "1.cls", "2.cls", "1.txt", "2.txt")
    with pytest.raises(
        ValueError, match=r"has no 'txt' for the sample '1', .*or pack the file anew if it stands elsewhere"
    ):
        list(read_webdataset(path, components=["cls", "txt"], index=False))


def test_a_stream_remembers_so_many_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "REMEMBERED_KEYS", 10)
    for between, found in ((9, True), (10, True), (50, False)):
        path = torn(tmp_path / f"{between}.tar", "a.cls", *(f"{number}.cls" for number in range(between)), "a.txt")
        refused(path, "in two places", ways=(True, False) if found else (True,))
        assert found or len(list(read_webdataset(path, index=False))) == between + 2


def test_the_same_keys_in_two_files_are_two_samples(tmp_path):
    for name in ("a", "b"):
        torn(tmp_path / f"{name}.tar", "1.cls")
    assert [sample["cls"] for sample in both(tmp_path / "*.tar")[0]] == [7, 7]


# Files that are in no sample


@pytest.mark.parametrize("name", [".x.jpg", "a/.x.jpg", "a/._x.jpg", ".DS_Store", "README", "a.d/README", "ends."])
def test_a_file_that_is_in_no_sample_is_told_of(name, tmp_path):
    path = torn(tmp_path / "a.tar", name, "b.cls", "c/.y", "c/z.cls")
    samples, said = both(path)
    assert [sample["__key__"] for sample in samples] == ["b", "c/z"]
    told = (
        f"read_webdataset(): {path} leaves out {name!r} at byte 512, and whatever else begins with a dot or has no "
        "extension"
    )
    assert said == [told]


def test_what_is_odd_is_told_again_by_an_index_that_was_saved(tmp_path, monkeypatch):
    path = written(tmp_path / "a.tar", member("README", b"x"), member("b.cls", b"7"), end=bytes(100 * BLOCK_SIZE))
    said = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            flow = read_webdataset(path, save_index=True)
        said.append([str(one.message) for one in caught])
        assert list(flow) == [{"__key__": "b", "cls": 7}]
        monkeypatch.setattr(shards, "scanned", lambda *given: pytest.fail("it was looked for again"))
    assert said[0] == said[1]
    assert ["leaves out" in said[0][0], "zeros" in said[0][1]] == [True, True]


def test_remarks_about_many_files_are_few(tmp_path):
    for number in range(30):
        torn(tmp_path / f"{number}.tar", "README", "a.cls")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_webdataset(tmp_path / "*.tar")
    assert len(caught) == tar.SAID + 1
    assert "there are 22 more such remarks, the last of them: " in str(caught[-1].message)


def test_what_is_written_here_has_no_remarks(tmp_path):
    for bytes_of in (1, 5000, 10_000):
        write_webdataset(
            tmp_path / "a.tar", [{"__key__": f"k{n}", "bin": b"x" * bytes_of} for n in range(5)], overwrite=True
        )
        assert len(files(Path(tmp_path / "a.tar"))) == 5
