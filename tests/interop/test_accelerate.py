"""Loops with Accelerate's own Accelerator, killed and started again: what comes is what would have come, bit for bit."""

import numpy as np
import pytest
from forking import written

import flowfn as ff
from flowfn.interop import as_dataset, to_torch

pytest.importorskip("accelerate")
pytest.importorskip("torchdata")

from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

pytestmark = pytest.mark.timeout(200)


PROGRAM = "accelerate_program"


def goes_on(program, whole, folder, save, late=False, **options):
    """Make sure that a run that was killed goes on behind batch `save` as it would have; `late`: saved behind the pass."""
    full = whole(**options)
    assert program.run(folder=str(folder), name="killed", save=save, late=late, kill=save + 2, **options) == -9
    program.ran(folder=str(folder), name="resumed", resume=True, **options)
    assert written(folder / "killed.jsonl") == full[: save + 2]
    assert written(folder / "resumed.jsonl") == full[save:]


@pytest.mark.resumes("Accelerate: the flow in the loop", "a length, or none", "in an epoch, at its end")
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("save", ["in the first epoch", "at its end", "in the second epoch"])
def test_a_flow_in_the_loop_goes_on_exactly(program, whole, tmp_path, save, sized):
    """`for batch in flow` with `register_for_checkpointing(flow)`: nothing is skipped, prepared, or drawn from torch's generator.

    The model drops out at random: `save_state` keeps torch's generator, and a flow leaves it alone, where each pass
    over a DataLoader draws a number from it (torch 2.14, `_BaseDataLoaderIter.__init__`).
    """
    first = sum(record[0] == 0 for record in whole(kind="flow", sized=sized)[:-1])
    batches = {"in the first epoch": 3, "at its end": first, "in the second epoch": first + 2}[save]
    goes_on(program, whole, tmp_path, batches, kind="flow", sized=sized)


def test_gradients_are_accumulated_as_if_nothing_had_happened(program, whole, tmp_path):
    goes_on(program, whole, tmp_path, 10, kind="flow", sized=True, accumulated=2)


@pytest.mark.resumes("Accelerate: the flow in the loop, in 2 processes", "a length", "in an epoch")
def test_two_processes_share_the_datapoints_and_go_on_exactly(program, tmp_path):
    """`shard(accelerator.process_index, accelerator.num_processes)` in the flow, which needs no `prepare`.

    What is registered is saved by the first process alone (accelerate 1.15.0, `save_custom_state`); its state is good
    for all, since `shard` stands behind `shuffle` and `filter`.
    """
    run = {"folder": str(tmp_path), "world": 2}
    program.ran(name="whole", **run)
    assert program.run(name="killed", save=4, kill=5, **run) == -9
    program.ran(name="resumed", resume=True, **run)
    whole, killed, resumed = (
        [written(tmp_path / f"{name}-{rank}.jsonl") for rank in (0, 1)] for name in ("whole", "killed", "resumed")
    )
    seen = [number for records in whole for epoch, numbers, *_ in records[:3] for number in numbers]
    assert len(set(seen)) == len(seen) == 12
    assert killed == [records[:5] for records in whole]
    assert resumed == [records[4:] for records in whole]


@pytest.mark.resumes(
    "Accelerate: `use_stateful_dataloader`", "a length, or none", "in an epoch, behind the loop over it"
)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("save", [3, 9])
def test_a_stateful_loader_goes_on_exactly(program, whole, tmp_path, save, sized):
    """`prepare(DataLoader(as_dataset(flow), batch_size=None))` with `use_stateful_dataloader=True`.

    Accelerate numbers the passes over a loader from 0 in each program and tells the data set (accelerate 1.15.0,
    `DataLoaderShard.__iter__`): `loader.set_epoch(epoch)` before each pass says which it is.
    """
    goes_on(program, whole, tmp_path, save, kind="stateful", sized=sized)


@pytest.mark.resumes("Accelerate: `skip_first_batches`", "a length, or none", "in an epoch, behind the loop over it")
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("save", [3, 9])
def test_skipping_the_first_batches_of_a_loader_goes_on_exactly(program, whole, tmp_path, save, sized):
    """`skip_first_batches(loader, n)` reads n batches for nothing, of the epoch that `loader.set_epoch(epoch)` said before."""
    goes_on(program, whole, tmp_path, save, kind="skip", sized=sized)


@pytest.mark.resumes("Accelerate: the flow in the loop", "a length, or none", "in an epoch, at its end")
@pytest.mark.resumes(
    "Accelerate: `use_stateful_dataloader`", "a length, or none", "in an epoch, behind the loop over it"
)
@pytest.mark.resumes("Accelerate: `skip_first_batches`", "a length, or none", "in an epoch, behind the loop over it")
@pytest.mark.parametrize("kind", ["flow", "stateful", "skip"])
def test_what_is_saved_behind_a_pass_goes_on_with_the_next(program, whole, tmp_path, kind):
    goes_on(program, whole, tmp_path, 7, late=True, kind=kind, sized=True)


@pytest.mark.resumes(
    "Accelerate: `use_stateful_dataloader`",
    "a length",
    "behind the last batch, in the loop",
    outcome="not: the next epoch comes twice",
)
def test_a_stateful_loader_that_is_saved_after_its_last_batch_goes_on_with_the_next_epoch(program, whole, tmp_path):
    """And not with an empty rest of this one (torchdata 0.11.0, `StatefulDataLoader.__iter__`), whereas the program has
    not counted it: that epoch comes twice. Saved behind the loop over the epoch, all is well."""
    run = {"folder": str(tmp_path), "kind": "stateful"}
    assert program.run(name="killed", save=7, kill=8, **run) == -9
    program.ran(name="resumed", resume=True, **run)
    second = [numbers for epoch, numbers, *_ in whole(kind="stateful")[:-1] if epoch == 1]
    assert [numbers for _, numbers, *_ in written(tmp_path / "resumed.jsonl")[:14]] == second + second


def test_skipping_the_first_batches_of_a_flow_names_what_to_write():
    """`skip_first_batches` makes a new DataLoader over `loader.dataset` (accelerate 1.15.0); a flow has other ways."""
    flow = ff.pipe(range(9), ff.shuffle(), ff.batch(2)).reset_state(3).set_epoch(2)
    with pytest.raises(
        AttributeError, match=r"goes on by itself, and skip\(n, flow\) is what skip_first_batches makes"
    ):
        skip_first_batches(flow, 2)
    rest = [batch.tolist() for batch in flow.run()][2:]
    assert [batch.tolist() for batch in ff.skip(2, flow)] == [batch.tolist() for batch in flow.run(start=2)] == rest


def test_batches_that_are_dispatched_are_cut():
    """Accelerate dispatches what an IterableDataset gives unless `dispatch_batches=False` says otherwise, in one process
    too, and takes the length of a batch's first tensor for that of all (accelerate 1.15.0, `DataLoaderDispatcher`)."""
    flow = ff.pipe([{"images": np.zeros((4, 3)), "boxes": np.zeros((11, 4))}], to_torch())
    assert [len(batch["boxes"]) for batch in prepared(flow)] == [4]
    assert [len(batch["boxes"]) for batch in prepared(flow, dispatch_batches=False)] == [11]


def test_a_prepared_loader_begins_with_epoch_0():
    """It tells the data set the number of its own pass (accelerate 1.15.0, `DataLoaderShard.__iter__`), whatever epoch
    the flow had, so a program that goes on says which it is before each pass."""
    flow = ff.pipe(range(9), ff.shuffle(), to_torch()).set_epoch(4)
    loader = prepared(flow, dispatch_batches=False)
    assert [*loader] == [*flow.run(epoch=0)]
    loader.set_epoch(4)
    assert [*loader] == [*flow.run(epoch=4)]
    assert [*loader] == [*flow.run(epoch=5)]


def test_a_loader_does_not_move_the_flow_that_it_reads():
    """So `register_for_checkpointing(flow)` is for a flow that is itself in the loop, and
    `use_stateful_dataloader=True` for a loader."""
    flow = ff.pipe(range(9), to_torch())
    next(iter(prepared(flow, dispatch_batches=False)))
    assert flow.state_dict()["position"] == 0


def test_accumulate_sees_the_end_of_a_prepared_loader_and_not_that_of_a_flow():
    """Gradients that wait at the end of an epoch are applied there, or go on with the next one (accelerate 1.15.0,
    `Accelerator._do_sync`)."""

    def steps(batches):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        for _ in batches:
            with accelerator.accumulate():
                yield accelerator.sync_gradients

    flow = ff.pipe(range(3), to_torch())
    assert [*steps(prepared(flow, dispatch_batches=False))] == [False, True, True]
    assert [*steps(flow)] == [False, True, False]


def prepared(flow, **options):
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))
    return accelerator.prepare(DataLoader(as_dataset(flow), batch_size=None))
