"""A training in a loop of one's own goes on exactly, and so does a StatefulDataLoader over a flow: from every step, in
this epoch and the next."""

import pytest
from flows_for_loaders import FLOWS, batched, flow_of, plain, serial
from forking import written

import flowfn as ff
from flowfn.interop import as_dataset

torch = pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital':UserWarning"),  # torchdata 0.11 calls what torch 2.14 tells not to
]

PROGRAM = "torch_program"

# Trainings that are killed and started again

MOMENTS = ["in the first epoch", "behind its last batch", "behind its loop", "in the second epoch"]


def killed_and_resumed(program, whole, folder, moment, workers, **options):
    """What a killed run goes on with from a moment, and what it should; `workers` of both runs."""
    full = whole(**options)
    first = sum(record[0] == 0 for record in full[:-1])
    save = dict(zip(MOMENTS, (3, first, first, first + 2)))[moment]
    run = {"folder": str(folder), "save": save, "late": moment == "behind its loop", **options}
    assert program.run(name="killed", kill=save + 2, workers=workers[0], **run) == -9
    assert written(folder / "killed.jsonl") == full[: save + 2]
    program.ran(name="resumed", resume=True, workers=workers[1], **run)
    return written(folder / "resumed.jsonl"), full[save:]


@pytest.mark.resumes("torch: a loop of your own", "a length, or none", "in an epoch, at its end", "other processes")
@pytest.mark.parametrize(
    ("moment", "workers"),
    [*((moment, (0, 0)) for moment in MOMENTS), ("in the second epoch", (0, 2)), ("in the second epoch", (2, 1))],
    ids=str,
)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_loop_over_a_flow_goes_on_to_the_last_bit(program, whole, tmp_path, sized, moment, workers):
    """Batches, losses and weights of a model that drops out at random, with `prefetch(processes=)` or without."""
    resumed, right = killed_and_resumed(program, whole, tmp_path, moment, workers, sized=sized)
    assert resumed == right


@pytest.mark.resumes("torchdata: `StatefulDataLoader`, 0 to 2 workers", "a length, or none", "in an epoch, at its end")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_loop_over_a_stateful_loader_goes_on_to_the_last_bit(program, whole, tmp_path, sized, moment, workers):
    options = {"kind": "StatefulDataLoader", "sized": sized}
    resumed, right = killed_and_resumed(program, whole, tmp_path, moment, (workers, workers), **options)
    assert resumed == right


@pytest.mark.resumes(
    "torchdata: `StatefulDataLoader`",
    "a length, or none",
    "in an epoch",
    "another number of workers",
    outcome="refused, by an error",
)
@pytest.mark.parametrize("workers", [(0, 1), (1, 0), (1, 2), (2, 1)], ids=str)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_stateful_loader_with_another_number_of_workers_is_refused(program, whole, tmp_path, sized, workers):
    """By assertions of torchdata 0.11.0 (`stateful_dataloader.py`), or since a share is another pipeline."""
    options = {"kind": "StatefulDataLoader", "sized": sized}
    with pytest.raises(AssertionError, match=r"AssertionError|ValueError: load_state_dict\(\): the state was saved by"):
        killed_and_resumed(program, whole, tmp_path, "in the first epoch", workers, **options)


@pytest.mark.resumes(
    "torchdata: `StatefulDataLoader` without `generator=torch.Generator()`",
    "a length, or none",
    "in an epoch",
    outcome="batches are equal; what the model draws at random is not",
)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_without_a_generator_of_its_own_a_loader_draws_from_that_of_dropout(program, whole, tmp_path, sized, workers):
    """A number for each pass (torch 2.14, `_BaseDataLoaderIter.__init__`), and so once more where a pass goes on."""
    options = {"kind": "StatefulDataLoader", "sized": sized, "own": False}
    resumed, right = killed_and_resumed(program, whole, tmp_path, "in the first epoch", (workers, workers), **options)
    assert [record[:3] for record in resumed[:-1]] == [record[:3] for record in right[:-1]]
    assert resumed[0][3] != right[0][3]


@pytest.mark.resumes(
    "torch: `DataLoader`, and `set_epoch`", "a length, or none", "at the end of an epoch", "other workers"
)
@pytest.mark.parametrize("workers", [(0, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_plain_loader_goes_on_with_the_epoch_that_is_set(program, whole, tmp_path, sized, workers):
    options = {"kind": "DataLoader", "sized": sized}
    resumed, right = killed_and_resumed(program, whole, tmp_path, "behind its loop", workers, **options)
    assert resumed == right


@pytest.mark.resumes("torch: `DataLoader`", "a length, or none", "in an epoch", outcome="not: the epoch begins again")
@pytest.mark.parametrize("sized", [True, False], ids=["length", "no length"])
def test_a_plain_loader_has_no_state_within_an_epoch(program, whole, tmp_path, sized):
    options = {"kind": "DataLoader", "sized": sized}
    resumed, right = killed_and_resumed(program, whole, tmp_path, "in the first epoch", (0, 0), **options)
    assert [record[1] for record in resumed[3:-1]] == [record[1] for record in right[:-1]]


# From every step

LOADERS = {
    "the flow's batches": lambda kind, **options: stateful.StatefulDataLoader(
        as_dataset(batched(kind)), batch_size=None, **options
    ),
    "torch's batches": lambda kind, **options: stateful.StatefulDataLoader(
        as_dataset(flow_of(kind)), batch_size=3, **options
    ),
}

SETTINGS = {
    "no workers": {},
    "one worker": {"num_workers": 1},
    "two workers": {"num_workers": 2},
    "two that stay": {"num_workers": 2, "persistent_workers": True},
}


def loaded(loading, state):
    loading.load_state_dict(state)
    return loading


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("batches", LOADERS)
def test_a_loader_goes_on_from_every_step(batches, kind, setting):
    """torchdata 0.11: behind the last batch, what is left of the pass is nothing; where the loop has ended, the next
    pass is the next epoch."""

    def make():
        return LOADERS[batches](kind, **SETTINGS[setting])

    saving = make()
    states, passes = [saving.state_dict()], []
    for batch in saving:
        passes.append(batch.tolist())
        states.append(saving.state_dict())
    ended, following = saving.state_dict(), plain(saving)
    if batches == "the flow's batches":
        assert [passes, following] == serial(batched(kind), range(2))
    for step, state in enumerate(states):
        loading = loaded(make(), state)
        assert plain(loading) == passes[step:], f"from step {step}"
        if step % 3 == 0:
            assert plain(loading) == following, f"the epoch after, from step {step}"
    assert plain(loaded(make(), ended)) == following

    again = loaded(make(), states[2])
    iterator = iter(again)
    assert [next(iterator).tolist() for _ in range(2)] == passes[2:4]
    assert plain(loaded(make(), again.state_dict())) == passes[4:]


@pytest.mark.parametrize("setting", ["no workers", "two that stay"])
def test_a_loader_goes_back_while_it_is_used(setting):
    """A state is loaded into the loader that it is of, as where a training has gone astray."""
    loading = LOADERS["the flow's batches"]("seekable", **SETTINGS[setting])
    expected = serial(batched(), range(3))
    iterator = iter(loading)
    first = [next(iterator).tolist() for _ in range(2)]
    state = loading.state_dict()
    assert [*first, *plain(iterator)] == expected[0]
    assert plain(loading) == expected[1]
    assert plain(loaded(loading, state)) == expected[0][2:]
    assert [plain(loading), plain(loading)] == expected[1:]


def test_a_state_of_another_pipeline_is_refused_by_name():
    saving = LOADERS["the flow's batches"]("seekable")
    next(iter(saving))
    other = stateful.StatefulDataLoader(as_dataset(batched("a stream")), batch_size=None)
    with pytest.raises(ValueError, match="the state was saved by another pipeline"):
        next(iter(loaded(other, saving.state_dict())))


def test_a_flow_without_states_is_named():
    flow = ff.pipe(range(6), ff.prefetch(2, threads=2, ordered=False))
    with pytest.raises(TypeError, match=r"outputs as they come \(ordered=False\), so a pass over it has no state"):
        stateful.StatefulDataLoader(as_dataset(flow), batch_size=None).state_dict()
