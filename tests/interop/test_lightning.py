"""Lightning's own Trainer, killed while it trains and started again: what comes is what would have come, bit for bit."""

import os
import sys
from functools import cache
from types import SimpleNamespace

import pytest
from forking import written
from waiting import run_script

import flowfn as ff
from flowfn.interop import as_loader

pytest.importorskip("lightning")
pytest.importorskip("torchdata")

pytestmark = pytest.mark.timeout(200)


PROGRAM = "lightning_program"


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """What a run writes down that nothing interrupts: for each batch (epoch, what is in it, the loss), and the weights."""

    @cache
    def run(kind, sized, **options):
        folder = tmp_path_factory.mktemp("whole")
        program.ran(folder=str(folder), name="whole", kind=kind, sized=sized, options=options)
        return written(folder / "whole.jsonl")

    return run


def interrupted(program, folder, kill, kind, sized, options, **save):
    """What was written down until a process was killed before batch `kill`, and what by the one that went on."""
    run = {"folder": str(folder), "kind": kind, "sized": sized, "options": options, **save}
    assert program.run(name="killed", kill=kill, **run) == -9
    newest = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    program.ran(name="resumed", resume=str(newest), **run)
    return written(folder / "killed.jsonl"), written(folder / "resumed.jsonl")


def first_epoch(records):
    """How many batches the first epoch has."""
    return sum(record[0] == 0 for record in records[:-1])


FIRST = "the last of the first epoch"

MOMENTS = [
    ("on_train_batch_end", 3, {}),
    ("on_train_batch_end", 9, {}),
    ("on_train_batch_end", FIRST, {}),
    ("on_train_epoch_end", FIRST, {}),
    ("ModelCheckpoint", 3, {}),
    ("ModelCheckpoint", FIRST, {}),
    ("on_validation_batch_start", 4, {"val_check_interval": 2}),
    ("on_validation_end", 4, {"val_check_interval": 2}),
    ("on_validation_end", FIRST, {"val_check_interval": 1.0}),
    ("on_train_batch_end", 2, {"limit_train_batches": 3}),
    ("on_train_batch_end", 3, {"limit_train_batches": 3}),
    ("on_train_epoch_end", 3, {"limit_train_batches": 3}),
    ("on_train_batch_end", 4, {"accumulate_grad_batches": 2}),
    ("on_train_batch_end", 9, {"max_steps": 12, "max_epochs": -1}),
    ("on_train_batch_end", FIRST, {"max_steps": 12, "max_epochs": -1}),
    ("on_train_batch_end", 9, {"reload_dataloaders_every_n_epochs": 1}),
    ("on_train_epoch_end", FIRST, {"reload_dataloaders_every_n_epochs": 1}),
]

CASES = [
    *((sized, *moment) for moment in MOMENTS for sized in (True, False)),
    (False, "on_train_epoch_start", FIRST, {}),
    (True, "on_train_batch_end", FIRST, {"accumulate_grad_batches": 2}),
]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`", "a length, or none", "in an epoch, at its end, in a validation"
)
@pytest.mark.parametrize(("sized", "hook", "batches", "options"), CASES, ids=str)
def test_a_killed_run_goes_on_with_the_same_batches_losses_and_weights(
    program, whole, tmp_path, sized, hook, batches, options
):
    """Whether the flow has a length or not, whenever the checkpoint was saved."""
    full = whole("as_loader", sized, **options)
    batches = first_epoch(full) if batches == FIRST else batches
    killed, resumed = interrupted(program, tmp_path, batches, "as_loader", sized, options, hook=hook, batches=batches)
    assert killed == full[:batches]
    assert resumed == full[batches:]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`", "a length, or none", "in an epoch", "other processes that prefetch"
)
@pytest.mark.parametrize("workers", [(0, 2), (2, 1)], ids=str)
def test_workers_of_the_flow_may_be_others(program, whole, tmp_path, workers):
    run = {"folder": str(tmp_path), "hook": "on_train_batch_end", "batches": 9}
    assert program.run(name="killed", kill=10, workers=workers[0], **run) == -9
    program.ran(name="resumed", resume=f"{tmp_path}/saved.ckpt", workers=workers[1], **run)
    assert written(tmp_path / "resumed.jsonl") == whole("as_loader", False)[9:]


@pytest.mark.resumes(
    'Lightning: the same in 2 processes, `shard(trainer.global_rank, trainer.world_size, remainder="drop")`',
    "a length, or none",
    "in an epoch, at its end",
)
@pytest.mark.parametrize(("hook", "epochs"), [("on_train_batch_end", 0), ("on_train_epoch_end", 1)], ids=str)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_processes_share_the_datapoints_and_go_on_exactly(program, tmp_path, sized, hook, epochs):
    """As torchrun starts them, with DistributedDataParallel and gloo. What is no DataLoader gets no sampler of Lightning's
    (lightning 2.6.6, `_DataConnector._prepare_dataloader`), and the state of the first process is saved for all."""

    def logs(name):
        return [written(tmp_path / f"{name}-{rank}.jsonl") for rank in (0, 1)]

    run = {"folder": str(tmp_path), "world": 2, "sized": sized}
    program.ran(name="whole", **run)
    whole = logs("whole")
    first = first_epoch(whole[0])
    assert first == first_epoch(whole[1])
    seen = [number for log in whole for record in log[:first] for number in record[1]]
    assert len(set(seen)) == len(seen)
    assert len(seen) == 12 or not sized
    assert [log[-1] for log in whole] == [whole[0][-1]] * 2
    batches = first if epochs else 2
    assert program.run(name="killed", hook=hook, batches=batches, kill=batches + 1, **run) == -9
    assert logs("killed") == [log[: batches + 1] for log in whole]
    program.ran(name="resumed", resume=f"{tmp_path}/saved.ckpt", **run)
    assert logs("resumed") == [log[batches:] for log in whole]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`",
    "a length, or none",
    "within a step",
    outcome="equal to the last bit, the step again",
)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_the_batch_that_is_under_way_comes_again(program, whole, tmp_path, sized):
    """A checkpoint that is saved within a step, as after an error, is of a model that this step has not changed."""
    full = whole("as_loader", sized)
    _, resumed = interrupted(program, tmp_path, 9, "as_loader", sized, {}, hook="on_before_zero_grad", batches=9)
    assert resumed == full[8:]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`", "a length, or none", "in an epoch, at its end, in a validation"
)
@pytest.mark.parametrize(("hook", "batches"), [("on_train_batch_end", 9), ("on_train_epoch_end", FIRST)])
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_hook_may_make_a_new_loader_each_time(program, whole, tmp_path, sized, hook, batches):
    """`train_dataloader` of a module, called for each epoch, gives what one loader for all would have given."""
    full = whole("as_loader", sized)
    batches = first_epoch(full) if batches == FIRST else batches
    options = {"reload_dataloaders_every_n_epochs": 1}
    _, resumed = interrupted(program, tmp_path, batches, "hook as_loader", sized, options, hook=hook, batches=batches)
    assert whole("hook as_loader", sized, **options) == full
    assert resumed == full[batches:]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`", "a length, or none", "in an epoch, at its end, in a validation"
)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_step_may_take_its_batch_itself(program, whole, tmp_path, sized):
    """With an argument `dataloader_iter`, nothing is fetched ahead (lightning 2.6.6, `_DataLoaderIterDataFetcher`)."""
    kind = "taken as_loader"
    _, resumed = interrupted(program, tmp_path, 3, kind, sized, {}, hook="on_train_batch_end", batches=3)
    assert resumed == whole(kind, sized)[3:]


def test_what_a_model_draws_goes_on_too_where_it_saves_the_random_numbers_of_torch(program, whole, tmp_path):
    kind = "remembering as_loader"
    _, resumed = interrupted(program, tmp_path, 9, kind, False, {}, hook="on_train_batch_end", batches=9)
    assert resumed == whole(kind, False)[9:] == whole("drawing as_loader", False)[9:]


def test_lightning_itself_saves_no_random_numbers_of_torch(program, whole, tmp_path):
    """What dropout draws after a resume is what it draws at the beginning of a program, though all else goes on
    (lightning 2.6.6, `_CheckpointConnector.dump_checkpoint`); so the module has to save them."""
    kind = "drawing as_loader"
    full = whole(kind, False)
    _, resumed = interrupted(program, tmp_path, 9, kind, False, {}, hook="on_train_batch_end", batches=9)
    assert [record[:2] for record in resumed[:-1]] == [record[:2] for record in full[9:-1]]
    assert resumed[0] != full[9]
    assert resumed[-1] != full[-1]


def test_a_step_that_takes_several_batches_or_another_trainer_is_told_of_when_it_is_saved():
    progress = SimpleNamespace(
        total=SimpleNamespace(processed=0), current=SimpleNamespace(ready=1, processed=1), is_last_batch=False
    )
    epochs = SimpleNamespace(current=SimpleNamespace(processed=0))
    trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=progress))
    )
    loader = as_loader(ff.flow(range(9)), trainer)
    taken = iter(loader)
    assert [next(taken) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(
        RuntimeError, match=r"as_loader\(\): of 5 batches 0 were .*; give as_loader\(\) the trainer that fits"
    ):
        loader.state_dict()
    progress.total.processed = 2
    with pytest.raises(RuntimeError, match=r"as_loader\(\): of 5 batches 2 were trained on"):
        loader.state_dict()


def test_a_strategy_that_starts_processes_in_fit_has_the_flow_made_in_a_hook(program, tmp_path):
    """Before `fit`, `trainer.global_rank` is 0 in what they all go on from (lightning 2.6.6, `_MultiProcessingLauncher`): a
    flow that is made there is that of the first process."""
    run = {"folder": str(tmp_path), "world": 2}
    program.ran(name="torchrun", **run)
    forked = [
        {"kind": "hook as_loader", "name": "forked"},
        {"name": "too early"},
    ]  # by a program that is not forked itself
    body = f"import {PROGRAM}\nfor one in {forked}:\n    {PROGRAM}.main(**one, **{run}, strategy='ddp_fork')\n"
    ended = run_script(body, tmp_path, timeout=100, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    for rank in (0, 1):
        assert written(tmp_path / f"forked-{rank}.jsonl") == written(tmp_path / f"torchrun-{rank}.jsonl"), ended.stderr
    assert "the flow is rank 0 of 2, and this process rank 1 of 2" in ended.stderr


def test_a_flow_that_is_not_shared_out_is_warned_of():
    """A loader of torch would get a sampler from Lightning."""

    def trainer(rank, world):
        told = {"rank": rank, "num_replicas": world}
        progress = SimpleNamespace(total=SimpleNamespace(processed=0))
        fit_loop = SimpleNamespace(
            epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)),
            epoch_loop=SimpleNamespace(batch_progress=progress),
        )
        return SimpleNamespace(fit_loop=fit_loop, distributed_sampler_kwargs=told)

    flow = ff.flow(range(4))
    with pytest.warns(
        UserWarning, match=r"2 processes train on the same datapoints; write shard\(trainer\.global_rank, "
    ):
        assert [*as_loader(flow, trainer(0, 2))] == [0, 1, 2, 3]
    assert [*as_loader(flow, trainer(0, 1))] == [0, 1, 2, 3]
    assert [*as_loader(ff.pipe(flow, ff.shard(1, 2)), trainer(1, 2))] == [1, 3]
    twice = ff.pipe(flow, ff.shard(0, 2), ff.shard(1, 2))  # 2 of 4 here, while its process may be counted otherwise
    assert [*as_loader(twice, trainer(1, 4))] == [2]
    with pytest.raises(
        ValueError, match="the flow is rank 0 of 1, and this process rank 1 of 2; make it in train_dataloader"
    ):
        next(iter(as_loader(ff.pipe(flow, ff.shard(0, 1)), trainer(1, 2))))


def test_what_is_not_a_flow_or_a_trainer_is_refused():
    trainer = SimpleNamespace(fit_loop=None)
    with pytest.raises(TypeError, match=r"as_loader\(\): flow must be a flow, got .*; write the flow itself"):
        as_loader([1, 2], trainer)
    with pytest.raises(TypeError, match=r"as_loader\(\): trainer must be the Trainer of Lightning that fits, got None"):
        as_loader(ff.flow([1, 2]), None)
    assert repr(as_loader(ff.flow([1, 2]), trainer)).startswith("as_loader(")


@pytest.mark.resumes("Lightning: the flow, or a `StatefulDataLoader`", "a length", "in an epoch")
@pytest.mark.parametrize("kind", ["flow", "StatefulDataLoader"])
@pytest.mark.parametrize("batches", [3, 9])
def test_a_flow_with_a_length_is_exact_in_the_middle_of_an_epoch_without_a_loader_of_ours(
    program, whole, tmp_path, kind, batches
):
    """The flow itself, and `StatefulDataLoader(as_dataset(flow), batch_size=None)`: Lightning saves and loads their state.

    It fetches nothing ahead where it knows the length (lightning 2.6.6, `_PrefetchDataFetcher.__iter__`).
    """
    _, resumed = interrupted(program, tmp_path, batches, kind, True, {}, hook="on_train_batch_end", batches=batches)
    assert resumed == whole(kind, True)[batches:]


@pytest.mark.resumes(
    "Lightning: the flow, or a `StatefulDataLoader`",
    "a length",
    "at the end of an epoch",
    outcome="not: the order of the first epoch comes again",
)
@pytest.mark.parametrize("kind", ["flow", "StatefulDataLoader"])
def test_without_our_loader_the_end_of_an_epoch_is_forgotten(program, whole, tmp_path, kind):
    """Lightning does not load the state of what it trains on from a checkpoint of the end of an epoch (lightning 2.6.6,
    `_FitLoop.restarting`): the first epoch's order comes again as the second's."""
    full = whole(kind, True)
    _, resumed = interrupted(program, tmp_path, 7, kind, True, {}, hook="on_train_epoch_end", batches=7)
    assert [record[1] for record in resumed[:7]] == [record[1] for record in full[:7]]


@pytest.mark.resumes("Lightning: the flow", "no length", "in an epoch", outcome="not: a batch is lost")
def test_without_our_loader_a_batch_is_lost_where_no_length_is_known(program, whole, tmp_path):
    """Lightning asks for one batch more than it trains on, to know which is the last, and saves the state behind that
    (lightning 2.6.6, `_PrefetchDataFetcher.__next__`)."""
    _, resumed = interrupted(program, tmp_path, 3, "flow", False, {}, hook="on_train_batch_end", batches=3)
    assert resumed[0][1] == whole("flow", False)[4][1]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`, `max_steps`",
    "a length",
    "at the end of an epoch",
    outcome="not: an epoch of one batch comes between",
)
@pytest.mark.parametrize(
    ("hook", "options"),
    [("on_train_epoch_start", {}), ("on_train_epoch_end", {"max_steps": 12, "max_epochs": -1})],
    ids=str,
)
def test_lightning_itself_may_take_the_first_batch_of_an_epoch_for_its_last(program, whole, tmp_path, hook, options):
    """It adds the batches of the epoch that has ended to those it fetches (lightning 2.6.6,
    `_TrainingEpochLoop.on_run_start`), whatever it trains on; the batch is the right one."""
    full = whole("as_loader", True, **options)
    _, resumed = interrupted(program, tmp_path, 7, "as_loader", True, options, hook=hook, batches=7)
    assert resumed[0][1] == full[7][1]
    assert resumed[1][1] == whole("as_loader", True)[14][1]


@pytest.mark.resumes(
    "Lightning: `as_loader(flow, trainer)`, `accumulate_grad_batches`",
    "no length",
    "behind the last batch",
    outcome="batches are equal; which of them make a step is not",
)
def test_lightning_itself_may_step_after_other_batches(program, whole, tmp_path):
    """Saved in on_train_batch_end of the last batch, where no length is known, its count of batches goes on in the next
    epoch (lightning 2.6.6, `_TrainingEpochLoop.reset`): gradients of other batches are added up, of the same order."""
    options = {"accumulate_grad_batches": 2}
    full = whole("as_loader", False, **options)
    batches = first_epoch(full)
    _, resumed = interrupted(
        program, tmp_path, batches, "as_loader", False, options, hook="on_train_batch_end", batches=batches
    )
    assert [record[:3] for record in resumed[:-1]] == [record[:3] for record in full[batches:-1]]
    assert resumed[-1] != full[-1]
