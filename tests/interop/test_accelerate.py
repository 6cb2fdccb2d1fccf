"""Loops with Accelerate's own Accelerator, killed and started again: what comes is what would have come, bit for bit."""

from functools import cache

import pytest
from forking import Program, written

pytest.importorskip("accelerate")
pytest.importorskip("torchdata")

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    program = Program("accelerate_program", tmp_path_factory.mktemp("accelerate"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """What a run writes down that nothing interrupts: for each batch (epoch, what is in it, the loss), and the weights."""

    @cache
    def run(**options):
        folder = tmp_path_factory.mktemp("whole")
        program.ran(folder=str(folder), name="whole", **options)
        return written(folder / "whole.jsonl")

    return run


def goes_on(program, whole, folder, save, **options):
    """Make sure that a run that was killed goes on behind batch `save` as it would have."""
    full = whole(**options)
    assert program.run(folder=str(folder), name="killed", save=save, kill=save + 2, **options) == -9
    program.ran(folder=str(folder), name="resumed", resume=True, **options)
    assert written(folder / "killed.jsonl") == full[: save + 2]
    assert written(folder / "resumed.jsonl") == full[save:]


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


@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("save", [3, 9])
def test_a_stateful_loader_goes_on_exactly(program, whole, tmp_path, save, sized):
    """`prepare(DataLoader(as_dataset(flow), batch_size=None))` with `use_stateful_dataloader=True`.

    Accelerate numbers the passes over a loader from 0 in each program and tells the data set (accelerate 1.15.0,
    `DataLoaderShard.__iter__`): `loader.set_epoch(epoch)` before each pass says which it is.
    """
    goes_on(program, whole, tmp_path, save, kind="stateful", sized=sized)


@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
@pytest.mark.parametrize("save", [3, 9])
def test_skipping_the_first_batches_of_a_loader_goes_on_exactly(program, whole, tmp_path, save, sized):
    """`skip_first_batches(loader, n)` reads n batches for nothing, of the epoch that `loader.set_epoch(epoch)` said before."""
    goes_on(program, whole, tmp_path, save, kind="skip", sized=sized)
