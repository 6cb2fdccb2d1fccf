"""Served flows over a network that loses packets: two network namespaces, and between them a router of our own."""

import contextlib
import ctypes
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import threading

import numpy as np
import pytest

import flowfn as ff
from flowfn.serving import connect, new_key, serve
from tests.waiting import in_child

pytest.importorskip("zmq")
pytestmark = pytest.mark.timeout(30)
CLONE_NEWNET, TUNSETIFF, PACKETS_ALONE = 0x40000000, 0x400454CA, 0x1001
SERVER, CONSUMERS = "10.9.0.1", "10.9.0.2"


def run_apart(channel, own, other, run):
    """Run something in a network of its own, in which there is one way out, that is handed over."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        return
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"out", PACKETS_ALONE))
    for command in ("link set lo up", f"address add {own} peer {other} dev out", "link set out up"):
        subprocess.run(["ip", *command.split()], check=True)
    socket.send_fds(channel, [b"!"], [device])
    if channel.recv(1):  # as soon as there is a router
        run()


class Network:
    """Two ends, each a process in a network of its own, and a router that loses some of what goes from one to the other."""

    def __init__(self, loss, seed, **ends):
        self.loss, self.rng, self.lost, self.over = loss, random.Random(seed), 0, threading.Event()
        self.devices, self.pids, channels = [], [], []
        for own, run in ends.values():
            near, far = socket.socketpair()
            other = CONSUMERS if own == SERVER else SERVER
            self.pids.append(in_child(lambda far=far, own=own, other=other, run=run: run_apart(far, own, other, run)))
            far.close()
            channels.append(near)
        for channel in channels:
            self.devices += socket.recv_fds(channel, 1, 1)[1]
        self.router = threading.Thread(target=self.route, daemon=True)
        if len(self.devices) == 2:
            self.router.start()
            for channel in channels:
                channel.send(b"!")
        for channel in channels:
            channel.close()

    def route(self):
        while not self.over.is_set():
            for device in select.select(self.devices, [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    packet = os.read(device, 1 << 16)
                    if self.rng.random() < self.loss:
                        self.lost += 1
                    else:
                        os.write(self.devices[device == self.devices[0]], packet)

    def close(self):
        self.over.set()
        for pid in self.pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if self.router.ident:
            self.router.join()
        for device in self.devices:
            os.close(device)


@pytest.mark.parametrize("mode", ["queue", "broadcast"])
def test_lost_packets_lose_and_double_nothing(mode, tmp_path):
    address, key, n, told = f"tcp://{SERVER}:5555", new_key(), 100, tmp_path / "got.json"
    flow = ff.pipe(range(n), ff.shuffle(), ff.map(lambda i: np.full(10_000, i, np.int16)))

    def read(into):
        into.extend(int(item[0]) for item in connect(address, key=key, timeout=15) if (item == item[0]).all())

    def consume():
        got = [], []
        threads = [threading.Thread(target=read, args=(one,)) for one in got]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        told.write_text(json.dumps(got))

    ends = {
        "server": (SERVER, lambda: serve(flow, address, mode=mode, key=key, consumers=2).run()),
        "consumers": (CONSUMERS, consume),
    }
    with contextlib.closing(Network(0.03, mode, **ends)) as network:
        if len(network.devices) < 2:
            pytest.skip("networks cannot be made here")
        os.waitpid(network.pids[1], 0)
        assert network.lost > 20
    got, order = json.loads(told.read_text()), list(map(int, ff.shuffle(range(n)).run(epoch=0)))
    if mode == "broadcast":
        assert got == [order, order]
    else:
        assert sorted(got[0] + got[1]) == [*range(n)]
