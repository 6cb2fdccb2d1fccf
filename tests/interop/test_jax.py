"""Flows in JAX: arrays as they were, memory that nobody writes to, global arrays, and training that goes on exactly."""

import collections
import dataclasses
import gc
import json
import os
import pickle
import re
import runpy
import signal
import socket
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import toolz
from comparing import assert_same
from forking import compiled_in

import flowfn as ff
from flowfn.datapoints.components import with_leaves
from flowfn.interop import to_jax
from flowfn.testing import check

jax = pytest.importorskip("jax")
jnp = jax.numpy
ml_dtypes = pytest.importorskip("ml_dtypes")

pytestmark = pytest.mark.timeout(120)

N = 300_000
"""As many float32 are worth recycled memory."""

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture
def wide():
    """JAX with 64 bits."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def put(value, **options):
    """One datapoint behind `to_jax`."""
    return ff.pipe([value], to_jax(**options))[0]


def as_numpy(datapoint):
    """A datapoint with NumPy's arrays, of memory of their own, in the place of JAX's."""
    return with_leaves(lambda value: np.array(value) if isinstance(value, jax.Array) else value, datapoint)


def is_jax(value, dtype, like):
    assert isinstance(value, jax.Array)
    assert (value.dtype, value.shape, value.weak_type) == (np.dtype(dtype), np.shape(like), False)
    assert np.array_equal(np.asarray(value), np.asarray(like).astype(dtype), equal_nan=np.dtype(dtype).kind in "fc")
    return True


# Dtypes and forms

SAME = ["bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "complex64"]
OF_ML_DTYPES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]


@pytest.mark.parametrize("name", SAME + OF_ML_DTYPES)
def test_dtypes_that_jax_has_stay_in_arrays_of_every_layout(name):
    dtype = np.dtype(getattr(ml_dtypes, name) if name in OF_ML_DTYPES else name)
    array = (np.arange(24).reshape(4, 6) % 7).astype(dtype)
    frozen = array.copy()
    frozen.flags.writeable = False
    for form in (array, frozen, array[::-1], array[:, ::2], array.T, array[:0], array[1, 2], np.asfortranarray(array)):
        assert is_jax(put(form), dtype, form)


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">u2", ">c8"])
def test_bytes_in_the_other_order_are_turned_around(dtype):
    """jax 0.10.2 refuses such arrays: they are in no dtype of its own."""
    array = np.arange(6).reshape(2, 3).astype(dtype)
    with pytest.raises(TypeError):
        jax.device_put(array)
    assert is_jax(put(array), np.dtype(dtype).newbyteorder("="), array)


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    x: np.ndarray
    name: str


def test_datapoints_keep_their_form_and_what_is_no_array():
    x, words = np.arange(3, dtype=np.float32), np.array(["a", "b"])
    got = put({"x": [x, (x, None)], "p": Point(x, 1), "r": Record(x, "n"), "w": words, "o": np.array([None]), "n": 2.5})
    assert list(got) == ["x", "p", "r", "w", "o", "n"]
    assert is_jax(got["x"][0], "float32", x)
    assert is_jax(got["x"][1][0], "float32", x)
    assert is_jax(got["p"].x, "float32", x)
    assert is_jax(got["r"].x, "float32", x)
    assert (got["x"][1][1], type(got["p"]), got["p"].y, got["r"].name, got["n"]) == (None, Point, 1, "n", 2.5)
    assert got["w"] is words
    assert got["o"].tolist() == [None]
    assert is_jax(put(np.float32(2)), "float32", 2)
    assert put("text") == "text"
    made = jnp.arange(3)
    assert put(made) is made


def test_subclasses_of_arrays_and_memory_maps_are_arrays(tmp_path):
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(100, 5))
    mapped[:] = np.arange(500).reshape(100, 5)
    assert is_jax(put(mapped), "float32", mapped)
    assert is_jax(put(np.eye(2, dtype=np.int32).view(np.recarray)), "int32", np.eye(2))
    with pytest.raises(TypeError, match=r"no masked arrays; write map\(\.\.\.\) with x\.filled"):
        put(np.ma.masked_array([1, 2], [0, 1]))


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[D]", "g", [("x", "f4")]], ids=str)
def test_dtypes_that_jax_lacks_are_errors(dtype):
    with pytest.raises(TypeError, match=r"^to_jax\(\): JAX has no dtype for .*; write map\(\.\.\.\)"):
        put(np.zeros(2, dtype))


# 64 bits


@pytest.mark.filterwarnings("ignore")
def test_jax_cuts_integers_silently():
    """jax 0.10.2: without x64, `device_put` and `asarray` keep the lower half of int64, and say nothing.

    The guess was an error, or the warning that `jnp.zeros(2, "int64")` gives.
    https://docs.jax.dev/en/latest/default_dtypes.html says that dtypes are of 32 bits, and not what becomes of values.
    """
    assert jax.device_put(np.array([2**40 + 7])).tolist() == [7]
    assert jnp.asarray(np.array([2**63 + 1], np.uint64)).tolist() == [1]
    assert jax.device_put(np.array([0.1])).tolist() != [0.1]


@pytest.mark.parametrize(
    ("dtype", "fitting"), [("int64", [-(2**31), 0, 2**31 - 1]), ("uint64", [0, 2**32 - 1]), ("int64", [])]
)
def test_integers_of_64_bits_have_32_where_they_fit(dtype, fitting):
    assert is_jax(put(np.array(fitting, dtype)), dtype.replace("64", "32"), fitting)


@pytest.mark.parametrize(
    ("dtype", "value"), [("int64", 2**31), ("int64", -(2**31) - 1), ("uint64", 2**32), ("uint64", 2**63)]
)
@pytest.mark.parametrize("narrow", [False, True])
def test_integers_that_do_not_fit_are_errors(dtype, value, narrow):
    with pytest.raises(
        ValueError, match=rf"^to_jax\(\): {value} of an array of {dtype} is no u?int32,.*jax_enable_x64"
    ):
        put(np.array([3, value], dtype), narrow=narrow)


@pytest.mark.parametrize(("dtype", "narrower"), [("float64", "float32"), ("complex128", "complex64")])
def test_numbers_are_rounded_only_where_that_is_asked_for(dtype, narrower):
    array = np.array([0.1, np.inf, np.nan, -3e-60], dtype)
    with pytest.raises(
        TypeError, match=rf"^to_jax\(\): JAX would round {dtype} to {narrower}; write to_jax\(narrow=True\)"
    ):
        put(array)
    assert is_jax(put(array, narrow=True), narrower, array)
    with pytest.raises(ValueError, match=f"beyond what {narrower} can hold"):
        put(np.array([1.0, 1e300], dtype), narrow=True)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "complex128"])
def test_with_x64_all_of_it_stays(wide, dtype):
    array = np.array([0, 3, 2**53 - 1]).astype(dtype)
    assert is_jax(put(array), dtype, array)


def test_settings_by_with_hold_for_one_thread_and_not_for_what_reads_ahead():
    """jax 0.10.2: `jax.enable_x64` and `jax.default_device` as context managers set what this thread does.

    The guess was that a loop within them has arrays of 64 bits. With threads in between, whoever's they are, it has not:
    so floats are an error here instead of rounded, and the documentation names `jax.config.update`.
    """
    flow = ff.pipe([np.array([1, 2]), np.array([0.1, 0.2])], to_jax())
    with jax.enable_x64(True):
        iterator = iter(flow)
        assert next(iterator).dtype == np.int32
        with pytest.raises(TypeError, match="jax_enable_x64"):
            next(iterator)


# Memory


def placed(n, dtype=np.float32, offset=0):
    """Numbers whose first byte lies so many bytes behind a multiple of 64."""
    size = n * np.dtype(dtype).itemsize
    memory = np.zeros(size + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    array = memory[start : start + size].view(dtype)
    array[:] = np.arange(n) % 100
    return array


def looks_into(made, array):
    return made.addressable_shards[0].data.unsafe_buffer_pointer() == array.ctypes.data


@pytest.mark.parametrize("writeable", [True, False])
def test_nothing_is_copied_on_the_cpu_where_memory_begins_at_64_bytes(writeable):
    """jax 0.10.2 looks into arrays that may be written to as it does into others; see findings/jax_device_put_by_address.sh."""
    for offset, there in ((0, True), (16, False)):
        array = placed(N, offset=offset)
        array.flags.writeable = writeable
        assert looks_into(put(array), array) is there


def test_jax_copies_nothing_where_it_is_told_to_neither():
    """jax 0.10.2: `device_put(x, may_alias=False)` looks into an array of NumPy all the same; `jnp.array(x)` copies it.

    The guess was that the argument does what its documentation says, "If False, `x` will be copied".
    https://github.com/jax-ml/jax/pull/38086
    """
    array = placed(N)
    assert looks_into(jax.device_put(array, may_alias=False), array)
    assert not looks_into(jnp.array(array), array)


def test_a_donated_array_does_not_become_memory_of_numpy_that_is_written_to():
    """jax 0.10.2: what is donated to a jitted function is written over only where it is JAX's own memory.

    The guess was that a result is written where the donated array lies, and so into NumPy's.
    """
    array = placed(N)
    made = put(array)
    assert looks_into(made, array)
    plus = jax.jit(lambda x: x + 1, donate_argnums=0)
    result = jax.block_until_ready(plus(made))
    assert np.array_equal(np.asarray(result), np.arange(N) % 100 + 1)
    assert np.array_equal(array, np.arange(N) % 100)


@pytest.mark.parametrize("processes", [None, 2])
def test_batches_that_are_held_keep_their_values_while_hundreds_more_are_made(processes):
    flow = ff.pipe(
        range(600),
        ff.map(lambda i: np.full(N // 2, i, np.float32)),
        ff.batch(2),
        ff.prefetch(2, processes=processes) if processes else None,
        to_jax(),
    )
    held = {}
    for at, batch in enumerate(flow):
        if at % 37 == 0:
            held[at] = batch[:, 5:] if at % 2 else batch
        assert batch[:, :: N // 8].tolist() == [[2 * at] * 4, [2 * at + 1] * 4]
    gc.collect()
    assert len(held) == 9
    for at, batch in held.items():
        assert np.array_equal(np.unique(np.asarray(batch)), [2 * at, 2 * at + 1])


def test_batches_out_of_processes_are_looked_into_and_those_of_this_process_where_they_lie_so():
    """jax 0.10.2 looks into what begins at a multiple of 64 bytes: all that crosses in shared memory does.

    What NumPy allocates mostly begins 16 bytes behind one, but where memory is taken a second time it can be any.
    """
    full = ff.pipe(range(8), ff.map(lambda i: np.full(N, i, np.float32)), ff.batch(2))
    for ahead in (ff.prefetch(2, processes=1), None):
        seen = []
        flow = ff.pipe(full, ahead, ff.tap(seen.append), to_jax())
        there = [looks_into(batch, array) for batch, array in zip(flow, seen)]
        assert there == [array.ctypes.data % 64 == 0 for array in seen]
        assert ahead is None or all(there)


@pytest.mark.parametrize("processes", [None, 2])
def test_what_is_computed_later_finds_a_batch_as_it_was(processes):
    """jax 0.10.2 computes while Python goes on, also on the CPU: by then nobody but JAX holds the batch."""

    @jax.jit
    def late(batch):
        heavy = jax.lax.fori_loop(0, 20, lambda _, m: jnp.tanh(m @ m), jnp.full((200, 200), batch[0, 0]))
        start = (heavy.sum() * 0).astype(jnp.int32)  # so that the rows are read when that is done
        return jax.lax.dynamic_slice_in_dim(batch, start, N, axis=1).max(1)

    full = ff.map(lambda i: np.full(N, i, np.float32))
    ahead = ff.prefetch(2, processes=processes) if processes else None
    later = [late(batch) for batch in ff.pipe(range(120), full, ff.batch(2), ahead, to_jax())]
    assert np.array_equal(np.ravel(later), np.arange(120))


def test_donated_batches_do_not_disturb_those_behind():
    flow = ff.pipe(
        range(200), ff.map(lambda i: np.full(N, i, np.float32)), ff.batch(2), ff.prefetch(2, processes=1), to_jax()
    )
    total = jax.jit(lambda total, batch: (total + batch.sum(1), batch * 0), donate_argnums=(0, 1))
    sums = jnp.zeros(2)
    for at, batch in enumerate(flow):
        assert np.array_equal(batch[:, 7], [2 * at, 2 * at + 1])
        sums, zeros = total(sums, batch)
        assert not zeros.any()
    assert at == 99


def test_rows_of_a_data_set_in_memory_are_not_changed_by_what_is_computed():
    images = placed(4 * N).reshape(4, N)
    before = images.copy()
    flow = ff.pipe(images, to_jax())
    double = jax.jit(lambda x: x * 2, donate_argnums=0)
    assert [float(double(row)[99]) for row in flow] == [198.0, 198.0, 198.0, 198.0]
    assert np.array_equal(images, before)


# Laws and workers


def source():
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    return ff.from_arrays(rows, np.arange(20))


def noisy(row, rng):
    return row + rng.integers(0, 100, 3).astype(np.float32)


def augmented():
    return ff.pipe(source(), ff.shuffle(), ff.map_component(noisy, 0, rng=True), ff.batch(3))


LAWFUL = {
    "alone": lambda: ff.pipe(augmented(), to_jax(), ff.map(as_numpy)),
    "behind processes": lambda: ff.pipe(augmented(), ff.prefetch(2, processes=2), to_jax(), ff.map(as_numpy)),
    "before threads": lambda: ff.pipe(augmented(), to_jax(), ff.map(as_numpy), ff.prefetch(2, threads=2)),
    "of a stream": lambda: ff.pipe(
        augmented(), ff.unbatch(), ff.filter(lambda row: row[1] % 3), ff.batch(2), to_jax(), ff.map(as_numpy)
    ),
}


@pytest.mark.parametrize("name", LAWFUL)
def test_laws(name):
    check(LAWFUL[name], stops=5)


def test_datapoints_are_those_without_it_and_in_their_order():
    plain = [[rows, labels.astype(np.int32)] for rows, labels in augmented().run(seed=3)]
    for name in ("alone", "behind processes", "before threads"):
        assert_same(list(LAWFUL[name]().run(seed=3)), plain)


def test_the_state_is_that_of_what_was_delivered():
    iterator = iter(ff.pipe(augmented(), to_jax(ahead=4)))
    first = [next(iterator) for _ in range(2)]
    state = json.loads(json.dumps(iterator.state_dict()))
    rest = [as_numpy(batch) for batch in iterator]
    assert (len(first), len(rest)) == (2, 5)
    again = ff.pipe(augmented(), to_jax(sharding=jax.devices()[0])).load_state_dict(state)
    assert_same([as_numpy(batch) for batch in again], rest)


def test_a_device_or_a_sharding_changes_nothing_of_a_state_or_a_name():
    flows = [ff.pipe(augmented(), to_jax(sharding=one)) for one in (None, jax.devices()[0], [None, jax.devices()[0]])]
    assert len({json.dumps(flow.state_dict()) for flow in flows}) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_before_worker_processes_it_stays_in_this_one(processes, capsys):
    flow = ff.pipe(augmented(), to_jax(), ff.prefetch(2, processes=processes))
    assert_same([as_numpy(batch) for batch in flow.run(seed=3)], list(LAWFUL["alone"]().run(seed=3)))
    ff.explain(flow)
    assert re.search(r"to_jax\(sharding=None\) .* a thread of prefetch\(2\)", capsys.readouterr().out)


def test_nothing_is_remarked_on_where_it_stands_last(capsys):
    ff.explain(LAWFUL["behind processes"]())
    said = capsys.readouterr().out
    assert "map_component" in said
    assert "\n*" not in said


def test_a_stage_and_its_flow_look_like_the_call_and_can_be_sent():
    stage = to_jax(ahead=3, narrow=True)
    assert repr(stage) == "to_jax(ahead=3, narrow=True)"
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert "to_jax(ahead=3, narrow=True)" in repr(ff.pipe([1], stage))
    assert ff.pipe([np.float32(1)], to_jax)[0].tolist() == 1


# Mistakes


def test_a_missing_library_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(
        ImportError, match=re.escape('to_jax() needs jax, which is not installed: pip install "flowfn[jax]"')
    ):
        ff.pipe([1], to_jax())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ahead": 0}, ValueError, "ahead must be a positive integer, got 0"),
        ({"narrow": 1}, TypeError, "narrow must be True or False, got 1"),
        (
            {"sharding": "data"},
            TypeError,
            "sharding must be a jax.sharding.Sharding, a device, None, or a dict, list or tuple",
        ),
        ({"sharding": jax.sharding.PartitionSpec("data")}, TypeError, "write NamedSharding(mesh, PartitionSpec(...))"),
        ({"sharding": {"x": [None, 3]}}, TypeError, "got 3"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ff.pipe([1], to_jax(**options))


def test_a_sharding_for_components_that_are_not_there_is_an_error():
    with pytest.raises(KeyError, match="no component 'y' in a datapoint with keys"):
        put({"x": np.zeros(2, np.float32)}, sharding={"y": None})


def test_components_that_no_sharding_names_stay_as_they_are():
    x = np.zeros(2, np.float32)
    got = put({"x": x, "y": x, "name": "n"}, sharding={"x": jax.devices()[0]})
    assert is_jax(got["x"], "float32", x)
    assert got["x"].committed
    assert type(got["y"]) is np.ndarray
    assert got["name"] == "n"


# Meshes

MESH = """
import json, os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import flowfn as ff
from flowfn.interop import to_jax

mesh = Mesh(np.array(jax.devices()), ("data",))
data, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
"""


def program(folder, body, *arguments, head=MESH, timeout=100, **environment):
    """What a program printed, which ended well."""
    script = folder / "program.py"
    script.write_text(head + textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_batches_are_global_arrays_over_a_mesh(tmp_path):
    program(
        tmp_path,
        """
        rows = np.arange(48, dtype=np.float32).reshape(16, 3)
        flow = ff.pipe(ff.from_arrays(rows, np.arange(16)), ff.shuffle(), ff.batch(8))
        plain = list(flow.run(seed=5))
        for sharding in (data, [data, data], (data, None), {0: data, 1: whole}):
            for (x, y), (rows, labels) in zip(ff.pipe(flow, to_jax(sharding=sharding)).run(seed=5), plain, strict=True):
                assert x.sharding == data and x.shape == (8, 3) and x.is_fully_addressable
                assert np.array_equal(x, rows) and np.array_equal(y, labels)
                for shard in x.addressable_shards:
                    assert shard.data.shape == (2, 3) and np.array_equal(shard.data, rows[shard.index])
        memory = np.zeros(464, np.uint8)
        start = -memory.ctypes.data % 64
        plain = memory[start : start + 400].view(np.float32)
        (mirrored,) = ff.pipe([plain], to_jax(sharding=whole))
        pointers = {shard.data.unsafe_buffer_pointer() for shard in mirrored.addressable_shards}
        assert pointers == {plain.ctypes.data}  # four arrays that look into the same memory
        assert jax.jit(lambda one: one + 1, donate_argnums=0)(mirrored).tolist() == [1] * 100 and not plain.any()
        assert y.sharding == whole and {shard.data.shape for shard in y.addressable_shards} == {(8,)}
        step = jax.jit(lambda x, y: (x.sum(1) * y).sum(), donate_argnums=0)
        assert float(step(x, y)) == float((rows.sum(1) * labels).sum())
        (image,) = ff.pipe([{"image": np.ones((4, 6), np.float32), "names": list("abcd")}], to_jax(sharding=data))
        assert image["image"].sharding == data and image["names"] == list("abcd")
        square = NamedSharding(Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b")), P("a", "b"))
        (x,) = ff.pipe([np.arange(16, dtype=np.int64).reshape(4, 4)], to_jax(sharding=square))
        assert x.dtype == np.int32 and {shard.data.shape for shard in x.addressable_shards} == {(2, 2)}
        """,
    )


def test_what_does_not_divide_is_an_error_that_says_what_must_hold_and_a_mask_mends_it(tmp_path):
    """jax 0.10.2 has no uneven shards: an axis must divide into the parts a mesh cuts it into, else it is an error."""
    program(
        tmp_path,
        """
        def error(flow):
            try:
                list(flow)
            except ValueError as caught:
                return str(caught)

        rows = np.arange(18, dtype=np.float32).reshape(6, 3)
        wanted = (
            "to_jax(): axis 0 of an array of shape (6, 3) is cut into 4 parts here, so its size must be a multiple of 4, "
            "got 6; write batch(n, drop_remainder=True) with such an n, or pad_to_multiple(n) before it, which fills the "
            "last batch up and masks what it adds"
        )
        assert error(ff.pipe(rows, ff.batch(6), to_jax(sharding=data))) == wanted
        assert "multiple of 4, got 2;" in error(ff.pipe(rows, ff.batch(4), to_jax(sharding=data)))
        assert "an array of shape () has fewer axes than NamedSharding" in error(ff.pipe([np.float32(1)], to_jax(sharding=data)))

        table = ff.pipe(ff.from_arrays(x=np.arange(10, dtype=np.float32)), ff.pad_to_multiple(4), ff.batch(4))
        batches = list(ff.pipe(table, to_jax(sharding=data)))
        assert [batch["x"].shape for batch in batches] == [(4,)] * 3
        assert batches[2]["valid"].tolist() == [True, True, False, False] and batches[2]["valid"].sharding == data
        mean = jax.jit(lambda batch: (batch["x"] * batch["valid"]).sum())
        assert sum(float(mean(batch)) for batch in batches) == 45
        """,
    )


def test_memory_under_a_sharding_is_not_used_again_while_its_arrays_live(tmp_path):
    program(
        tmp_path,
        """
        full = ff.map(lambda i: np.full(100_000, i, np.float32))
        for sharding in (data, whole):
            flow = ff.pipe(range(400), full, ff.batch(4), ff.prefetch(2, processes=2), to_jax(sharding=sharding))
            held = {at: batch for at, batch in enumerate(flow) if at % 20 == 0}
            for at, batch in held.items():
                assert np.unique(np.asarray(batch)).tolist() == [4 * at, 4 * at + 1, 4 * at + 2, 4 * at + 3]
        ff.shut_down()
        """,
    )


def test_arrays_over_a_mesh_stay_so_whatever_is_behind_and_jax_is_in_no_worker(tmp_path):
    """jax 0.10.2 pickles an array over a mesh as one on the first device, and says nothing (a sharding not at all).

    The guess was an error, or the same sharding. So what is to be on a mesh is put there by the process that iterates.
    """
    program(
        tmp_path,
        """
        import pickle

        assert len(pickle.loads(pickle.dumps(jax.device_put(np.zeros(4), data))).devices()) == 1
        loaded = ff.map(lambda i: np.float32("jax" in sys.modules))
        for processes in (1, 2):
            ahead = ff.prefetch(2, processes=processes)
            batches = list(ff.pipe(range(32), loaded, ff.batch(8), ahead, to_jax(sharding=data), ahead))
            assert [batch.sharding == data for batch in batches] == [True] * 4
            assert not any(batch.any() for batch in batches)
        ff.shut_down()
        """,
    )


TWO = """
import json, os, sys
rank, world, port = map(int, sys.argv[1:4])
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np

jax.distributed.initialize(
    f"127.0.0.1:{port}", world, rank, coordinator_bind_address=f"127.0.0.1:{port}", initialization_timeout=40,
    heartbeat_timeout_seconds=20, shutdown_timeout_seconds=20,
)
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import flowfn as ff
from flowfn.interop import to_jax

assert (jax.process_index(), jax.process_count(), jax.device_count(), jax.local_device_count()) == (rank, 2, 4, 2)
mesh = Mesh(np.array(jax.devices()), ("data",))
data, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
"""


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def two_processes(folder, body, *arguments, timeout=90, killed=False):
    """What each of two processes of JAX printed, which ended well, or killed themselves: JAX may abort the one whose other is gone."""
    script = folder / "two.py"
    script.write_text(TWO + textwrap.dedent(body))
    port = free_port()
    both = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(port), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [one.communicate(timeout=timeout) for one in both]
    finally:
        for one in both:
            one.kill()
            one.wait()
    ended = [one.returncode for one in both]
    assert max(ended) < 0 if killed else ended == [0, 0], said
    return [out for out, _ in said]


def test_two_processes_make_global_arrays_of_their_shares_in_equally_many_steps_and_resume_from_the_state_of_one(
    tmp_path,
):
    """Over loopback, with gloo's collectives (jax 0.10.2's own choice on the CPU)."""
    said = two_processes(
        tmp_path,
        """
        table = ff.from_arrays(x=np.arange(21, dtype=np.float32), row=np.arange(21))
        whole_table = ff.pipe(table, ff.shuffle(), ff.pad_to_multiple(world * 4))
        flow = ff.pipe(whole_table, ff.shard(rank, world), ff.batch(4), to_jax(sharding=data))
        total = jax.jit(lambda batch: (batch["x"] * batch["valid"]).sum(), out_shardings=whole)
        sums, shares = [], []
        for batch in flow.run(seed=7):
            assert batch["x"].shape == (8,) and batch["x"].sharding == data and not batch["x"].is_fully_addressable
            sums.append(float(total(batch)))
            shares.append([np.asarray(shard.data).tolist() for shard in batch["row"].addressable_shards])
        print(json.dumps([sums, shares]))

        saved = ff.pipe(whole_table, ff.shard(0, world), ff.batch(4), to_jax()).run(seed=7)
        next(saved)
        again = iter(flow.load_state_dict(saved.state_dict()))  # as Orbax does, which saves the JSON of one process
        assert [float(total(batch)) for batch in again] == sums[1:] and again.epoch == 0

        copies = NamedSharding(Mesh(np.array(jax.devices()).reshape(2, 2), ("model", "data")), P("data"))
        (x,) = ff.pipe(range(6), ff.batch(6), to_jax(sharding=copies))
        assert x.shape == (6,) and [shard.data.tolist() for shard in x.addressable_shards] == [[0, 1, 2], [3, 4, 5]]

        short = ff.pipe(range(24), ff.shard(rank, world), ff.batch(8), to_jax(sharding=data))
        try:
            list(short)
        except ValueError as error:
            assert "of the same size in every batch" in str(error), error
        else:
            raise SystemExit("a short batch was let through")
        """,
    )
    (sums, shares), (others, other_shares) = (json.loads(out.splitlines()[-1]) for out in said)
    assert sums == others
    assert (len(sums), sum(sums)) == (3, 210)
    order = [
        batch["row"]
        for batch in ff.pipe(ff.from_arrays(row=np.arange(21)), ff.shuffle(), ff.pad_to_multiple(8), ff.batch(8)).run(
            seed=7
        )
    ]
    for rows, here, there in zip(order, shares, other_shares, strict=True):
        assert np.concatenate(here).tolist() == rows[0::2].tolist()
        assert np.concatenate(there).tolist() == rows[1::2].tolist()


# Checkpoints

TRAINING = """
import json, os, signal, sys
from pathlib import Path
import jax
import jax.numpy as jnp
import numpy as np
import flowfn as ff
from flowfn.interop import to_jax

how, folder, processes, sized = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "length"
EPOCHS, SAVED = 3, 8


def noisy(x, rng):
    return x + rng.normal(scale=0.1, size=3).astype(np.float32)


def batches():
    x = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
    return ff.pipe(
        ff.from_arrays(x, x @ np.float32([1, -2, 3])),
        ff.shuffle(),
        ff.map_component(noisy, 0, rng=True),
        None if sized else ff.filter(lambda row: row[1] < 3),
        ff.batch(4),
        ff.prefetch(2, processes=processes) if processes else None,
        to_jax(ahead=3),
    )


def loss(params, x, y):
    return ((x @ params["w"] + params["b"] - y) ** 2).mean()


@jax.jit
def step(params, x, y):
    value, slope = jax.value_and_grad(loss)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.05 * g, params, slope), value


def fit(flow, params, done, save=None):
    for _ in range(flow.state_dict()["epoch"], EPOCHS):
        for x, y in flow:
            params, value = step(params, x, y)
            done += 1
            print(done, float(value).hex(), flush=True)
            if save and done == SAVED:
                save(done, params, flow)
            if save and done == SAVED + 2:
                os.kill(os.getpid(), signal.SIGKILL)
        if save:
            save(done, params, flow)
    print("params", json.dumps([[float(v).hex() for v in np.ravel(params[key])] for key in sorted(params)]))


fresh = {"w": jnp.zeros(3), "b": jnp.zeros(())}
"""

PLAIN = """
def save(done, params, flow):
    np.savez(folder / f"{done}.npz", **params)
    (folder / f"{done}.json").write_text(json.dumps(flow.state_dict()))


def steps():
    return [int(path.stem) for path in folder.glob("*.json")]


def restored(done):
    params = {name: jnp.asarray(value) for name, value in np.load(folder / f"{done}.npz").items()}
    return batches().load_state_dict(json.loads((folder / f"{done}.json").read_text())), params
"""

ORBAX = """
import orbax.checkpoint as ocp

manager = ocp.CheckpointManager(folder)


def save(done, params, flow):
    manager.save(done, args=ocp.args.Composite(
        model=ocp.args.StandardSave(params), batches=ocp.args.JsonSave(flow.state_dict())))
    manager.wait_until_finished()


def steps():
    return manager.all_steps()


def restored(done):
    saved = manager.restore(done, args=ocp.args.Composite(
        model=ocp.args.StandardRestore(fresh), batches=ocp.args.JsonRestore()))
    return batches().load_state_dict(saved["batches"]), saved["model"]
"""

MAIN = """
if __name__ == "__main__":
    if how == "resumed":
        for done in sorted(steps()):
            fit(*restored(done), done)
    else:
        fit(batches(), fresh, 0, save if how == "killed" else None)
    ff.shut_down()
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Runs a program of training, which finds what others have compiled; says what it printed each time that it trained."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | compiled_in(tmp_path_factory.mktemp("compiled"))

    def run(folder, way, how, *others):
        folder.mkdir(exist_ok=True)
        script = folder.parent / "training.py"
        script.write_text(TRAINING + (ORBAX if way == "orbax" else PLAIN) + MAIN)
        command = [sys.executable, str(script), how, str(folder), *map(str, others)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == (-signal.SIGKILL if how == "killed" else 0), done.stderr
        return [lines.splitlines() for lines in re.findall(r"(?:\d.*\n)+(?:params.*\n)?", done.stdout)]

    return run


@pytest.fixture(scope="module")
def uninterrupted(training, tmp_path_factory):
    """What a training prints that nobody kills; nothing of it is saved."""

    @cache
    def run(sized):
        (printed,) = training(tmp_path_factory.mktemp("whole") / "saved", "plain", "whole", 0, sized)
        return printed

    return run


@pytest.mark.long
@pytest.mark.resumes("JAX: a loop of your own", "a length, or none", "in an epoch, at its end", "other processes")
@pytest.mark.resumes("JAX: the same, saved by Orbax", "a length, or none", "in an epoch, at its end", "other processes")
@pytest.mark.parametrize("way", ["plain", "orbax"])
@pytest.mark.parametrize("sized", ["length", "no length"])
def test_training_that_was_killed_goes_on_to_the_same_bits(way, sized, training, uninterrupted, tmp_path):
    """Saved behind the first epoch, which has 6 batches or less, and behind the eighth batch of all."""
    if way == "orbax":
        pytest.importorskip("orbax.checkpoint")
    folder, whole = tmp_path / "saved", uninterrupted(sized)
    assert (len(whole) == 19) == (sized == "length")  # six batches, three times, and the parameters
    assert training(folder, way, "killed", 1, sized) == [whole[:10]]
    behind_an_epoch, within = training(folder, way, "resumed", 0, sized)
    first = int(behind_an_epoch[0].split()[0]) - 1
    assert first == 6 if sized == "length" else 2 < first < 6
    assert behind_an_epoch == whole[first:]
    assert within == whole[8:]


TWO_WITH_ORBAX = """
import signal
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

how, folder = sys.argv[4:]
EPOCHS, SAVED = 2, 6
STAGES = {"length": ([], []), "no length": ([ff.filter(lambda row: row[1] < 3)], []), "own": ([], [ff.shuffle_buffer(5)])}


def noisy(x, rng):
    return x + rng.normal(scale=0.1, size=3).astype(np.float32)


def flow_of(name):
    x = np.random.default_rng(0).normal(size=(43, 3)).astype(np.float32)
    before, behind = STAGES[name]
    return ff.pipe(
        ff.from_arrays(x, x @ np.float32([1, -2, 3])), ff.shuffle(), *before, ff.shard(rank, world, remainder="drop"),
        *behind, ff.map_component(noisy, 0, rng=True), ff.batch(4, drop_remainder=True), to_jax(sharding=data))


@jax.jit
def step(params, x, y):
    value, slope = jax.value_and_grad(lambda w: ((x @ w - y) ** 2).mean())(params["w"])
    return {"w": params["w"] - 0.05 * slope}, value


def manager_of(name):
    everybody = ocp.options.MultiprocessingOptions(primary_host=None)
    batches = {
        "length": ocp.JsonCheckpointHandler(),
        "no length": ocp.JsonCheckpointHandler(),
        "own": ocp.JsonCheckpointHandler(f"process-{rank}.json", multiprocessing_options=everybody),
    }[name]
    handlers = {"model": ocp.StandardCheckpointHandler(), "batches": batches}
    return ocp.CheckpointManager(f"{folder}/{name}", item_handlers=handlers)


def fit(name):
    flow, params, done, manager = flow_of(name), jax.device_put({"w": np.zeros(3, np.float32)}, whole), 0, manager_of(name)
    if how == "resumed":
        done = manager.latest_step()
        saved = manager.restore(done, args=ocp.args.Composite(
            model=ocp.args.StandardRestore(params), batches=ocp.args.JsonRestore()))
        params = saved["model"]
        flow.load_state_dict(saved["batches"])
    for _ in range(flow.epoch, EPOCHS):
        for x, y in flow:
            params, value = step(params, x, y)
            done += 1
            shares = [np.asarray(shard.data).tobytes().hex() for shard in x.addressable_shards]
            print(json.dumps([name, done, float(value).hex(), shares]), flush=True)
            if how == "killed" and done == SAVED:
                manager.save(done, args=ocp.args.Composite(
                    model=ocp.args.StandardSave(params), batches=ocp.args.JsonSave(flow.state_dict())))
                manager.wait_until_finished()
            if how == "killed" and done == SAVED + 1:
                return
    print(json.dumps([name, [float(one).hex() for one in np.asarray(params["w"])]]), flush=True)


for name in STAGES:
    fit(name)
if how == "whole":
    sys.exit()
if how == "killed":
    multihost_utils.sync_global_devices("all is saved")
    os.kill(os.getpid(), signal.SIGKILL)
with open(f"{folder}/own/{SAVED}/batches/process-{1 - rank}.json") as file:
    try:
        flow_of("own").load_state_dict(json.load(file))
    except ValueError as error:
        print(json.dumps(["refused", str(error)]))
"""


@pytest.mark.long
@pytest.mark.resumes("JAX: the same in 2 processes, with `shard`", "a length, or none", "in an epoch")
@pytest.mark.resumes(
    "JAX: the same, `shuffle_buffer` behind `shard`, and a handler of Orbax by which each process saves",
    "a length",
    "in an epoch",
)
def test_two_processes_that_were_killed_go_on_from_what_orbax_saved(tmp_path):
    """`JsonSave` writes the state of the first process (orbax 0.12.8, `JsonCheckpointHandler`), which is good for all; one
    that is of its rank is refused elsewhere, and needs a file for each process: `JsonCheckpointHandler(f"process-{rank}.json",
    multiprocessing_options=MultiprocessingOptions(primary_host=None))`."""
    pytest.importorskip("orbax.checkpoint")

    def told(how, **options):
        """What each process printed in the training of each name."""
        said = two_processes(tmp_path, TWO_WITH_ORBAX, how, tmp_path / "saved", **options)
        return [
            toolz.groupby(0, [json.loads(line) for line in out.splitlines() if line.startswith('["')]) for out in said
        ]

    whole, killed, resumed = told("whole"), told("killed", killed=True), told("resumed")
    for rank in (0, 1):
        for name in ("length", "no length", "own"):
            right = whole[rank][name]
            assert len(right) > 8
            assert right[-1] == whole[0][name][-1]
            assert killed[rank][name] == right[:7]
            assert resumed[rank][name] == right[6:]
        ((_, refused),) = resumed[rank]["refused"]
        assert f"the state is of rank {1 - rank} of 2" in refused


# The example


@pytest.mark.long
def test_the_example_learns_and_resumes_to_the_last_bit(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "jax_training.py"), "--epochs", "6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped after 22 of the 44 batches of epoch 3" in done.stdout
    assert "bit-identical" in done.stdout


@pytest.mark.parametrize("missing", ["jax", "sklearn"])
def test_the_example_names_what_is_missing(missing, monkeypatch):
    for loaded in [one for one in sys.modules if one.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        SystemExit, match=rf'^This example needs {missing}\b.*pip install "flowfn\[examples,jax\]" brings it'
    ):
        runpy.run_path(str(EXAMPLES / "jax_training.py"), run_name="__main__")
