"""The Trainer of transformers, killed while it trains and started again: what comes is what would have come, bit for bit."""

import pytest
from forking import written

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.timeout(200)


PROGRAM = "transformers_program"


def resumed(program, folder, step, **options):
    """What is written down behind a checkpoint, when the process that saved it was killed before its next step."""
    assert program.run(folder=str(folder), name="killed", kill=step, **options) == -9
    program.ran(folder=str(folder), name="resumed", resume=f"{folder}/checkpoint-{step}", **options)
    return written(folder / "resumed.jsonl")


@pytest.mark.resumes("transformers: `Trainer` with a loader", "a length", "in an epoch, at its end")
@pytest.mark.parametrize("step", [3, 7, 9])
def test_a_flow_with_a_length_goes_on_exactly(program, whole, tmp_path, step):
    """In the middle of an epoch, at its end, and in a later one, whose number Trainer tells the flow."""
    options = {"num_train_epochs": 3}
    assert resumed(program, tmp_path, step, **options) == whole(**options)[step:]


@pytest.mark.resumes("transformers: `Trainer` with a loader", "a length", "in an epoch, at its end")
def test_gradients_are_accumulated_as_if_nothing_had_happened(program, whole, tmp_path):
    """Of seven batches two make a step, and the last one alone: four steps an epoch."""
    options = {"num_train_epochs": 3, "gradient_accumulation_steps": 2}
    assert resumed(program, tmp_path, 6, **options) == whole(**options)[11:]


@pytest.mark.resumes("transformers: `Trainer` with a loader", "no end, and `max_steps`", "at any step")
@pytest.mark.parametrize("step", [3, 9])
def test_a_flow_without_an_end_goes_on_exactly(program, whole, tmp_path, step):
    """What has no length ends in `cycle()`, and `max_steps` says when training does."""
    options = {"kind": "cycle", "max_steps": 14}
    assert resumed(program, tmp_path, step, **options) == whole(**options)[step:]


@pytest.mark.resumes(
    "transformers: `Trainer` with the flow itself",
    "a length",
    "at the end of an epoch",
    outcome="equal to the last bit; refused in an epoch",
)
def test_a_flow_itself_does_where_nothing_is_to_be_skipped(program, whole, tmp_path):
    """Trainer calls its `set_epoch`; at the end of an epoch it goes on exactly. In the middle of one Trainer would skip
    batches of a DataLoader (transformers 5.24.0, `Trainer._run_epoch`), which a flow is not."""
    options = {"given": "flow", "num_train_epochs": 3}
    full = whole(**options)
    assert [record[0] for record in full[:-1]] == [record[0] for record in whole(num_train_epochs=3)[:-1]]
    assert resumed(program, tmp_path, 7, **options) == full[7:]
    middle = {"folder": str(tmp_path), "resume": f"{tmp_path}/checkpoint-3", **options}
    assert program.run(name="skipped", **middle) == 1
    assert (
        "AttributeError: a flow has no attribute 'dataset'; it is loader and data set in one" in program.log.read_text()
    )


@pytest.mark.resumes(
    "transformers: `Trainer` with a loader that is not prepared",
    "a length",
    "in a later epoch",
    outcome="not: the order of the first epoch comes again",
)
def test_a_loader_that_is_not_prepared_is_not_told_the_epoch(program, whole, tmp_path):
    """`torch`'s DataLoader has no `set_epoch`, so a new program begins with epoch 0, whichever Trainer goes on with."""
    options = {"given": "as it is", "num_train_epochs": 3}
    full = whole(**options)
    assert full == whole(num_train_epochs=3)
    assert resumed(program, tmp_path, 9, **options)[0][0] == full[2][0]


@pytest.mark.resumes(
    "transformers: `Trainer` with a loader", "no length", "in a later epoch", outcome="not: batches come again"
)
def test_behind_the_first_pass_over_a_flow_without_a_length_trainer_is_lost(program, whole, tmp_path):
    """It takes all steps for one pass (transformers 5.24.0, `Trainer.set_initial_training_values`): it skips more than
    the first pass has, and gives the second from its beginning."""
    options = {"kind": "no length", "max_steps": 14}
    batches = [record[0] for record in whole(**options)[:-1]]
    second = next(i for i in range(14) if {*batches[i]} & {number for batch in batches[:i] for number in batch})
    assert second < 9
    again = [record[0] for record in resumed(program, tmp_path, 9, **options)[:-1]]
    assert again == batches[second : second + 5]
