"""Flows, stages and compositions pickle whatever they hold, in scripts, modules, children and notebooks."""

import copy
import functools
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler

import cloudpickle
import numpy as np
import pytest

import flowfn as ff
from flowfn.digests import codes
from flowfn.flows.states import fingerprint
from flowfn.shelves.encoding import datapoint_bytes, datapoint_of

pytestmark = [pytest.mark.everywhere, pytest.mark.timeout(180)]


def test_an_interactive_session_pickles_what_it_defines(tmp_path):
    lines = """
    import pickle, flowfn as ff
    def double(x):
        return 2 * x

    flow = ff.pipe(range(3), ff.map(double), ff.map(lambda x: -x))
    again = pickle.loads(pickle.dumps(flow))
    print([list(again), list(ff.pipe(again, ff.prefetch(2, processes=2))), again.sources[0].part.arguments["f"] is double])
    """
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-i", "-q"],
        input=textwrap.dedent(lines),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "[[0, -2, -4], [0, -2, -4], True]" in done.stdout, done.stderr


def test_code_of_exec_pickles():
    names = {}
    exec("def shifted(x, by=1): return x + by + extra\nextra = 10", names)
    flow = ff.pipe(range(3), ff.map(names["shifted"]))
    assert list(pickle.loads(pickle.dumps(flow))) == [11, 12, 13]


# By name, by value


def add_one(x):
    return x + 1


@ff.stage.each
def scaled(factor, source):
    for number in source:
        yield factor * number


def plainly(value):
    """What pickle makes of a tree if nobody minds what it holds."""

    class Plain(pickle.Pickler):
        def reducer_override(self, value):
            return value.plainly(self.protocol) if isinstance(value, (ff.Flow, type(ff.take(1)))) else NotImplemented

    with io.BytesIO() as file:
        pickler = Plain(file)
        pickler.protocol = pickle.DEFAULT_PROTOCOL
        pickler.dump(value)
        return file.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.pipe(range(9), ff.shuffle(), ff.map(add_one), scaled(2), ff.batch(2)),
        lambda: ff.concat(ff.pipe([1], ff.map(abs)), ff.pipe(np.arange(3), ff.take(2))),
        lambda: ff.map(functools.partial(max, 1)),
        lambda: ff.pipe([[1]], ff.inside(ff.map(add_one))),
    ],
)
def test_what_is_found_by_name_goes_by_name_and_byte_for_byte_as_ever(make):
    value = make()
    assert pickle.dumps(value) == plainly(value)
    assert b"cloudpickle" not in pickle.dumps(value)


def test_each_part_of_a_tree_is_looked_at_once():
    class Counting:
        looked = 0

        def __getstate__(self):
            Counting.looked += 1
            return {}

    globals()["Counting"] = Counting
    Counting.__qualname__ = "Counting"
    flow = ff.pipe([Counting()], *[ff.map(add_one) for _ in range(20)])
    pickle.dumps(flow)
    assert Counting.looked == 2  # to see how it goes, and to go


def test_flows_that_share_a_source_share_it_still():
    source = ff.pipe(range(5), ff.shuffle())
    one, two = pickle.loads(pickle.dumps([ff.pipe(source, ff.map(add_one)), ff.pipe(source, ff.map(abs))]))
    assert one.sources[0] is two.sources[0]
    branches = ff.pipe(range(3), ff.map(lambda x: x))
    again = pickle.loads(pickle.dumps(ff.zip(branches, branches)))
    assert again.sources[0] is again.sources[1]


def test_functions_that_share_a_global_share_it_still():
    names = {"seen": []}
    exec("def first(x):\n  seen.append(x)\n  return x\ndef second(x): return len(seen)", names)
    flow = ff.pipe(range(3), ff.map(names["first"]), ff.map(names["second"]))
    assert list(pickle.loads(pickle.dumps(flow))) == [1, 2, 3]
    assert names["seen"] == []


def test_what_cannot_be_pickled_is_an_error_of_pickle():
    lock = threading.Lock()
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError), match=r"pickle|local object"):
        pickle.dumps(ff.pipe(range(3), ff.map(lambda x: (x, lock))))
    assert list(pickle.loads(pickle.dumps(ff.pipe(range(3), ff.map(add_one))))) == [1, 2, 3]


def test_copies_share_functions_and_deep_copies_share_no_data():
    function, data = (lambda x: x[0]), [[1], [2]]
    flow = ff.pipe(data, ff.map(function)).reset_state(3).set_epoch(2)
    for copied in (copy.copy(flow), copy.deepcopy(flow)):
        assert (copied.seed, copied.epoch, copied.part.arguments["f"]) == (3, 2, function)
    assert copy.copy(flow).sources[0] is flow.sources[0]
    deep = copy.deepcopy(flow)
    data[0][0] = 9
    assert (list(flow), list(deep)) == ([9, 2], [1, 2])
    for stage in (
        ff.map(function),
        ff.compose(ff.map(function)),
        ff.guard(ff.map(function)),
        ff.inside(ff.map(function)),
    ):
        assert copy.copy(stage) == copy.deepcopy(stage) == stage


class Holder:
    """Somebody's data set that wraps a flow."""

    def __init__(self, flow):
        self.flow = flow

    def __len__(self):
        return len(self.flow)

    def __getitem__(self, index):
        return self.flow[index]


def test_a_flow_within_another_object_pickles_by_every_pickler():
    dill = pytest.importorskip("dill")
    joblib = pytest.importorskip("joblib")
    holder = Holder(ff.pipe(range(3), ff.map(lambda x: 2 * x)))
    ways = [
        pickle.dumps,
        functools.partial(pickle.dumps, protocol=0),
        cloudpickle.dumps,
        dill.dumps,
        ForkingPickler.dumps,
    ]
    for way in ways:
        again = pickle.loads(way(holder))
        assert list(again.flow) == [0, 2, 4]
        assert list(pickle.loads(way(again)).flow) == [0, 2, 4]  # once more, as Dask and Ray do
    assert joblib.hash(holder)


def test_a_data_set_around_a_flow_goes_to_loaders_that_are_spawned():
    data = pytest.importorskip("torch.utils.data")
    holder = Holder(ff.pipe(range(6), ff.map(lambda x: 2 * x)))
    loader = data.DataLoader(holder, batch_size=2, num_workers=1, multiprocessing_context="spawn", collate_fn=list)
    assert list(loader) == [[0, 2], [4, 6], [8, 10]]


def first_two(flow):
    return [flow[0], flow[1]]


def test_a_flow_is_an_argument_of_executors():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        assert executor.submit(first_two, ff.pipe(range(6), ff.map(lambda x: 2 * x))).result(60) == [0, 2]


@pytest.mark.parametrize(
    "make", [ff.per_process, ff.seeded, ff.map, lambda f: ff.compose(ff.map(f), ff.batch(2)), ff.filter]
)
def test_what_holds_a_function_pickles_alone(make):
    there = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    made = make(lambda x=3: x)
    done = subprocess.run(
        [sys.executable, "-P", "-c", there], input=pickle.dumps(made), capture_output=True, text=False, timeout=60
    )
    assert done.stdout.decode().strip() == repr(made)
    assert repr(copy.copy(made)) == repr(copy.deepcopy(made)) == repr(made)


def test_the_script_has_one_name_in_states_and_datapoints(monkeypatch):
    kinds = []
    for name in ("__main__", "__mp_main__"):
        names = {"__name__": name}
        exec("def double(x): return 2 * x\nclass Kind:\n  def __call__(self, x): return x", names)
        monkeypatch.setattr(sys.modules["__main__"], "Kind", names["Kind"], raising=False)
        kinds.append(
            (
                fingerprint(ff.pipe(range(3), ff.map(names["double"]), ff.map(names["Kind"]()))),
                datapoint_bytes(names["Kind"]),
            )
        )
        assert datapoint_of(datapoint_bytes(names["Kind"])) is names["Kind"]
        assert codes.installed(name) is None
    assert kinds[0] == kinds[1]


def test_augmentors_with_a_function_travel():
    image = pytest.importorskip("flowfn.image")
    pytest.importorskip("cv2")
    augmentor = image.map_image(lambda pixels: pixels + 1)
    assert repr(pickle.loads(pickle.dumps(augmentor))) == repr(copy.deepcopy(augmentor)) == repr(augmentor)
    flow = ff.pipe([np.zeros((4, 4, 3), np.uint8)], image.augment(augmentor))
    assert pickle.loads(pickle.dumps(flow))[0].tolist() == np.ones((4, 4, 3)).tolist()
