"""Programs that are killed in the middle, without paying for their imports each time: a process imports them once, and forks."""

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

_SERVER = """
import importlib, json, os, sys, traceback
told = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what programs print
program = importlib.import_module(sys.argv[1])
program.main(**json.loads(sys.argv[2]))  # whatever is imported late, is imported
for line in sys.stdin:
    child = os.fork()
    if not child:
        status = 1
        try:
            program.main(**json.loads(line))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=told, flush=True)
"""


class Program:
    """A module whose `main` runs again and again, each time in a process of its own that may kill itself."""

    def __init__(self, module, folder):
        here = Path(__file__).parent
        path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, module, json.dumps({"folder": str(folder), "name": "first"})],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )

    def run(self, timeout=150, **arguments):
        """How a process ended that was given arguments: 0, 1 after an error, or minus the signal that killed it."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.close()
            raise TimeoutError(f"{arguments}\n{self.log.read_text()[-4000:]}")
        return int(self.process.stdout.readline() or -999)

    def ran(self, **arguments):
        """Run to the end."""
        status = self.run(**arguments)
        assert status == 0, self.log.read_text()[-6000:]

    def close(self):
        """End the process and all that it has started."""
        os.killpg(self.process.pid, 9)
        self.process.communicate()


def become_ranks(world):
    """Go on as so many processes, which find in their environment what torchrun tells; the number of this one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rank = next((rank for rank in range(1, world) if not os.fork()), 0)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in told.items()} | {"MASTER_ADDR": "127.0.0.1"})
    os.environ.update({"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none", "GLOO_SOCKET_IFNAME": "lo"})
    return rank


def written(path):
    """What a program has written, a line of JSON for each thing."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def compiled_in(folder):
    """The environment of programs of JAX that find what one of them has compiled, however small it is."""
    return {"JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
