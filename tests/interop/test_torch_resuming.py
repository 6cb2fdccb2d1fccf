"""A StatefulDataLoader over a flow goes on exactly, from every step, in this epoch and the next."""

import pytest
from flows_for_loaders import FLOWS, batched, flow_of, plain, serial

from flowfn.interop import as_dataset

torch = pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

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


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize("batches", LOADERS)
def test_a_loader_goes_on_from_every_step(batches, kind, setting):
    def make():
        return LOADERS[batches](kind, **SETTINGS[setting])

    saving = make()
    states, passes = [saving.state_dict()], []
    for _ in range(2):
        passes.append([])
        for batch in saving:
            passes[-1].append(batch.tolist())
            states.append(saving.state_dict())
    following = plain(saving)
    if batches == "the flow's batches":
        assert [*passes, following] == serial(batched(kind), range(3))
    whole = [*passes[0], *passes[1], *following]
    assert len(states) == len(passes[0]) + len(passes[1]) + 1
    for step, state in enumerate(states):
        loading = make()
        loading.load_state_dict(state)
        got, epochs = [], 0
        ends = [len(passes[0]), len(passes[0]) + len(passes[1]), len(whole)]
        while step + len(got) < ends[1] and epochs < 3:  # to the end of the second epoch, in as many passes as it takes
            got += plain(loading)
            epochs += 1
        assert got == whole[step : ends[1]], f"from step {step}"
        assert plain(loading) == following, f"the epoch after, from step {step}"
