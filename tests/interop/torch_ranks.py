"""A program of several ranks of torch, on the CPU: each writes down what it sees, and nothing is asserted here.

torchrun torch_ranks.py FOLDER train save         ranks of torchrun, and what they do
python torch_ranks.py FOLDER spawn 2 train        ranks of torch.multiprocessing.spawn
python torch_ranks.py FOLDER fork 8 load          ranks that are forked
"""

import contextlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import flowfn as ff
from flowfn.interop import as_dataset, as_stateful, to_torch

torch = pytest.importorskip("torch")

RECORDS = 17  # no multiple of two ranks, nor of four
EVALUATED = 13
SAVED = 40
EPOCHS = 2


def draw(record, rng):
    """A record with the number that its augmentation draws."""
    return record, rng.random()


def double(record):
    return 2 * record


def is_right(record):
    """Whether a model would be right about a record."""
    return record % 3 == 0


def stream():
    return iter(range(SAVED * 2))


# How flows are made, for tests too


def training(rank, world, remainder):
    return ff.pipe(
        range(RECORDS), ff.shuffle(), ff.shard(rank, world, remainder=remainder), ff.map(draw, rng=True), ff.batch(2)
    )


def evaluation(rank, world):
    return ff.pipe(range(EVALUATED), ff.pad_to_multiple(world * 2), ff.shard(rank, world), ff.batch(2))


def for_loader(rank, world):
    return ff.pipe(range(22), ff.shuffle(), ff.shard(rank, world), ff.map(draw, rng=True), ff.batch(2))


def saved(rank, world):
    """Flows by name: one that can be indexed, a stream with anchors, and one whose state is of its rank."""
    behind = [ff.shard(rank, world), ff.map(draw, rng=True), ff.batch(2)]
    return {
        "indexed": ff.pipe(range(SAVED), ff.shuffle(), *behind),
        "stream": ff.pipe(stream, ff.filter(lambda record: record % 2), *behind),
        "of a rank": ff.pipe(range(SAVED), ff.shard(rank, world), ff.shuffle_buffer(3), ff.batch(2)),
    }


def told(batches):
    """Batches as plain JSON, numbers bit for bit."""
    return [[column.tolist() for column in batch] if isinstance(batch, tuple) else batch.tolist() for batch in batches]


# What ranks do


def trained(rank, world, folder):
    """Two epochs of DistributedDataParallel over the shares of each policy: steps, batches, epochs and weights."""
    return {remainder: _trained(rank, world, remainder) for remainder in ("keep", "drop", "pad")}


def _trained(rank, world, remainder):
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    flow = ff.pipe(training(rank, world, remainder), to_torch())
    expected, epochs, numbers = len(flow), [], []
    for _ in range(EPOCHS):
        batches, passed = [], iter(flow)
        with model.join() if remainder == "keep" else contextlib.nullcontext():
            for records, noise in passed:
                batches.append((records, noise))
                optimizer.zero_grad()
                model(noise[:, None].float()).square().mean().backward()
                optimizer.step()
        epochs.append(told(batches))
        numbers.append(passed.epoch)
    weights = [value.numpy().tobytes().hex() for value in model.module.state_dict().values()]
    return {"expected": expected, "epochs": epochs, "numbers": numbers, "next": flow.epoch, "weights": weights}


def evaluated(rank, world, folder):
    """How many records there are and about how many a model is right, over all ranks, with and without the mask."""
    counts, steps = torch.zeros(3, dtype=torch.int64), 0
    for records, valid in evaluation(rank, world):
        right = is_right(records)
        counts += torch.tensor([valid.sum(), (right & valid).sum(), right.sum()])
        steps += 1
    torch.distributed.all_reduce(counts)
    return {"counts": counts.tolist(), "steps": steps}


def in_workers(rank, world, folder):
    """A function of the script in worker processes of a rank."""
    flow = ff.pipe(range(8), ff.shard(rank, world), ff.map(double), ff.prefetch(2, processes=2))
    return list(flow)


def in_loader(rank, world, folder):
    """Workers of a DataLoader in each rank, for two epochs."""
    loader = torch.utils.data.DataLoader(
        as_dataset(for_loader(rank, world)), batch_size=None, num_workers=2, persistent_workers=True
    )
    return [told(tuple(column.numpy() for column in batch) for batch in loader) for _ in range(EPOCHS)]


def saved_in_the_middle(rank, world, folder):
    """An epoch and three steps of the next one, then a checkpoint, then the rest of that epoch."""
    flows = saved(rank, world)
    before, passes = {}, {}
    for name, flow in flows.items():
        whole, passes[name] = list(flow), iter(flow)
        before[name] = told(whole), told(next(passes[name]) for _ in range(3))
    states = {name: flow.state_dict() for name, flow in flows.items()}
    checkpoint = {"model": sharded_model(world, fill=True)} | {name: as_stateful(flow) for name, flow in flows.items()}
    torch.distributed.checkpoint.save(checkpoint, checkpoint_id=folder.parent / "whole")
    torch.distributed.checkpoint.save(
        {
            "bare": flows["indexed"],
            "with anchors": flows["stream"],
            "a": {"b": Probe(rank)},
            "numbers": dict.fromkeys("abcdefgh", rank),
        },
        checkpoint_id=folder.parent / "bare",
    )
    torch.distributed.checkpoint.async_save(
        {"indexed": as_stateful(flows["indexed"])}, checkpoint_id=folder.parent / "later"
    ).result(60)
    after = {name: told(rest) for name, rest in passes.items()}
    return {"before": before, "after": after, "states": states}


def loaded(rank, world, folder):
    """The rest of the epoch after loading, and what became of loading otherwise."""
    flows = saved(rank, world)
    of_rank = flows.pop("of a rank")
    list(flows["stream"])  # a flow that has been iterated may be loaded into
    checkpoint = {"model": sharded_model(world)} | {name: as_stateful(flow) for name, flow in flows.items()}
    torch.distributed.checkpoint.load(checkpoint, checkpoint_id=folder.parent / "whole")
    after = {name: told(flow) for name, flow in flows.items()}
    later = saved(rank, world)["indexed"]
    torch.distributed.checkpoint.load({"indexed": as_stateful(later)}, checkpoint_id=folder.parent / "later")
    rows = [row.full_tensor().tolist() for row in checkpoint["model"].values()]
    refusals = {
        "of a rank": refusal({"of a rank": as_stateful(of_rank)}, folder.parent / "whole"),
        "bare": refusal({"bare": saved(rank, world)["indexed"]}, folder.parent / "bare"),
        "with anchors": refusal({"with anchors": saved(rank, world)["stream"]}, folder.parent / "bare"),
    }
    numbers = {"numbers": dict.fromkeys("abcdefgh", -1)}
    torch.distributed.checkpoint.load(numbers, checkpoint_id=folder.parent / "bare")
    nested = {"a": {"b": Probe(-1)}}
    mine = nested["a"]["b"]
    torch.distributed.checkpoint.load(nested, checkpoint_id=folder.parent / "bare")
    return {
        "after": after,
        "later": told(later),
        "rest of its own": told(of_rank),
        "rows": rows,
        "refusals": refusals,
        "numbers": list(numbers["numbers"].values()),
        "nested": [mine.asked, mine is nested["a"]["b"]],
    }


class Probe:
    """A Stateful that tells whether it was asked."""

    def __init__(self, rank):
        self.rank, self.asked = rank, False

    def state_dict(self):
        self.asked = True
        return {"rank": self.rank}

    def load_state_dict(self, state):
        self.asked = True


def refusal(checkpoint, folder):
    """What loading says, if it refuses."""
    try:
        torch.distributed.checkpoint.load(checkpoint, checkpoint_id=folder)
    except (Exception, torch.distributed.checkpoint.CheckpointException) as error:  # that is a BaseException
        return f"{type(error).__name__}: {error}"
    return None


def sharded_model(world, fill=False):
    """A state dict of eight rows of weights, of which each rank has its own."""
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (world,))
    weights = torch.arange(16, dtype=torch.float32).reshape(8, 2) if fill else torch.zeros(8, 2)
    return {"weight": torch.distributed.tensor.distribute_tensor(weights, mesh, [torch.distributed.tensor.Shard(0)])}


WORK = {
    "train": [trained, evaluated],
    "prefetch": [in_workers],
    "loader": [in_loader],
    "save": [saved_in_the_middle],
    "load": [loaded],
}


def one_rank(rank, world, folder, tasks, store=None):
    """Join the others, and write down what this rank sees."""
    torch.set_num_threads(1)
    met = {"init_method": f"file://{store}", "rank": rank, "world_size": world} if store else {}
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60), **met)
    seen = {work.__name__: work(rank, world, folder) for task in tasks for work in WORK[task]}
    (folder / f"{rank}-of-{world}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch.distributed.checkpoint
    import torch.distributed.tensor

    folder, tasks = Path(sys.argv[1]), sys.argv[2:]
    if tasks[0] not in ("spawn", "fork"):
        one_rank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), folder, tasks)
    else:
        method, worlds, *tasks = tasks
        for world in map(int, worlds.split(",")):
            arguments = (world, folder, tasks, folder / f"store-{world}")
            torch.multiprocessing.start_processes(one_rank, arguments, world, start_method=method)
