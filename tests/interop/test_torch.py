"""Datapoints as tensors of torch: the same values in the same memory, wherever they are made, and on a device."""

import collections
import contextlib
import dataclasses
import gc
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

import flowfn as ff
import flowfn.testing
from flowfn.datapoints import buffers
from flowfn.interop import to_device, to_torch

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(120)

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = np

PLAIN = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]
SMALL = ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
SMALL = [name for name in SMALL if hasattr(ml_dtypes, name)]
WIDER = {
    "longdouble": "float64",
    "clongdouble": "complex128",
    "datetime64[D]": "int64",
    "timedelta64[ns]": "int64",
}
WIDER |= {name: "int8" for name in ("int4", "int2") if hasattr(ml_dtypes, name)}
WIDER |= {name: "uint8" for name in ("uint4", "uint2") if hasattr(ml_dtypes, name)}
WIDER |= {
    name: "float32"
    for name in ["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"]
    if hasattr(ml_dtypes, name)
}
Pair = collections.namedtuple("Pair", "x y")


@dataclasses.dataclass(frozen=True)
class Sample:
    x: object
    name: str


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


def made(value, **options):
    (tensor,) = to_torch([value], **options)
    return tensor


def shares(tensor, array):
    return tensor.data_ptr() == array.__array_interface__["data"][0]


FORMS = {
    "an array": lambda a: (a, lambda d: d),
    "a list": lambda a: ([a, 1], lambda d: d[0]),
    "a tuple": lambda a: ((a, "x"), lambda d: d[0]),
    "a namedtuple": lambda a: (Pair(a, 1), lambda d: d.x),
    "a dict": lambda a: ({"x": a}, lambda d: d["x"]),
    "an ordered dict": lambda a: (collections.OrderedDict(x=a), lambda d: d["x"]),
    "a default dict": lambda a: (collections.defaultdict(list, x=a), lambda d: d["x"]),
    "a mapping": lambda a: (collections.UserDict(x=a), lambda d: d["x"]),
    "a dataclass": lambda a: (Sample(a, "n"), lambda d: d.x),
    "nested": lambda a: ({"x": [(a, {"y": Sample(a, "n")})]}, lambda d: d["x"][0][1]["y"].x),
}


@pytest.mark.parametrize("form", FORMS)
def test_datapoints_keep_their_form_and_their_memory(form):
    array = np.arange(6.0).reshape(2, 3)
    datapoint, component = FORMS[form](array)
    got = made(datapoint)
    assert type(got) is type(datapoint) or form == "an array"
    assert shares(component(got), array)
    assert component(datapoint) is array


def test_a_mapping_that_cannot_be_written_to_becomes_a_dict():
    got = made(types.MappingProxyType({"x": np.ones(2)}))
    assert (type(got), got["x"].tolist()) == (dict, [1, 1])


@pytest.mark.parametrize("name", PLAIN + SMALL)
@pytest.mark.parametrize("form", ["whole", "strided", "transposed", "without axes", "empty"])
def test_a_dtype_that_torch_has_is_looked_into_where_it_lies(name, form):
    array = np.arange(1, 13).reshape(3, 4).astype(dtype_of(name))
    array = {
        "whole": array,
        "strided": array[::2, 1:],
        "transposed": array.T,
        "without axes": array[1, 1:2].reshape(()),
        "empty": array[:0],
    }[form]
    tensor = made(array)
    assert tensor.dtype is getattr(torch, name)
    assert tuple(tensor.shape) == array.shape
    assert tensor.tolist() == array.astype("complex128" if "complex" in name else "float64").tolist()
    assert form == "empty" or shares(tensor, array)


@pytest.mark.parametrize("name", PLAIN + SMALL)
def test_numbers_of_numpy_become_tensors_without_axes(name):
    tensor = made(np.ones(2, dtype_of(name))[0])
    assert (tensor.dtype, tensor.shape, tensor.item()) == (getattr(torch, name), (), 1)


@pytest.mark.parametrize("name", WIDER)
def test_what_torch_lacks_is_refused_or_widened(name):
    array = np.array([0, 1, 1], np.int64).astype(dtype_of(name))
    with pytest.raises(TypeError, match=r"to_torch\(\): component \['x'\]\[1\]: torch has no dtype .*widen=True"):
        made({"x": [np.ones(1), array]})
    for value in (array, array[::-1], array[1]):
        tensor = made(value, widen=True)
        assert tensor.dtype is getattr(torch, WIDER[name])
        assert tensor.tolist() == value.astype(WIDER[name]).tolist()


def test_widening_touches_nothing_that_torch_has():
    assert made([np.ones(1, np.float16), np.ones(1, np.uint16)], widen=True)[1].dtype is torch.uint16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ma.array([1, 2], mask=[0, 1]), "MaskedArray carries more than numbers"),
        (np.zeros(2, [("x", "i4"), ("y", "f4")]), "torch has no dtype for"),
        (np.zeros(2, "V3"), "torch has no dtype for"),
        (np.zeros(2).view(type("Metres", (np.ndarray,), {})), "Metres carries more than numbers"),
    ],
)
def test_what_no_tensor_can_hold_is_named(value, said):
    with pytest.raises(TypeError, match=rf"to_torch\(\): component \[1\]\.x: {said}.*write map") as caught:
        made([1, Sample(value, "n")])
    assert "its datapoint 0" in caught.value.__notes__[0]
    with pytest.raises(TypeError, match=rf"to_torch\(\): {said}"):
        made(value)


def test_what_is_no_number_stays_as_it_is():
    things = [
        "text",
        b"bytes",
        None,
        3,
        2.5,
        True,
        np.array(["a", "b"]),
        np.array([b"a"]),
        np.array([None, {}], object),
        np.str_("a"),
        np.bytes_(b"a"),
        torch.ones(2),
        range(3),
        {1, 2},
    ]
    got = made(things)
    assert all(one is other for one, other in zip(got, things))


COPIED = {
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "backwards": lambda a: a[::-1, ::-1],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "broadcast": lambda a: np.broadcast_to(a[0], (3, 4)),
    "not aligned": lambda a: np.frombuffer(bytearray(b"x" + a.tobytes()), a.dtype, offset=1).reshape(a.shape),
    "a field": lambda a: np.frombuffer(bytearray(60), [("b", "u1"), ("x", "f4")])["x"],
}


@pytest.mark.parametrize("name", COPIED)
def test_what_torch_cannot_look_into_is_copied(name):
    array = COPIED[name](np.arange(12, dtype=np.float32).reshape(3, 4))
    tensor = made(array)
    assert (tensor.dtype, tensor.tolist()) == (torch.float32, array.tolist())
    assert not shares(tensor, array)
    before = array.tolist()
    tensor.fill_(77)
    assert array.tolist() == before


def test_arrays_of_numpys_own_classes_are_arrays(tmp_path):
    matrix, records = np.ones((1, 2)).view(np.matrix), np.array([1, 2]).view(np.recarray)
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4,))
    read = np.memmap(tmp_path / "x", np.float32, "r", shape=(4,))
    for array in (matrix, records, mapped):
        assert shares(made(array), array)
    made(mapped)[1] = 5
    assert made(read).tolist() == [0, 5, 0, 0]
    assert not shares(made(read), read)


def test_rows_of_a_data_set_cannot_be_written_to_through_a_tensor():
    rows = np.zeros((3, 4), np.float32)
    for tensor in ff.pipe(ff.from_arrays(rows), ff.select([0]), to_torch()):
        tensor[0].fill_(1)
    assert not rows.any()


def test_to_torch_twice_is_to_torch():
    (once,) = to_torch([np.ones(2)])
    assert next(iter(to_torch([once]))) is once


def test_nothing_is_warned_of():
    """torch warns of arrays that may not be written to, once in a process."""
    program = (
        "import numpy as np, flowfn as ff; from flowfn.interop import to_torch, as_dataset, to_device\n"
        "rows = ff.from_arrays(np.zeros((4, 2)), np.arange(4))\n"
        "for end in (ff.batch(2), ff.map(list), ff.cache()):\n"
        "    print(len(list(ff.pipe(rows, end, to_torch()))), len(list(as_dataset(ff.pipe(rows, end, to_device('cpu'))))))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("2 2\n4 4\n4 4\n", "")


# Memory

ROWS, WIDTH = 3, 1 << 19

LENT = {
    "here": [],
    "in a thread": [ff.prefetch(2)],
    "in a process": [ff.prefetch(2, processes=1)],
    "in processes": [ff.prefetch(2, processes=2)],
}


@pytest.mark.parametrize("way", LENT)
@pytest.mark.parametrize("name", ["float32", *SMALL[:1]])
def test_memory_is_not_used_again_while_a_tensor_lives(way, name):
    dtype = dtype_of(name)
    width = WIDTH // dtype.itemsize
    flow = ff.pipe(range(36), ff.map(lambda i: np.full(width, i).astype(dtype)), ff.batch(ROWS), *LENT[way], to_torch())
    kept = []
    for at, batch in enumerate(flow):
        assert batch[:, ::70_000].float().mean(1).tolist() == [3 * at, 3 * at + 1, 3 * at + 2]
        if at % 3 == 0:
            kept.append((3 * at + 1, batch[1:2].T[5:]))
    gc.collect()
    assert [view.unique().tolist() for _, view in kept] == [[number] for number, _ in kept]


def test_tensors_are_made_in_workers_too():
    flow = ff.pipe(range(8), ff.map(lambda i: [np.full(70_000, i), "x"]), ff.batch(2), to_torch())
    for one, other in zip(ff.pipe(flow, ff.prefetch(2, processes=2)), flow, strict=True):
        assert torch.equal(one[0], other[0])
        assert one[1] == other[1]


def test_a_recycled_buffer_is_the_tensors_memory():
    flow = ff.pipe(range(12), ff.map(lambda i: np.full(WIDTH, i, np.float32)), ff.batch(1), to_torch())
    with iter(flow) as iterator:
        places = {next(iterator).data_ptr() for _ in range(10)}
        assert len(places) <= 2
        assert len(buffers.heap.blocks) <= 2


# Laws, errors, devices


def numbers(datapoint):
    return [part.tolist() if isinstance(part, torch.Tensor) else part for part in datapoint]


def seen(device):
    def make():
        flow = ff.pipe(range(10), ff.shuffle(), ff.map(lambda i: [np.full(2, i), str(i)]), to_device(device))
        return ff.pipe(flow, ff.map(lambda d: [tuple(d[0].shape), d[0].device.type, d[1]]))

    return make


def test_to_torch_keeps_the_laws():
    ff.testing.check(
        lambda: ff.pipe(range(11), ff.shuffle(), ff.map(lambda i: [np.arange(i), i]), to_torch(), ff.map(numbers)),
        workers=({}, {"threads": 2}, {"processes": 2}),
    )


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_to_device_keeps_the_laws(device):
    ff.testing.check(seen(device))


def test_on_the_cpu_nothing_happens_beyond_to_torch():
    array = np.ones(3)
    for device in ("cpu", torch.device("cpu"), "cpu:0"):
        (tensor,) = to_device(device, [array])
        assert shares(tensor, array)


def test_every_tensor_goes_to_the_device_and_nothing_else_changes():
    datapoint = {"x": np.ones(3, np.float16), "n": [torch.ones(2), "text", None, 3]}
    (got,) = ff.pipe([datapoint], to_device(torch.device("meta")))
    assert (got["x"].device.type, got["x"].dtype, got["n"][0].device.type) == ("meta", torch.float16, "meta")
    assert got["n"][1:] == ["text", None, 3]


def test_the_state_is_that_of_what_was_delivered():
    flow = seen("meta")()
    whole = list(flow.run(epoch=0))
    for k in range(len(whole) + 1):
        iterator = iter(flow.set_epoch(0))
        first = [next(iterator) for _ in range(k)]
        state = iterator.state_dict()
        assert state["position"] == k
        assert first + list(seen("meta")().load_state_dict(state)) == whole


def test_a_state_moves_from_one_device_to_another():
    iterator = iter(seen("meta")())
    first = [next(iterator) for _ in range(4)]
    rest = list(seen("cpu")().load_state_dict(iterator.state_dict()))
    assert [d[2] for d in first + rest] == [d[2] for d in seen("cpu")()]


def test_a_device_is_named_where_it_is_wrong():
    for name in ("nowhere", "gpu", "CUDA"):
        with pytest.raises(
            RuntimeError, match=rf"to_device\(\): device must be a device .*, got '{name}'; \"cuda\" is a GPU"
        ):
            to_device(name, [1])
    for thing in (None, torch.nn.Linear(1, 1)):
        with pytest.raises(TypeError, match=r"to_device\(\): device must be a device .*, got (None|Linear\()"):
            to_device(thing, [1])
    with pytest.raises(TypeError, match=r"to_device\(\): 4 is no source; write to_device\(device, ahead=4\)"):
        to_device("cpu", 4)
    with pytest.raises(ValueError, match=r"to_device\(\): ahead must be a positive integer, got 0"):
        to_device("cpu", [1], ahead=0)
    with pytest.raises(TypeError, match=r"to_torch\(\): widen must be True or False"):
        to_torch([1], widen=3)
    assert repr(ff.pipe([1], to_device("meta", ahead=3))) == "pipe(flow([1]), to_device('meta', ahead=3))"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_so_where_a_pass_begins():
    flow = ff.pipe(range(3), to_device("cuda"))
    with pytest.raises(RuntimeError, match=r"no GPU of CUDA for 'cuda' here; to_device\(\"cpu\"\)"):
        next(iter(flow))


def test_another_device_that_is_not_there_is_said_so_where_a_pass_begins():
    """torch 2.14 has a message of its own for each: an AssertionError for Intel's GPUs, a RuntimeError for Apple's."""
    there = {"xpu": torch.xpu.is_available(), "mps": torch.backends.mps.is_available()}
    for device in [name for name in there if not there[name]]:
        with pytest.raises(
            RuntimeError, match=rf"to_device\(\): there is no '{device}' for torch here; to_device\(\"cpu\"\)"
        ):
            next(iter(ff.pipe(range(3), to_device(device))))


def test_a_gpu_with_too_high_a_number_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(RuntimeError, match=r"no GPU of CUDA for 'cuda:2' here"):
        next(iter(ff.pipe(range(3), to_device("cuda:2"))))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("device", r"write to_device\(device\) of flowfn.interop at the end"),
        ("pin_memory", r"write to_device\(device\) of flowfn.interop at the end"),
        ("dtype", r"write map_component\(f, index\) before, with an f that casts"),
    ],
)
def test_what_torch_has_a_keyword_for_is_said_to_be_another_stage(word, told):
    with pytest.raises(TypeError, match=rf"to_torch\(\): got an unexpected keyword argument '{word}'; .*{told}"):
        to_torch(**{word: 1})


def test_the_steps_of_a_copy_to_a_gpu(monkeypatch):
    """Without a GPU: in which order torch is asked for what, and that "cuda" is the one that is current here, although
    another is in the thread that copies."""
    said, streams = [], threading.local()

    class Stream:
        def __init__(self, place):
            said.append(f"a stream on {place}")

        def record_event(self):
            said.append("an event")
            return "event"

        def wait_event(self, event):
            said.append(f"wait for the {event}")

    @contextlib.contextmanager
    def current(stream):
        streams.inside = True
        yield
        streams.inside = False

    def pinned(tensor):
        assert streams.inside
        said.append("pinned")
        return tensor

    def moved(tensor, place, non_blocking=False):
        said.append(f"{tensor.layout} to {place}{' ahead' if non_blocking else ''}")
        return tensor

    main = threading.current_thread()
    here = Stream("cuda:3, here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3 if threading.current_thread() is main else 0)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: here)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: said.append("kept"))
    sparse = torch.eye(2).to_sparse()
    (got,) = ff.pipe([{"x": np.ones(2), "y": sparse, "n": "name"}], to_device("cuda"))
    assert (got["x"].tolist(), got["y"] is sparse, got["n"]) == ([1, 1], True, "name")
    assert said == [
        "a stream on cuda:3, here",
        "a stream on cuda:3",
        "pinned",
        "torch.strided to cuda:3 ahead",
        "an event",
        "wait for the event",
        "kept",
        "torch.sparse_coo to cuda",
    ]


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")


@on_a_gpu
def test_values_are_there_when_they_are_delivered():
    flow = ff.pipe(range(60), ff.map(lambda i: [np.full(1 << 20, i, np.float32), str(i)]), to_device("cuda", ahead=3))
    sums = []
    for at, (tensor, name) in enumerate(flow):
        assert (tensor.device.type, name) == ("cuda", str(at))
        sums.append((tensor * 2).sum())
        del tensor
    assert [total.item() for total in sums] == [2.0 * i * (1 << 20) for i in range(60)]


@on_a_gpu
def test_values_are_there_on_another_stream():
    stream, sums = torch.cuda.Stream(), []
    with torch.cuda.stream(stream):
        for tensor in ff.pipe(range(60), ff.map(lambda i: np.full(1 << 20, i, np.float32)), to_device("cuda")):
            torch.cuda._sleep(100_000)
            sums.append(tensor.sum())
    stream.synchronize()
    assert [total.item() for total in sums] == [1.0 * i * (1 << 20) for i in range(60)]


@on_a_gpu
def test_sparse_tensors_and_those_that_are_there_go_along():
    there = torch.ones(3, device="cuda")
    (got,) = ff.pipe([[torch.eye(3).to_sparse(), there]], to_device("cuda"))
    assert got[0].device.type == "cuda"
    assert torch.equal(got[0].to_dense().cpu(), torch.eye(3))
    assert got[1] is there


@on_a_gpu
def test_the_gpu_is_the_one_that_is_current_where_it_is_iterated():
    last = torch.cuda.device_count() - 1
    with torch.cuda.device(last):
        (got,) = ff.pipe([np.ones(3)], to_device("cuda"))
    assert got.device.index == last


@on_a_gpu
def test_the_laws_hold():
    ff.testing.check(seen("cuda"))
