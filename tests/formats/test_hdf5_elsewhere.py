"""HDF5 files that need other files, filters or their writers: what is not there is named, and never filled in."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import flowfn as ff
from flowfn.formats.arrays.hdf5_reading import read_hdf5, write_hdf5

LENGTH = 3
"""Rows of each source."""


def part(folder, number):
    """A source: its rows are numbers that no fill value is."""
    with h5py.File(folder / f"part{number}.h5", "w") as file:
        file["x"] = rows(number)


def rows(number):
    return np.arange(1, LENGTH + 1) + 10 * number


def whole(folder, name="whole.h5", sources=("part0.h5", "part1.h5"), inside="x", told=LENGTH):
    """A virtual dataset of sources, one after the other."""
    layout = h5py.VirtualLayout((LENGTH * len(sources),), "i8")
    for number, source in enumerate(sources):
        layout[LENGTH * number : LENGTH * (number + 1)] = h5py.VirtualSource(source, inside, shape=(told,))[:LENGTH]
    with h5py.File(folder / name, "w") as file:
        file.create_virtual_dataset("x", layout, fillvalue=-1)
    return folder / name


def numbered(folder, pattern=b"part%b.h5", inside=b"x"):
    """A virtual dataset of as many sources as there are."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    mapped = h5py.h5s.create_simple((LENGTH,), (h5py.h5s.UNLIMITED,))
    mapped.select_hyperslab((0,), (h5py.h5s.UNLIMITED,), (LENGTH,), (LENGTH,))
    source = h5py.h5s.create_simple((LENGTH,))
    source.select_all()
    how.set_virtual(mapped, pattern, inside, source)
    with h5py.File(folder / "numbered.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT64, mapped, how)
    return folder / "numbered.h5"


def endless(folder):
    """A virtual dataset that is as long as its source is."""
    with h5py.File(folder / "part0.h5", "w") as file:
        file.create_dataset("x", data=rows(0), maxshape=(None,), chunks=(2,))
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    spaces = [h5py.h5s.create_simple((LENGTH,), (h5py.h5s.UNLIMITED,)) for _ in range(2)]
    for space in spaces:
        space.select_hyperslab((0,), (1,), (1,), (h5py.h5s.UNLIMITED,))
    how.set_virtual(spaces[0], b"part0.h5", b"x", spaces[1])
    with h5py.File(folder / "endless.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT64, spaces[0], how)
    return folder / "endless.h5"


def kept_outside(folder):
    """A dataset whose elements lie in another file."""
    rows(0).tofile(folder / "part0.h5")
    with h5py.File(folder / "outside.h5", "w") as file:
        file.create_dataset("x", (LENGTH,), "i8", external=[(str(folder / "part0.h5"), 0, h5py.h5f.UNLIMITED)])
    return folder / "outside.h5"


def linked(folder):
    with h5py.File(folder / "linked.h5", "w") as file:
        file["x"] = h5py.ExternalLink("part0.h5", "/x")
    return folder / "linked.h5"


def nested(folder):
    """A virtual dataset of virtual datasets."""
    whole(folder, "inner.h5", ("part0.h5",))
    return whole(folder, "outer.h5", ("inner.h5",))


MADE = {
    "virtual": (whole, (0, 1)),
    "virtual, in a folder": (
        lambda folder: whole(folder / "sub", sources=(f"{folder}/part0.h5", "../part1.h5")),
        (0, 1),
    ),
    "virtual of virtual": (nested, (0,)),
    "virtual by a pattern": (numbered, (0, 1)),
    "virtual without end": (endless, (0,)),
    "external storage": (kept_outside, (0,)),
    "external link": (linked, (0,)),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for number in range(2):
        part(tmp_path, number)
    return tmp_path


@pytest.mark.parametrize("name", MADE)
def test_what_lies_in_other_files_is_read(name, folder):
    make, parts = MADE[name]
    flow = read_hdf5(make(folder), "x")
    there = np.concatenate([rows(number) for number in parts]).tolist()
    assert list(flow) == there
    assert [flow[index] for index in range(len(flow))] == there
    assert list(ff.pipe(flow, ff.subset([2, 0]))) == [there[2], there[0]]


@pytest.mark.parametrize("how", ["gone", "empty", "other"])
@pytest.mark.parametrize("name", MADE)
def test_a_file_that_is_gone_or_of_no_use_is_named(name, how, folder):
    make, _ = MADE[name]
    path = make(folder)
    if how == "gone":
        os.rename(folder / "part0.h5", folder / "elsewhere.h5")
    else:
        (folder / "part0.h5").write_bytes(b"" if how == "empty" else b"other")
    with pytest.raises(
        ValueError, match=r"^read_hdf5\(\): 'x' in .* (is made of .*|is kept in .*|is a link to .*)part0\.h5"
    ):
        read_hdf5(path, "x")
    if name == "external link":
        with pytest.raises(ValueError, match=r"part0\.h5"):
            read_hdf5(path)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"inside": "y"}, "there is no such dataset in"),
        ({"told": 9}, None),
        ({"told": LENGTH}, r"has the shape \(2,\)"),
    ],
    ids=["another name", "a part of what was longer", "a source that became shorter"],
)
def test_a_source_without_what_is_wanted_of_it_is_named(wanted, message, folder):
    path = whole(folder, **wanted)
    os.remove(folder / "part1.h5")
    with h5py.File(folder / "part1.h5", "w") as file:
        file["x"] = rows(1)[:2]
    with pytest.raises(ValueError, match=rf"'x' in .* is made of .* of part.\.h5.*{message or 'at least'}"):
        read_hdf5(path, "x")


def test_what_no_source_stands_for_is_the_fill_value(folder):
    layout = h5py.VirtualLayout((2 * LENGTH,), "i8")
    layout[:LENGTH] = h5py.VirtualSource("part0.h5", "x", shape=(LENGTH,))
    with h5py.File(folder / "half.h5", "w") as file:
        file.create_virtual_dataset("x", layout, fillvalue=-1)
    assert list(read_hdf5(folder / "half.h5", "x")) == [*rows(0), *[-1] * LENGTH]


def test_a_gap_among_numbered_sources_is_named_and_none_behind_them(folder):
    part(folder, 2)
    path = numbered(folder)
    assert len(read_hdf5(path, "x")) == 3 * LENGTH
    os.remove(folder / "part1.h5")
    with pytest.raises(ValueError, match=r"part1\.h5, which is not there"):
        read_hdf5(path, "x")
    os.remove(folder / "part2.h5")
    assert list(read_hdf5(path, "x")) == rows(0).tolist()


def test_numbers_may_stand_in_the_names_of_datasets(tmp_path):
    with h5py.File(tmp_path / "part0.h5", "w") as file:
        for number in (0, 1, 3):
            file[f"sub/x{number}"] = rows(number)
    with pytest.raises(ValueError, match=r"is made of 'sub/x2' of part0\.h5, and there is no such dataset"):
        read_hdf5(numbered(tmp_path, b"part0.h5", b"sub/x%b"), "x")
    with h5py.File(tmp_path / "part0.h5", "a") as file:
        file["sub/x2"] = rows(2)
    assert list(read_hdf5(tmp_path / "numbered.h5", "x")) == [x for number in range(4) for x in rows(number)]


def test_sources_in_the_same_file_are_read_and_missed(tmp_path):
    for name in ("src", "gone"):
        layout = h5py.VirtualLayout((LENGTH,), "i8")
        layout[:] = h5py.VirtualSource(".", name, shape=(LENGTH,))
        with h5py.File(tmp_path / f"of_{name}.h5", "w") as file:
            file["src"] = rows(0)
            file.create_virtual_dataset("x", layout)
    assert list(read_hdf5(tmp_path / "of_src.h5", "x")) == rows(0).tolist()
    with pytest.raises(
        ValueError, match=r"'x' in .*of_gone\.h5 is made of '/?gone' of \., and there is no such dataset"
    ):
        read_hdf5(tmp_path / "of_gone.h5", "x")


def test_more_sources_than_can_be_open_are_an_error(tmp_path):
    for number in range(60):
        part(tmp_path, number)
    path = whole(tmp_path, sources=[f"part{number}.h5" for number in range(60)])
    code = (
        "import resource, sys; from flowfn.formats import read_hdf5; import h5py; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50));"
        "print(list(read_hdf5(sys.argv[1], 'x')))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode
    assert "part" in told.stderr.splitlines()[-1]
    assert "Too many open files" in told.stderr.splitlines()[-1]
    assert list(read_hdf5(path, "x")) == [x for number in range(60) for x in rows(number)]


def test_a_source_that_goes_away_is_missed_by_whoever_opens_the_file_later(folder):
    flow = read_hdf5(whole(folder), "x")
    os.remove(folder / "part1.h5")
    with pytest.raises(ValueError, match=r"part1\.h5"):
        list(flow)


def test_external_storage_that_is_too_short_is_named(folder):
    path = kept_outside(folder)
    os.truncate(folder / "part0.h5", 20)
    with pytest.raises(
        ValueError,
        match=r"is kept in .*part0\.h5, which must have 24 bytes, and has 20; it is truncated, or was never written",
    ):
        read_hdf5(path, "x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("prefix", ["{}/sub", "${{ORIGIN}}/sub", "/nowhere:{}/sub"])
def test_a_prefix_says_where_sources_are(prefix, folder):
    path = whole(folder)
    for number in range(2):
        os.rename(folder / f"part{number}.h5", folder / "sub" / f"part{number}.h5")
    code = "import sys; from flowfn.formats import read_hdf5; print([int(x) for x in read_hdf5(sys.argv[1], 'x')])"
    environment = os.environ | {"HDF5_VDS_PREFIX": prefix.format(folder)}
    told = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=False,
    )
    assert told.stdout.strip() == str([*rows(0).tolist(), *rows(1).tolist()])


@pytest.mark.parametrize("make", [whole, kept_outside], ids=["virtual", "external storage"])
def test_a_file_behind_a_url_is_read_alone(make, folder):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/sets/a.h5", make(folder).read_bytes())
    with pytest.raises(ValueError, match=r"what is behind a URL is read alone; copy both files"):
        read_hdf5("memory://sets/a.h5", "x")


def test_soft_links_are_followed_and_those_to_nothing_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/x"], file["to"] = [1, 2], h5py.SoftLink("/deep/x")
        file["deep/gone"] = h5py.SoftLink("/nowhere")
    assert list(read_hdf5(tmp_path / "a.h5")) == [{"to": 1}, {"to": 2}]
    with pytest.raises(
        ValueError, match=r"'deep/gone' in .* is a link to '/nowhere', which leads nowhere.*datasets=\[...\]"
    ):
        read_hdf5(tmp_path / "a.h5", "deep/gone")
    with pytest.raises(ValueError, match=r"'deep/gone/x' in .* is a link to '/nowhere'"):
        read_hdf5(tmp_path / "a.h5", "deep/gone/x")


def test_a_filter_that_is_not_there_is_named(tmp_path):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((2,))
    how.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, mask in (("through", 0), ("around", 1)):
            space = h5py.h5s.create_simple((4,))
            dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_I64LE, space, how)
            for at in (0, 2):
                dataset.write_direct_chunk((at,), np.array([at, at + 1], "<i8").tobytes(), mask)
        h5py.h5d.create(file.id, b"unwritten", h5py.h5t.STD_I64LE, space, how)
    assert list(read_hdf5(tmp_path / "a.h5", "around")) == [0, 1, 2, 3]
    assert list(read_hdf5(tmp_path / "a.h5", "unwritten")) == [0] * 4
    with pytest.raises(
        ValueError, match=r"'through' in .*a\.h5 is stored through filter 32999, which HDF5 does not have.*hdf5plugin"
    ):
        read_hdf5(tmp_path / "a.h5", "through")


def test_filters_of_hdf5plugin_are_asked_for(tmp_path, monkeypatch):
    (tmp_path / "hdf5plugin.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hdf5plugin", raising=False)
    write_hdf5(tmp_path / "a.h5", [1])
    assert list(read_hdf5(tmp_path / "a.h5", "0")) == [1]
    assert sys.modules.pop("hdf5plugin").__file__ == str(tmp_path / "hdf5plugin.py")


def test_references_are_refused_however_deep_they_lie(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("plain", (3,), h5py.ref_dtype)
        file.create_dataset("region", (3,), h5py.regionref_dtype)
        file.create_dataset("field", (3,), [("x", "i4"), ("r", h5py.ref_dtype)])
        file.create_dataset("vlen", (3,), h5py.vlen_dtype(h5py.ref_dtype))
        file["nothing"] = h5py.Empty("f4")
        names = [name for name in file if name != "nothing"]
    for name in names:
        with pytest.raises(ValueError, match=rf"{name!r} in .* holds references into the file"):
            read_hdf5(tmp_path / "a.h5", name)
    with pytest.raises(ValueError, match=r"'nothing' in .* has no elements \(a null dataspace\)"):
        read_hdf5(tmp_path / "a.h5", "nothing")


def test_texts_of_another_encoding_are_read_when_it_is_said(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("s", data=np.array([b"caf\xe9", b"th\xe9"], object), dtype=h5py.string_dtype())
    path = tmp_path / "a.h5"
    with pytest.raises(ValueError, match=r"rows 0 to 1 of 's' cannot be read: .*; it is not in utf-8: pass encoding="):
        list(read_hdf5(path, "s"))
    assert list(read_hdf5(path, "s", encoding="latin-1")) == ["café", "thé"]
    assert list(read_hdf5(path, "s", encoding=None)) == [b"caf\xe9", b"th\xe9"]
    assert repr(read_hdf5(str(path), "s", encoding=None)) == f"read_hdf5('{path}', 's', encoding=None)"
    with pytest.raises(ValueError, match=r"encoding must be the name of an encoding, or None, got 'nonsense'"):
        read_hdf5(path, "s", encoding="nonsense")


# Files that are being written


WRITE = """
import h5py, sys
file = h5py.File(sys.argv[1], "w", libver=sys.argv[3] or None)
file.create_dataset("x", data=[1, 2, 3], maxshape=(None,), chunks=(2,))
if sys.argv[2] == "swmr":
    file.swmr_mode = True
file.flush()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer():
    """Start a process that writes, and stays at it."""
    writers = []

    def start(path, mode, version=""):
        made = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), mode, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        writers.append(made)
        assert made.stdout.readline() == b"open\n"
        return made

    yield start
    for made in writers:
        made.kill()
        made.communicate(timeout=20)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("version", ["", "latest"])
def test_a_file_that_is_being_written_is_named_as_locked(version, writer, folder):
    held = writer(folder / "part0.h5", "plain", version)
    with pytest.raises(
        OSError, match=r"^read_hdf5\(\): .*part0\.h5 is locked: it is open for writing.*when it has been closed"
    ):
        read_hdf5(folder / "part0.h5")
    with pytest.raises(OSError, match=r"'x' in .*whole\.h5 is made of 'x' of part0\.h5, and .*part0\.h5 is locked"):
        read_hdf5(whole(folder))
    held.communicate(timeout=20)
    assert list(read_hdf5(folder / "part0.h5", "x")) == [1, 2, 3]


@pytest.mark.timeout(60)
def test_a_file_that_is_written_to_be_read_meanwhile_is_read(writer, folder):
    held = writer(folder / "part0.h5", "swmr", "latest")
    assert list(read_hdf5(folder / "part0.h5", "x")) == [1, 2, 3]
    assert list(read_hdf5(whole(folder), "x")) == [1, 2, 3, *rows(1)]
    held.communicate(timeout=20)


@pytest.mark.timeout(60)
def test_a_file_whose_writer_was_killed_is_told(writer, folder):
    held = writer(folder / "part0.h5", "plain", "latest")
    held.kill()
    held.communicate(timeout=20)
    with pytest.raises(OSError, match=r"part0\.h5 is marked as open for writing: .*h5clear -s"):
        read_hdf5(folder / "part0.h5")


def test_a_virtual_dataset_of_no_rows_is_whole(tmp_path):
    """h5py 3.14 does not tell the sources of one (https://github.com/h5py/h5py/issues/1660)."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = np.ones(10)
        layout = h5py.VirtualLayout((0,), dtype="f8")
        layout[()] = h5py.VirtualSource(".", "raw", (10,))[0:0]
        file.create_virtual_dataset("x", layout)
    assert list(read_hdf5(tmp_path / "a.h5", "x")) == []
