"""Several processes of torch: shares of ranks, evaluation over them, checkpoints that they write together.

The ranks run `torch_ranks.py`, on the CPU with gloo; each launch does many things, and the tests look at what it saw.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import flowfn as ff
from flowfn.interop import as_stateful

pytest.importorskip("torch")

import torch_ranks
from waiting import eventually

pytestmark = [pytest.mark.timeout(330), pytest.mark.long]

LIMIT = 150
SAVING = 4  # ranks write the checkpoint
COUNT = 3 * 2 * SAVING  # datapoints have been given by then, in steps of 2
LAUNCHED = {
    ("torchrun", 2): ["train", "prefetch", "loader"],
    ("torchrun", 4): ["train", "loader", "save"],
    ("spawn", 2): ["train", "prefetch", "loader"],
}
LOADING = [1, 2, 4, 8]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What so many ranks of a launcher saw; each launch is once, and those that load are one."""
    checkpoints = tmp_path_factory.mktemp("ranks")

    @cache
    def launch(launcher, world=None):
        folder = checkpoints / f"{launcher}-{world}"
        folder.mkdir()
        if launcher == "torchrun":
            run(folder, *LAUNCHED[launcher, world], by=[*TORCHRUN, f"--nproc-per-node={world}"])
        elif launcher == "spawn":
            run(folder, "spawn", world, *LAUNCHED[launcher, world])
        else:
            launch("torchrun", SAVING)
            run(folder, "fork", ",".join(map(str, LOADING)), "load")
        return folder

    def seen(launcher, world):
        folder = launch(launcher) if launcher == "fork" else launch(launcher, world)
        return [json.loads((folder / f"{rank}-of-{world}.json").read_text()) for rank in range(world)]

    return seen


def run(folder, *tasks, by=()):
    """Run a program of several ranks within some time, and see that nothing is left of it."""
    mark = f"RANKS_OF_THIS_TEST={folder}"
    known = [str(Path(ff.__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, known)),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    program = subprocess.Popen(
        [sys.executable, *by, torch_ranks.__file__, str(folder), *map(str, tasks)],
        env=os.environ | settings | dict([mark.split("=")]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        written, _ = program.communicate(timeout=LIMIT)
        assert program.returncode == 0, written[-6000:]
        assert eventually(lambda: not marked(mark)), "processes are left"
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        program.kill()
        program.wait()


def marked(mark):
    """The processes that were started with some setting."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def pairs(batches):
    """(record, what was drawn for it), one after the other."""
    return [(record, drawn) for records, numbers in batches for record, drawn in zip(records, numbers)]


def serial(flow, epoch):
    """The same of a flow that is read here."""
    return pairs(torch_ranks.told(flow.run(epoch=epoch)))


# Training


@pytest.mark.parametrize(("launcher", "world"), LAUNCHED)
@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_ranks_take_as_many_steps_as_their_length_says(launched, launcher, world, remainder):
    """All the same number with "drop" and "pad"; with "keep" the ranks know beforehand that they differ, and
    DistributedDataParallel (torch 2.14, `nn/parallel/distributed.py`) trains through it in its `join()`."""
    ranks = [seen["trained"][remainder] for seen in launched(launcher, world)]
    steps = [[len(epoch) for epoch in rank["epochs"]] for rank in ranks]
    assert steps == [[rank["expected"]] * torch_ranks.EPOCHS for rank in ranks]
    assert [rank["expected"] for rank in ranks] == [
        len(torch_ranks.training(rank, world, remainder)) for rank in range(world)
    ]
    assert (len({rank["expected"] for rank in ranks}) == 1) == (remainder != "keep")
    assert len({tuple(rank["weights"]) for rank in ranks}) == 1


@pytest.mark.parametrize(("launcher", "world"), LAUNCHED)
def test_each_record_comes_once_in_each_epoch_and_is_augmented_alike_in_every_world(launched, launcher, world):
    ranks = [seen["trained"] for seen in launched(launcher, world)]
    orders = []
    for epoch in range(torch_ranks.EPOCHS):
        whole = serial(torch_ranks.training(0, 1, "keep"), epoch)
        shares = {name: [pairs(rank[name]["epochs"][epoch]) for rank in ranks] for name in ("keep", "drop", "pad")}
        even = len(whole) - len(whole) % world
        assert shares["keep"] == [whole[rank::world] for rank in range(world)]
        assert shares["drop"] == [whole[rank:even:world] for rank in range(world)]
        again = -len(whole) % world
        assert [[record for record, _ in share] for share in shares["pad"]] == [
            [record for record, _ in (whole + whole[:again])[rank::world]] for rank in range(world)
        ]
        orders.append([record for record, _ in whole])
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("launcher", "world"), LAUNCHED)
def test_epochs_advance_alike_in_all_ranks(launched, launcher, world):
    for seen in launched(launcher, world):
        assert {tuple(share["numbers"]) for share in seen["trained"].values()} == {(0, 1)}
        assert {share["next"] for share in seen["trained"].values()} == {2}


def test_weights_are_the_same_bit_for_bit_whoever_launches_the_ranks(launched):
    launches = [launched(launcher, 2) for launcher in ("torchrun", "spawn")]
    assert launches[0][0]["trained"] == launches[1][0]["trained"]


# Evaluation


@pytest.mark.parametrize(("launcher", "world"), LAUNCHED)
def test_a_metric_over_padded_ranks_is_that_of_one_process_exactly(launched, launcher, world):
    """`pad_to_multiple(world * size)` before `shard` marks what is there again. Without the mask (as with torch's
    DistributedSampler, which pads and does not tell) records would count twice."""
    right = sum(map(torch_ranks.is_right, range(torch_ranks.EVALUATED)))
    for seen in launched(launcher, world):
        counted, found, unmasked = seen["evaluated"]["counts"]
        assert (counted, found) == (torch_ranks.EVALUATED, right)
        assert unmasked > right
        assert seen["evaluated"]["steps"] == -(-torch_ranks.EVALUATED // (2 * world))


# Workers in ranks


@pytest.mark.parametrize("launcher", ["torchrun", "spawn"])
def test_functions_of_the_script_run_in_worker_processes_of_ranks(launched, launcher):
    assert [seen["in_workers"] for seen in launched(launcher, 2)] == [[0, 4, 8, 12], [2, 6, 10, 14]]


@pytest.mark.parametrize(("launcher", "world"), [one for one, work in LAUNCHED.items() if "loader" in work])
def test_workers_of_a_loader_in_ranks_give_every_record_once(launched, launcher, world):
    """In ranks that were spawned, a DataLoader spawns its workers too (CPython 3.11, `BaseProcess._bootstrap`: a child
    goes on as it was started), so each imports torch and the script, and without `persistent_workers` does so again
    in each epoch. In torchrun's ranks they are forked."""
    for epoch in range(torch_ranks.EPOCHS):
        whole = serial(torch_ranks.for_loader(0, 1), epoch)
        shares = [pairs(seen["in_loader"][epoch]) for seen in launched(launcher, world)]
        assert shares == [whole[rank::world] for rank in range(world)]


# Checkpoints


@pytest.mark.resumes(
    "torch: `torch.distributed.checkpoint`, of 4 ranks",
    "a length, or none",
    "in an epoch",
    "1, 2, 4 or 8 ranks",
    outcome="each datapoint once, equal to the last bit",
)
@pytest.mark.parametrize("world", LOADING)
@pytest.mark.parametrize("name", ["indexed", "stream"])
def test_a_checkpoint_of_four_ranks_loads_under_any_number(launched, world, name):
    whole = serial(torch_ranks.saved(0, 1)[name], 1)
    before = [pairs(seen["saved_in_the_middle"]["before"][name][1]) for seen in launched("torchrun", SAVING)]
    assert before == [whole[rank:COUNT:SAVING] for rank in range(SAVING)]
    after = [pairs(seen["loaded"]["after"][name]) for seen in launched("fork", world)]
    assert after == [whole[COUNT + rank :: world] for rank in range(world)]


@pytest.mark.resumes(
    "torch: `torch.distributed.checkpoint`, of 4 ranks",
    "a length, or none",
    "in an epoch",
    "1, 2, 4 or 8 ranks",
    outcome="each datapoint once, equal to the last bit",
)
@pytest.mark.parametrize("world", [2, 8])
def test_one_that_is_written_in_the_background_does_too(launched, world):
    for seen in launched("fork", world):
        assert seen["loaded"]["later"] == seen["loaded"]["after"]["indexed"]


@pytest.mark.parametrize("world", LOADING)
def test_the_model_beside_it_is_sharded_anew(launched, world):
    for seen in launched("fork", world):
        assert seen["loaded"]["rows"] == [[[2 * row, 2 * row + 1] for row in range(8)]]


def test_saving_changes_nothing_in_the_pass(launched):
    for name in ("indexed", "stream"):
        assert [seen["loaded"]["after"][name] for seen in launched("fork", SAVING)] == [
            seen["saved_in_the_middle"]["after"][name] for seen in launched("torchrun", SAVING)
        ]


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("saver", range(SAVING))
def test_the_state_of_any_rank_as_plain_json_is_that_of_all(launched, world, saver):
    states = launched("torchrun", SAVING)[saver]["saved_in_the_middle"]["states"]
    for name in ("indexed", "stream"):
        whole = serial(torch_ranks.saved(0, 1)[name], 1)
        for rank in range(world):
            flow = torch_ranks.saved(rank, world)[name].load_state_dict(states[name])
            assert (flow.epoch, pairs(torch_ranks.told(flow))) == (1, whole[COUNT + rank :: world])


@pytest.mark.resumes("torch: the same, `shuffle_buffer` behind `shard`", "a length", "in an epoch", "4 ranks")
def test_a_state_that_is_of_its_rank_loads_under_the_same_number(launched):
    for seen, saved in zip(launched("fork", SAVING), launched("torchrun", SAVING)):
        assert seen["loaded"]["refusals"]["of a rank"] is None
        assert seen["loaded"]["rest of its own"] == saved["saved_in_the_middle"]["after"]["of a rank"]


@pytest.mark.resumes(
    "torch: the same, `shuffle_buffer` behind `shard`",
    "a length",
    "in an epoch",
    "2 or 8 ranks",
    outcome="refused, by an error",
)
@pytest.mark.parametrize("world", [2, 8])
def test_and_is_said_to_be_missing_under_another(launched, world):
    """By DCP, with a CheckpointException, which `except Exception` does not catch: it is a BaseException (torch 2.14,
    `checkpoint/api.py`)."""
    for rank, seen in enumerate(launched("fork", world)):
        refused = seen["loaded"]["refusals"]["of a rank"]
        assert refused.startswith("CheckpointException")
        assert f"Missing key in checkpoint state_dict: of a rank.state of rank {rank} of {world}" in refused


def test_dcp_takes_the_entries_of_a_dict_from_several_ranks(launched):
    """Whatever is no tensor is written by one rank for each key, and not by the coordinator for all of them:
    torch 2.14 deals the keys out (`checkpoint/_dedup_save_plans.py`), although `default_planner.py` says that other
    ranks' are ignored. So a dict in which ranks differ comes back as none of them saved it."""
    (numbers,) = {tuple(seen["loaded"]["numbers"]) for seen in launched("fork", 2)}
    assert len(set(numbers)) == SAVING


@pytest.mark.parametrize("world", [2, 4, 8])
def test_so_the_state_of_a_bare_flow_is_refused(launched, world):
    """It is taken apart as a dict is: `rank` and `digest` are of several ranks. Of a stream, what `load` finds in the
    checkpoint and not in the flow is passed over without a word (`state_dict_loader.py`): the anchors."""
    for seen in launched("fork", world):
        mixed, lacking = (seen["loaded"]["refusals"][name] for name in ("bare", "with anchors"))
        assert "damaged or edited: rank is not what was saved" in mixed
        assert (
            "damaged or edited: its digest is of something else (it may lack base or anchors or mix or skip)" in lacking
        )
        assert "give it flowfn.interop.as_stateful(flow)" in mixed


def test_dcp_asks_only_what_is_at_the_top_level_for_its_state(launched):
    """A `Stateful` within a dict is pickled, and what is loaded is another object (torch 2.14, `state_dict_saver.py`)."""
    for seen in launched("fork", 2):
        asked, same = seen["loaded"]["nested"]
        assert (asked, same) == (False, False)


def test_a_stateful_flow_refuses_that():
    with pytest.raises(TypeError, match="asks for a state only what is at the top level of the dict"):
        pickle.dumps(as_stateful(ff.flow(range(3))))


def test_the_state_of_another_rank_is_refused():
    def of_rank(rank):
        return as_stateful(ff.pipe(range(9), ff.shard(rank, 2), ff.shuffle_buffer(2)))

    with pytest.raises(ValueError, match="there must be a 'state of rank 1 of 2', got 'state of rank 0 of 2'"):
        of_rank(1).load_state_dict(of_rank(0).state_dict())
