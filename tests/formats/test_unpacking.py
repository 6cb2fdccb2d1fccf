"""What is compressed is unpacked to its end: streams one behind the other are one,
and what is none is never passed over."""

import bz2
import gzip
import lzma

import pytest

from flowfn.formats import read_csv, read_jsonl, read_svmlight
from flowfn.storage.unpacking import packing, unpacked

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
READ = {
    "jsonl": (read_jsonl, b'{"a": 1}\n', b'{"a": 2}\n'),
    "csv": (read_csv, b"a,b\n1,2\n", b"3,4\n"),
    "svm": (read_svmlight, b"1 1:2\n", b"0 1:3\n"),
}


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("form", READ)
def test_compressed_records_are_read_whole_or_refused(form, suffix, hold, tmp_path):
    (read, first, second), pack = READ[form], PACK[suffix]
    path = tmp_path / f"a.{form}{suffix}"
    for zeros in (0, 4, 512):
        path.write_bytes(pack(first) + bytes(zeros) + pack(second) + bytes(zeros))
        assert len(list(read(path, hold=hold))) == 2
    for broken in (
        pack(first) + b"more",
        pack(first) + pack(second)[:-4],
        pack(first) + bytes(16) + b"more",
        pack(first)[:-4],
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"a.{form}{suffix}"):
            list(read(path, hold=hold))


def test_what_is_not_compressed_is_given_from_its_first_byte(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"B", b"BZ", b"text" * 100, b"BZh".ljust(257, b"x") + b"ustar"):
        path.write_bytes(content)
        with open(path, "rb") as file:
            found, kind = unpacked(file, "a test")
            assert (b"".join(iter(lambda: found.read(7), b"")), kind) == (content, None)
    assert [packing(pack(b"x")) for pack in PACK.values()] == ["gzip", "bzip2", "xz"]
