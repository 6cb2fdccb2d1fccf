"""The Trainer of transformers, killed while it trains and started again: what comes is what would have come, bit for bit."""

from functools import cache

import pytest
from forking import Program, written

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    program = Program("transformers_program", tmp_path_factory.mktemp("transformers"))
    yield program
    program.close()


@pytest.fixture(scope="module")
def whole(program, tmp_path_factory):
    """What a run writes down that nothing interrupts: for each batch (what is in it, the loss), and the weights."""

    @cache
    def run(**options):
        folder = tmp_path_factory.mktemp("whole")
        program.ran(folder=str(folder), name="whole", **options)
        return written(folder / "whole.jsonl")

    return run


def resumed(program, folder, step, **options):
    """What is written down behind a checkpoint, when the process that saved it was killed before its next step."""
    assert program.run(folder=str(folder), name="killed", kill=step, **options) == -9
    program.ran(folder=str(folder), name="resumed", resume=f"{folder}/checkpoint-{step}", **options)
    return written(folder / "resumed.jsonl")


@pytest.mark.parametrize("step", [3, 7, 9])
def test_a_flow_with_a_length_goes_on_exactly(program, whole, tmp_path, step):
    """In the middle of an epoch, at its end, and in a later one, whose number Trainer tells the flow."""
    options = {"kind": "length", "num_train_epochs": 3}
    assert resumed(program, tmp_path, step, **options) == whole(**options)[step:]


def test_gradients_are_accumulated_as_if_nothing_had_happened(program, whole, tmp_path):
    """Of seven batches two make a step, and the last one alone: four steps an epoch."""
    options = {"kind": "length", "num_train_epochs": 3, "gradient_accumulation_steps": 2}
    assert resumed(program, tmp_path, 6, **options) == whole(**options)[11:]


@pytest.mark.parametrize("step", [3, 9])
def test_a_flow_without_an_end_goes_on_exactly(program, whole, tmp_path, step):
    """What has no length ends in `cycle()`, and `max_steps` says when training does."""
    options = {"kind": "cycle", "max_steps": 14}
    assert resumed(program, tmp_path, step, **options) == whole(**options)[step:]


def test_behind_the_first_pass_over_a_flow_without_a_length_trainer_is_lost(program, whole, tmp_path):
    """It takes all steps for one pass (transformers 5.24.0, `Trainer.set_initial_training_values`): after the second
    pass has begun, a resume skips all of the first and gives the second from its beginning."""
    options = {"kind": "no length", "max_steps": 14}
    full = whole(**options)
    first = len(full) - 1
    again = resumed(program, tmp_path, 9, **options)
    assert first == 14
    assert again != full[9:]
