"""A StatefulDataLoader over a flow goes on exactly, from every step, in this epoch and the next."""

import pytest
from flows_for_loaders import FLOWS, batched, flow_of, plain, serial

import flowfn as ff
from flowfn.interop import as_dataset

torch = pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital':UserWarning"),  # torchdata 0.11 calls what torch 2.14 tells not to
]

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
