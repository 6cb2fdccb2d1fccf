"""One loader for several consumers: who gets what, and what kills, cuts and strangers do to that."""

import contextlib
import gc
import json
import os
import random
import signal
import socket
import threading
import time
import weakref
from collections import Counter
from itertools import chain

import numpy as np
import pytest

import flowfn as ff
from flowfn.serving import addresses, connect, connection, consumers, new_key, serve
from flowfn.serving.messages import PROTOCOL, Malformed, as_message, of_message, read, write
from flowfn.testing import check, left_behind, same
from tests.waiting import eventually, in_child, run_script

zmq = pytest.importorskip("zmq")
pytestmark = pytest.mark.timeout(30)
HERE = "tcp://127.0.0.1:*"
TIMEOUT = 10


def numbers(n=60, size=1):
    return ff.pipe(range(n), ff.shuffle(), ff.map(lambda i: np.full(size, i)))


def read_all(address, into, pause=0.0, **options):
    for item in connect(address, timeout=TIMEOUT, **options):
        into.append(int(item[0]))
        time.sleep(pause)


def in_threads(n, *arguments, **options):
    """What n consumers get at once."""
    got = [[] for _ in range(n)]
    threads = [threading.Thread(target=read_all, args=(*arguments, one), kwargs=options) for one in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def _has_begun(state):
    """Whether a server's state tells of datapoints that are done with."""
    return state.exists() and json.loads(state.read_text())["begun"].get("0", [0])[0] > 0


@contextlib.contextmanager
def forked(run):
    """A process that runs something, and is killed in the end; to be forked before there are threads."""
    pid = in_child(run)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Proxy:
    """A slow network: a TCP proxy whose connections can be cut, or held up."""

    def __init__(self, address, delay):
        self.delay = delay
        self.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open, self.passes = [], threading.Event()
        self.passes.set()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.target)
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    self.threads.append(threading.Thread(target=self.pump, args=pair, daemon=True))
                    self.threads[-1].start()

    def pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                self.passes.wait()
                time.sleep(self.delay)
                target.sendall(data)

    def cut(self):
        for one in self.open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.open.clear()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.passes.set()
        self.cut()
        for thread in self.threads:
            thread.join()


# Who gets what


def test_what_is_served_keeps_the_laws():
    with serve(ff.pipe(range(20), ff.shuffle(), ff.batch(3)), HERE, mode="broadcast") as server:
        check(lambda: ff.pipe(connect(server.address, timeout=TIMEOUT), ff.map(np.negative)), stops=4)
    assert server.rejected == 0


def test_a_queue_gives_each_datapoint_to_one_consumer():
    with serve(numbers(), HERE, consumers=3) as server:
        got = in_threads(3, server.address, pause=0.001)
        again = in_threads(1, server.address)  # the next epoch is for those who ask for it; this one is over
    assert sorted(chain(*got)) == list(range(60))
    assert all(got)
    assert again == [[]]


def test_epochs_are_those_of_the_served_flow():
    flow = numbers(12)
    for mode in ("queue", "broadcast"):
        with serve(flow, HERE, mode=mode) as server:
            consumer = connect(server.address, timeout=TIMEOUT)
            assert [same(list(consumer), list(flow.run(epoch=epoch))) for epoch in range(3)] == [True] * 3


def test_a_broadcast_gives_all_the_same_from_one_pass():
    made = Counter()
    flow = ff.pipe(range(60), ff.shuffle(), ff.tap(lambda i: made.update([i])), ff.map(lambda i: np.full(1, i)))
    with serve(flow, HERE, mode="broadcast", consumers=3) as server:
        got = in_threads(3, server.address)
    assert got == [[int(one[0]) for one in numbers()]] * 3
    assert set(made.values()) == {1}


def test_the_fastest_waits_for_the_slowest():
    """Nothing is made that would be further than the window ahead of anybody."""
    made = []
    with serve(ff.pipe(range(60), ff.tap(made.append)), HERE, mode="broadcast", window=5, consumers=2) as server:
        fast, slow = (iter(connect(server.address, timeout=TIMEOUT, ahead=9)) for _ in range(2))
        thread = threading.Thread(target=lambda: [next(fast) for _ in range(3)])
        thread.start()
        next(slow)
        thread.join()
        assert eventually(lambda: len(made) == 5)
        assert next(fast) == 3
        time.sleep(0.1)
        assert len(made) == 5
        fast.close()
        assert [next(slow) for _ in range(20)] == list(range(1, 21))
        slow.close()


def test_one_who_comes_late_or_goes_on_gets_the_rest():
    flow = numbers()
    with serve(flow, HERE, mode="broadcast", window=2) as server:
        first = iter(connect(server.address, timeout=TIMEOUT))
        got = [next(first) for _ in range(30)]
        state = json.loads(json.dumps(first.state_dict()))
        first.close()
        again = iter(connect(server.address, timeout=TIMEOUT).load_state_dict(state))
        assert same(got + list(again), list(flow.run(epoch=0)))
        assert same(list(connect(server.address, timeout=TIMEOUT)), list(flow.run(epoch=0)))


def test_who_joins_under_way_reads_with_the_others_as_soon_as_it_can():
    made, flow = Counter(), numbers()
    flow = ff.pipe(flow, ff.tap(lambda item: made.update([int(item[0])])))
    order = [int(one[0]) for one in numbers()]
    with serve(flow, HERE, mode="broadcast", window=6) as server:
        first, second, late = (iter(connect(server.address, timeout=TIMEOUT, ahead=1)) for _ in range(3))
        got = [int(next(first)[0]) for _ in range(3)]
        assert [int(next(second)[0]) for _ in range(3)] == got  # what was given before is there
        assert set(made.values()) == {1}
        second.close()
        got += [int(next(first)[0]) for _ in range(27)]
        assert [int(next(late)[0]) for _ in range(30)] == got
        thread = threading.Thread(target=lambda: got.extend(int(one[0]) for one in first))
        thread.start()
        assert [int(one[0]) for one in late] == order[30:]
        thread.join()
    assert got == order
    assert [made[i] for i in order] == [2] * 24 + [made[i] for i in order[24:36]] + [1] * 24


def test_who_cannot_see_the_memory_gets_messages(monkeypatch):
    """Of two consumers one shares memory, until a block cannot be opened any more, and the other does not."""
    sees, opens = [True, False], iter(range(1000))
    monkeypatch.setattr(connection, "is_shared", lambda *name: sees.pop())
    open_block = connection.open_block

    def denied(name):
        if next(opens) > 10:
            raise OSError("no such block")
        return open_block(name)

    monkeypatch.setattr(connection, "open_block", denied)
    flow = ff.pipe(numbers(40, 20_000), ff.map(lambda array: {"a": array, "b": [array[:3], "x"]}))
    with serve(flow, HERE, mode="broadcast", consumers=2) as server:
        got = [[], []]
        threads = [
            threading.Thread(target=lambda one=one: one.extend(connect(server.address, timeout=TIMEOUT))) for one in got
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert same(got, [list(flow.run(epoch=0))] * 2)
    assert 12 <= next(opens) <= 15  # one of those on their way then could not be opened, and the rest were not tried
    assert all(item["a"].flags.writeable for one in got for item in one)


def test_what_is_served_may_be_very_long():
    n, flow = 10**12, ff.shuffle(range(10**12))
    with (
        serve(flow, HERE, mode="broadcast") as server,
        connect(server.address, timeout=TIMEOUT).run(start=n - 2) as end,
    ):
        assert list(end) == [flow[n - 2], flow[n - 1]]
    state = {"finished": [], "begun": {"0": [n - 3, [n - 2]]}}
    with serve(flow, HERE) as server:
        server.load_state_dict(server.state_dict() | state)
        assert list(connect(server.address, timeout=TIMEOUT)) == [flow[n - 3], flow[n - 1]]


def test_several_servers_feed_one_consumer():
    with serve(range(5), HERE, mode="broadcast") as a, serve(range(10, 13), HERE, mode="broadcast") as b:
        both = connect([a.address, b.address], timeout=TIMEOUT)
        whole = [0, 10, 1, 11, 2, 12, 3, 4]
        assert list(both.run()) == whole
        assert list(both.run(start=5)) == whole[5:]
    with serve(range(5), HERE) as a, serve(range(10, 13), HERE) as b:
        assert sorted(connect([a.address, b.address], timeout=TIMEOUT)) == sorted(whole)


def test_arrays_cross_in_memory_of_their_own(tmp_path):
    """What one consumer writes into a datapoint, no other sees; the memory is used again when nobody looks."""
    with serve(numbers(40, 100_000), f"ipc://{tmp_path}/served", mode="broadcast", consumers=2) as server:
        one, two = (connect(server.address, timeout=TIMEOUT) for _ in range(2))
        thread = threading.Thread(target=lambda: [item.fill(-1) for item in one])
        thread.start()
        items = [item for item in two if item.flags.writeable and (item == item[0]).all() and item[0] >= 0]
        thread.join()
        assert sorted(int(item[0]) for item in items) == list(range(40))
        assert 0 < server._consumers.lending.out <= 32
    assert sorted(int(item[0]) for item in items) == list(range(40))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sees", [True, False])
def test_what_was_sent_and_read_is_let_go_at_once(sees, monkeypatch):
    """Not when garbage is collected: until then ten batches would lie there for one."""
    monkeypatch.setattr(connection, "is_shared", lambda *name: sees)
    made, came = [], []

    def watched(array):
        made.append(weakref.ref(array))
        return array

    gc.disable()
    try:
        with serve(ff.pipe(numbers(40, 20_000), ff.map(watched)), HERE, mode="broadcast") as server:
            for item in connect(server.address, timeout=TIMEOUT):
                came.append(weakref.ref(item))
                assert sum(one() is not None for one in made) <= 8
                assert sum(one() is not None for one in came) <= 2
    finally:
        gc.enable()
    assert len(came) == 40


# Kills and cuts


def test_a_killed_consumer_loses_nothing(tmp_path):
    address, theirs, got = f"ipc://{tmp_path}/served", tmp_path / "theirs", []

    def consume():
        for item in connect(address, timeout=TIMEOUT, ahead=3):
            with theirs.open("a") as file:
                file.write(f"{int(item[0])}\n")
            time.sleep(0.01)

    with forked(consume) as victim, serve(numbers(), address):
        assert eventually(lambda: theirs.exists() and len(theirs.read_text().split()) > 5)
        os.kill(victim, signal.SIGKILL)
        read_all(address, got)
    done = [int(line) for line in theirs.read_text().split()]
    assert set(got) | set(done) == set(range(60))
    assert len(got) == len(set(got))
    assert len(set(got) & set(done)) <= 4  # what it had in hand, or had not yet been heard to be done with: its credit


@pytest.mark.parametrize("mode", ["queue", "broadcast"])
def test_a_killed_server_goes_on_where_it_stood(tmp_path, mode):
    address, state, got = f"ipc://{tmp_path}/served", tmp_path / "state.json", []

    def run():
        serve(numbers(), address, mode=mode, state=state).run()

    def run_later():
        eventually((tmp_path / "go").exists)
        run()

    with forked(run_later), forked(run) as first:
        consumer = threading.Thread(target=read_all, args=(address, got, 0.02))
        consumer.start()
        assert eventually(lambda: len(got) > 5 and (mode == "broadcast" or _has_begun(state)))
        os.kill(first, signal.SIGKILL)
        (tmp_path / "go").touch()
        consumer.join(20)
        assert not consumer.is_alive()
    if mode == "broadcast":
        assert got == [int(one[0]) for one in numbers()]
    else:
        assert set(got) == set(range(60))
        assert len(got) < 100  # what was acknowledged since the state was written comes again, and not all


@pytest.mark.parametrize("mode", ["queue", "broadcast"])
def test_a_network_that_is_slow_cut_and_parted_loses_nothing(mode, monkeypatch):
    """Twenty cuts, most in the middle of a message, and a part of the time in which nothing comes through, and nobody
    says so. Broadcast: each once, in order. Queue: each, and again no more than was on its way when it was parted."""
    monkeypatch.setattr(connection, "is_shared", lambda *name: False)
    monkeypatch.setattr(connection, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(consumers, "FORGOTTEN_AFTER", 0.2)
    monkeypatch.setattr(addresses, "HEARTBEAT", 50)
    monkeypatch.setattr(addresses, "GIVEN_UP", 200)
    rng, ahead, n = random.Random(mode), 2, 120
    with serve(numbers(n, 20_000), HERE, mode=mode) as server, contextlib.closing(Proxy(server.address, 1e-4)) as proxy:
        got = []
        consumer = threading.Thread(target=read_all, args=(proxy.address, got), kwargs={"ahead": ahead})
        consumer.start()
        for cut in range(20):
            seen = len(got)
            assert eventually(lambda: len(got) > seen)
            time.sleep(rng.random() * 0.004)
            proxy.cut()
            if cut == 10:
                proxy.passes.clear()
                assert eventually(lambda: not server._consumers.known)
                proxy.passes.set()
        consumer.join(20)
        assert not consumer.is_alive()
    expected = [int(one[0]) for one in numbers(n)]
    assert got == expected if mode == "broadcast" else set(got) == set(expected)
    assert len(got) <= n + ahead + 1


def test_a_slow_datapoint_holds_nobody_else_up():
    gate, asked = threading.Event(), Counter()

    def slow(i):
        asked[i] += 1
        if i == 3 and asked[i] == 1:
            gate.wait(TIMEOUT)
        return i

    with serve(ff.pipe(range(6), ff.map(slow)), HERE) as server:
        consumer = connect(server.address, timeout=TIMEOUT)
        first, others = iter(consumer.run(epoch=0)), iter(consumer.run(epoch=0))
        got = [next(first) for _ in range(3)]
        assert eventually(lambda: asked[3])
        assert list(consumer.run(epoch=1)) == [*range(6)]
        assert server.state_dict()["begun"]["0"][0] == 2
        first.close()  # what it had in hand is done with
        assert eventually(lambda: server.state_dict()["begun"]["0"][0] == 3)
        gate.set()
        assert [*got, *others] == [*range(6)]


def test_a_server_ends_though_its_flow_waits_for_somebody():
    with serve(connect("tcp://127.0.0.1:9"), HERE) as server, pytest.raises(TimeoutError):
        list(connect(server.address, timeout=0.2))


def test_a_server_goes_on_from_its_state():
    flow = numbers()
    with serve(flow, HERE) as server:
        consumer = iter(connect(server.address, timeout=TIMEOUT))
        got = [int(next(consumer)[0]) for _ in range(20)]
        consumer.close()
        assert eventually(lambda: server.state_dict()["begun"].get("0") == [20, []])
        state = json.loads(json.dumps(server.state_dict()))
    with serve(flow, HERE) as server:
        server.load_state_dict(state)
        read_all(server.address, got)
    assert got == [int(one[0]) for one in flow.run(epoch=0)]
    with (
        contextlib.closing(serve(range(3), HERE)) as other,
        pytest.raises(ValueError, match="the state is of another server"),
    ):
        other.load_state_dict(state)


def test_what_the_flow_raises_is_raised_at_both_ends():
    def fails(i):
        return 1 // (i - 3)

    said = r"the flow that is served at .* failed: ZeroDivisionError"
    with (
        pytest.raises(ZeroDivisionError),
        serve(ff.pipe(range(9), ff.map(fails)), HERE) as server,
        pytest.raises(RuntimeError, match=said),
    ):
        list(connect(server.address, timeout=TIMEOUT))


def test_what_came_before_an_error_is_given_before_it():
    server = serve(ff.pipe(range(9), ff.map(lambda i: i + 0 // (i - 3))), HERE).__enter__()
    consumer = iter(connect(server.address, ahead=4, timeout=TIMEOUT))
    got = [next(consumer)]
    server._thread.join(TIMEOUT)  # all is on its way, the error too
    assert [*got, next(consumer), next(consumer)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="failed: ZeroDivisionError"):
        next(consumer)
    with pytest.raises(ZeroDivisionError):
        server.__exit__(None)
    with pytest.raises(ValueError, match=r"was closed; serve\(\.\.\.\) makes another"):
        server.__enter__()


def test_nobody_waits_for_ever():
    with pytest.raises(TimeoutError, match=r"no datapoint came within 0\.2 s"):
        list(connect("tcp://127.0.0.1:9", timeout=0.2))


def test_nothing_is_left_behind(tmp_path):
    def once():
        with serve(numbers(9, 100_000), f"ipc://{tmp_path}/served") as server:
            iterator = iter(connect(server.address, timeout=TIMEOUT))
            next(iterator)
            iterator.close()
        del iterator, server
        gc.collect()

    once()
    before = left_behind()
    once()
    assert left_behind() == before
    assert not list(tmp_path.iterdir())


# Strangers


def test_datapoints_come_as_they_were():
    value = {
        "plain": [1, -(10**30), 2.5, float("inf"), None, True, "x\ud800", b"bytes", (1, (2, [])), {}],
        3: np.arange(6, dtype=">i4").reshape(2, 3),
        (1, "a"): np.asfortranarray(np.ones((3, 4), "f4")),
        "odd": [np.empty((0, 3)), np.array(3), np.arange(10)[::-2], np.array(["ab", "c"]), np.float32(2), np.bool_(1)],
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "fields": np.zeros(3, [("a", "i4"), ("b", "f8", (2,)), ("c", [("d", "u1")])]),
    }
    written = write(value)
    assert same(read(json.loads(json.dumps(written.tree)), written.buffers), value)
    for batches in (ff.batch(2, ["a", "b", "c"]), ff.batch(2, [[1, "a"], [2, "b"], [3, "c"]], collate=None)):
        for batch in batches:  # a list of datapoints stays one, whoever unpacks it
            came = read(json.loads(json.dumps(write(batch).tree)), [])
            assert (type(came), came) == (type(batch), batch)
            assert list(ff.unbatch([came])) == list(ff.unbatch([batch]))
    with pytest.raises(TypeError, match=r"^serve\(\): builtins.set is not sent: .* or give pickle=True"):
        write({1})
    pickled = write({1}, pickled=True)
    assert read(*pickled, pickled=True) == {1}
    with pytest.raises(Malformed, match="nothing is unpickled here"):
        read(*pickled)


def test_whatever_comes_is_a_datapoint_or_malformed():
    rng = random.Random(0)
    written = write([{"a": np.arange(6).reshape(2, 3), "b": (b"x", 1.5, np.float32(1))}] * 3)
    text, buffers = json.dumps(written.tree), [bytes(one) for one in written.buffers]
    for _ in range(2000):
        letters = list(text)
        for _ in range(rng.randint(1, 4)):
            letters[rng.randrange(len(letters))] = rng.choice('[]{}",0123456789-.eadltbsp<>|OVUf')
        frames = [PROTOCOL, b'{"kind":"item","tree":' + "".join(letters).encode() + b"}", *buffers]
        with contextlib.suppress(Malformed):
            header, rest = of_message(frames, number=int)
            read(header.get("tree"), rest)
    for frames in ([], [b""], [b"flowfn/0", b"{}"], [PROTOCOL, b"[" * 5000], [PROTOCOL, b"3"], [PROTOCOL, b"\xff"]):
        with pytest.raises(Malformed):
            of_message(frames)


def test_strangers_end_nothing():
    with serve(numbers(), HERE, mode="broadcast") as server, zmq.Context() as context:
        host, port = server.address[6:].split(":")
        for data in (b"GET / HTTP/1.0\r\n\r\n", bytes(64), b"\xff" * 200):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(data)
        iterator = iter(connect(server.address, timeout=TIMEOUT))
        got = [next(iterator)]
        with context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(server.address)
            hello = as_message("hello", session="s", epoch=0, start=0)
            wrong = [
                [b""],
                [PROTOCOL],
                [b"flowfn/9", hello[1]],
                as_message("hello", session="s", epoch=-1),
                as_message("hello", session=7),
                as_message("welcome", session="s"),
                [*hello, b"more"],
            ]
            for frames in wrong * 50:
                stranger.send_multipart(frames)
            assert stranger.poll(2000)
            assert stranger.recv_multipart()[0] == PROTOCOL
            assert eventually(lambda: server.rejected >= 350)
            stranger.send_multipart(hello)
            stranger.send_multipart(as_message("want", session="s", have=10**6, done=10**6, credit=10**9))
            assert eventually(lambda: server.rejected >= 351)
            stranger.send(bytes(1 << 20))  # longer than any request: the connection ends
            got += list(iterator)
    assert same(got, list(numbers()))


def test_other_machines_need_a_key():
    for call in (lambda: serve(range(3), "tcp://0.0.0.0:5555"), lambda: connect("tcp://10.0.0.5:5555")):
        with pytest.raises(ValueError, match=r"is reached from other machines, so it needs a key: key=new_key\(\)"):
            call()
    key = new_key()
    with serve(range(3), "tcp://0.0.0.0:*", key=key) as server:
        address = server.address.replace("0.0.0.0", "127.0.0.1")
        for other in (None, new_key()):
            with pytest.raises(TimeoutError):
                list(connect(address, key=other, timeout=0.3))
        assert list(connect(address, key=key, timeout=TIMEOUT)) == [0, 1, 2]


def test_addresses_and_options_are_checked():
    for address in ("localhost:5", "tcp://127.0.0.1", "udp://127.0.0.1:5", 5):
        with pytest.raises((ValueError, TypeError), match=r"serve\(\): address must be an address, got .*'tcp://"):
            serve(range(3), address)
    with pytest.raises(ValueError, match=r"key must be what new_key\(\) gave"):
        connect("tcp://10.0.0.5:5", key="secret")
    with pytest.raises(ValueError, match=r"mode must be 'queue' or 'broadcast'"):
        serve(range(3), HERE, mode="all")
    with serve(range(3), HERE) as server, pytest.raises(OSError, match=r"serve\(\): .* cannot be had"):
        serve(range(3), server.address)


def test_a_pass_and_a_server_that_are_collected_as_garbage_hold_nobody_up(tmp_path):
    """A context of pyzmq 27.3 knows its sockets by weak references, which garbage has lost before it is finalized: then
    `destroy()` closes none, and waits for them for ever (https://github.com/zeromq/pyzmq/issues/1512)."""
    body = """
        import gc
        import flowfn as ff
        from flowfn.serving import connect, serve

        for mode in ("queue", "broadcast"):
            server = serve(ff.batch(2, range(60)), "tcp://127.0.0.1:*", mode=mode).__enter__()
            knot = [iter(connect(server.address)), iter(connect(server.address))]
            next(knot[0])
            knot.append(knot)
            del knot
            gc.collect()
            server.close()
            knot = [server]
            knot.append(knot)
            del knot, server
            gc.collect()
        server = serve(ff.batch(2, range(60)), "tcp://127.0.0.1:*").__enter__()
        held = iter(connect(server.address))
        later = iter(connect("tcp://127.0.0.1:9"))
        print(next(held).tolist())
        """
    done = run_script(body, tmp_path, timeout=20)
    assert (done.stdout, done.returncode) == ("[0, 1]\n", 0), done.stderr


def test_a_file_that_holds_no_state_is_named(tmp_path):
    state = tmp_path / "state.json"
    state.write_text("not JSON")
    with pytest.raises(ValueError, match=r"serve\(\): state='.*state\.json' is no state of a server"):
        serve(range(3), "tcp://127.0.0.1:*", state=str(state))
