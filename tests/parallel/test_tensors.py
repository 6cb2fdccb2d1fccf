"""Tensors cross to worker processes and back as arrays do, as what they were, and without being written out."""

import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest

import flowfn as ff
from flowfn.datapoints import buffers
from flowfn.parallel.crossing import slots, transport
from flowfn.parallel.tasks.versions import Ledger

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="shared memory is had on Linux only"),
]

N = 70_000


NAMES = (
    "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex32 complex64 "
    "complex128 "
    "float8_e4m3fn float8_e5m2"
)
DTYPES = [getattr(torch, name) for name in NAMES.split() if hasattr(torch, name)]


def of(dtype, n=N):
    """A tensor of any dtype, whatever bytes make of it."""
    held = np.random.default_rng(0).integers(0, 2, n * 16, np.uint8)
    return torch.from_numpy(held).view(dtype)[:n] if dtype != torch.bool else torch.from_numpy(held[:n]).bool()


def tensors(n):
    """Tensors of every form that is plain memory."""
    numbers = torch.arange(n * 12, dtype=torch.float32)
    return {
        "rows": numbers.reshape(n, 3, 4),
        "channels last": numbers.reshape(1, 3, 2, 2 * n).contiguous(memory_format=torch.channels_last),
        "transposed": numbers.reshape(n, 12).T,
        "a slice": numbers.reshape(n, 12)[1:],
        "a bfloat16": numbers.bfloat16(),
        "complex": torch.complex(numbers, numbers),
        "without axes": torch.tensor(3.5, dtype=torch.float64),
        "without numbers": torch.zeros(0, 3),
        "one": torch.ones(1, 1, 1),
    }


def crossed(value):
    """What comes out of a parcel whose arrays lie in shared memory, and what travelled beside them."""
    slot = slots.Slot()
    parcel = transport.pack_value(value, slots.Desk(slot))
    return transport.unpack_value(parcel, slot.memory), len(parcel.data)


def alike(one, other):
    assert type(one) is type(other)
    assert (one.dtype, one.shape, one.stride(), one.requires_grad) == (
        other.dtype,
        other.shape,
        other.stride(),
        other.requires_grad,
    )
    assert one.layout == other.layout
    held = [
        tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor
        for tensor in (one, other)
    ]
    assert torch.equal(*held)


@pytest.mark.parametrize("n", [3, N])
@pytest.mark.parametrize("name", tensors(3))
def test_tensors_come_back_as_they_are_and_not_by_pickle(name, n):
    tensor = tensors(n)[name]
    got, size = crossed([tensor, {"x": (tensor, 1)}])
    alike(got[0], tensor)
    assert got[1]["x"][0] is got[0]
    assert size < 1500
    alike(transport.unpack_value(transport.pack_value(tensor, None, Ledger())), tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_come_back(dtype):
    got, size = crossed(of(dtype))
    alike(got, of(dtype))
    assert size < 600


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("n", [3, N])
def test_tensors_cross_to_workers_and_back(processes, n):
    def source():
        yield from tensors(n).values()

    got = ff.pipe(source, ff.map(lambda tensor: {"x": [tensor]}), ff.prefetch(2, processes=processes))
    for one, other in zip(got, tensors(n).values(), strict=True):
        alike(one["x"][0], other)


def test_a_row_brings_its_own_bytes_alone():
    rows = torch.arange(1e6).reshape(1000, 1000)
    for form, most in (
        (rows[3], 5000),
        (rows[:, 3], 5000),
        (rows[::2, ::2][1], 3000),
        (torch.zeros(1).expand(1000, 1000), 3000),
    ):
        parcel = transport.pack_value(form)
        assert len(parcel.data) < most
        assert torch.equal(transport.unpack_value(parcel), form)
    assert transport.unpack_value(transport.pack_value(torch.zeros(1).expand(9, 9))).stride() == (0, 0)


SPECIAL = {
    "with gradients": lambda: torch.ones(N, requires_grad=True),
    "sparse": lambda: torch.eye(9).to_sparse(),
    "compressed": lambda: torch.eye(9).to_sparse_csr(),
    "conjugated": lambda: torch.ones(9, dtype=torch.complex64).conj(),
    "nowhere": lambda: torch.ones(9, device="meta"),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(N)),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(9), 0.1, 0, torch.quint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_not_plain_memory_is_pickled_as_torch_does(name):
    tensor = SPECIAL[name]()
    got, _ = crossed([tensor])
    wanted = pickle.loads(pickle.dumps(tensor))
    assert type(got[0]) is type(wanted)
    assert str(got[0]) == str(wanted)
    assert (got[0].requires_grad, got[0].layout) == (wanted.requires_grad, wanted.layout)


def test_attributes_of_a_tensor_stay():
    tensor = torch.ones(N)
    tensor.unit = "m"
    assert crossed(tensor)[0].unit == "m"


def test_a_tensor_over_memory_of_the_desk_is_not_copied():
    slot = slots.Slot()
    desk = slots.Desk(slot)
    with buffers.allocated_by(desk.allocate):
        array = ff.stack([np.arange(N, dtype=np.float32)] * 2)
    used = desk.used
    parcel = transport.pack_value([torch.from_numpy(array), torch.from_numpy(array)[1:]], desk)
    assert desk.used == used
    whole, part = transport.unpack_value(parcel, slot.memory)
    whole[:] = 7
    assert set(part.flatten().tolist()) == {7}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("make", [torch.from_numpy, lambda array: torch.from_numpy(array.copy()).to(torch.bfloat16)])
def test_memory_is_not_used_again_while_a_tensor_lives(make, processes):
    flow = ff.pipe(
        range(40),
        ff.map(lambda i: np.full(N, i, np.float32)),
        ff.batch(2),
        ff.map(make),
        ff.prefetch(2, processes=processes),
    )
    kept = []
    for at, batch in enumerate(flow):
        assert batch[:, ::7000].flatten().tolist() == [2 * at] * 10 + [2 * at + 1] * 10
        if at % 3 == 0:
            kept.append((at, batch[1:, 5:].T))
    gc.collect()
    for at, view in kept:
        assert set(view.flatten().tolist()) == {2 * at + 1}
        view += 100


def test_tensors_that_a_worker_keeps_are_not_overwritten():
    def keeping(batch):
        kept.append(torch.from_numpy(batch))
        return kept[-1], [int(one.min()) for one in kept], [int(one.max()) for one in kept]

    kept: list = []
    flow = ff.pipe(
        range(12), ff.map(lambda i: np.full(N, i)), ff.batch(1), ff.map(keeping), ff.prefetch(2, processes=1)
    )
    for batch, low, high in flow:
        assert low == high == sorted(low)
        assert int(batch[0, 0]) == low[-1]


def test_arrays_of_jax_come_back_as_they_are_and_not_by_pickle():
    jax = pytest.importorskip("jax")
    for value in (
        jax.numpy.arange(N * 1.0).reshape(5, -1),
        jax.numpy.ones(N, jax.numpy.bfloat16),
        jax.numpy.arange(3),
        jax.numpy.zeros((0, 3)),
    ):
        got, size = crossed({"x": [value]})
        assert type(got["x"][0]) is type(value)
        assert (got["x"][0].dtype, got["x"][0].shape) == (value.dtype, value.shape)
        assert np.asarray(got["x"][0]).tobytes() == np.asarray(value).tobytes()
        assert size < 1500
    weak = jax.numpy.asarray(2.0)
    assert crossed(weak)[0].weak_type == weak.weak_type


def test_wide_arrays_of_jax_are_not_cut_to_32_bits():
    jax = pytest.importorskip("jax")
    if jax.config.jax_enable_x64:
        pytest.skip("all are wide here")
    jax.config.update("jax_enable_x64", True)
    try:
        wide = jax.numpy.asarray(np.arange(3) + 2**40)
        parcel = transport.pack_value(wide)
        assert np.asarray(transport.unpack_value(parcel)).tolist() == np.asarray(wide).tolist()
    finally:
        jax.config.update("jax_enable_x64", False)
    with pytest.raises(TypeError, match="jax_enable_x64"):
        transport.unpack_value(parcel)


@pytest.mark.parametrize("processes", [0, 1])
def test_memory_is_not_used_again_while_an_array_of_jax_lives(processes):
    """On the CPU jax 0.10.2 looks into arrays of NumPy that may be written (jax 37830)."""
    jax = pytest.importorskip("jax")
    ahead = ff.prefetch(2, processes=processes) if processes else None
    full = ff.map(lambda i: np.full(N * 8, i, np.float32))
    flow = ff.pipe(range(40), full, ff.batch(2), ff.map(jax.device_put), ahead)
    kept = [(at, array) for at, array in enumerate(flow) if at % 3 == 0]
    for at, array in kept:
        assert np.unique(np.asarray(array)).tolist() == [2 * at, 2 * at + 1]


def test_memory_that_arrays_of_jax_looked_into_is_used_again():
    jax = pytest.importorskip("jax")
    made = [jax.device_put(np.full(N * 8, at, np.float32)) for at in range(4)]
    flow = ff.pipe(lambda: iter(made * 10), ff.map(lambda array: array), ff.prefetch(2, processes=1))
    files = set()
    for at, array in enumerate(flow):
        assert float(array[0]) == float(array[-1]) == at % 4
        files |= {slot.name.file for slot in slots.slots.blocks}
        del array
    assert len(files) < 12  # of 40 batches; each needed a file of its own while JAX held the last


@pytest.mark.parametrize("dtype", ["M8[s]", [("t", "M8[s]"), ("x", "f4")], "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_whose_bytes_numpy_shows_to_nobody_are_not_written_out(dtype, order):
    if isinstance(dtype, str) and "float" in dtype:
        dtype = getattr(pytest.importorskip("ml_dtypes"), dtype)
    array = np.asarray(np.arange(N * 4).reshape(N, 4) % 100, order=order).astype(dtype)
    got, size = crossed([array])
    assert size < 600
    assert (got[0].dtype, got[0].flags.c_contiguous, got[0].tobytes()) == (
        array.dtype,
        array.flags.c_contiguous,
        array.tobytes(),
    )


def test_nothing_is_imported_that_is_not_there():
    program = (
        "import sys, numpy as np, flowfn as ff\n"
        "flow = ff.pipe(range(4), ff.map(lambda i: np.full(70_000, i)), ff.batch(2), ff.prefetch(1, processes=1))\n"
        "list(flow)\n"
        "def there(i=0):\n"
        "    return [name for name in ('torch', 'jax') if name in sys.modules]\n"
        "print(there(), *ff.pipe([0], ff.map(there), ff.prefetch(1, processes=1)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert run.stdout.strip() == "[] []", run.stderr
