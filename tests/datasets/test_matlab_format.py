"""MATLAB files of version 5 to 7, against scipy's, and made byte by byte where scipy writes none."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io

from flowfn.datasets.matlab import matlab_variables
from flowfn.testing import same

HEAD = b"MATLAB 5.0 MAT-file".ljust(116) + b"\0" * 8


def element(kind, content, order="<"):
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(kind, sizes, *content, name=b"x", order="<", flags=0):
    front = element(6, struct.pack(f"{order}II", kind | flags, 0), order) + element(
        5, struct.pack(f"{order}{len(sizes)}i", *sizes), order
    )
    return element(14, front + element(1, name, order) + b"".join(content), order)


def write(path, *elements, order="<"):
    path.write_bytes(HEAD + struct.pack(f"{order}H", 0x100) + (b"IM" if order == "<" else b"MI") + b"".join(elements))
    return str(path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "bool"])
def test_numbers_are_those_that_scipy_wrote(tmp_path, packed, dtype):
    arrays = {
        "a": np.arange(24).reshape(2, 3, 4).astype(dtype),
        "b": np.ones((1, 1), dtype),
        "c": np.zeros((0, 3), dtype),
    }
    scipy.io.savemat(tmp_path / "m.mat", arrays, do_compression=packed)
    found = matlab_variables(str(tmp_path / "m.mat"), "test", "c", "a", "b")
    read = scipy.io.loadmat(tmp_path / "m.mat", mat_dtype=True)
    for name in "abc":
        assert np.array_equal(found[name], read[name])
        assert found[name].shape == arrays[name].shape
        assert found[name].dtype == arrays[name].dtype


@pytest.mark.parametrize("packed", [True, False])
def test_texts_cells_and_structs_come_back(tmp_path, packed):
    cells = np.empty((2, 2), object)
    cells[:] = [["a", np.eye(2)], ["b\u00e9", {"inner": np.empty(0), "name": "x"}]]
    scipy.io.savemat(
        tmp_path / "m.mat", {"cells": cells, "one": {"f": 1, "longer_name": "text"}}, do_compression=packed
    )
    found = matlab_variables(str(tmp_path / "m.mat"), "test", "cells", "one")
    a, b, square, inner = found["cells"]
    assert (a, b, inner["name"]) == ("a", "b\u00e9", "x")
    assert same(square, np.eye(2))
    assert inner["inner"].size == 0
    assert found["one"]["longer_name"] == "text"
    assert found["one"]["f"].tolist() == [[1]]


def test_files_of_the_other_byte_order_are_read(tmp_path):
    content = element(4, struct.pack(">2H", 1, 515), ">")  # doubles, written down in two bytes each
    path = write(tmp_path / "m.mat", matrix(6, (1, 2), content, order=">"), order=">")
    assert same(matlab_variables(path, "test", "x")["x"], np.array([[1.0, 515.0]]))


def test_only_what_is_asked_for_has_to_be_readable(tmp_path):
    strange = matrix(16, (1, 1), element(1, b"abc"), name=b"handle")
    path = write(tmp_path / "m.mat", strange, matrix(9, (1, 1), element(2, b"\x07")))
    assert matlab_variables(path, "test", "x")["x"].tolist() == [[7]]
    with pytest.raises(ValueError, match="something of MATLAB's class 16, which is not read"):
        matlab_variables(path, "test", "handle")
    with pytest.raises(ValueError, match=r"must hold the variable 'y', but it holds \['handle', 'x'\]"):
        matlab_variables(path, "test", "y")


def deep(levels):
    inner = matrix(9, (1, 1), element(2, b"a"), name=b"")
    for _ in range(levels):
        inner = matrix(1, (1, 1), inner, name=b"")
    return matrix(1, (1, 1), inner)


NUMBER = matrix(9, (1, 1), element(2, b"a"))
PACKED = zlib.compress(NUMBER)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (matrix(9, (2**31 - 1, 2**31 - 1), element(2, b"a")), "cannot be in"),
        (matrix(9, (2, 2), element(2, b"a")), r"an array of shape \(2, 2\) of uint8 has 1 bytes"),
        (matrix(9, (-1, 2), element(2, b"a")), "cannot be in"),
        (matrix(9, (1,), element(2, b"a")), "cannot be in"),
        (matrix(1, (9, 9), NUMBER), "cannot be in|should be"),
        (matrix(1, (1, 2), NUMBER), "where an element of type 14 should be, there is one of type 0"),
        (matrix(9, (1, 1), element(16, b"a")), "where an element of type 1 should be"),
        (matrix(2, (1, 1), element(5, b"\0\0\0\0"), element(1, b"a")), "names of a struct's fields are cut off"),
        (deep(1000), "too deep in each other"),
        (struct.pack("<II", 14, 1 << 30) + NUMBER[8:], "is said to have 1073741824 bytes"),
        (struct.pack("<II", 15, len(PACKED) - 6) + PACKED[:-6], "is said to have 64 bytes, and has 57"),
        (struct.pack("<II", 15, len(PACKED) - 2) + PACKED[:-2], "does not end behind its 64 bytes"),
        (struct.pack("<II", 15, 4) + b"abcd", "cannot be read"),
        (struct.pack("<II", 15, 0), "ends at once"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, elements, message):
    path = write(tmp_path / "m.mat", elements)
    with pytest.raises(ValueError, match=r"test\(\): '.*m\.mat' cannot be read as a MATLAB file") as caught:
        matlab_variables(path, "test", "x")
    caught.match(message)


def test_what_a_packed_variable_unfolds_to_is_no_more_than_it_says(tmp_path):
    packed = zlib.compress(struct.pack("<II", 14, 64) + b"\0" * (1 << 24))
    path = write(tmp_path / "m.mat", struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(ValueError, match=r"cannot be read as a MATLAB file|must hold the variable"):
        matlab_variables(path, "test", "")
