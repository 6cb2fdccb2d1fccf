"""Lightning: a flow as what a Trainer trains on, saved and resumed exactly where training stands."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator, Progress
from flowfn.flows.states import pack_state, unpack_state
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe
from flowfn.kinds.parts import top_down
from flowfn.kinds.runs import Checkpoint

LoopPlace: TypeAlias = tuple[int, int, Checkpoint]
"""Where a pass stands: its seed, its epoch, and how far it has come."""

UNTRAINED = 2
"""How many batches of a pass may wait for their training: the one under way, and one that was fetched ahead."""

_LOADED = rules.Rule(
    "a flow",
    lambda value: isinstance(value, Flow),
    hint="; write the flow itself, with prefetch(processes=n) at its end for workers",
)
_TRAINER = rules.Rule("the Trainer of Lightning that fits", lambda value: hasattr(value, "fit_loop"))


@around_a_pipe
@speaks
@rules.checked(flow=_LOADED, trainer=_TRAINER)
def as_loader(flow: Flow[Any], trainer: Any) -> FlowLoader:
    """A flow as the `train_dataloaders` of Lightning's `Trainer.fit`, resumed exactly by its `ckpt_path`.

    Each epoch of the trainer is the flow's next, the first is `flow.epoch`. Checkpoints hold where training stands, and
    the run that goes on from one, with the same flow and a new loader, sees what the other would have seen, whenever it
    was saved. A flow that is given to `fit` by itself does not always: Lightning

    - fetches one batch ahead where a flow has no length (behind `filter`, say), and saves where it has fetched, so
      that batch is lost;
    - does not load the state of what it trains on where the checkpoint is of the end of an epoch, so the order of the
      first epoch comes again;
    - begins passes that it throws away, and each of them is an epoch of the flow.

    Hooks write `return as_loader(flow, self.trainer)`. A seed is not taken from a checkpoint of the end of an epoch:
    `reset_state(seed)` gives the flow the same one in each program. What is validated on needs no loader; `freeze()`
    at its end lets it be the same each time. Several flows are `zip`ped into one.

    Where several processes train, `shard(trainer.global_rank, trainer.world_size, remainder="drop")` stands in the flow
    behind `shuffle` and `filter`, since Lightning saves the state of the first process for all, and gives no sampler to
    what is no DataLoader. Strategies that start processes within `fit` ("ddp_spawn", "ddp_fork") need the hook, where
    the rank is known.

    Torch's random numbers, which dropout draws, are in no checkpoint of Lightning's. A module that puts
    `torch.get_rng_state()` into it in `on_save_checkpoint`, and sets it in `on_load_checkpoint`, goes on with them.

    What Lightning itself miscounts when it resumes stays so: with `max_steps`, a checkpoint of the end of an epoch is
    followed by an epoch of one batch, where there is a length; with `accumulate_grad_batches`, one of the last batch
    of an epoch by steps after other batches, where there is none. Save those in the middle of an epoch.

    Raises:
        TypeError: the flow is not a flow, or the trainer not one of Lightning.
        ValueError: when it is iterated: the `shard` of the flow is that of another process.

    >>> import flowfn as ff
    >>> flow = ff.pipe(range(100), ff.shuffle(), ff.filter(lambda x: x % 3), ff.batch(4))
    >>> import lightning  # doctest: +SKIP
    >>> trainer = lightning.Trainer(max_epochs=2)  # doctest: +SKIP
    >>> trainer.fit(model, as_loader(flow, trainer), ckpt_path=None)  # doctest: +SKIP
    """
    return FlowLoader(flow, trainer)


class FlowLoader:
    """Passes over a flow whose state is that of what a trainer has trained on, and not of what it has fetched."""

    def __init__(self, flow: Flow[Any], trainer: Any) -> None:
        self.flow, self.trainer = flow, trainer
        self._begun: LoopPlace | None = None  # where the newest pass began, or the next one will
        self._stood: deque[LoopPlace] = deque(maxlen=1 + UNTRAINED)  # where it began and stood after each batch
        self._given = self._before = 0
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        """A pass, which begins when its first batch is asked for: anew, if none of the last one was trained on."""
        _check_share(self.flow, getattr(self.trainer, "distributed_sampler_kwargs", None))
        if self._stood and (self._trained or self._ended):
            self._begun = self._following
        self._begun = self._first
        self._stood.clear()
        self._stood.append(self._begun)
        self._given, self._before, self._ended = 0, self._batches.total.processed, False
        iterator: FlowIterator[Any] = FlowIterator(self.flow, Progress(*self._begun))
        with iterator:
            for batch in iterator:
                self._given += 1
                self._stood.append(iterator.progress()[1:])
                yield batch
        self._ended = True

    def __len__(self) -> int:
        return len(self.flow)

    def __repr__(self) -> str:
        return f"as_loader({self.flow!r})"

    def state_dict(self) -> dict[str, Any]:
        """Where training stands; at the end of an epoch that is the start of the next.

        Raises:
            RuntimeError: more batches are under way than the trainer fetches (it may be another that fits), so it
                cannot be told.
        """
        return pack_state(self.flow, *self._place())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass go on from there."""
        self._begun = unpack_state(self.flow, state)
        self._stood.clear()

    def _place(self) -> LoopPlace:
        if not self._stood:
            return self._first
        batches = self._batches
        if self._trained and batches.is_last_batch and batches.current.ready == batches.current.processed:
            return self._following
        waiting = max(self._given - self._trained, 0)
        if waiting > UNTRAINED:
            raise RuntimeError(
                f"as_loader(): of {self._given} batches {self._trained} were trained on, which batches these are "
                "cannot be told; give as_loader() the trainer that fits, and let a training_step take one batch"
            )
        return self._stood[-1 - waiting]

    @property
    def _batches(self) -> Any:
        """The trainer's count of batches: those of this epoch that are ready or processed, and those of all."""
        return self.trainer.fit_loop.epoch_loop.batch_progress

    @property
    def _trained(self) -> int:
        """How many batches of the newest pass were trained on."""
        return self._batches.total.processed - self._before

    @property
    def _first(self) -> LoopPlace:
        """Where the newest pass began, or else where the first one will."""
        epochs = self.trainer.fit_loop.epoch_progress.current.processed
        return self._begun or (self.flow.seed, self.flow.epoch + epochs, Checkpoint())

    @property
    def _following(self) -> LoopPlace:
        """The start of the pass behind the newest one."""
        seed, epoch, checkpoint = self._stood[-1]
        return seed, epoch + 1, Progress(seed, epoch, checkpoint).following(self.flow)


def _check_share(flow: Flow[Any], sampler: Mapping[str, int] | None) -> None:
    """Compare the share of a flow to what Lightning would tell a sampler; what is sharded twice may count otherwise."""
    if not sampler:
        return
    node, rank, world = flow.node, sampler["rank"], sampler["num_replicas"]
    shards = sum(bool(one.part.traits.shards) for one in top_down(node))
    if not shards and world > 1:
        warnings.warn(
            f"as_loader(): {world} processes train on the same datapoints; write shard(trainer.global_rank, "
            'trainer.world_size, remainder="drop") behind shuffle and filter',
            stacklevel=3,
        )
    if shards == 1 and (node.rank, node.world) != (rank, world):
        raise ValueError(
            f"as_loader(): the flow is rank {node.rank} of {node.world}, and this process rank {rank} of {world}; make "
            "it in train_dataloader, with shard(self.trainer.global_rank, self.trainer.world_size)"
        )
