"""CSV, JSON lines and SVMlight: read as Python's csv, pandas and scikit-learn read them,
written so that they read it, in any order."""

import bz2
import csv
import gc
import gzip
import io
import itertools
import json
import lzma
import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowfn as ff
from flowfn.formats.text import record_files
from flowfn.formats.text.csv_reading import read_csv, write_csv
from flowfn.formats.text.json_lines import read_jsonl, write_jsonl
from flowfn.formats.text.sparse import read_svmlight, write_svmlight
from flowfn.testing import check, left_behind, same

in_workers = pytest.mark.parametrize(
    "workers",
    [({}, {"threads": 2}), pytest.param(({"processes": 2},), marks=pytest.mark.long)],
    ids=["threads", "processes"],
)
OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def stored(path, text, encoding="utf-8"):
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return str(path)


NO_END = pytest.mark.filterwarnings("ignore:.* has no line break at its end:UserWarning")

# CSV

AWKWARD = [
    "a,b\n1,2\n3,4\n",
    "a,b\r\n1,2\r\n3,4\r\n",
    "a,b\n1,2\n3,4",
    "a,b\n\n1,2\n\n\n3,4\n\n",
    "a,b\r\n\r\n1,2\r\n\r\n",
    'a,b\n"1","2"\n"x\ny",2\n',
    'a,b\n"1\r\n2\r\n\r\n3",2\r\n5,6\r\n',
    'a,b\n"he said ""no""\n",2\n"",""\n"""",""""""\n',
    'a,b\n5" pipe,3\n6" pipe,4\n',
    'a,b\n5" pipe,"x\ny"\n6" pi"pe,4\n',
    'a,b\nx"y"z,1\n"p,q",2\n',
    '"a","b"\n1,2\n',
    'a,"b\nc"\n1,2\n',
    "a,b\nä,ö\n",
    "a\n1\n2\n",
    'a\n"x\n\n\ny"\n"z"\n',
    "a,b\n , \n",
    "a,b\n\0,1\n",
]


@NO_END
@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_files_are_read_as_pythons_reader_reads_them(tmp_path, monkeypatch, text, piece):
    monkeypatch.setattr(record_files, "PIECE", piece)
    expected = list(csv.DictReader(io.StringIO(text, newline="")))
    for suffix, opener in OPENERS.items():
        path = str(tmp_path / f"a.csv{suffix}")
        with opener(path, "wb") as file:
            file.write(text.encode())
        assert list(read_csv(path)) == expected
        held = read_csv(path, hold=True)
        assert len(held) == len(expected)
        assert [held[i] for i in reversed(range(len(held)))] == expected[::-1]


fields = st.text(st.sampled_from(list('a,"\n\r ;ä1')), max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(fields, min_size=2, max_size=2), max_size=8),
    piece=st.sampled_from([1, 7, 1 << 20]),
    minimal=st.booleans(),
)
def test_whatever_pythons_writer_writes_comes_back(tmp_path_factory, rows, piece, minimal):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL if minimal else csv.QUOTE_ALL)
        writer.writerow(["x", "y"])
        writer.writerows(rows)
    old, record_files.PIECE = record_files.PIECE, piece
    try:
        flow = read_csv(path)
        expected = [{"x": x, "y": y} for x, y in rows]
        assert list(flow) == expected
        assert [flow[i] for i in range(len(flow))] == expected
    finally:
        record_files.PIECE = old


@NO_END
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from(list('a,"\n\r')), max_size=30), piece=st.sampled_from([1, 3, 1 << 20]))
def test_any_text_is_read_as_pythons_strict_reader_reads_it_or_is_an_error(tmp_path_factory, text, piece):
    path = stored(tmp_path_factory.mktemp("csv") / "a.csv", text)
    try:
        expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        expected = None
    if expected and len(set(map(len, expected))) > 1:
        expected = None
    old, record_files.PIECE = record_files.PIECE, piece
    try:
        flow = read_csv(path, header=False)
        found = [flow[i] for i in range(len(flow))]
        assert found == list(flow) == expected
    except ValueError:  # where \r alone ends a line, or stands behind another, too
        assert expected is None or "\r" in text.replace("\r\n", "")
    finally:
        record_files.PIECE = old


def test_columns_types_and_names(tmp_path):
    path = stored(tmp_path / "a.csv", "id,name,ok,score\n1,a,true,0.5\n2,b,0,1e3\n")
    types = {"id": int, "ok": bool, "score": float}
    assert list(read_csv(path, types=types)) == [
        {"id": 1, "name": "a", "ok": True, "score": 0.5},
        {"id": 2, "name": "b", "ok": False, "score": 1000.0},
    ]
    assert read_csv(path, ["score", "id"], types=types)[1] == {"score": 1000.0, "id": 2}
    assert list(read_csv(path, ["score", "id"])[1]) == ["score", "id"]
    assert read_csv(path, ["name"])[0] == {"name": "a"}
    assert read_csv(path, ["id", "score"], types=float)[0] == {"id": 1.0, "score": 0.5}
    numbers = stored(tmp_path / "b.csv", "1;2\n3;4\n")
    assert list(read_csv(numbers, header=False, delimiter=";", types=int)) == [[1, 2], [3, 4]]
    assert list(read_csv(numbers, header=["x", "y"], delimiter=";", types=int)) == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    assert list(read_csv(stored(tmp_path / "c.csv", b"\xef\xbb\xbfx\n1\n"))) == [{"x": "1"}]
    assert list(read_csv(stored(tmp_path / "d.csv", "x\nä\n", "latin1"), encoding="latin1")) == [{"x": "ä"}]
    assert list(read_csv(stored(tmp_path / "e.csv", "x,y\n'a,b',c\n"), quote="'")) == [{"x": "a,b", "y": "c"}]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            "a,b\n1,2\n3\n",
            {},
            r"datapoint 1 of .*a.csv cannot be read: it has 1 fields, where there are 2 columns: \['3'\]",
        ),
        ("a,b\n1,2\n3,4,5\n", {}, "datapoint 1 of .* it has 3 fields"),
        ('a,b\n1,2\n"3,4\n5,6\n', {}, "from datapoint .* unexpected end of data"),
        ('a,b\n1,2\n"3"x,4\n', {}, "expected after"),
        ("a\n1\nx\n", {"types": int}, "datapoint 1 of .* column 'a', 'x': invalid literal for int"),
        ("a\n1\nmaybe\n", {"types": bool}, "column 'a', 'maybe': it must be true, false, 1 or 0"),
        ("a\n" + "x" * 200_000 + "\n", {}, r"field larger than field limit \(131072\); csv.field_size_limit"),
        ("a,b\r1,2\r", {}, r"the header of .* a line ends with .r alone; make it .n before"),
        ("1,2\r3,4\r", {"header": ["a", "b"]}, "datapoint 0 of .* a line ends with .r alone"),
        ('a,b\n1,2"\n3,4\r5,6\n', {}, "a line ends with .r alone"),
        ("a\n1\n", {"delimiter": '"'}, "delimiter must be another character than the quote, got '\"' for both"),
        ("a\n1\n", {"delimiter": "\n"}, "delimiter must be one character of ASCII that ends no line"),
        ("a\n1\n", {"quote": "\r"}, "quote must be one character of ASCII that ends no line"),
        ("", {}, "the header of .*a.csv cannot be read: it is empty"),
        ("a,a\n1,2\n", {}, "columns have the same name"),
        ("a\n1\n", {"columns": ["b"]}, "there is no column 'b' in .*; there are 'a'"),
        ("a\n1\n", {"types": {"b": int}}, "there is no column 'b'"),
        ("a\n1\n", {"header": False, "columns": ["a"]}, "with header=False columns have no names"),
        ("a\n1\n", {"delimiter": ";;"}, "delimiter must be one character of ASCII that ends no line, got ';;'"),
        ("a\n1\n", {"encoding": "utf-16"}, "encoding must be one in which ASCII stays as it is, got 'utf-16'"),
        ("a\n1\n", {"encoding": "nonsense"}, "encoding must be one that Python knows"),
        ("a\n1\n", {"header": []}, "header must be True, False, or a list of names"),
        (b"a\n\xff\n", {}, "datapoint 0 of .* 'utf-8' codec can't decode"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, options, message):
    path = stored(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=rf"(?s)read_csv\(\): .*{message}"):
        list(read_csv(path, **options))


def test_an_error_is_told_for_the_one_datapoint(tmp_path):
    flow = read_csv(stored(tmp_path / "a.csv", "a\n" + "1\n" * 5000 + "x\n" + "2\n" * 5000), types=int)
    assert flow[4999] == {"a": 1}
    assert flow[5001] == {"a": 2}
    with pytest.raises(ValueError, match="datapoint 5000 of"):
        flow[5000]
    with pytest.raises(ValueError, match="datapoint 5000 of"):
        list(flow)
    guarded = ff.pipe(flow[:4999], ff.map(lambda row: row["a"]))
    assert sum(guarded) == 4999


def test_pandas_reads_what_is_written_and_the_other_way(tmp_path):
    import pandas

    rows = [{"x": i, "t": f'a "{i}", b\nc', "f": i / 3} for i in range(50)]
    write_csv(tmp_path / "a.csv", rows)
    assert pandas.read_csv(tmp_path / "a.csv").to_dict("records") == rows
    pandas.DataFrame(rows).to_csv(tmp_path / "b.csv", index=False)
    assert list(read_csv(tmp_path / "b.csv", types={"x": int, "f": float})) == rows


@pytest.mark.parametrize("suffix", OPENERS)
def test_texts_and_numbers_come_back(tmp_path, suffix):
    rows = [
        ["", 1, 0.1, True, np.float32(0.1), np.int8(3), None, np.array(7)],
        ["a,b\n\"'\r", -1, 1e300, False, np.float32(2), np.int8(-3), None, np.array(8)],
    ]
    path = tmp_path / f"a.csv{suffix}"
    write_csv(path, rows)
    with OPENERS[suffix](path, "rt", newline="", encoding="utf-8") as file:
        expected = list(csv.reader(file))
    assert list(read_csv(path, header=False)) == expected
    assert expected[1] == ["a,b\n\"'\r", "-1", "1e+300", "False", "2.0", "-3", "", "8"]


def test_what_cannot_be_a_field_is_refused_and_leaves_nothing(tmp_path):
    for value in (b"a", [1], {"a": 1}, np.zeros(2), np.zeros((), "i4,f8")[()]):
        with pytest.raises(TypeError, match="fields are texts and numbers, but datapoint 1 holds"):
            write_csv(tmp_path / "a.csv", [{"x": 1}, {"x": value}])
    with pytest.raises(ValueError, match=r"must have the fields of the first, \['x'\], datapoint 1 has \['y'\]"):
        write_csv(tmp_path / "a.csv", [{"x": 1}, {"y": 1}])
    with pytest.raises(ValueError, match="there are no datapoints"):
        write_csv(tmp_path / "a.csv", [])
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="datapoints must have fields, got"):
            write_csv(tmp_path / "a.csv", [nothing])
    with pytest.raises(ValueError, match=r"datapoint 1 cannot be written in latin1: .*u4e2d"):
        write_csv(tmp_path / "a.csv", ["a", "\u4e2d"], encoding="latin1")
    with pytest.raises(ValueError, match="delimiter must be another character than the quote"):
        write_csv(tmp_path / "a.csv", ["a"], delimiter='"')
    assert os.listdir(tmp_path) == []


def test_dates_are_written_as_they_show_themselves(tmp_path):
    dates = ["2020-01-02", "2020-01-02T03:04:05.000000006", "NaT"]
    write_csv(tmp_path / "a.csv", map(np.datetime64, dates, ["D", "ns", "D"]))
    assert list(read_csv(tmp_path / "a.csv", header=False)) == [[date] for date in dates]


@pytest.mark.parametrize("piece", [1, 5, 1 << 18])
def test_without_quotes_a_quote_is_a_character_as_any_other(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(record_files, "PIECE", piece)
    path = tmp_path / "a.tsv"
    path.write_text('a\tb\nsay "yes\tit\'s\n"x"\t""\nq"\t"\n')
    flow = read_csv(path, delimiter="\t", quote=None)
    expected = [{"a": 'say "yes', "b": "it's"}, {"a": '"x"', "b": '""'}, {"a": 'q"', "b": '"'}]
    assert list(flow) == expected
    assert [flow[index] for index in range(3)] == expected
    assert repr(flow).endswith(", delimiter='\\t', quote=None)")
    write_csv(path, flow, delimiter="\t", quote=None, overwrite=True)
    assert path.read_text() == 'a\tb\nsay "yes\tit\'s\n"x"\t""\nq"\t"\n'


@pytest.mark.parametrize("quote", ['"', "'", None])
def test_every_field_comes_back_whatever_the_quote_or_is_refused(tmp_path, quote):
    path = tmp_path / "a.csv"
    for text in map("".join, itertools.product("a\"',\n\r ", repeat=2)):
        for rows in ([{"x": text, "y": "1"}], [{text: "1"}], [["p"], [text]]):
            header = isinstance(rows[0], dict)
            if quote is None and any(one in ",\n\r" for one in text):
                with pytest.raises(ValueError, match="without quotes"):
                    write_csv(path, rows, quote=quote, overwrite=True)
            else:
                write_csv(path, rows, quote=quote, overwrite=True)
                assert list(read_csv(path, quote=quote, header=header)) == rows


def test_an_empty_line_is_no_record_so_it_is_not_written_without_quotes(tmp_path):
    for value in ("", None):
        with pytest.raises(ValueError, match="datapoint 1 cannot be written without quotes"):
            write_csv(tmp_path / "a.csv", [["a"], [value]], quote=None)
    assert list(tmp_path.iterdir()) == []


# JSON lines


@pytest.mark.parametrize("suffix", OPENERS)
def test_json_comes_back_and_python_reads_it(tmp_path, suffix):
    rows = [{"a": [1, 2.5, None, True, "ä\n\u2028"], "b": {"c": {}}}, [1, [2]], None, "text", 7, 1 << 80, "half \ud83d"]
    path = tmp_path / f"a.jsonl{suffix}"
    write_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows
    with OPENERS[suffix](path, "rb") as file:
        assert [json.loads(line) for line in file] == rows
    held = read_jsonl(path, hold=True)
    assert [held[i] for i in range(len(held))] == rows


def test_what_pandas_and_pyarrow_know_is_read(tmp_path):
    import pandas

    rows = [{"x": i, "t": f"ä{i}", "f": i / 4} for i in range(20)]
    pandas.DataFrame(rows).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows
    write_jsonl(tmp_path / "b.jsonl", rows)
    assert pandas.read_json(tmp_path / "b.jsonl", lines=True).to_dict("records") == rows
    import pyarrow.json as reader

    assert reader.read_json(tmp_path / "b.jsonl").to_pylist() == rows


@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_empty_lines_are_passed_over(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(record_files, "PIECE", piece)
    flow = read_jsonl(stored(tmp_path / "a.jsonl", b'\xef\xbb\xbf\n1\r\n\r\n\n{"a": 2}\n\n[3]'))
    assert list(flow) == [1, {"a": 2}, [3]]
    assert [flow[2], flow[0], flow[1]] == [[3], 1, {"a": 2}]
    assert list(read_jsonl(stored(tmp_path / "b.jsonl", b""))) == []
    assert len(read_jsonl(stored(tmp_path / "c.jsonl", b"\n\n"))) == 0


def test_numpys_numbers_become_pythons(tmp_path):
    write_jsonl(
        tmp_path / "a.jsonl",
        [{"x": np.float32(0.5), "y": np.arange(4).reshape(2, 2), "z": (np.bool_(True), np.int8(1)), "n": math.nan}],
    )
    (row,) = read_jsonl(tmp_path / "a.jsonl")
    assert math.isnan(row.pop("n"))
    assert row == {"x": 0.5, "y": [[0, 1], [2, 3]], "z": [True, 1]}


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        {1: 2},
        {"a": {None: 1}},
        object(),
        {1, 2},
        [{"a": [{2: 3}]}],
        np.array([1j]),
        np.array([None]),
        np.longdouble(1),
    ],
)
def test_what_is_no_json_is_refused_and_leaves_nothing(tmp_path, value):
    with pytest.raises(TypeError, match=r"write_jsonl\(\): datapoint 1 is no JSON: .*"):
        write_jsonl(tmp_path / "a.jsonl", [1, value])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', r'datapoint 1 of .*a.jsonl cannot be read: .*: \'\{"a": \''),
        ('1\n{"a": 1', "datapoint 1"),
        ("1\nnonsense\n", "datapoint 1 .*nonsense"),
        ("1\n" + "[" * 100_000 + "\n", "datapoint 1"),
        (b"1\n\xff\n", "datapoint 1 of .* 'utf-8' codec"),
        ("1\n  \n2\n", "datapoint 1"),
    ],
)
def test_a_line_that_is_no_json_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"(?s)read_jsonl\(\): {message}"):
        list(read_jsonl(stored(tmp_path / "a.jsonl", text)))


@pytest.mark.parametrize("types", [None, int])
def test_the_record_that_is_no_text_is_named(tmp_path, types):
    with pytest.raises(ValueError, match=r"read_csv\(\): datapoint 2 of .* 'utf-8' codec can't decode byte 0xff"):
        list(read_csv(stored(tmp_path / "a.csv", b"a,b\n1,2\n3,4\n\xff,5\n6,7\n"), types=types))
    with pytest.raises(ValueError, match=r"read_jsonl\(\): datapoint 2 of .* 'utf-8' codec can't decode byte 0xff"):
        list(read_jsonl(stored(tmp_path / "a.jsonl", b'1\n2\n"\xff"\n3\n')))


# SVMlight


@pytest.mark.parametrize("first", [0, 1])
def test_scikit_learn_reads_what_is_written_and_the_other_way(tmp_path, first):
    import sklearn.datasets as datasets

    generator = np.random.Generator(np.random.PCG64(0))
    x = generator.normal(size=(40, 9)) * (generator.random((40, 9)) < 0.4)
    y = generator.integers(-1, 2, 40)
    datasets.dump_svmlight_file(x, y, str(tmp_path / "a.svm"), zero_based=not first, comment="a comment")
    found, y = datasets.load_svmlight_file(str(tmp_path / "a.svm"), n_features=9, zero_based=not first)
    x = found.toarray()
    flow = read_svmlight(tmp_path / "a.svm", 9, first=first)
    assert all(same(row, [given, float(label)]) for row, given, label in zip(flow, x, y, strict=True))
    sparse = read_svmlight(tmp_path / "a.svm", first=first)
    for (indices, values), label in sparse:
        assert isinstance(label, float)
        assert same([indices.dtype, values.dtype], [np.dtype(np.int64), np.dtype(float)])
    (indices, values), _ = sparse[7]
    assert same(indices, np.flatnonzero(x[7]))
    assert same(values, x[7][indices])
    for number, examples in enumerate((flow, sparse)):
        write_svmlight(tmp_path / f"{number}.svm", examples, first=first)
        again, labels = datasets.load_svmlight_file(str(tmp_path / f"{number}.svm"), n_features=9, zero_based=not first)
        assert np.array_equal(again.toarray(), x)
        assert np.array_equal(labels, y)


def test_queries_labels_and_comments(tmp_path):
    import sklearn.datasets as datasets

    path = stored(
        tmp_path / "a.svm", "# head\n  \t# indented\n1 qid:3 1:0.5 3:2 # behind\n\n  \n-1 qid:4\n#\n2.5 qid:4 2:1e3\r\n"
    )
    assert all(
        map(
            same,
            read_svmlight(path, 3, queries=True),
            [[np.array([0.5, 0, 2]), 1.0, 3], [np.zeros(3), -1.0, 4], [np.array([0, 1000.0, 0]), 2.5, 4]],
        )
    )
    assert [label for _, label in read_svmlight(path)] == [1.0, -1.0, 2.5]
    assert read_svmlight(stored(tmp_path / "b.svm", "1 2:3\n"), 3, queries=True)[0][2] is None
    several = stored(tmp_path / "c.svm", "1,2 1:0.5\n 2:1\n3\n")
    assert [label for _, label in read_svmlight(several, multilabel=True)] == [(1.0, 2.0), (), (3.0,)]
    tabs = stored(tmp_path / "t.svm", "1,2\tqid:7\t1:0.5\t2:1\n")
    assert same(list(read_svmlight(tabs, 2, queries=True, multilabel=True)), [[np.array([0.5, 1]), (1.0, 2.0), 7]])
    assert same(
        list(read_svmlight(stored(tmp_path / "u.svm", "1\t2:0.5 \n 1  1:2\n"), 2)),
        [[np.array([0, 0.5]), 1.0], [np.array([2.0, 0]), 1.0]],
    )
    write_svmlight(tmp_path / "d.svm", read_svmlight(several, multilabel=True))
    x, labels = datasets.load_svmlight_file(str(tmp_path / "d.svm"), multilabel=True, zero_based=False)
    assert labels == [(1.0, 2.0), (), (3.0,)]
    assert x.toarray().tolist() == [[0.5, 0], [0, 1], [0, 0]]
    write_svmlight(tmp_path / "e.svm", read_svmlight(path, queries=True))
    _, _, queries = datasets.load_svmlight_file(str(tmp_path / "e.svm"), query_id=True)
    assert queries.tolist() == [3, 4, 4]


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ("1 0:2", {}, "the first feature has number 0, below first=1; pass first=0"),
        ("1 4:2", {"features": 3}, "it has feature 4, where there are 3; pass more features"),
        ("1 2:3 1:4", {}, "indices must be whole numbers that grow"),
        ("1 2:3 2:4", {}, "indices must be whole numbers that grow"),
        ("1 1.5:3", {}, "indices must be whole numbers that grow"),
        ("1 99999999999999999999:3", {}, "indices must be whole numbers below"),
        ("1 nan:3", {}, "indices must be whole numbers below"),
        ("1:1 2", {}, "must be a label and pairs index:value"),
        ("1 1:2:3 4", {}, "must be a label and pairs index:value"),
        ("1 1 :3", {}, "must be a label and pairs index:value"),
        ("1 1: 3", {}, "must be a label and pairs index:value"),
        ("1,2 1:2:3 4", {"multilabel": True}, "must be a label and pairs index:value"),
        ("1 a:3", {}, "could not convert string to float"),
        ("1 1:3 4", {}, "must be a label and pairs index:value"),
        ("1:3", {}, "must be a label and pairs index:value"),
        ("1,2 1:3", {}, "could not convert"),
        ("1 qid:x 1:3", {}, "qid must be an integer"),
        ("1 1:1_0", {}, "there is a _"),
        ("\0\1\2", {}, "could not convert"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path, line, options, message):
    path = stored(tmp_path / "a.svm", f"1 1:2\n{line}\n")
    with pytest.raises(ValueError, match=rf"read_svmlight\(\): datapoint 1 of .*a.svm cannot be read: .*{message}"):
        list(read_svmlight(path, **options))


@pytest.mark.parametrize(
    "datapoint",
    [
        [1],
        3,
        [np.zeros((2, 2)), 1],
        [([2, 1], [1.0, 1.0]), 1],
        [([1], [1.0, 2.0]), 1],
        [([-1], [1.0]), 1],
        [["a"], 1],
        [np.ones(2), "a"],
        [([0.5], [1]), 1],
    ],
)
def test_what_is_no_example_is_refused_and_leaves_nothing(tmp_path, datapoint):
    with pytest.raises((TypeError, ValueError), match=r"write_svmlight\(\): datapoint 1 must be \[x, label\]"):
        write_svmlight(tmp_path / "a.svm", [[np.ones(2), 1], datapoint])
    assert os.listdir(tmp_path) == []


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.lists(st.floats(allow_nan=False), min_size=4, max_size=4), st.floats(allow_nan=False)))
)
def test_all_floats_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("svm") / "a.svm"
    write_svmlight(path, [[np.array(x), label] for x, label in rows])
    assert all(
        np.array_equal(x, again) and label == told
        for (x, label), (again, told) in zip(rows, read_svmlight(path, 4), strict=True)
    )


# All of them

FORMATS = {
    "csv": (write_csv, read_csv, lambda i: {"x": str(i), "t": f"text,\n{i}"}),
    "jsonl": (write_jsonl, read_jsonl, lambda i: {"x": i, "t": ["text", i]}),
    "svm": (write_svmlight, read_svmlight, lambda i: [(np.array([0, i + 1]), np.array([1.0, i + 2])), float(i)]),
}


@pytest.mark.timeout(180)
@in_workers
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", FORMATS)
def test_all_laws_hold(tmp_path, kind, suffix, workers):
    write, read, made = FORMATS[kind]
    path = tmp_path / f"a.{kind}{suffix}"
    write(path, map(made, range(23)))
    check(lambda: read(path), workers=workers)
    if not suffix:
        check(lambda: ff.pipe(read(path), ff.shuffle(), ff.batch(4, collate=None)), workers=workers)
    else:
        check(lambda: ff.pipe(read(path, hold=True), ff.shuffle()), workers=workers)


@pytest.mark.parametrize("kind", FORMATS)
def test_compressed_files_are_read_in_order_unless_held(tmp_path, kind):
    write, read, made = FORMATS[kind]
    datapoints = [made(i) for i in range(1000)]
    for suffix in (".gz", ".bz2", ".xz"):
        path = tmp_path / f"a{suffix}"
        write(path, datapoints)
        flow = read(path)
        assert not flow.seekable
        assert all(map(same, list(flow), datapoints))
        assert all(map(same, flow.run(start=990), datapoints[990:]))
        with pytest.raises(TypeError, match=r"can only be read from its beginning"):
            flow[3]
        assert same(read(path, hold=True)[500], datapoints[500])
        with OPENERS[suffix](path, "rb") as file:
            assert file.read(1)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_compression_is_an_error(tmp_path, kind, suffix):
    write, read, made = FORMATS[kind]
    write(tmp_path / f"whole{suffix}", map(made, range(2000)))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    broken = bytearray(whole)
    broken[len(broken) // 2] ^= 255
    path = tmp_path / f"a{suffix}"
    for content in (whole[: len(whole) // 2], whole[:-3], bytes(broken), b"something else"):
        path.write_bytes(content)
        for hold in (False, True):
            with pytest.raises(ValueError, match=rf"read_.*\(\): .*a{suffix}"):
                list(read(path, hold=hold))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_datapoints_make_the_same_file(tmp_path, kind):
    write, _, made = FORMATS[kind]
    for name in ("a.gz", "b.gz"):
        write(tmp_path / name, map(made, range(10)))
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_record_without_end_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(record_files, "LONGEST_RECORD", 10_000)
    monkeypatch.setattr(record_files, "PIECE", 1000)
    path = stored(tmp_path / "a", b"1\n" + bytes(50_000) + b"#\r")
    with pytest.raises(ValueError, match="has more than 0 MB; is it the right format"):
        list(FORMATS[kind][1](path))


@pytest.mark.parametrize("kind", FORMATS)
def test_flows_travel_as_their_paths_and_leave_nothing_open(tmp_path, kind):
    write, read, made = FORMATS[kind]
    write(tmp_path / "a", map(made, range(3000)))
    before = left_behind()["descriptors"]
    flow = read(tmp_path / "a")
    list(flow)
    held = pickle.dumps(flow.part.object)
    assert len(held) < 2000
    assert len(pickle.loads(held)) == 3000
    del flow
    gc.collect()
    assert left_behind()["descriptors"] <= before


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_is_not_replaced_unless_told(tmp_path, kind):
    write, read, made = FORMATS[kind]
    write(tmp_path / "a", [made(1)])
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write(tmp_path / "a", [made(2)])
    write(tmp_path / "a", [made(3)], overwrite=True)
    assert same(list(read(tmp_path / "a")), [made(3)])
    with pytest.raises(FileNotFoundError, match="nothing"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_became_shorter_is_an_error(tmp_path, kind):
    write, read, made = FORMATS[kind]
    write(tmp_path / "a", map(made, range(1000)))
    flow = read(tmp_path / "a")
    assert len(flow) == 1000
    os.truncate(tmp_path / "a", 100)
    with pytest.raises(ValueError, match="has become shorter"):
        flow[999]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_urls_are_read(kind, suffix):
    write, read, made = FORMATS[kind]
    url = f"memory://texts/a.{kind}{suffix}"
    write(url, map(made, range(10)), overwrite=True)
    assert all(map(same, read(url), map(made, range(10))))


def test_a_flow_says_how_it_was_made(tmp_path):
    path = stored(tmp_path / "a", "x,y\n1,2\n")
    assert repr(read_csv(path)) == f"read_csv({path!r})"
    assert repr(read_csv(path, ["x"], types={"x": int})) == f"read_csv({path!r}, columns=['x'], types={{'x': int}})"
    assert repr(read_csv(path, types=float, hold=True)) == f"read_csv({path!r}, hold=True, types=float)"
    assert repr(read_jsonl(path, hold=True)) == f"read_jsonl({path!r}, hold=True)"
    assert repr(read_svmlight(path, 7, first=0)) == f"read_svmlight({path!r}, 7, first=0)"
